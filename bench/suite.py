"""What is run, in which order: contestants take turns, so that whatever the machine does meets all of them."""

import json
import shutil
import sys
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from bench import eventlog, measure, ours
from bench.agreement import Disagreement, largest_difference, spectrum_difference
from bench.pca import synthetic
from bench.peers.contract import KEY
from bench.photos import REPOSITORY, PhotoSets
from bench.runs import Journal, Run, Sizes

COMPONENTS = 64
PEERS = {
    "no_spark_limit": ("bench.peers.plain", "litert"),
    "notebook": ("bench.peers.notebook", "keras"),
    "predict_batch_udf": ("bench.peers.predict_batch_udf", "keras"),
    "ray_data_keras": ("bench.peers.ray_data", "keras"),
    "ray_data_litert": ("bench.peers.ray_data", "litert"),
    "daft_keras": ("bench.peers.daft_frames", "keras"),
    "daft_litert": ("bench.peers.daft_frames", "litert"),
}
"""Contestants that make features: module and engine."""

LOADER = ("bench.peers.binaryfile_load", "litert")
"""The usual way to load photos: a peer that makes no features."""

FASTEST_PEER = "daft_litert"
"""Runs on the large set too: for a framework that starts quickly, whole jobs say more there."""

SECTIONS = ("peers", "phones", "scaling", "nights", "memory", "pca")
PCA_PEERS = {"mllib": "bench.pca.mllib", "sklearn": "bench.pca.sklearn_pca"}


class Suite:
    """All runs of one size, in turns."""

    def __init__(self, work: Path, sizes: Sizes, workers: int, resume: bool) -> None:
        self.work = work
        self.reference = work / "reference"
        if not resume:
            (work / "runs.jsonl").unlink(missing_ok=True)
            shutil.rmtree(self.reference, ignore_errors=True)
        self.sizes = sizes
        self.workers = workers
        self.journal = Journal(work / "runs.jsonl")
        self.photos = PhotoSets(work / "photos")
        self.model = ours.model(work)

    def run(self, only: Collection[str] = SECTIONS) -> None:
        """Run everything, or the named sections."""
        most = max(self.sizes.peers, *self.sizes.images)
        self.photos.grow(most + most // 100)
        if not self.reference.is_dir() and not set(only) <= {"memory", "pca", "phones"}:
            self.chain(self.sizes.peers, self.workers, 0)
        for repeat in range(self.sizes.repeats):
            for section, step in self.steps():
                if section in only:
                    step(repeat)

    def steps(self) -> Iterator[tuple[str, Callable[[int], None]]]:
        """Yield the steps of a round, each with its section."""
        sizes, workers = self.sizes, self.workers
        yield "peers", partial(self.chain, sizes.peers, workers)
        for size in filter(None, (sizes.peers, sizes.small)):
            for name in (*PEERS, "binaryfile"):
                yield "peers", partial(self.peer, name, size, workers)
        yield "phones", self.phones
        for name in PEERS:
            yield "phones", partial(self.peer, name, sizes.phones, workers, section="phones")
        yield "scaling", partial(self.chain, sizes.peers, 1)
        yield "scaling", partial(self.peer, "no_spark_limit", sizes.peers, 1)
        for size in sizes.images[:-1]:
            yield "scaling", partial(self.chain, size, workers)
        yield "nights", partial(self.nights, sizes.images[-1])
        for name in PEERS:
            yield "nights", partial(self.large_peer, name)
        for size in sizes.images:
            yield "memory", partial(self.memory, size)
        for rows in sizes.pca:
            yield "pca", partial(self.our_pca, rows)
            for name in PCA_PEERS:
                yield "pca", partial(self.pca_peer, name, rows)

    def keep(
        self, section: str, contestant: str, size: int, workers: int, repeat: int, run: Callable[[], dict[str, Any]]
    ) -> None:
        """Run a contestant, and keep its figures in the journal; do nothing where the journal has them."""
        if not self.journal.has(section, contestant, size, workers, repeat):
            load = measure.load_average()
            self.journal.add(Run(section, contestant, size, workers, repeat, run(), load))

    # —— ours ——

    def chain(self, size: int, workers: int, repeat: int) -> None:
        """Run our four jobs over `size` photos, into new tables."""

        def run() -> dict[str, Any]:
            with self._new_folder(f"fruits-{size}-{workers}") as out:
                figures = self._night(self.photos.first(size), size, out, f"chain-{size}-{workers}", workers)
                if size == self.sizes.peers and not self.reference.is_dir():
                    self._export(out)
                return figures

        self.keep("chain", "fruits", size, workers, repeat, run)

    def phones(self, repeat: int) -> None:
        """Run our four jobs over photos of 12 megapixels, into new tables."""
        size = self.sizes.phones

        def run() -> dict[str, Any]:
            with self._new_folder("phones") as out:
                return self._night(self.photos.phones(size), size, out, "phones", self.workers)

        self.keep("phones", "fruits", size, self.workers, repeat, run)

    def nights(self, size: int, repeat: int) -> None:
        """Run a full night, a night with 1 % more photos and a night with nothing new over the same tables."""
        if self.journal.has("night", "nothing_new", size, self.workers, repeat):
            return
        kinds = {"full": size, "one_percent": size + size // 100, "nothing_new": size + size // 100}
        with self._new_folder(f"nights-{size}") as out:
            for kind, photos in kinds.items():
                load = measure.load_average()
                figures = self._night(self.photos.first(photos), photos, out, f"night-{kind}", self.workers)
                self.journal.add(Run("night", kind, size, self.workers, repeat, figures, load))
                if kind == "full" and not self.journal.has("chain", "fruits", size, self.workers, repeat):
                    self.journal.add(Run("chain", "fruits", size, self.workers, repeat, figures, load))

    def memory(self, size: int, repeat: int) -> None:
        """Run our four jobs over `size` photos with tight driver heaps."""

        def run() -> dict[str, Any]:
            with self._new_folder(f"memory-{size}") as out:
                return self._night(self.photos.first(size), size, out, f"memory-{size}", self.workers, tight=True)

        self.keep("memory", "fruits", size, self.workers, repeat, run)

    @contextmanager
    def _new_folder(self, name: str) -> Iterator[Path]:
        """Create a folder for tables, and remove it when what is measured is done."""
        out = ours.fresh(self.work / "out" / name)
        yield out
        shutil.rmtree(out)

    def _night(
        self, folder: Path, photos: int, out: Path, name: str, workers: int, tight: bool = False
    ) -> dict[str, Any]:
        night = ours.night(folder, out, self.work, name, workers, tight)
        rows = night.metrics["featurize"]["features"]["rows"]
        if rows != photos:
            raise Disagreement(f"our jobs made features of {rows} photos out of {photos}")
        return night.figures()

    def _export(self, out: Path) -> None:
        script = REPOSITORY / "bench" / "jobs" / "export_features.py"
        arguments = ["--database", "lake.fruits", "--out", self.reference.as_uri()]
        ours.submit(script, arguments, out / "tables", self.work, "export", self.workers)

    # —— peers ——

    def large_peer(self, name: str, repeat: int) -> None:
        """Run a peer over the largest set: slow ones once."""
        if not repeat or name in ("no_spark_limit", FASTEST_PEER):
            self.peer(name, self.sizes.images[-1], self.workers, repeat)

    def peer(self, name: str, size: int, workers: int, repeat: int, section: str = "peers") -> None:
        """Run a peer over `size` photos; where it makes features of those of 100 px, they must equal ours.

        Peers decode photos of 12 megapixels whole, and we reduce them while decoding: these features differ.
        """
        module, engine = PEERS.get(name, LOADER)

        def run() -> dict[str, Any]:
            out = self.work / "out" / name
            shutil.rmtree(out, ignore_errors=True)
            photos = self.photos.phones(size) if section == "phones" else self.photos.first(size)
            command = [sys.executable, "-m", module, "--images", photos, "--engine", engine]
            command += ["--weights", self.model.weights, "--flatbuffer", self.model.flatbuffer]
            measured, events = self._python([*command, "--out", out, "--workers", workers], module)
            figures = measured.figures()
            if events:
                figures["stage_s"] = events[-1].longest_stage_s
            rows = pq.read_table(out, columns=[KEY]).num_rows
            if rows != size:
                raise Disagreement(f"{module} gave {rows} rows for {size} photos")
            if name in PEERS and section == "peers":
                figures["max_difference"] = largest_difference(out, self.reference, min(size, self.sizes.peers))
            shutil.rmtree(out)
            return figures

        self.keep(section, name, size, workers, repeat, run)

    def _python(self, command: list[Any], name: str) -> tuple[measure.Measured, list[eventlog.Application]]:
        events = ours.fresh(self.work / "events" / name)
        settings = "\n".join(f"{key}={value}" for key, value in ours.log_settings(events).items())
        env = ours.environment()
        env |= {"BENCH_SPARK_CONF": settings, "PYTHONPATH": f"{REPOSITORY}:{REPOSITORY / 'spark_jobs'}"}
        env |= {"TF_CPP_MIN_LOG_LEVEL": "3", "KERAS_BACKEND": "tensorflow"}
        return measure.run(command, self.work / "logs" / f"{name}.log", env, REPOSITORY), eventlog.read(events)

    # —— PCA ——

    def our_pca(self, rows: int, repeat: int) -> None:
        """Run our reduce_pca job over synthetic features, from untouched tables."""
        self.keep("pca", "fruits", rows, self.workers, repeat, partial(self._our_pca, rows))

    def _our_pca(self, rows: int) -> dict[str, Any]:
        pristine, tables = self.work / "pca" / f"pristine-{rows}", self.work / "pca" / f"tables-{rows}"
        if not pristine.is_dir():
            self._fill(rows, tables)
            tables.rename(pristine)
        shutil.rmtree(tables, ignore_errors=True)
        shutil.copytree(pristine, tables)
        run_folder = ours.fresh(self.work / "pca" / f"run-{rows}")
        arguments = ["--database", "lake.fruits", "--run-id", "bench", "--run-folder", str(run_folder)]
        arguments += ["--model-id", self.model.model_id, "--k", str(COMPONENTS)]
        script = REPOSITORY / "spark_jobs" / "reduce_pca.py"
        application, measured = ours.submit(script, arguments, tables, self.work, f"pca-{rows}", self.workers)
        metrics = json.loads((run_folder / "stages" / "reduce_pca.json").read_text())
        return measured.figures() | {"seconds": metrics["seconds"], "stage_s": application.longest_stage_s}

    def _fill(self, rows: int, tables: Path) -> None:
        features = synthetic.write(rows, self.work / "pca" / f"features-{rows}.parquet")
        arguments = ["--database", "lake.fruits", "--features", features.as_uri()]
        arguments += ["--model-id", self.model.model_id]
        script = REPOSITORY / "bench" / "jobs" / "fill_features.py"
        ours.submit(script, arguments, ours.fresh(tables), self.work, f"fill-{rows}", self.workers)

    def pca_peer(self, name: str, rows: int, repeat: int) -> None:
        """Run a PCA peer over the same features; compare its spectrum with ours."""

        def run() -> dict[str, Any]:
            features = synthetic.write(rows, self.work / "pca" / f"features-{rows}.parquet")
            out = self.work / "pca" / f"{name}-{rows}.npz"
            command = [sys.executable, "-m", PCA_PEERS[name], "--features", features, "--out", out]
            command += ["--k", COMPONENTS, "--workers", self.workers]
            measured, _ = self._python(command, PCA_PEERS[name])
            reference = self.work / "pca" / f"run-{rows}" / "pca_model.npz"
            return measured.figures() | spectrum_difference(reference, out)

        self.keep("pca", name, rows, self.workers, repeat, run)
