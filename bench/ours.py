"""Our own jobs, run as `make local` runs them: the real job files, spark-submit, Iceberg tables in a folder.

Nothing in the product knows of the benchmark: the event log is switched on by settings of Spark.
"""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import eventlog, gclog, measure
from bench.eventlog import Application
from bench.photos import REPOSITORY, shared_folder
from dev import class_archive, local_spark
from dev import environment as processes

PYTHON = REPOSITORY / ".venv-spark" / "bin" / "python"
NODE_PYTHON = REPOSITORY / ".venv-node" / "bin" / "python"
JARS = REPOSITORY / ".cache" / "jars"
MODELS = REPOSITORY / ".cache" / "models"
JAVA_HOME_FILE = REPOSITORY / ".cache" / "ready" / "java_home"
STAGES = measure.STAGES
HEAP = "1g"
"""Of our drivers over photos; `make local` gives them 2 GB. Enough for any number, and so little that it collects."""


@dataclass(frozen=True)
class Model:
    """The artifacts that everybody runs: ours and, converted back to nothing, Keras' own weights."""

    model_id: str
    origin: str
    flatbuffer: Path
    weights: Path


@dataclass(frozen=True)
class Night:
    """One run of the four jobs."""

    applications: dict[str, Application]  # what Spark logged, by stage
    metrics: dict[str, Any]  # what each job reported, by stage
    wall_s: float  # the whole of it, four starts of Spark included
    memory: measure.Memory  # peaks
    cpu_s: dict[str, float]  # processor seconds of `driver` and `worker` (see `measure.Measured`)
    live_heap_mb: float | None  # the largest heap that a driver held; None unless heaps were kept tight

    @property
    def executor_s(self) -> float:
        """Seconds of tasks over the four jobs."""
        return sum(application.executor_s for application in self.applications.values())

    @property
    def start_s(self) -> float:
        """Wall time that was not work: four starts and stops of a JVM and of Python."""
        return self.wall_s - sum(float(self.metrics[stage]["seconds"]) for stage in STAGES)

    def figures(self) -> dict[str, Any]:
        """Return the figures for the journal."""
        jobs = {
            name: {
                "seconds": self.metrics[name]["seconds"],
                "stage_s": application.longest_stage_s,
                "executor_s": round(application.executor_s, 3),
            }
            for name, application in self.applications.items()
        }
        return {
            "wall_s": round(self.wall_s, 3),
            "start_s": round(self.start_s, 3),
            "executor_s": round(self.executor_s, 3),
            "jobs": jobs,
            "driver_mb": round(self.memory.driver),
            "worker_mb": round(self.memory.worker),
            "driver_live_heap_mb": self.live_heap_mb,
            "driver_cpu_s": round(self.cpu_s.get("driver", 0.0), 2),
            "worker_cpu_s": round(self.cpu_s.get("worker", 0.0), 2),
            "bytes": {stage: self.metrics[stage].get("bytes", {}) for stage in STAGES},
        }


def environment() -> dict[str, str]:
    """Of a child process: a Java, no Python path of ours."""
    kept = processes.for_spark()
    if JAVA_HOME_FILE.is_file():
        kept["JAVA_HOME"] = JAVA_HOME_FILE.read_text().strip()
    return kept


def log_settings(folder: Path) -> dict[str, str]:
    """Return Spark settings for an event log in `folder`, in one plain file per application."""
    return {
        "spark.eventLog.enabled": "true",
        "spark.eventLog.dir": folder.as_uri(),
        "spark.eventLog.rolling.enabled": "false",
        "spark.eventLog.compress": "false",
    }


def fresh(folder: Path) -> Path:
    """Create `folder` anew, empty."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def weights_argument() -> str:
    """Return the shared weights where they exist, else `random`; never download."""
    files = sorted((shared_folder() / "weights").glob("*.h5"))
    return str(files[0]) if files else "random"


def model(work: Path) -> Model:
    """Convert the model with the product's own tool."""
    command = [PYTHON, "dev/make_model.py", "--weights", weights_argument(), "--out", MODELS]
    measured = measure.run(command, work / "logs" / "model.log", environment(), REPOSITORY)
    card = measured.answer
    return Model(
        model_id=card["model_id"],
        origin=card["weights"],
        flatbuffer=MODELS / card["model_id"] / card["file"],
        weights=MODELS / card["reference_model_id"] / "weights.h5",
    )


def night(images: Path, out: Path, work: Path, name: str, workers: int, tight: bool = False) -> Night:
    """Run the four jobs over `images` into the tables of `out`, which are created when there are none.

    With `tight` each driver collects its whole heap before it grows (`gclog`): for its memory, not for its speed.
    """
    events = fresh(work / "events" / name)
    collections = fresh(work / "collections" / name)
    settings = log_settings(events) | {"spark.driver.memory": HEAP}
    if tight:
        settings["spark.driver.extraJavaOptions"] = " ".join([local_spark.JAVA_OPTIONS, *gclog.options(collections)])
    command = [PYTHON, "dev/run_local.py", "--images", images, "--out", out]
    command += ["--weights", weights_argument(), "--master", f"local[{workers}]", "--k", "64"]
    command += [f"--conf={key}={value}" for key, value in settings.items()]
    measured = measure.run(command, work / "logs" / f"{name}.log", environment(), REPOSITORY)
    run_folder = max((out / "runs").iterdir(), key=lambda folder: folder.stat().st_mtime)
    return Night(
        applications={application.name: application for application in eventlog.read(events)},
        metrics={stage: json.loads((run_folder / "stages" / f"{stage}.json").read_text()) for stage in STAGES},
        wall_s=measured.wall_s,
        memory=measured.memory,
        cpu_s=measured.cpu_s,
        live_heap_mb=max(filter(None, gclog.largest_live_heaps(collections)), default=None),
    )


def submit(
    script: Path, arguments: list[str], warehouse: Path, work: Path, name: str, workers: int
) -> tuple[Application, measure.Measured]:
    """Run one job script over the tables in `warehouse`."""
    events = fresh(work / "events" / name)
    settings = local_spark.settings(warehouse, NODE_PYTHON) | log_settings(events)
    command = [processes.spark_submit(NODE_PYTHON), "--master", f"local[{workers}]", "--name", script.stem]
    command += class_archive.options(JARS)
    command += [part for key, value in settings.items() for part in ("--conf", f"{key}={value}")]
    command += [str(script), *arguments]
    env = environment() | {"PYSPARK_PYTHON": str(NODE_PYTHON), "PYTHONPATH": str(REPOSITORY / "spark_jobs")}
    measured = measure.run(command, work / "logs" / f"{name}.log", env, work)
    return eventlog.read(events)[-1], measured
