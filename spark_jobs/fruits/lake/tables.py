"""The Iceberg tables: made when absent, changed by one atomic commit each.

What goes past Spark, `fruits.lake.writing` and `fruits.lake.overwrite` write and commit.
"""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import reduce
from pathlib import Path

from pyspark import StorageLevel
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F  # noqa: N812 - Spark's own convention

from fruits.base import objects, schemas
from fruits.base.errors import InputError, TableError
from fruits.base.java_errors import about
from fruits.base.schemas import KEYS, TABLES
from fruits.lake import iceberg
from fruits.lake.iceberg import Table

METADATA_VERSIONS = "20"
COMPRESSION = "zstd"
ROW_GROUP_BYTES = 16 * 1024 * 1024
"""Several row groups a file, so that cores share it (`fruits.lake.data_files`), each as large as a reader can hold."""
_PROPERTIES = {
    "format-version": "2",
    # Copy-on-write: the bytes of a deleted row go with its file, which erasure relies on.
    "write.delete.mode": "copy-on-write",
    "write.update.mode": "copy-on-write",
    "write.merge.mode": "copy-on-write",
    "write.target-file-size-bytes": str(128 * 1024 * 1024),
    "write.metadata.delete-after-commit.enabled": "true",
    "write.metadata.previous-versions-max": METADATA_VERSIONS,
    "write.parquet.compression-codec": COMPRESSION,
    # Labels and runs repeat, and fit; ids, digests, pixels and numbers do not, and a writer would gather up to 2 MB of
    # each before it gives up.
    "write.parquet.dict-size-bytes": str(64 * 1024),
}
# By these bounds a job finds the files of the runs that it wants. Cut to 16 characters, as is usual, the ids of all
# runs of a month are one.
_BY_RUN = {"write.metadata.metrics.column.run_id": "full"}
_OF_TABLE = {
    # Pixels are compressed already.
    "images": {
        **_BY_RUN,
        "write.parquet.row-group-size-bytes": str(ROW_GROUP_BYTES),
        "write.metadata.metrics.column.pixels": "none",
    },
    "features": {
        **_BY_RUN,
        "write.parquet.row-group-size-bytes": str(ROW_GROUP_BYTES),
        "write.metadata.metrics.column.features": "none",
    },
    "pca": {"write.parquet.row-group-size-bytes": str(ROW_GROUP_BYTES)},
    # Replaced by the file (fruits.kept_rows), and read whole.
    "pca_sums": {"write.metadata.metrics.default": "none"},
    "samples": {"write.metadata.metrics.default": "none"},
    "pca_models": {"write.metadata.metrics.default": "none"},
}


@dataclass(frozen=True)
class Large:
    """Rows that Spark reads: more than the driver should.

    Attributes:
        frame: The rows.
        rows: How many.
    """

    frame: DataFrame
    rows: int


def properties(table: str) -> dict[str, str]:
    """Give the properties that a table of `schemas.TABLES` is made with."""
    return _PROPERTIES | _OF_TABLE.get(table, {})


_DATABASE = re.compile(r"^\w+\.\w+$")
_ACTION = "_action"
_REMAKE = "Otherwise drop the table: the next run makes and fills it again"


def ensure(spark: SparkSession, database: str) -> None:
    """Make the database's tables that are not there yet, and check those that are.

    Args:
        spark: A session with the catalog configured.
        database: ``catalog.database``, for example ``lake.fruits``.

    Raises:
        InputError: Not of that form.
        TableError: A table cannot be written: see `check`.
    """
    if not _DATABASE.match(database):
        raise InputError(
            f"--database {database!r} is not of the form catalog.database, for example lake.fruits"
        )
    known = iceberg.names(spark, database)
    if known is None:
        spark.sql(f"CREATE NAMESPACE IF NOT EXISTS {database}")
    present = [table for table in TABLES if table in (known or ())]
    with ThreadPoolExecutor(max(1, len(present))) as readers:  # each waits for the catalog and for S3
        list(readers.map(lambda table: check(Table(spark, f"{database}.{table}")), present))
    for table, columns in TABLES.items():
        if table in present:
            continue  # a statement for each table of each job would cost every step of every night a second
        pairs = ", ".join(f"'{key}' = '{value}'" for key, value in properties(table).items())
        spark.sql(
            f"CREATE TABLE IF NOT EXISTS {database}.{table} ({columns}) USING iceberg TBLPROPERTIES ({pairs})"
        )


def check(table: Table) -> None:
    """Refuse a table that the jobs cannot write, before they begin.

    A column that someone has added stays NULL in new rows, so it must allow that.

    Raises:
        TableError: A column is missing, has another type or is required; or the table lies in another place than its
            metadata says, as after ``cp -a``: a run there would write and delete in the original.
    """
    _check_place(table)
    declared = schemas.columns(table.short_name)
    for column in table.columns:
        name, required = column["name"], column["required"]
        found = iceberg.sql_type(column["type"])
        kind, may_be_required = declared.pop(name, (found, False))
        if found != kind:
            raise TableError(f"{table.name}: column {name} is {found} and must be {kind}. {_REMAKE}")
        if required and not may_be_required:
            raise TableError(
                f"{table.name}: column {name} is NOT NULL, and the jobs write NULL to it. Run ALTER TABLE {table.name} "
                f"ALTER COLUMN {name} DROP NOT NULL"
            )
    if declared:
        raise TableError(
            f"{table.name}: column {next(iter(declared))} is missing. If it was renamed, rename it back. {_REMAKE}"
        )


def _check_place(table: Table) -> None:
    read, named = table.metadata_folders
    if _resolved(read) == _resolved(named):
        return
    inside = f"/{'/'.join(table.name.split('.')[1:])}/metadata"
    here, origin = read.removeprefix("file:").removesuffix(inside), named.removesuffix(inside)
    place = objects.place(origin)
    how, remedy = "copied", f"work in {origin}"
    if place.bucket:
        how = "copied or moved"
    elif not Path(place.key).exists():
        how, remedy = "moved", f"move it back, or run: ln -s {here} {origin}"
    raise TableError(
        f"{table.name} was {how} from {origin} to {here}, and its metadata still names the files there: a run would "
        f"write and delete there. Either {remedy}; or start anew in an empty folder"
    )


def _resolved(uri: str) -> objects.Place:
    """Give the place that a folder's URI leads to, links followed."""
    place = objects.place(uri)
    return replace(place, key=place.key.rstrip("/") if place.bucket else str(Path(place.key).resolve()))


def merge(
    spark: SparkSession,
    database: str,
    table: str,
    upserts: DataFrame | None,
    deletes: DataFrame | None,
    *,
    only_adds: bool = False,
) -> None:
    """Replace or add some rows and remove others, in one commit; when there is nothing to do, there is no commit.

    Args:
        spark: The session.
        database: ``catalog.database``.
        table: A table of `schemas.TABLES`.
        upserts: Rows with all columns that `schemas.TABLES` names, unique by the key; evaluated more than once, so
            persisted. None where there are none. Columns that someone has added are NULL in new rows and stay as
            they are in replaced ones.
        deletes: Rows with the table's key that the table has; disjoint from `upserts`. None where there are none.
        only_adds: The caller has just seen that the table has none of the keys of `upserts`. With no `deletes`
            either, the rows are appended, which reads nothing of the table: a MERGE would read all of its keys.
            The lock on the database (one writer) is what makes this as safe as a MERGE.
    """
    if upserts is None and deletes is None:
        return
    name = f"{database}.{table}"
    found, keys = Table(spark, name), list(KEYS[table])
    columns = found.schema.names
    added = [column["name"] for column in found.columns if column["name"] not in columns]
    nulls = [F.lit(None).alias(column) for column in added]
    if upserts is not None and deletes is None and only_adds:
        with about(name):
            upserts.select(*columns, *nulls).writeTo(name).append()
        return
    empty = not found.files
    removed = None if deletes is None or empty else computed(deletes.select(*keys))
    if removed is not None and removed.isEmpty():
        removed = None
    if upserts is not None and empty:
        with about(name):
            upserts.select(*columns, *nulls).writeTo(name).append()
        return
    parts = []
    if upserts is not None:
        parts.append(upserts.select(*columns, F.lit("upsert").alias(_ACTION)))
    if removed is not None:
        unused = [
            F.lit(None).cast(field.dataType).alias(field.name)
            for field in spark.table(name).schema
            if field.name in columns and field.name not in keys
        ]
        parts.append(removed.select(*keys, *unused, F.lit("delete").alias(_ACTION)))
    if not parts:
        return
    changes = reduce(DataFrame.unionByName, (part.select(*columns, _ACTION) for part in parts))
    view = f"changes_of_{table}"
    changes.createOrReplaceTempView(view)
    on = " AND ".join(f"t.{key} = s.{key}" for key in keys)
    statement = f"""
        MERGE INTO {name} t USING {view} s ON {on}
        WHEN MATCHED AND s.{_ACTION} = 'delete' THEN DELETE
        WHEN MATCHED THEN UPDATE SET {", ".join(f"t.{column} = s.{column}" for column in columns)}
        WHEN NOT MATCHED AND s.{_ACTION} = 'upsert' THEN
            INSERT ({", ".join([*columns, *added])})
            VALUES ({", ".join([*(f"s.{column}" for column in columns), *("NULL" for _ in added)])})
        """  # noqa: S608 - names come from schemas.py and a checked --database
    with about(name):
        spark.sql(statement)
    spark.catalog.dropTempView(view)


def delete(spark: SparkSession, name: str, condition: str) -> None:
    """Delete the rows of a table that meet an SQL condition, in one commit; where there are none, no commit."""
    with about(name):
        if not spark.table(name).where(condition).isEmpty():
            spark.sql(f"DELETE FROM {name} WHERE {condition}")  # noqa: S608 - names and digests, none from outside


def current_pca_id(spark: SparkSession, database: str) -> str | None:
    """Name the PCA published last; None before the first publication."""
    row = spark.table(f"{database}.pca_models").agg(F.max_by("pca_id", "published_at")).first()
    return None if row is None else row[0]


def current_pca(spark: SparkSession, database: str) -> DataFrame:
    """Read the components of the PCA published last: exactly one basis, whatever else the table holds.

    Glue's Iceberg catalog has no views: `schemas.CURRENT_PCA` is the query for readers.

    Args:
        spark: A session with the catalog configured.
        database: ``catalog.database``, for example ``lake.fruits``.

    Returns:
        The rows of ``pca`` of one pca_id: image_id, pca_id, label, pca, run_id; none before the first publication.
    """
    for table in ("pca_models", "pca"):
        spark.catalog.refreshTable(f"{database}.{table}")  # of a session whose catalog caches tables
    return spark.sql(schemas.CURRENT_PCA.format(database=database))


def size_bytes(spark: SparkSession, database: str, table: str, rows: int | None = None) -> int:
    """Give the bytes of a table's current files, from its metadata alone.

    Args:
        spark: A session with the catalog configured.
        database: ``catalog.database``.
        table: A table of `schemas.TABLES`.
        rows: Only of so many of its rows, for example those of one model or one PCA: their share by number, an
            estimate that is right as far as rows are of one size.
    """
    found = Table(spark, f"{database}.{table}")
    if rows is None or not found.rows:
        return found.size_bytes
    return round(found.size_bytes * min(1.0, rows / found.rows))


def computed(frame: DataFrame) -> DataFrame:
    """Compute a narrow frame now and hold it on the executors' disks; what a lost executor held is computed again.

    No checkpoint: the executor would take its part of that with it, and the job would fail. So a frame that is used
    after a commit reads its tables at a snapshot (`beside.side`): computed again, it is still the same.
    """
    held = frame.persist(StorageLevel.DISK_ONLY)
    held.write.format("noop").mode("overwrite").save()
    return held


def fetched(frame: DataFrame) -> DataFrame:
    """Fetch a narrow frame of few rows to the driver, where neither a commit nor a lost executor changes it."""
    return frame.sparkSession.createDataFrame(frame.toArrow())


def of_model(frame: DataFrame, model_id: str) -> DataFrame:
    """Keep the rows of one model."""
    condition: Column = F.col("model_id") == F.lit(model_id)
    return frame.where(condition)
