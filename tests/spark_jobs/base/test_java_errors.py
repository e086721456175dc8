"""A failure inside Java ends a job with one line that names the innermost cause, the table and what to do."""

from __future__ import annotations

import argparse
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from fruits.base import java_errors, schemas
from fruits.base.errors import JavaError
from fruits.job import job_run
from fruits.lake import data_files, iceberg, overwrite, tables
from fruits.lake.iceberg import Table
from py4j.protocol import Py4JError, Py4JNetworkError
from pyspark.errors import PySparkException

S3_DENIES = """An error occurred while calling o62.commit.
: org.apache.iceberg.exceptions.ForbiddenException: Forbidden
\tat org.apache.iceberg.SnapshotProducer.commit(SnapshotProducer.java:1)
Caused by: software.amazon.awssdk.services.s3.model.S3Exception: Access Denied (Service: S3, Status Code: 403)
\tat software.amazon.awssdk.Core.call(Core.java:1)
"""
A_TASK_FAILS = """An error occurred while calling o9.collectToPython.
: org.apache.spark.SparkException: Job aborted due to stage failure: Task 0 in stage 1.0 failed 4 times, most recent \
failure: Lost task 0.3 in stage 1.0 (TID 4) (ip-10-0-0-1 executor 2): java.io.IOException: No space left on device
\tat java.base/java.io.FileOutputStream.writeBytes(Native Method)

Driver stacktrace:
\tat org.apache.spark.scheduler.DAGScheduler.failJobAndIndependentStages(DAGScheduler.scala:1)
"""


class Noted(Py4JError):
    """An error with a text of our own; a real one asks the gateway for it."""


@pytest.fixture
def database(spark: Any) -> str:
    name = f"lake.java_{uuid.uuid4().hex[:8]}"
    tables.ensure(spark, name)
    row = {"model_id": "m", "n": 1, "sums": b"s", "features_snapshot": 1, "run_id": "r"}
    rows = pa.Table.from_pylist([row], schemas.PCA_SUMS)
    overwrite.replace(spark, f"{name}.pca_sums", rows, {"model_id": "m"})
    return name


def removed(spark: Any, database: str, pattern: str) -> None:
    """Remove files of `pca_sums` as a lifecycle rule or a hand does."""
    folder = Path(Table(spark, f"{database}.pca_sums").location.removeprefix("file:"))
    files = list(folder.glob(pattern))
    assert files
    for file in files:
        file.unlink()


def reads(spark: Any, table: str) -> None:
    spark.table(table).collect()


def plans(spark: Any, table: str) -> None:
    Table(spark, table).data_files()


def plans_many(spark: Any, table: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(iceberg, "_FEW_FILES", 0)
        data_files.read_table(spark, table, ["model_id"])


def deletes(spark: Any, table: str) -> None:
    tables.delete(spark, table, "n = 1")


@pytest.mark.spark
@pytest.mark.parametrize(
    ("pattern", "work"),
    [
        ("metadata/snap-*.avro", plans),
        ("metadata/*-m0.avro", plans),
        ("metadata/*-m0.avro", plans_many),
        ("data/*.parquet", reads),
        ("data/*.parquet", deletes),
    ],
)
def test_a_file_that_is_missing_is_named_with_its_table_and_the_way_back(
    spark: Any, database: str, pattern: str, work: Callable[[Any, str], None]
) -> None:
    removed(spark, database, pattern)
    with pytest.raises((Py4JError, PySparkException)) as failed:
        work(spark, f"{database}.pca_sums")
    failure = job_run.to_fruits_error(failed.value)
    assert isinstance(failure, JavaError)
    line = str(failure)
    assert line.count("\n") == 0
    assert ".pca_sums: " in line
    assert "FileNotFoundException: File " in line or "NotFoundException: Failed to open" in line
    assert "roll the table back" in line
    assert "o1" not in line.split(":")[0]


@pytest.mark.spark
def test_an_error_of_a_python_worker_is_told_instead_of_a_traceback(spark: Any) -> None:
    def fails(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        raise MemoryError("no more")

    with pytest.raises(PySparkException) as failed:
        spark.range(1).mapInArrow(fails, "id BIGINT").collect()
    assert str(job_run.to_fruits_error(failed.value)).startswith("MemoryError: no more. The job ran out of memory")


def test_a_cause_that_names_no_table_gets_that_of_the_call() -> None:
    with pytest.raises(Noted) as failed, java_errors.annotate_errors("lake.fruits.features"):
        raise Noted(S3_DENIES)
    assert str(job_run.to_fruits_error(failed.value)).startswith(
        "lake.fruits.features: S3Exception: Access Denied (Service: S3, Status Code: 403). Give the job's role"
    )


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (Noted(A_TASK_FAILS), "IOException: No space left on device. Give the nodes larger disks"),
        (
            Py4JNetworkError("Answer from Java side is empty"),
            "Py4JNetworkError: Answer from Java side is empty. The job",
        ),
        (Noted("x\n: a.b.C$D: what\n\tat x"), "C$D: what. Run the step again; if"),
    ],
)
def test_the_last_line_is_the_innermost_cause(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: Exception, line: str
) -> None:
    class NoSpark:
        version = "4"

        def stop(self) -> None:
            """Nothing to stop."""

    def work(run: job_run.Run) -> None:
        raise error

    monkeypatch.setattr(job_run, "open_session", lambda name: NoSpark())
    assert job_run.run("stage", argparse.Namespace(database="lake.fruits"), work) == 1
    assert capsys.readouterr().err.strip().splitlines()[-1].startswith(f"ERROR JavaError: {line}")
