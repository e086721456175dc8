"""Rows that the driver keeps in a table for the next night, in the place of the last ones: one file, one commit.

Spark would write the same file: planning and compiling its writer for one row takes a second and a half.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping

import pyarrow as pa
import pyarrow.parquet as pq
from pyspark.sql import SparkSession

from fruits import objects, schemas, writing
from fruits.iceberg import Table, each


def replace(spark: SparkSession, table: str, rows: pa.Table, where: Mapping[str, str]) -> None:
    """Put rows in the place of those that have some values; of all rows where `where` is empty.

    The lock on the database (one writer) is what makes it safe to read and then replace.

    Args:
        spark: A session with the catalog configured.
        table: ``catalog.database.table``: small, and not partitioned.
        rows: All columns of the table.
        where: Values by column, which all rows have. A file of the table has only such rows, or none.

    Raises:
        ValueError: A file has such rows and others.
        Py4JJavaError: The commit failed, or its reply was lost. What was not committed is left to upkeep, which removes
            files that no snapshot knows.
    """
    found = Table(spark, table)
    java = found.java
    change = java.newOverwrite()
    with contextlib.closing(java.newScan().planFiles()) as tasks:
        for task in each(tasks):
            if _is_replaced(task.file().location(), where):
                change = change.deleteFile(task.file())
    written = writing.to_files(found, iter)(rows.to_batches())
    for file in writing.java(spark, found, pa.Table.from_batches(written, schemas.DATA_FILE)):
        change = change.addFile(file)
    change.commit()


def _is_replaced(uri: str, where: Mapping[str, str]) -> bool:
    with objects.open_arrow(uri, None) as file:
        values = pq.read_table(file, columns=list(where), use_threads=False).to_pylist()
    alike = [row == where for row in values]
    if any(alike) != all(alike):
        raise ValueError(f"{uri} has rows with {dict(where)} and others: it cannot be replaced for them")
    return any(alike)
