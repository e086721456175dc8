"""The frame of every job: arguments, session, progress in plain lines, metrics, and one clear last line on failure."""

from __future__ import annotations

import argparse
import logging
import re
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from pyspark.sql import SparkSession

from fruits.base import errors, java_errors
from fruits.base.errors import FruitsError, JavaError
from fruits.job import client_endpoints, stage_metrics

LEAST_ROWS = 256
"""Rows of work from which a second task pays: featurizing 130 takes as long as starting a Python worker."""
BATCH_ROWS = 64
"""Pictures that a mapper gets at once: of 10 to 200 kB each, few keep a worker's memory flat."""
_LEAST_SHARE = 16

_log = logging.getLogger("fruits")
_ON_EXECUTOR = re.compile(r"^(?:fruits\.base\.errors\.)(\w+): (.*)$", re.MULTILINE)


@dataclass
class Run:
    """One execution of a job.

    Attributes:
        stage: The job's name, which is also its script's.
        arguments: The parsed command line.
        spark: The session.
    """

    stage: str
    arguments: argparse.Namespace
    spark: SparkSession
    _started: float = field(default_factory=time.monotonic)

    @property
    def cores(self) -> int:
        """Tasks that run at once when the cluster has all its executors.

        include/cluster.yaml sets `spark.default.parallelism`. On a cluster that does not, dynamic allocation starts
        with few executors, and Spark counts the cores registered so far; the largest number of executors counts too.
        """
        context = self.spark.sparkContext
        conf = context.getConf()
        executors = conf.get("spark.dynamicAllocation.maxExecutors") or ""
        if (context.master or "").startswith("local[") or not executors.isdigit():
            return context.defaultParallelism
        return max(context.defaultParallelism, int(executors) * int(conf.get("spark.executor.cores") or 1))

    def say(self, message: str) -> None:
        """Tell the person who follows the log what is happening: counts, ids and seconds."""
        _log.info("%s: %s", self.stage, message)

    def finish(self, metrics: stage_metrics.Metrics) -> None:
        """Write the stage's metrics, with the seconds since the session was there and the endpoints it spoke to."""
        seconds = round(time.monotonic() - self._started, 3)
        conf = dict(self.spark.sparkContext.getConf().getAll())
        catalog, folder = self.arguments.database.partition(".")[0], self.arguments.run_folder
        called = {"endpoints": client_endpoints.used(conf, catalog, folder)}
        stage_metrics.write(folder, self.stage, {"seconds": seconds} | called | metrics)
        self.say(f"done in {seconds:.1f} s")


def parser(stage: str, description: str) -> argparse.ArgumentParser:
    """Make a job's command line with the arguments that all jobs take."""
    made = argparse.ArgumentParser(
        prog=f"spark-submit --py-files fruits.zip {stage}.py",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("--database", required=True, metavar="CATALOG.DATABASE", help="for example lake.fruits")
    made.add_argument("--run-id", required=True, help="the run that new rows are marked with")
    made.add_argument(
        "--run-folder",
        required=True,
        metavar="URI",
        help="the run's folder, s3://lake/runs/ID or a path: listing.parquet is read there, stages/ written",
    )
    return made


def run(stage: str, arguments: argparse.Namespace, work: Callable[[Run], None]) -> int:
    """Run a job.

    Args:
        stage: The job's name.
        arguments: Its parsed command line.
        work: What it does; raises `FruitsError` for what it can name.

    Returns:
        The exit status: 0, or that of the error, after one line ``ERROR <ClassName>: what, value, remedy``.
    """
    logging.basicConfig(stream=sys.stderr, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    _log.setLevel(logging.INFO)
    started = time.monotonic()
    spark: SparkSession | None = None
    failure: FruitsError | None = None
    try:
        spark = session(stage)
        _log.info("%s: Spark %s is ready after %.1f s", stage, spark.version, time.monotonic() - started)
        work(Run(stage, arguments, spark))
    except Exception as error:  # noqa: BLE001 - whatever it is, the log ends with one line that says it
        failure = named(error)
        if type(failure) in (FruitsError, JavaError):
            _log.exception("%s: unexpected error", stage)
    finally:
        if spark is not None:
            spark.stop()
    if failure is None:
        return 0
    name = (
        type(failure.__cause__ or failure).__name__
        if type(failure) is FruitsError
        else type(failure).__name__
    )
    sys.stderr.write(f"ERROR {name}: {failure}\n")
    sys.stderr.flush()
    return failure.exit_status


def named(error: Exception) -> FruitsError:
    """Give an error of ours as it is, one raised on an executor as if raised here, Java's as a `JavaError`."""
    if isinstance(error, FruitsError):
        return error
    if found := _ON_EXECUTOR.findall(str(error)):
        name, message = found[0]
        kind = getattr(errors, name, FruitsError)
        made: FruitsError = kind(message)
        return made
    if java := java_errors.explain(error):
        return java
    lines = str(error).strip().splitlines()
    unnamed = FruitsError(lines[0] if lines else "no message")
    unnamed.__cause__ = error
    return unnamed


def session(name: str) -> SparkSession:
    """Open the session; where the catalog is comes from the cluster's own configuration."""
    # Java's stream holds on to each object that it has written, by default to a hundred: batches of pixels of 4 MB.
    # Loading 20,000 photos then left 312 MB live in the JVM, and 104 MB with a reset after each.
    builder = SparkSession.builder.appName(name).config("spark.serializer.objectStreamReset", "1")
    spark = builder.getOrCreate()
    spark.sparkContext.setLogLevel("WARN")
    conf = spark.conf
    conf.set("spark.sql.session.timeZone", "UTC")
    # The catalog's default, which the cluster turns off for readers. A job is the only writer, and `iceberg.Table`
    # refreshes: without the cache each statement would read the metadata of its tables from S3 again.
    conf.set("spark.sql.catalog.lake.cache-enabled", "true")
    if (spark.sparkContext.master or "").startswith("local"):
        # A cluster starts with few executors and gets more, and adaptive execution joins what is too small there;
        # on a laptop 200 slices of each shuffle are only overhead.
        conf.set("spark.sql.shuffle.partitions", str(max(4, 2 * spark.sparkContext.defaultParallelism)))
    conf.set("spark.sql.execution.arrow.maxRecordsPerBatch", str(BATCH_ROWS))
    return spark


def partitions(rows: int, cores: int, rows_each: int) -> int:
    """Cut work into few, long, equal partitions: a multiple of the cores, each of at most `rows_each` rows.

    Short partitions cost up to a tenth of featurization's speed; one per core is best, as long as a failed task
    does not lose too much. A partition of fewer than `LEAST_ROWS` is not worth a Python worker, unless its rows are
    large: then a sixteenth of `rows_each` is.
    """
    rounds = max(1, -(-rows // (cores * rows_each)))
    return max(1, min(-(-rows // min(LEAST_ROWS, max(1, rows_each // _LEAST_SHARE))), cores * rounds))


def main(
    stage: str, parser: argparse.ArgumentParser, work: Callable[[Run], None], argv: Sequence[str] | None
) -> int:
    """Parse the command line and run: what a job's script calls."""
    return run(stage, parser.parse_args(argv), work)
