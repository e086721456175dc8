"""The published classifier: the only row of `classifiers`."""

from datetime import UTC, datetime

import pyarrow as pa
from pyspark.sql import SparkSession

from fruits.base import schemas
from fruits.classifier.discriminant import Classifier
from fruits.lake import data_files, overwrite, tables
from fruits.lake.iceberg import Table


def current(spark: SparkSession, database: str) -> Classifier | None:
    """Read the current classifier; None before the first publication."""
    rows = data_files.read_dicts(spark, f"{database}.classifiers", schemas.CLASSIFIER.names)
    return Classifier.from_row(max(rows, key=lambda row: row["published_at"])) if rows else None


def publish(spark: SparkSession, database: str, classifier: Classifier) -> None:
    """Make a classifier current: the commit that readers see. Its rows of `predictions` must be complete."""
    row = schemas.row_of(classifier) | {"published_at": datetime.now(UTC)}
    rows = pa.Table.from_pylist([row], schemas.CLASSIFIER)
    overwrite.replace(spark, f"{database}.classifiers", rows, {})


def delete_others(spark: SparkSession, database: str, kept: str) -> None:
    """Delete all classifiers but one, with what they have named; all of them if none has the ID `kept`."""
    for table in ("classifiers", "predictions"):
        if Table(spark, f"{database}.{table}").rows:
            tables.delete(spark, f"{database}.{table}", f"classifier_id <> '{kept}'")
