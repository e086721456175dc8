"""A Spark session for the Spark peers: the settings of our own jobs where they matter."""

import os
import sys

from pyspark.sql import DataFrame, SparkSession, functions

from bench.peers.contract import KEY, Task

DRIVER_MEMORY = "2g"
"""As in include/cluster.yaml."""


def session(name: str, workers: int, memory: str = DRIVER_MEMORY) -> SparkSession:
    """Return a local Spark with `workers` slots, whose workers can import `bench`."""
    os.environ["PYSPARK_PYTHON"] = sys.executable
    builder = SparkSession.builder.master(f"local[{workers}]").appName(name)
    builder = builder.config("spark.driver.memory", memory).config("spark.ui.enabled", "false")
    for setting, value in extra_settings().items():
        builder = builder.config(setting, value)
    return builder.getOrCreate()


def extra_settings() -> dict[str, str]:
    """Return the settings that the harness adds (the event log), from `BENCH_SPARK_CONF`: lines of `key=value`."""
    lines = os.environ.get("BENCH_SPARK_CONF", "").splitlines()
    return dict(line.split("=", 1) for line in lines if line)


def photos(spark: SparkSession, task: Task) -> DataFrame:
    """Read the photos as guides show it: `binaryFile`, searched below the folder."""
    files = (
        spark.read.format("binaryFile")
        .option("pathGlobFilter", "*.jpg")
        .option("recursiveFileLookup", "true")
        .load(task.images.as_uri())
    )
    below = len(task.images.as_uri()) - len("file://") + len("file:") + 2
    return files.withColumn(KEY, functions.expr(f"substring(path, {below})"))
