"""Read table metadata through Iceberg's own API, without the Spark job that each metadata table takes."""

import contextlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from pyspark.sql import SparkSession

from fruits.base import schemas
from fruits.base.java_errors import annotate_errors

_FEW_FILES = 200
_FILE_COLUMNS = ("content", "file_format", "file_path", "file_size_in_bytes", "record_count", "split_offsets")
FORMAT = "PARQUET"
"""The format of the data files that this package reads and writes itself."""
_ARROW = {
    "boolean": pa.bool_(),
    "int": pa.int32(),
    "long": pa.int64(),
    "float": pa.float32(),
    "double": pa.float64(),
    "string": pa.string(),
    "binary": pa.binary(),
    "timestamptz": pa.timestamp("us", tz="UTC"),
}
_SQL = {"long": "BIGINT", "timestamptz": "TIMESTAMP", "timestamp": "TIMESTAMP_NTZ"}


@dataclass(frozen=True)
class DataFile:
    """A data file of a snapshot.

    `row_groups` are the bytes at which its row groups begin; empty if its writer did not record them.
    """

    uri: str
    size_bytes: int
    rows: int
    row_groups: tuple[int, ...] = ()


def table_names(spark: SparkSession, database: str) -> set[str] | None:
    """List the tables of a database with a single request to the catalog; None if there is no such database."""
    session: Any = spark
    name, namespace = database.split(".")
    catalog = session._jsparkSession.sessionState().catalogManager().catalog(name)
    levels = session._sc._gateway.new_array(session._jvm.java.lang.String, 1)
    levels[0] = namespace
    if not catalog.namespaceExists(levels):
        return None
    return {str(table.name()) for table in catalog.listTables(levels)}


def iterate(iterable: Any) -> Iterator[Any]:
    """Iterate over a Java ``Iterable``.

    py4j's own iterator ends with a Java exception, which takes PySpark 25 ms to handle.
    """
    iterator = iterable.iterator()
    while iterator.hasNext():
        yield iterator.next()


class Table:
    """The current state of a table, ``catalog.database.table``; `java` is Iceberg's own table."""

    def __init__(self, spark: SparkSession, name: str) -> None:
        self.name = name
        session: Any = spark
        self._spark = session
        with annotate_errors(name):
            self.java: Any = session._jvm.org.apache.iceberg.spark.Spark3Util.loadIcebergTable(
                session._jsparkSession, name
            )
            # The catalog caches tables for a while; another job can have written since.
            self.java.refresh()

    @property
    def schema(self) -> pa.Schema:
        """The columns that `schemas.TABLES` names, as Arrow fields with Iceberg's field ids.

        Iceberg matches columns by field id, not by name. Columns that users have added are left out: a data file
        without them reads as NULL.
        """
        known = schemas.table_columns(self.short_name)
        return pa.schema(
            [
                _field(column["name"], column["type"], column["id"], column["required"])
                for column in self.columns
                if column["name"] in known
            ]
        )

    @property
    def columns(self) -> list[dict[str, Any]]:
        """All columns, added ones included: `name`, `type`, `id` and `required`, as in Iceberg's JSON."""
        # A single JSON text, because reading column by column takes sixty calls.
        fields: list[dict[str, Any]] = json.loads(
            self._spark._jvm.org.apache.iceberg.SchemaParser.toJson(self.java.schema())
        )["fields"]
        return fields

    @property
    def location(self) -> str:
        """The folder that the metadata names, where new files go."""
        return str(self.java.location())

    @property
    def metadata_folders(self) -> tuple[str, str]:
        """The folder that holds the metadata and the folder that it names; they differ in a copied table."""
        actual = str(self.java.operations().current().metadataFileLocation()).rpartition("/")[0]
        named = self.java.properties().get("write.metadata.path")
        return actual, str(named or f"{self.location}/metadata")

    @property
    def short_name(self) -> str:
        """The name without catalog and database."""
        return self.name.rpartition(".")[2]

    @property
    def properties(self) -> dict[str, str]:
        """The table properties."""
        entries = iterate(self.java.properties().entrySet())
        return {str(entry.getKey()): str(entry.getValue()) for entry in entries}

    @property
    def snapshot_id(self) -> int | None:
        """The current snapshot; None before the first commit."""
        snapshot = self.java.currentSnapshot()
        return None if snapshot is None else int(snapshot.snapshotId())

    @property
    def snapshots(self) -> int:
        """The number of snapshots."""
        return sum(1 for _ in iterate(self.java.snapshots()))

    @property
    def oldest_ms(self) -> int | None:
        """When the oldest snapshot was committed, in epoch milliseconds."""
        snapshots = iterate(self.java.snapshots())
        return min((int(snapshot.timestampMillis()) for snapshot in snapshots), default=None)

    @property
    def rows(self) -> int:
        """Rows of the current snapshot; Spark counts them only if another writer has marked rows as deleted."""
        if self._total("total-delete-files"):
            return int(self._spark.table(self.name).count())
        return self._total("total-records")

    @property
    def files(self) -> int:
        """Data files of the current snapshot."""
        return self._total("total-data-files")

    @property
    def partitions(self) -> int:
        """Partitions of the current snapshot; Spark counts them only if the table is partitioned."""
        if self.java.spec().isUnpartitioned():
            return 1
        return max(1, int(self._spark.table(f"{self.name}.partitions").count()))

    @property
    def size_bytes(self) -> int:
        """Bytes of the current snapshot's data files."""
        return self._total("total-files-size")

    @property
    def tags(self) -> dict[str, int]:
        """Snapshots by the tags that retain them."""
        refs = ((entry.getKey(), entry.getValue()) for entry in iterate(self.java.refs().entrySet()))
        return {str(name): int(ref.snapshotId()) for name, ref in refs if ref.isTag()}

    def tag(self, name: str, snapshot_id: int) -> None:
        """Retain a snapshot with a tag of this name, unless there is one."""
        if name not in self.tags:
            self.java.manageSnapshots().createTag(name, snapshot_id).commit()

    def untag(self, name: str) -> None:
        """Remove a tag, so that its snapshot can expire."""
        self.java.manageSnapshots().removeTag(name).commit()

    def data_files(self, snapshot_id: int | None = None, runs: Sequence[str] | None = None) -> list[DataFile] | None:
        """List the data files of a snapshot, by default the current one.

        With `runs`, list only files that can hold rows with one of these values in ``run_id``.

        Returns:
            The files, in no order; None if only Spark can read them: rows are marked as deleted, or a file is not
            Parquet.
        """
        scan = self.java.newScan()
        if snapshot_id is not None:
            scan = scan.useSnapshot(snapshot_id)
        snapshot = scan.snapshot()
        if snapshot is None:
            return []
        if runs is not None:
            is_in = getattr(self._spark._jvm.org.apache.iceberg.expressions.Expressions, "in")
            scan = scan.filter(is_in("run_id", list(runs)))
        elif int(snapshot.summary().get("total-data-files") or 0) > _FEW_FILES:
            return self._list_by_spark(int(snapshot.snapshotId()))
        files = []
        with annotate_errors(self.name), contextlib.closing(scan.planFiles()) as tasks:
            for task in iterate(tasks):
                file = task.file()
                if not task.deletes().isEmpty() or str(file.format()) != FORMAT:
                    return None
                begins = file.splitOffsets()
                row_groups = () if begins is None else tuple(json.loads(begins.toString()))
                files.append(DataFile(file.location(), file.fileSizeInBytes(), file.recordCount(), row_groups))
        return files

    def _list_by_spark(self, snapshot_id: int) -> list[DataFile] | None:
        """List many files with a Spark job, which is faster than file by file."""
        reader = self._spark.read.option("snapshot-id", snapshot_id)
        rows = reader.table(f"{self.name}.files").select(*_FILE_COLUMNS).collect()
        if any(row.content != 0 or row.file_format != FORMAT for row in rows):
            return None
        return [
            DataFile(row.file_path, row.file_size_in_bytes, row.record_count, tuple(row.split_offsets or ()))
            for row in rows
        ]

    def _total(self, key: str) -> int:
        snapshot = self.java.currentSnapshot()
        return 0 if snapshot is None else int(snapshot.summary().get(key) or 0)


def sql_type(kind: str | dict[str, Any]) -> str:
    """Convert the type of a column from Iceberg's JSON to SQL."""
    if isinstance(kind, str):
        return _SQL.get(kind, kind.upper())
    return f"ARRAY<{sql_type(kind['element'])}>" if kind["type"] == "list" else str(kind["type"]).upper()


def _field(name: str, kind: str | dict[str, Any], number: int, required: bool) -> pa.Field:
    if isinstance(kind, str):
        arrow = _ARROW[kind]
    else:
        arrow = pa.list_(_field("element", kind["element"], kind["element-id"], kind["element-required"]))
    return pa.field(name, arrow, not required, {"PARQUET:field_id": str(number)})
