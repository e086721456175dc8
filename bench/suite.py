"""What is run, in which order: contestants take turns, so that whatever the machine does meets all of them."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Collection, Iterator
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

FASTEST_PEER = "daft_litert"
"""Runs on the large set too: for a framework that starts quickly, whole jobs say more there."""

SECTIONS = ("peers", "scaling", "nights", "memory", "batching", "pca")
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
        if not self.reference.is_dir() and not set(only) <= {"memory", "batching", "pca"}:
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
            for name in PEERS:
                yield "peers", partial(self.peer, name, size, workers)
            yield "peers", partial(self.binaryfile, size)
        yield "scaling", partial(self.chain, sizes.peers, 1)
        yield "scaling", partial(self.peer, "no_spark_limit", sizes.peers, 1)
        for size in sizes.images[:-1]:
            yield "scaling", partial(self.chain, size, workers)
        yield "nights", partial(self.nights, sizes.images[-1])
        for name in ("no_spark_limit", FASTEST_PEER):
            yield "nights", partial(self.peer, name, sizes.images[-1], workers)
        for size in sizes.images:
            yield "memory", partial(self.memory, size)
        yield "batching", partial(self.batching, sizes.batching)
        for rows in sizes.pca:
            yield "pca", partial(self.our_pca, rows)
            for name in PCA_PEERS:
                yield "pca", partial(self.pca_peer, name, rows)

    # —— ours ——

    def chain(self, size: int, workers: int, repeat: int) -> None:
        """Run our four jobs over `size` photos, into new tables."""
        if self.journal.has("chain", "fruits", size, workers, repeat):
            return
        out = ours.fresh(self.work / "out" / f"fruits-{size}-{workers}")
        load = measure.load_average()
        night = ours.night(self.photos.first(size), out, self.work, f"chain-{size}-{workers}", workers)
        self._expect_all(night, size)
        if size == self.sizes.peers and not self.reference.is_dir():
            self._export(out)
        self.journal.add(Run("chain", "fruits", size, workers, repeat, night.figures(), load))
        shutil.rmtree(out)

    def nights(self, size: int, repeat: int) -> None:
        """Run a full night, a night with 1 % more photos and a night with nothing new over the same tables."""
        if self.journal.has("night", "nothing_new", size, self.workers, repeat):
            return
        out = ours.fresh(self.work / "out" / f"nights-{size}")
        kinds = {"full": size, "one_percent": size + size // 100, "nothing_new": size + size // 100}
        for kind, photos in kinds.items():
            load = measure.load_average()
            night = ours.night(self.photos.first(photos), out, self.work, f"night-{kind}", self.workers)
            self._expect_all(night, photos)
            self.journal.add(Run("night", kind, size, self.workers, repeat, night.figures(), load))
            if kind == "full" and not self.journal.has("chain", "fruits", size, self.workers, repeat):
                self.journal.add(Run("chain", "fruits", size, self.workers, repeat, night.figures(), load))
        shutil.rmtree(out)

    def memory(self, size: int, repeat: int) -> None:
        """Run our four jobs over `size` photos with tight driver heaps."""
        if self.journal.has("memory", "fruits", size, self.workers, repeat):
            return
        out = ours.fresh(self.work / "out" / f"memory-{size}")
        load = measure.load_average()
        name = f"memory-{size}"
        night = ours.night(self.photos.first(size), out, self.work, name, self.workers, tight=True)
        self._expect_all(night, size)
        self.journal.add(Run("memory", "fruits", size, self.workers, repeat, night.figures(), load))
        shutil.rmtree(out)

    def _expect_all(self, night: ours.Night, photos: int) -> None:
        rows = night.metrics["featurize"]["features"]["rows"]
        if rows != photos:
            raise Disagreement(f"our jobs made features of {rows} photos out of {photos}")

    def _export(self, out: Path) -> None:
        target = self.reference
        script = REPOSITORY / "bench" / "jobs" / "export_features.py"
        arguments = ["--database", "lake.fruits", "--out", target.as_uri()]
        ours.submit(script, arguments, out / "tables", self.work, "export", self.workers)

    # —— peers ——

    def peer(self, name: str, size: int, workers: int, repeat: int) -> None:
        """Run a peer over `size` photos; its features must equal ours."""
        if self.journal.has("peers", name, size, workers, repeat):
            return
        module, engine = PEERS[name]
        out = self.work / "out" / name
        result = self._peer(module, engine, self.photos.first(size), out, size, workers)
        figures, load = result
        figures["max_difference"] = largest_difference(out, self.reference, min(size, self.sizes.peers))
        self.journal.add(Run("peers", name, size, workers, repeat, figures, load))
        shutil.rmtree(out)

    def binaryfile(self, size: int, repeat: int) -> None:
        """Run the usual way to load."""
        if self.journal.has("peers", "binaryfile", size, self.workers, repeat):
            return
        out = self.work / "out" / "binaryfile"
        images = self.photos.first(size)
        figures, load = self._peer("bench.peers.binaryfile_load", "litert", images, out, size, self.workers)
        self.journal.add(Run("peers", "binaryfile", size, self.workers, repeat, figures, load))
        shutil.rmtree(out)

    def _peer(
        self, module: str, engine: str, images: Path, out: Path, size: int, workers: int
    ) -> tuple[dict[str, Any], float]:
        shutil.rmtree(out, ignore_errors=True)
        command = self._peer_command(module, engine, images, out, workers)
        load = measure.load_average()
        measured, events = self._python(command, module)
        result = {
            "seconds": measured.answer["seconds"],
            "wall_s": round(measured.wall_s, 3),
            "memory_mb": round(measured.memory.total),
        }
        if events:
            result["stage_s"] = events[-1].longest_stage_s
        rows = pq.read_table(out, columns=[KEY]).num_rows
        if rows != size:
            raise Disagreement(f"{module} gave {rows} rows for {size} photos")
        return result, load

    def _peer_command(self, module: str, engine: str, images: Path, out: Path, workers: int) -> list[Any]:
        command = [sys.executable, "-m", module, "--images", images, "--engine", engine, "--out", out]
        command += ["--weights", self.model.weights, "--flatbuffer", self.model.flatbuffer]
        return [*command, "--workers", workers]

    def _python(self, command: list[Any], name: str) -> tuple[measure.Measured, list[eventlog.Application]]:
        events = ours.fresh(self.work / "events" / name)
        settings = "\n".join(f"{key}={value}" for key, value in ours.log_settings(events).items())
        env = ours.environment()
        env |= {"BENCH_SPARK_CONF": settings, "PYTHONPATH": f"{REPOSITORY}:{REPOSITORY / 'spark_jobs'}"}
        env |= {"TF_CPP_MIN_LOG_LEVEL": "3", "KERAS_BACKEND": "tensorflow"}
        measured = measure.run([str(part) for part in command], self.work / "logs" / f"{name}.log", env, REPOSITORY)
        return measured, eventlog.read(events)

    # —— batches of the model ——

    def batching(self, size: int, repeat: int) -> None:
        """Run our engine with larger batches, and with a thread that decodes ahead."""
        if self.journal.has("batching", "fruits", size, self.workers, repeat):
            return
        module = "bench.peers.batching"
        command = self._peer_command(module, "litert", self.photos.first(size), self.work / "out", self.workers)
        load = measure.load_average()
        measured, _ = self._python(command, module)
        self.journal.add(Run("batching", "fruits", size, self.workers, repeat, measured.answer, load))

    # —— PCA ——

    def our_pca(self, rows: int, repeat: int) -> None:
        """Run our reduce_pca job over synthetic features, from untouched tables."""
        if self.journal.has("pca", "fruits", rows, self.workers, repeat):
            return
        pristine, tables = self.work / "pca" / f"pristine-{rows}", self.work / "pca" / f"tables-{rows}"
        if not pristine.is_dir():
            self._fill(rows, tables)
            tables.rename(pristine)
        shutil.rmtree(tables, ignore_errors=True)
        shutil.copytree(pristine, tables)
        run_folder = ours.fresh(self.work / "pca" / f"run-{rows}")
        arguments = ["--database", "lake.fruits", "--run-id", "bench", "--run-folder", str(run_folder)]
        arguments += ["--model-id", self.model.model_id, "--k", str(COMPONENTS)]
        load = measure.load_average()
        script = REPOSITORY / "spark_jobs" / "reduce_pca.py"
        application, measured = ours.submit(script, arguments, tables, self.work, f"pca-{rows}", self.workers)
        metrics = json.loads((run_folder / "stages" / "reduce_pca.json").read_text())
        figures = {
            "seconds": metrics["seconds"],
            "stage_s": application.longest_stage_s,
            "wall_s": round(measured.wall_s, 3),
            "memory_mb": round(measured.memory.total),
        }
        self.journal.add(Run("pca", "fruits", rows, self.workers, repeat, figures, load))

    def _fill(self, rows: int, tables: Path) -> None:
        features = synthetic.write(rows, self.work / "pca" / f"features-{rows}.parquet")
        arguments = ["--database", "lake.fruits", "--features", features.as_uri()]
        arguments += ["--model-id", self.model.model_id]
        script = REPOSITORY / "bench" / "jobs" / "fill_features.py"
        ours.submit(script, arguments, ours.fresh(tables), self.work, f"fill-{rows}", self.workers)

    def pca_peer(self, name: str, rows: int, repeat: int) -> None:
        """Run a PCA peer over the same features; compare its spectrum with ours."""
        if self.journal.has("pca", name, rows, self.workers, repeat):
            return
        features = synthetic.write(rows, self.work / "pca" / f"features-{rows}.parquet")
        out = self.work / "pca" / f"{name}-{rows}.npz"
        command = [sys.executable, "-m", PCA_PEERS[name], "--features", features, "--out", out]
        command += ["--k", COMPONENTS, "--workers", self.workers]
        load = measure.load_average()
        measured, _ = self._python(command, PCA_PEERS[name])
        figures = {
            "seconds": measured.answer["seconds"],
            "wall_s": round(measured.wall_s, 3),
            "memory_mb": round(measured.memory.total),
            **spectrum_difference(self.work / "pca" / f"run-{rows}" / "pca_model.npz", out),
        }
        self.journal.add(Run("pca", name, rows, self.workers, repeat, figures, load))
