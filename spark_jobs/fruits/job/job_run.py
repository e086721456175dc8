"""The frame of every job: arguments, session, progress in plain lines, metrics, and one clear last line on failure."""

import argparse
import logging
import re
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from pyspark.sql import SparkSession

from fruits.base import errors, java_errors, schemas
from fruits.base.errors import FruitsError, JavaError
from fruits.job import client_endpoints, glue_tables, stage_metrics

LEAST_ROWS = 256
"""Rows of work from which a second task pays: starting a Python worker takes as long as featurizing 130."""
BATCH_ROWS = 64
"""Rows of an Arrow batch: pictures of 10 to 200 kB each, of which few keep a worker's memory flat."""
_LEAST_SHARE = 16

_log = logging.getLogger("fruits")
_ON_EXECUTOR = re.compile(r"^(?:fruits\.base\.errors\.)(\w+): (.*)$", re.MULTILINE)


@dataclass
class Run:
    """An execution of a job: its name, which is also its script's, its parsed command line and its session."""

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

    def log(self, message: str) -> None:
        """Log a line of progress: counts, ids and seconds."""
        _log.info("%s: %s", self.stage, message)

    def executors(self) -> dict[str, str | int]:
        """Return the kind of Spark's master, and how many executors and hosts the job had, lost ones included."""
        context: Any = self.spark.sparkContext
        summaries = context._jsc.sc().statusStore().executorList(False)
        executors = [summaries.apply(at) for at in range(summaries.size())]
        hosts = [executor.hostPort().rpartition(":")[0] for executor in executors if executor.id() != "driver"]
        return {"engine": context.master.partition("[")[0], "executors": len(hosts), "hosts": len(set(hosts))}

    def finish(self, metrics: stage_metrics.Metrics, writes: Sequence[str] = ()) -> None:
        """Write the stage's metrics, with its executors, seconds and endpoints, and the columns of what it `writes`."""
        seconds = round(time.monotonic() - self._started, 3)
        conf = dict(self.spark.sparkContext.getConf().getAll())
        catalog, folder = self.arguments.database.partition(".")[0], self.arguments.run_folder
        endpoints = client_endpoints.list_endpoints(conf, catalog, folder)
        metrics = {"seconds": seconds, "cluster": self.executors(), "endpoints": endpoints} | metrics
        if writes:
            metrics["writes"] = {table: list(schemas.table_columns(table).items()) for table in writes}
        stage_metrics.write(folder, self.stage, metrics)
        self.log(f"done in {seconds:.1f} s")


def parser(stage: str, description: str) -> argparse.ArgumentParser:
    """Make a job's command line with the arguments that all jobs take."""
    parser = argparse.ArgumentParser(
        prog=f"spark-submit --py-files fruits.zip {stage}.py",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--database", required=True, metavar="CATALOG.DATABASE", help="for example lake.fruits")
    parser.add_argument("--run-id", required=True, help="the run that new rows are marked with")
    parser.add_argument(
        "--run-folder",
        required=True,
        metavar="URI",
        help="the run's folder, s3://lake/runs/ID or a path: listing.parquet is read there, stages/ written",
    )
    return parser


def add_number(
    parser: argparse.ArgumentParser, name: str, default: float, text: str, metavar: str | None = None
) -> None:
    """Add an option that takes a number of the kind of its default, which its help shows after the text."""
    text = f"{text} (default %(default)s)"
    parser.add_argument(name, type=type(default), default=default, metavar=metavar, help=text)


def run(stage: str, arguments: argparse.Namespace, work: Callable[[Run], None]) -> int:
    """Run a job, which raises a `FruitsError` for each failure that it knows.

    Returns:
        The exit status: 0, or that of the error, after the line ``ERROR <ClassName>: what, value, remedy``.
    """
    logging.basicConfig(stream=sys.stderr, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    _log.setLevel(logging.INFO)
    started = time.monotonic()
    spark: SparkSession | None = None
    failure: FruitsError | None = None
    try:
        spark = open_session(stage)
        _log.info("%s: Spark %s is ready after %.1f s", stage, spark.version, time.monotonic() - started)
        work(Run(stage, arguments, spark))
    except Exception as error:  # noqa: BLE001 - the last line of the log names any error
        failure = to_fruits_error(error)
        if type(failure) in (FruitsError, JavaError):
            _log.exception("%s: unexpected error", stage)
        if spark is not None and isinstance(failure, JavaError):
            _repair_tables(spark, arguments.database)
    finally:
        if spark is not None:
            spark.stop()
    if failure is None:
        return 0
    origin = failure.__cause__ if type(failure) is FruitsError else None
    sys.stderr.write(f"ERROR {type(origin or failure).__name__}: {failure}\n")
    sys.stderr.flush()
    return failure.exit_status


def _repair_tables(spark: SparkSession, database: str) -> None:
    try:
        glue_tables.repair(spark, database)
    except Exception:  # noqa: BLE001 - the job's own error is reported, and the next job repairs
        _log.exception("tables could not be checked")


def to_fruits_error(error: Exception) -> FruitsError:
    """Return a `FruitsError` unchanged, one raised on an executor as its own class, Java's as a `JavaError`."""
    if isinstance(error, FruitsError):
        return error
    if match := _ON_EXECUTOR.search(str(error)):
        on_executor: FruitsError = getattr(errors, match[1], FruitsError)(match[2])
        return on_executor
    if java := java_errors.explain(error):
        return java
    lines = str(error).strip().splitlines()
    unknown = FruitsError(lines[0] if lines else "no message")
    unknown.__cause__ = error
    return unknown


def open_session(name: str) -> SparkSession:
    """Open the Spark session; the cluster's own configuration names the catalog."""
    # Java's stream keeps references to the last hundred objects that it has written: batches of pixels of 4 MB.
    # Loading 20,000 photos leaves 312 MB live in the JVM, and 104 MB with a reset after each.
    builder = SparkSession.builder.appName(name).config("spark.serializer.objectStreamReset", "1")
    spark = builder.getOrCreate()
    spark.sparkContext.setLogLevel("WARN")
    conf = spark.conf
    conf.set("spark.sql.session.timeZone", "UTC")
    # The cluster turns the catalog's cache off for readers. A job is the only writer, and `iceberg.Table` refreshes:
    # without the cache each statement would read the metadata of its tables from S3 again.
    conf.set("spark.sql.catalog.lake.cache-enabled", "true")
    if (spark.sparkContext.master or "").startswith("local"):
        # On a laptop the default of 200 partitions of each shuffle is only overhead.
        conf.set("spark.sql.shuffle.partitions", str(max(4, 2 * spark.sparkContext.defaultParallelism)))
    conf.set("spark.sql.execution.arrow.maxRecordsPerBatch", str(BATCH_ROWS))
    return spark


def partition_count(rows: int, cores: int, rows_each: int) -> int:
    """Return the number of few, long, equal partitions: a multiple of the cores, each of at most `rows_each` rows.

    Short partitions cost up to a tenth of featurization's speed; one per core is best, as long as a failed task
    does not lose too much. A partition of fewer than `LEAST_ROWS` is not worth a Python worker, unless its rows are
    large: then a sixteenth of `rows_each` is.
    """
    rounds = max(1, -(-rows // (cores * rows_each)))
    return max(1, min(-(-rows // min(LEAST_ROWS, max(1, rows_each // _LEAST_SHARE))), cores * rounds))
