"""Overwrite rows that the driver keeps in a table for the next run, in one commit.

Arrow usually writes them as a single file: Spark writes the same file, but takes a second and a half to plan and
compile its writer for a single row.
"""

import contextlib
from collections.abc import Mapping
from functools import reduce
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pyspark.sql import Column, SparkSession
from pyspark.sql import functions as F  # noqa: N812 - Spark's own convention

from fruits.base import objects, schemas
from fruits.base.java_errors import annotate_errors
from fruits.lake import writing
from fruits.lake.iceberg import FORMAT, Table, iterate


def replace(spark: SparkSession, table: str, rows: pa.Table, where: Mapping[str, str]) -> None:
    """Replace the rows of a small table, ``catalog.database.table``, that have the values of `where`, by column.

    Without values, replace all rows. The new rows have these values too, and all columns that `schemas.TABLES` names.
    The lock on the database (one writer) makes it safe to read and then replace.

    Raises:
        Py4JJavaError: The commit failed, or its reply was lost. Upkeep removes the files of a failed commit.
    """
    current = Table(spark, table)
    replaced = None if writing.needs_spark(current) else _find_files(current, where)
    if replaced is None:
        _replace_by_spark(spark, table, rows, where)
        return
    change = current.java.newOverwrite()
    for file in replaced:
        change = change.deleteFile(file)
    written = writing.file_writer(current, iter)(rows.to_batches())
    for file in writing.to_java(spark, current, pa.Table.from_batches(written, schemas.DATA_FILE)):
        change = change.addFile(file)
    with annotate_errors(table):
        change.commit()


def _find_files(table: Table, where: Mapping[str, str]) -> list[Any] | None:
    """List the files whose rows all match; None if a file must be rewritten or only Spark can read it."""
    files = []
    with annotate_errors(table.name), contextlib.closing(table.java.newScan().planFiles()) as tasks:
        for task in iterate(tasks):
            if not task.deletes().isEmpty() or str(task.file().format()) != FORMAT:
                return None
            with objects.open_arrow(task.file().location(), None) as file:
                values = pq.read_table(file, columns=list(where), use_threads=False).to_pylist()
            matches = [row == where for row in values]
            if any(matches) != all(matches):
                return None
            if any(matches):
                files.append(task.file())
    return files


def _replace_by_spark(spark: SparkSession, table: str, rows: pa.Table, where: Mapping[str, str]) -> None:
    """Overwrite the whole small table with the new rows and those that stay."""
    conditions: list[Column] = [F.col(name) == F.lit(value) for name, value in where.items()]
    others = spark.table(table).where(~reduce(Column.__and__, conditions, F.lit(True)))
    frame = spark.createDataFrame(rows, schemas.to_spark(rows.schema))
    frame.unionByName(others, allowMissingColumns=True).writeTo(table).overwrite(F.lit(True))
