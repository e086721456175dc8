"""A real spark-submit killed with SIGKILL at chosen moments, run again: the same tables as one clean run."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import pyspark
import pytest

from tests.spark_jobs.conftest import ROOT, Nights
from tests.spark_jobs.pictures import encoded, fruit, orchard

pytestmark = [pytest.mark.spark, pytest.mark.timeout(600)]

WHEN = ("run_id", "loaded_at")
PATIENCE_S = 240
Moment = Callable[["Submitted"], bool]


def said(words: str) -> Moment:
    """The job has said this."""
    return lambda job: words in job.log


def writing(table: str) -> Moment:
    """It has begun a data file of the table."""
    return lambda job: job.files(table, "data/*.parquet") > job.files_before[table][0]


def committed(table: str) -> Moment:
    """It has committed to the table, and may not have been told yet."""
    return lambda job: job.files(table, "metadata/v*.metadata.json") > job.files_before[table][1]


class Submitted:
    """A spark-submit of one of the jobs, in a process group of its own."""

    def __init__(self, nights: Nights, stage: str, folder: Path, *arguments: str) -> None:
        conf = dict(nights.spark.sparkContext.getConf().getAll())
        self.database = Path(conf["spark.sql.catalog.lake.warehouse"]) / nights.database.split(".")[1]
        code = folder / "fruits.zip"
        with zipfile.ZipFile(code, "w") as archive:
            for path in sorted((ROOT / "spark_jobs" / "fruits").rglob("*.py")):
                archive.write(path, path.relative_to(ROOT / "spark_jobs"))
        kept = ("spark.jars", "spark.jars.packages", "spark.sql.", "spark.driver.", "spark.ui.", "spark.local.dir")
        settings = [f"{key}={value}" for key, value in conf.items() if key.startswith(kept)]
        settings = [one for one in settings if not one.startswith(("spark.driver.host", "spark.driver.port"))]
        self.files_before = {
            table: (self.files(table, "data/*.parquet"), self.files(table, "metadata/v*.metadata.json"))
            for table in ("images", "rejects", "features")
        }
        self._log = folder / f"{stage}.log"
        self._process = subprocess.Popen(
            [
                *(str(Path(pyspark.__file__).parent / "bin" / "spark-submit"), "--master", "local[2]"),
                *(part for one in settings for part in ("--conf", one)),
                *("--py-files", str(code), str(ROOT / "spark_jobs" / f"{stage}.py")),
                *nights.arguments(stage, *arguments),
            ],
            stdout=self._log.open("wb"),  # what a Python job writes to stderr comes out of spark-submit's stdout
            stderr=subprocess.STDOUT,
            env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
            | {"PYSPARK_PYTHON": sys.executable, "PYSPARK_DRIVER_PYTHON": sys.executable},
            start_new_session=True,
        )

    @property
    def log(self) -> str:
        """What it has said so far."""
        return self._log.read_text(errors="replace")

    def files(self, table: str, pattern: str) -> int:
        """How many files of a table there are."""
        return sum(1 for _ in (self.database / table).glob(pattern))

    def kill_at(self, moment: Moment) -> None:
        """Kill all of it as soon as the moment has come."""
        deadline = time.monotonic() + PATIENCE_S
        while not moment(self):
            assert self._process.poll() is None, f"it ended before: {self.log[-2000:]}"
            assert time.monotonic() < deadline, self.log[-2000:]
            time.sleep(0.005)
        os.killpg(self._process.pid, signal.SIGKILL)
        assert self._process.wait(60) == -signal.SIGKILL, "it was over before it was killed"
        assert "done in" not in self.log


def first_night(nights: Nights) -> None:
    """Photos and broken files, loaded and featurized; then some change, break, are mended, come and go."""
    orchard(nights.photos, labels=2, each=4)
    (nights.photos / "mended.jpg").write_bytes(b"<html>")
    (nights.photos / "stays broken.jpg").write_bytes(b"<html>")
    (nights.photos / "breaks.jpg").write_bytes(encoded(fruit(50)))
    nights.load()
    nights.run("featurize")
    (nights.photos / "mended.jpg").write_bytes(encoded(fruit(51)))
    (nights.photos / "breaks.jpg").write_bytes(b"<html>broken</html>")
    (nights.photos / "Label 0" / "r0_0_100.jpg").write_bytes(encoded(fruit(52)))
    (nights.photos / "Label 1" / "r1_1_100.jpg").unlink()
    orchard(nights.photos / "new", labels=2, each=40)


def look_anew(nights: Nights) -> None:
    """Forget what this session's catalog remembers of the tables: a job that is run again is a new process."""
    for table in ("images", "rejects", "features"):
        nights.spark.catalog.refreshTable(f"{nights.database}.{table}")


def assert_as_after_one_clean_run(nights: Nights, folder: Path) -> None:
    clean = Nights(nights.spark, f"{nights.database}_clean", nights.photos, folder / "clean", nights.model)
    clean.load()
    clean.run("featurize")
    for table in ("images", "rejects", "features"):
        assert nights.rows(table, *WHEN) == clean.rows(table, *WHEN)
    assert len(clean.rows("images")) == 88


slow = pytest.mark.slow


@pytest.mark.parametrize(
    "moment",
    [
        pytest.param(said("is ready"), id="session", marks=slow),
        pytest.param(said("new or changed"), id="fetching", marks=slow),
        pytest.param(said("82 loaded, 1 rejected"), id="loaded", marks=slow),
        pytest.param(writing("images"), id="writing images", marks=slow),
        pytest.param(committed("images"), id="between its two commits"),
        pytest.param(committed("rejects"), id="after its two commits", marks=slow),
    ],
)
def test_load_images_killed_and_run_again_leaves_what_one_clean_run_leaves(nights, tmp_path, moment):
    first_night(nights)
    nights.list_photos()
    Submitted(nights, "load_images", tmp_path, "--complete").kill_at(moment)
    look_anew(nights)
    nights.run("load_images", "--complete")
    nights.run("featurize")
    assert_as_after_one_clean_run(nights, tmp_path)


@pytest.mark.parametrize(
    "moment",
    [
        pytest.param(said("is ready"), id="session", marks=slow),
        pytest.param(said("MB of weights"), id="computing", marks=slow),
        pytest.param(writing("features"), id="writing features"),
        pytest.param(committed("features"), id="after its commit", marks=slow),
    ],
)
def test_featurize_killed_and_run_again_leaves_what_one_clean_run_leaves(nights, tmp_path, moment):
    first_night(nights)
    nights.load()
    Submitted(nights, "featurize", tmp_path).kill_at(moment)
    look_anew(nights)
    nights.run("featurize")
    assert_as_after_one_clean_run(nights, tmp_path)


@pytest.mark.parametrize(
    "moment",
    [
        pytest.param(writing("features"), id="a worker's file is there and not committed"),
        pytest.param(committed("features"), id="after its commit", marks=slow),
    ],
)
def test_featurize_killed_where_workers_write_the_files_leaves_what_one_clean_run_leaves(nights, tmp_path, moment):
    """As on every night on which nothing changed or went."""
    orchard(nights.photos, labels=2, each=44)
    nights.load()
    Submitted(nights, "featurize", tmp_path).kill_at(moment)
    look_anew(nights)
    nights.run("featurize")
    assert_as_after_one_clean_run(nights, tmp_path)
