"""A job gives every core of its cluster a task, however few executors there are when it begins."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from fruits.job import job_run
from fruits.lake import input_listing
from PIL import Image

from dev import environment, fetch_jars
from tests.spark_jobs.conftest import ROOT

NODE_PYTHON = ROOT / ".venv-node" / "bin" / "python"
WORKERS, CORES = 2, 3
PHOTOS = job_run.LEAST_ROWS * WORKERS * CORES


def spark_home(folder: Path) -> Path:
    """A Spark home of the test's own, where executors of `local-cluster` keep their files."""
    home = folder / "spark"
    home.mkdir()
    for entry in next((NODE_PYTHON.parents[1] / "lib").glob("python*/site-packages/pyspark")).iterdir():
        (home / entry.name).symlink_to(entry)
    return home


@pytest.mark.spark
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    "size",
    [
        pytest.param({"spark.default.parallelism": WORKERS * CORES}, id="as include/cluster.yaml sets it"),
        pytest.param({"spark.dynamicAllocation.maxExecutors": WORKERS}, id="a cluster with a bound alone"),
    ],
)
def test_photos_are_shared_among_cores_that_are_not_there_yet(tmp_path: Path, size: dict[str, int]) -> None:
    photos, run_folder, events = tmp_path / "photos", tmp_path / "run", tmp_path / "events"
    (photos / "label").mkdir(parents=True)
    events.mkdir()
    for number in range(PHOTOS):
        Image.new("RGB", (8, 8), (number % 256, number // 256, 0)).save(photos / "label" / f"{number}.png")
    input_listing.write_folder_listing(photos, str(run_folder / "listing.parquet"))
    jars = os.pathsep.join(map(str, fetch_jars.paths(ROOT / ".cache" / "jars")))
    conf = size | {
        "spark.dynamicAllocation.enabled": "true",
        "spark.dynamicAllocation.initialExecutors": 0,
        "spark.executor.cores": CORES,
        "spark.executor.memory": "512m",
        "spark.executor.extraClassPath": jars,
        "spark.sql.extensions": "org.apache.iceberg.spark.extensions.IcebergSparkSessionExtensions",
        "spark.sql.catalog.lake": "org.apache.iceberg.spark.SparkCatalog",
        "spark.sql.catalog.lake.type": "hadoop",
        "spark.sql.catalog.lake.warehouse": tmp_path / "tables",
        "spark.driver.host": "127.0.0.1",
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.ui.enabled": "false",
        "spark.eventLog.enabled": "true",
        "spark.eventLog.dir": events,
        "spark.eventLog.compress": "false",
        "spark.eventLog.rolling.enabled": "false",
    }
    command = [
        *(NODE_PYTHON.with_name("spark-submit"), "--master", f"local-cluster[{WORKERS},{CORES},1024]"),
        *("--driver-class-path", jars, "--py-files"),
        shutil.make_archive(str(tmp_path / "fruits"), "zip", ROOT / "spark_jobs", "fruits"),
        *(part for key, value in conf.items() for part in ("--conf", f"{key}={value}")),
        *(ROOT / "spark_jobs" / "load_images.py", "--database", "lake.fruits", "--run-id", "r"),
        *("--run-folder", run_folder, "--input", photos),
    ]
    own = {"PYSPARK_PYTHON": str(NODE_PYTHON), "SPARK_HOME": str(spark_home(tmp_path))}
    done = subprocess.run(
        [str(part) for part in command], env=environment.for_spark() | own, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    logged = [json.loads(line) for path in events.iterdir() for line in path.read_text().splitlines()]
    stages = [event["Stage Info"] for event in logged if event["Event"] == "SparkListenerStageCompleted"]
    assert WORKERS * CORES in {stage["Number of Tasks"] for stage in stages}
