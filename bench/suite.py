"""What is run, in which order: contestants take turns, so that whatever the machine does meets all of them."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Collection, Iterator
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from bench import eventlog, measure, ours
from bench.pca import synthetic
from bench.peers.contract import FEATURES, KEY
from bench.photos import REPOSITORY, PhotoSets

TOLERANCE = 1e-3
"""How far a peer's features may be from ours (values are in [0, 6])."""

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

SECTIONS = ("peers", "scaling", "nights", "pca")
PCA_PEERS = {"mllib": "bench.pca.mllib", "sklearn": "bench.pca.sklearn_pca"}


class Disagreement(Exception):
    """A peer's result is not ours: somebody does less, or something else."""


@dataclass(frozen=True)
class Sizes:
    """How much is run.

    Attributes:
        name: `full` or `quick`.
        repeats: Runs of each kind; the median counts.
        peers: Photos that peers and we are compared on.
        small: A smaller set for peers, from which the cost of one more photo follows; 0: not run.
        images: Sets that our chain alone runs on, rising; the nights follow on the last.
        pca: Rows of features.
    """

    name: str
    repeats: int
    peers: int
    small: int
    images: tuple[int, ...]
    pca: tuple[int, ...]


FULL = Sizes("full", repeats=3, peers=2000, small=200, images=(1000, 5000, 20000), pca=(20000, 100000))
QUICK = Sizes("quick", repeats=1, peers=250, small=0, images=(250, 1000), pca=(20000,))
TINY = Sizes("tiny", repeats=1, peers=16, small=8, images=(16, 32), pca=(2000,))
SIZES = {sizes.name: sizes for sizes in (FULL, QUICK, TINY)}


@dataclass(frozen=True)
class Run:
    """One measured run.

    Attributes:
        section: `peers`, `chain`, `night` or `pca`.
        contestant: Who ran.
        size: Photos, or rows of features.
        workers: Processes or Spark slots.
        repeat: Which turn, from 0.
        figures: What was measured; seconds unless the name says otherwise.
        load_average: Of the machine, just before.
        commit: What was measured; empty in a run that nobody has kept yet.
    """

    section: str
    contestant: str
    size: int
    workers: int
    repeat: int
    figures: dict[str, Any] = field(default_factory=dict)
    load_average: float = 0.0
    commit: str = ""

    @property
    def key(self) -> tuple[str, str, int, int, int]:
        """What names the run."""
        return (self.section, self.contestant, self.size, self.workers, self.repeat)


class Journal:
    """The runs so far, one JSON line each: an interrupted suite goes on where it was."""

    def __init__(self, path: Path) -> None:
        self._path = path
        lines = path.read_text().splitlines() if path.is_file() else []
        self.runs = [Run(**json.loads(line)) for line in lines]

    def has(self, *key: object) -> bool:
        """Whether that run is there already."""
        return any(run.key == key for run in self.runs)

    def add(self, run: Run) -> None:
        """Keeps a run, with the commit that it measured."""
        run = replace(run, commit=ours.commit())
        self.runs.append(run)
        with self._path.open("a") as file:
            file.write(json.dumps(asdict(run)) + "\n")
        seconds = run.figures.get("seconds", run.figures.get("wall_s", 0.0))
        sys.stderr.write(
            f"{run.section:6} {run.contestant:18} {run.size:>6} x{run.workers} #{run.repeat}  {seconds:8.1f} s"
            f"  (load {run.load_average})\n"
        )


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
        """Everything, or the sections named."""
        most = max(self.sizes.peers, *self.sizes.images)
        self.photos.grow(most + most // 100)
        if not self.reference.is_dir() and set(only) != {"pca"}:
            self.chain(self.sizes.peers, self.workers, 0)
        for repeat in range(self.sizes.repeats):
            for section, step in self.steps():
                if section in only:
                    step(repeat)

    def steps(self) -> Iterator[tuple[str, Callable[[int], None]]]:
        """One round of turns: the section that a step belongs to, and the step."""
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
        yield "nights", partial(self.peer, "no_spark_limit", sizes.images[-1], workers)
        for rows in sizes.pca:
            yield "pca", partial(self.our_pca, rows)
            for name in PCA_PEERS:
                yield "pca", partial(self.pca_peer, name, rows)

    # —— ours ——

    def chain(self, size: int, workers: int, repeat: int) -> None:
        """Our four jobs over `size` photos, into new tables."""
        if self.journal.has("chain", "fruits", size, workers, repeat):
            return
        out = ours.fresh(self.work / "out" / f"fruits-{size}-{workers}")
        load = measure.load_average()
        night = ours.night(self.photos.first(size), out, self.work, f"chain-{size}-{workers}", workers)
        self._expect_all(night, size)
        if size == self.sizes.peers and not self.reference.is_dir():
            self._export(out)
        self.journal.add(Run("chain", "fruits", size, workers, repeat, figures(night), load))
        shutil.rmtree(out)

    def nights(self, size: int, repeat: int) -> None:
        """A full run, a night with 1 % more photos, a night with nothing new, over the same tables."""
        if self.journal.has("night", "nothing_new", size, self.workers, repeat):
            return
        out = ours.fresh(self.work / "out" / f"nights-{size}")
        kinds = {"full": size, "one_percent": size + size // 100, "nothing_new": size + size // 100}
        for kind, photos in kinds.items():
            load = measure.load_average()
            night = ours.night(self.photos.first(photos), out, self.work, f"night-{kind}", self.workers)
            self._expect_all(night, photos)
            self.journal.add(Run("night", kind, size, self.workers, repeat, figures(night), load))
            if kind == "full" and not self.journal.has("chain", "fruits", size, self.workers, repeat):
                self.journal.add(Run("chain", "fruits", size, self.workers, repeat, figures(night), load))
        shutil.rmtree(out)

    def _expect_all(self, night: ours.Night, photos: int) -> None:
        rows = night.metrics["featurize"]["features"]["rows"]
        if rows != photos:
            raise Disagreement(f"our jobs made features of {rows} photos out of {photos}")

    # —— peers ——

    def peer(self, name: str, size: int, workers: int, repeat: int) -> None:
        """One peer over `size` photos; its features must be ours."""
        if self.journal.has("peers", name, size, workers, repeat):
            return
        module, engine = PEERS[name]
        out = self.work / "out" / name
        result = self._peer(module, engine, self.photos.first(size), out, size, workers)
        figures, load = result
        figures["max_difference"] = self.difference(out, size)
        self.journal.add(Run("peers", name, size, workers, repeat, figures, load))
        shutil.rmtree(out)

    def binaryfile(self, size: int, repeat: int) -> None:
        """The usual way to load."""
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
        command = [sys.executable, "-m", module, "--images", images, "--engine", engine, "--out", out]
        command += ["--weights", self.model.weights, "--flatbuffer", self.model.flatbuffer]
        command += ["--workers", workers]
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

    def _python(self, command: list[Any], name: str) -> tuple[measure.Measured, list[eventlog.Application]]:
        events = ours.fresh(self.work / "events" / name)
        settings = "\n".join(f"{key}={value}" for key, value in ours.log_settings(events).items())
        env = ours.environment()
        env |= {"BENCH_SPARK_CONF": settings, "PYTHONPATH": f"{REPOSITORY}:{REPOSITORY / 'spark_jobs'}"}
        env |= {"TF_CPP_MIN_LOG_LEVEL": "3", "KERAS_BACKEND": "tensorflow"}
        measured = measure.run(
            [str(part) for part in command], self.work / "logs" / f"{name}.log", env, REPOSITORY
        )
        return measured, eventlog.read(events)

    # —— agreement ——

    def _export(self, out: Path) -> None:
        target = self.reference
        script = REPOSITORY / "bench" / "jobs" / "export_features.py"
        arguments = ["--database", "lake.fruits", "--out", target.as_uri()]
        ours.submit(script, arguments, out / "tables", self.work, "export", self.workers)

    def difference(self, out: Path, size: int) -> float:
        """The largest difference between a peer's features and ours, over the photos that both have.

        Raises:
            Disagreement: It is larger than the tolerance, or the photos are not the same.
        """
        theirs, reference = vectors(out), vectors(self.reference)
        common = theirs.keys() & reference.keys()
        if len(common) != min(size, self.sizes.peers):
            raise Disagreement(f"{out.name}: {len(common)} photos in common with ours, {size} were given")
        worst = max(float(np.abs(theirs[key] - reference[key]).max()) for key in common)
        if not worst <= TOLERANCE:
            raise Disagreement(f"{out.name}: features differ from ours by {worst:.2g}, allowed {TOLERANCE}")
        return worst

    # —— PCA ——

    def our_pca(self, rows: int, repeat: int) -> None:
        """Our reduce_pca job over made-up features, from untouched tables."""
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
        told = json.loads((run_folder / "stages" / "reduce_pca.json").read_text())
        figures = {
            "seconds": told["seconds"],
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
        """One peer over the same features; its spectrum is compared with ours."""
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


def figures(night: ours.Night) -> dict[str, Any]:
    """What is kept of one run of the four jobs."""
    jobs = {
        name: {
            "seconds": night.metrics[name]["seconds"],
            "stage_s": application.longest_stage_s,
            "executor_s": round(application.executor_s, 3),
        }
        for name, application in night.applications.items()
    }
    return {
        "wall_s": round(night.wall_s, 3),
        "start_s": round(night.start_s, 3),
        "executor_s": round(night.executor_s, 3),
        "jobs": jobs,
        "driver_mb": round(night.memory.driver),
        "worker_mb": round(night.memory.worker),
        "memory_by_stage_mb": night.memory.by_stage,
        "bytes": {stage: night.metrics[stage].get("bytes", {}) for stage in ours.STAGES},
    }


def vectors(folder: Path) -> dict[str, np.ndarray]:
    """Features by key, from a peer's result folder."""
    schema = pa.schema([(KEY, pa.string()), (FEATURES, pa.list_(pa.float32()))])
    found: dict[str, np.ndarray] = {}
    for file in sorted(folder.rglob("*.parquet")):
        table = pq.read_table(file, columns=[KEY, FEATURES]).cast(schema)
        rows = [np.asarray(row.values) for row in table[FEATURES]]
        found |= dict(zip(table[KEY].to_pylist(), rows, strict=True))
    return found


def spectrum_difference(ours_file: Path, theirs_file: Path) -> dict[str, float]:
    """How far two PCAs are apart: largest relative error of a variance ratio, sine of the subspaces' angle."""
    with np.load(ours_file) as mine, np.load(theirs_file) as other:
        ratios, theirs = mine["explained_variance_ratio"], other["explained_variance_ratio"]
        overlap = np.linalg.svd(mine["components"] @ other["components"].T, compute_uv=False)
    return {
        "max_relative_error": float(np.max(np.abs(ratios / theirs - 1))),
        "subspace_sine": float(np.sqrt(max(0.0, 1.0 - float(overlap.min()) ** 2))),
    }
