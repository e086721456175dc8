"""Rows that the driver keeps in a table for the next night, in the place of the last ones: one commit.

As a rule one file, written by Arrow: Spark writes the same file, but planning and compiling its writer for one row
takes a second and a half.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from functools import reduce
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pyspark.sql import Column, SparkSession
from pyspark.sql import functions as F  # noqa: N812 - Spark's own convention

from fruits.base import objects, schemas
from fruits.base.java_errors import about
from fruits.lake import writing
from fruits.lake.iceberg import FORMAT, Table, each


def replace(spark: SparkSession, table: str, rows: pa.Table, where: Mapping[str, str]) -> None:
    """Put rows in the place of those that have some values; of all rows where `where` is empty.

    The lock on the database (one writer) is what makes it safe to read and then replace.

    Args:
        spark: A session with the catalog configured.
        table: ``catalog.database.table``: a small one of `schemas.TABLES`.
        rows: All columns that `schemas.TABLES` names.
        where: Values by column, which all rows have.

    Raises:
        Py4JJavaError: The commit failed, or its reply was lost. What was not committed is left to upkeep, which removes
            files that no snapshot knows.
    """
    current = Table(spark, table)
    replaced = None if writing.needs_spark(current) else _replaced(current, where)
    if replaced is None:
        _by_spark(spark, table, rows, where)
        return
    change = current.java.newOverwrite()
    for file in replaced:
        change = change.deleteFile(file)
    written = writing.to_files(current, iter)(rows.to_batches())
    for file in writing.java(spark, current, pa.Table.from_batches(written, schemas.DATA_FILE)):
        change = change.addFile(file)
    with about(table):
        change.commit()


def _replaced(table: Table, where: Mapping[str, str]) -> list[Any] | None:
    """List the files whose rows all have some values; None where a file must be rewritten, or Spark must read it."""
    replaced = []
    with about(table.name), contextlib.closing(table.java.newScan().planFiles()) as tasks:
        for task in each(tasks):
            if not task.deletes().isEmpty() or str(task.file().format()) != FORMAT:
                return None
            with objects.open_arrow(task.file().location(), None) as file:
                values = pq.read_table(file, columns=list(where), use_threads=False).to_pylist()
            alike = [row == where for row in values]
            if any(alike) != all(alike):
                return None
            if any(alike):
                replaced.append(task.file())
    return replaced


def _by_spark(spark: SparkSession, table: str, rows: pa.Table, where: Mapping[str, str]) -> None:
    """Overwrite the whole table, which is small, with the rows that stay and the new ones."""
    conditions: list[Column] = [F.col(name) == F.lit(value) for name, value in where.items()]
    others = spark.table(table).where(~reduce(Column.__and__, conditions, F.lit(True)))
    frame = spark.createDataFrame(rows, schemas.spark(rows.schema))
    frame.unionByName(others, allowMissingColumns=True).writeTo(table).overwrite(F.lit(True))
