"""The Iceberg tables: created when absent, each changed by atomic commits.

`fruits.lake.writing` and `fruits.lake.overwrite` write and commit without Spark.
"""

import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import reduce
from pathlib import Path
from typing import Any

from py4j.protocol import Py4JError  # type: ignore[import-untyped]
from pyspark import StorageLevel
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F  # noqa: N812 - Spark's own convention

from fruits.base import objects, schemas
from fruits.base.errors import InputError, TableError
from fruits.base.java_errors import annotate_errors
from fruits.base.schemas import KEYS, TABLES
from fruits.job import glue_tables
from fruits.lake import iceberg
from fruits.lake.iceberg import Table

METADATA_VERSIONS = "20"
COMPRESSION = "zstd"
FILE_BYTES = 128 * 1024 * 1024
ROW_GROUP_BYTES = 16 * 1024 * 1024
"""Cores share a file by its row groups (`fruits.lake.data_files`), each small enough for a reader's memory."""
_DATABASE = re.compile(r"^\w+\.\w+$")
_ACTION = "_action"
_RECREATE = "Otherwise drop the table: the next run creates and fills it again"
_PROPERTIES = {
    "format-version": "2",
    # Copy-on-write: the bytes of a deleted row disappear with its file, which erasure relies on.
    "write.delete.mode": "copy-on-write",
    "write.update.mode": "copy-on-write",
    "write.merge.mode": "copy-on-write",
    "write.target-file-size-bytes": str(FILE_BYTES),
    "write.metadata.delete-after-commit.enabled": "true",
    "write.metadata.previous-versions-max": METADATA_VERSIONS,
    "write.parquet.compression-codec": COMPRESSION,
    # Labels and runs repeat, and fit; ids, digests, pixels and numbers do not, and a writer would collect up to 2 MB of
    # each before it gives up.
    "write.parquet.dict-size-bytes": str(64 * 1024),
}
# Jobs find the files of a run by these bounds. By default they are cut to 16 characters, which all run ids of a month
# share.
_FULL_RUN_BOUNDS = {"write.metadata.metrics.column.run_id": "full"}
_ROW_GROUPS = {"write.parquet.row-group-size-bytes": str(ROW_GROUP_BYTES)}
# `fruits.lake.overwrite` replaces whole files, which are read whole.
_NO_METRICS = {"write.metadata.metrics.default": "none"}
_TABLE_PROPERTIES = {
    "images": _FULL_RUN_BOUNDS | _ROW_GROUPS | {"write.metadata.metrics.column.pixels": "none"},
    "features": _FULL_RUN_BOUNDS | _ROW_GROUPS | {"write.metadata.metrics.column.features": "none"},
    "pca": _ROW_GROUPS,
    "pca_sums": _NO_METRICS,
    "samples": _NO_METRICS,
    "pca_models": _NO_METRICS,
    "classifiers": _NO_METRICS,
    "predictions": {"write.metadata.metrics.column.classifier_id": "full"},  # whole files go with a classifier
}


@dataclass(frozen=True)
class SparkRows:
    """Rows that Spark reads because they are too many for the driver, and their number."""

    frame: DataFrame
    rows: int


def properties(table: str) -> dict[str, str]:
    """Return the properties with which a table of `schemas.TABLES` is created."""
    return _PROPERTIES | _TABLE_PROPERTIES.get(table, {})


def ensure(spark: SparkSession, database: str) -> None:
    """Create the database's missing tables and check the others.

    Raises:
        InputError: `database` is not of the form ``catalog.database``.
        TableError: The jobs cannot write a table: see `check`.
    """
    if not _DATABASE.match(database):
        raise InputError(f"--database {database!r} is not of the form catalog.database, for example lake.fruits")
    known = iceberg.table_names(spark, database)
    if known is None:
        spark.sql(f"CREATE NAMESPACE IF NOT EXISTS {database}")
    present = [table for table in TABLES if table in (known or ())]
    try:
        _check_all(spark, database, present)
    except Py4JError:
        if not glue_tables.repair(spark, database):
            raise
        _check_all(spark, database, present)
    for table, columns in TABLES.items():
        if table in present:
            continue  # a statement for each table of each job would cost every step of every run a second
        pairs = ", ".join(f"'{key}' = '{value}'" for key, value in properties(table).items())
        spark.sql(f"CREATE TABLE IF NOT EXISTS {database}.{table} ({columns}) USING iceberg TBLPROPERTIES ({pairs})")


def _check_all(spark: SparkSession, database: str, names: list[str]) -> None:
    with ThreadPoolExecutor(max(1, len(names))) as readers:  # each waits for the catalog and for S3
        list(readers.map(lambda name: check(Table(spark, f"{database}.{name}")), names))


def check(table: Table) -> None:
    """Reject a table that the jobs cannot write, before they start.

    A column that users have added stays NULL in new rows, so it must be nullable.

    Raises:
        TableError: A column is missing, has another type or is required; or the metadata names another location, as
            after ``cp -a``: a run would write and delete in the original.
    """
    _check_location(table)
    expected = schemas.table_columns(table.short_name)
    for column in table.columns:
        name, required = column["name"], column["required"]
        actual_kind = iceberg.sql_type(column["type"])
        kind, may_be_required = expected.pop(name, (actual_kind, False))
        if actual_kind != kind:
            raise TableError(f"{table.name}: column {name} is {actual_kind} and must be {kind}. {_RECREATE}")
        if required and not may_be_required:
            raise TableError(
                f"{table.name}: column {name} is NOT NULL, and the jobs write NULL to it. Run ALTER TABLE {table.name} "
                f"ALTER COLUMN {name} DROP NOT NULL"
            )
    if expected:
        raise TableError(
            f"{table.name}: column {next(iter(expected))} is missing. If it was renamed, rename it back. {_RECREATE}"
        )


def _check_location(table: Table) -> None:
    actual, named = table.metadata_folders
    if _resolve(actual) == _resolve(named):
        return
    inside = f"/{'/'.join(table.name.split('.')[1:])}/metadata"
    copy, origin = actual.removeprefix("file:").removesuffix(inside), named.removesuffix(inside)
    path = objects.parse_uri(origin)
    how, remedy = "copied", f"work in {origin}"
    if path.bucket:
        how = "copied or moved"
    elif not Path(path.key).exists():
        how, remedy = "moved", f"move it back, or run: ln -s {copy} {origin}"
    raise TableError(
        f"{table.name} was {how} from {origin} to {copy}, and its metadata still names the files there: a run would "
        f"write and delete there. Either {remedy}; or start anew in an empty folder"
    )


def require_own_files(spark: Any, database: str) -> None:
    """Raise a TableError for a table that refers to a path outside its folder, where erasure would delete files."""
    catalog, _, namespace = database.partition(".")
    home = f"{spark.conf.get(f'spark.sql.catalog.{catalog}.warehouse')}/{namespace}.db"
    home = dict(spark.sql(f"DESCRIBE NAMESPACE {database}").collect()).get("Location", home)
    to_json = spark._jvm.org.apache.iceberg.TableMetadataParser.toJson
    for table in TABLES:
        name, inside = f"{database}.{table}", f"{home}/{table}/"
        paths = re.findall(r'"(?:file:)?((?:/|\w+://)[^"]*)"', to_json(Table(spark, name).java.operations().current()))
        files = f"SELECT path FROM {name}.all_manifests UNION ALL SELECT data_file.file_path FROM {name}.all_entries"  # noqa: S608
        foreign = spark.sql(files).where(~F.regexp_replace("path", "^file:", "").startswith(inside))
        paths += [row.path for row in foreign.limit(1).collect()]
        if outside := next((path for path in paths if not f"{path}/".startswith(inside)), None):
            raise TableError(f"{name} refers to {outside}, outside its folder {inside}: drop the table without PURGE")


def _resolve(uri: str) -> objects.ObjectPath:
    """Parse a folder's URI and follow links."""
    path = objects.parse_uri(uri)
    return replace(path, key=path.key.rstrip("/") if path.bucket else str(Path(path.key).resolve()))


def merge(
    spark: SparkSession,
    database: str,
    table: str,
    upserts: DataFrame | None,
    deletes: DataFrame | None,
    *,
    only_adds: bool = False,
) -> None:
    """Replace or add some rows and delete others, in one commit; without changes there is no commit.

    Args:
        spark: The session.
        database: ``catalog.database``.
        table: The table's short name.
        upserts: Rows with all columns that `schemas.TABLES` names, unique by the key; evaluated more than once, so
            persisted. Columns that users have added are NULL in new rows and unchanged in replaced rows.
        deletes: Rows with the keys of rows that the table has, disjoint from `upserts`.
        only_adds: The caller has just checked that the table has none of the keys of `upserts`. Without `deletes`,
            the rows are appended, which reads nothing of the table; a MERGE would read all of its keys. The lock on
            the database (one writer) makes this as safe as a MERGE.
    """
    if upserts is None and deletes is None:
        return
    current, keys = Table(spark, f"{database}.{table}"), list(KEYS[table])
    is_empty = not current.files
    if upserts is not None and (is_empty or (only_adds and deletes is None)):
        _append(current, upserts)
        return
    removed = None if deletes is None or is_empty else materialize(deletes.select(*keys))
    if removed is not None and removed.isEmpty():
        removed = None
    if upserts is not None or removed is not None:
        _merge_changes(spark, current, keys, upserts, removed)


def _append(table: Table, rows: DataFrame) -> None:
    nulls = [F.lit(None).alias(column) for column in _added_columns(table)]
    with annotate_errors(table.name):
        rows.select(*table.schema.names, *nulls).writeTo(table.name).append()


def _added_columns(table: Table) -> list[str]:
    known = table.schema.names
    return [column["name"] for column in table.columns if column["name"] not in known]


def _merge_changes(
    spark: SparkSession, table: Table, keys: list[str], upserts: DataFrame | None, deletes: DataFrame | None
) -> None:
    """Run a MERGE of both kinds of changes, which `_ACTION` tells apart."""
    name, columns, added = table.name, table.schema.names, _added_columns(table)
    parts = []
    if upserts is not None:
        parts.append(upserts.select(*columns, F.lit("upsert").alias(_ACTION)))
    if deletes is not None:
        unused = [
            F.lit(None).cast(field.dataType).alias(field.name)
            for field in spark.table(name).schema
            if field.name in columns and field.name not in keys
        ]
        parts.append(deletes.select(*keys, *unused, F.lit("delete").alias(_ACTION)).select(*columns, _ACTION))
    view = f"changes_of_{table.short_name}"
    reduce(DataFrame.unionByName, parts).createOrReplaceTempView(view)
    on = " AND ".join(f"t.{key} = s.{key}" for key in keys)
    statement = f"""
        MERGE INTO {name} t USING {view} s ON {on}
        WHEN MATCHED AND s.{_ACTION} = 'delete' THEN DELETE
        WHEN MATCHED THEN UPDATE SET {", ".join(f"t.{column} = s.{column}" for column in columns)}
        WHEN NOT MATCHED AND s.{_ACTION} = 'upsert' THEN
            INSERT ({", ".join([*columns, *(f"`{column.replace('`', '``')}`" for column in added)])})
            VALUES ({", ".join([*(f"s.{column}" for column in columns), *("NULL" for _ in added)])})
        """  # noqa: S608 - names come from schemas.py and a checked --database
    with annotate_errors(name):
        spark.sql(statement)
    spark.catalog.dropTempView(view)


def delete(spark: SparkSession, name: str, condition: str) -> None:
    """Delete the rows of a table that meet an SQL condition, in one commit; without such rows there is no commit."""
    with annotate_errors(name):
        if not spark.table(name).where(condition).isEmpty():
            spark.sql(f"DELETE FROM {name} WHERE {condition}")  # noqa: S608 - names and digests, none from outside


def size_bytes(spark: SparkSession, database: str, table: str, rows: int | None = None) -> int:
    """Return the bytes of a table's current files, from its metadata alone.

    With `rows`, estimate the bytes of this many rows, assuming rows of equal size.
    """
    current = Table(spark, f"{database}.{table}")
    if rows is None or not current.rows:
        return current.size_bytes
    return round(current.size_bytes * min(1.0, rows / current.rows))


def materialize(frame: DataFrame) -> DataFrame:
    """Compute a narrow frame now and persist it on the executors' disks.

    Spark computes again what a lost executor held; a checkpoint would be lost with it, and the job would fail. A frame
    that is used after a commit therefore reads its tables at a snapshot (`align.key_columns`), so that it stays equal.
    """
    persisted = frame.persist(StorageLevel.DISK_ONLY)
    persisted.write.format("noop").mode("overwrite").save()
    return persisted


def fetch(frame: DataFrame) -> DataFrame:
    """Fetch a narrow frame of few rows to the driver, where no commit or lost executor changes it."""
    return frame.sparkSession.createDataFrame(frame.toArrow())
