"""The published classifier: the only row of `classifiers`."""

from datetime import UTC, datetime

import pyarrow as pa
from pyspark.sql import SparkSession

from fruits.base import schemas
from fruits.base.java_errors import annotate_errors
from fruits.classifier.discriminant import Classifier
from fruits.lake import data_files, overwrite, tables
from fruits.lake.iceberg import Table

_FAILURE = "fruits.failed-fit"  # a property of the table: a fit that failed has no row


def current(spark: SparkSession, database: str) -> Classifier | None:
    """Read the current classifier; None before the first publication."""
    rows = data_files.read_dicts(spark, f"{database}.classifiers", schemas.CLASSIFIER.names)
    return Classifier.from_row(max(rows, key=lambda row: row["published_at"])) if rows else None


def publish(spark: SparkSession, database: str, classifier: Classifier) -> None:
    """Make a classifier that has named all photos current: the commit that readers see. Delete the one before it."""
    row = schemas.row_of(classifier) | {"published_at": datetime.now(UTC)}
    rows = pa.Table.from_pylist([row], schemas.CLASSIFIER)
    overwrite.replace(spark, f"{database}.classifiers", rows, {})
    delete_others(spark, database, classifier.classifier_id)


def delete_others(spark: SparkSession, database: str, kept: str) -> None:
    """Delete all classifiers but one, with what they have named; all of them if none has the ID `kept`."""
    for table in ("classifiers", "predictions"):
        if Table(spark, f"{database}.{table}").rows:
            tables.delete(spark, f"{database}.{table}", f"classifier_id <> '{kept}'")


def failure(spark: SparkSession, database: str, attempt: str) -> str | None:
    """Return why the last attempt that failed to fit a classifier did; None if `attempt` is another."""
    digest, _, reason = Table(spark, f"{database}.classifiers").properties.get(_FAILURE, "").partition(" ")
    return reason if digest == attempt else None


def record_failure(spark: SparkSession, database: str, attempt: str, reason: str) -> None:
    """Record that an attempt, a digest of its input, failed: another one would read all features for nothing."""
    name = f"{database}.classifiers"
    with annotate_errors(name):
        Table(spark, name).java.updateProperties().set(_FAILURE, f"{attempt} {reason}").commit()
