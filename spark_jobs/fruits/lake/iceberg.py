"""What a table's metadata says, asked of Iceberg itself: no Spark job, where a metadata table would take one each."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from pyspark.sql import SparkSession

from fruits.base import schemas
from fruits.base.java_errors import about

_FEW_FILES = 200
FORMAT = "PARQUET"
"""The format of the data files that this package reads and writes itself."""


@dataclass(frozen=True)
class DataFile:
    """One data file of a snapshot.

    Attributes:
        uri: Where it is.
        size_bytes: Its size.
        rows: How many rows it has.
        row_groups: Where its row groups begin, in bytes; empty where its writer did not say.
    """

    uri: str
    size_bytes: int
    rows: int
    row_groups: tuple[int, ...] = ()


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


def names(spark: SparkSession, database: str) -> set[str] | None:
    """Name the tables of a database: one question to the catalog, none for each table.

    Args:
        spark: A session with the catalog configured.
        database: ``catalog.database``.

    Returns:
        Their names; None when there is no such database.
    """
    session: Any = spark
    name, namespace = database.split(".")
    catalog = session._jsparkSession.sessionState().catalogManager().catalog(name)
    levels = session._sc._gateway.new_array(session._jvm.java.lang.String, 1)
    levels[0] = namespace
    if not catalog.namespaceExists(levels):
        return None
    return {str(found.name()) for found in catalog.listTables(levels)}


def each(iterable: Any) -> Iterator[Any]:
    """Give what a Java ``Iterable`` gives, one by one.

    py4j's own iterator ends with a Java exception, which PySpark takes 25 ms to look at.
    """
    iterator = iterable.iterator()
    while iterator.hasNext():
        yield iterator.next()


class Table:
    """One table as it is now.

    Args:
        spark: A session with the catalog configured.
        name: ``catalog.database.table``, which exists.
    """

    def __init__(self, spark: SparkSession, name: str) -> None:
        self.name = name
        session: Any = spark
        self._spark = spark
        with about(name):
            self._java = session._jvm.org.apache.iceberg.spark.Spark3Util.loadIcebergTable(
                session._jsparkSession, name
            )
            # The catalog keeps tables in memory for a while; another job may have written since.
            self._java.refresh()

    @property
    def schema(self) -> pa.Schema:
        """The columns that `schemas.TABLES` names, as Arrow fields with Iceberg's field ids.

        Iceberg matches columns by field id, not by name. A column that someone has added is left out: a data file
        without it reads as NULL.
        """
        known = schemas.columns(self.short_name)
        return pa.schema(
            [
                _field(column["name"], column["type"], column["id"], column["required"])
                for column in self.columns
                if column["name"] in known
            ]
        )

    @property
    def columns(self) -> list[dict[str, Any]]:
        """All columns, added ones included: `name`, `type`, `id` and `required`, as Iceberg's JSON has them."""
        session: Any = self._spark
        # One text: asking column by column takes sixty calls.
        fields: list[dict[str, Any]] = json.loads(
            session._jvm.org.apache.iceberg.SchemaParser.toJson(self._java.schema())
        )["fields"]
        return fields

    @property
    def location(self) -> str:
        """The folder that the metadata names, where new files go."""
        return str(self._java.location())

    @property
    def metadata_folders(self) -> tuple[str, str]:
        """The folder that the metadata was read from, and the one that it names: they differ in a copied table."""
        read = str(self._java.operations().current().metadataFileLocation()).rpartition("/")[0]
        named = self._java.properties().get("write.metadata.path")
        return read, str(named or f"{self.location}/metadata")

    @property
    def short_name(self) -> str:
        """The name without catalog and database."""
        return self.name.rpartition(".")[2]

    @property
    def properties(self) -> dict[str, str]:
        """The table properties."""
        entries = each(self._java.properties().entrySet())
        return {str(entry.getKey()): str(entry.getValue()) for entry in entries}

    @property
    def snapshot_id(self) -> int | None:
        """The current snapshot; None while nothing was ever written."""
        snapshot = self._java.currentSnapshot()
        return None if snapshot is None else int(snapshot.snapshotId())

    @property
    def snapshots(self) -> int:
        """How many snapshots are kept."""
        return sum(1 for _ in each(self._java.snapshots()))

    @property
    def oldest_ms(self) -> int | None:
        """When the oldest kept snapshot was committed, epoch milliseconds."""
        snapshots = each(self._java.snapshots())
        return min((int(snapshot.timestampMillis()) for snapshot in snapshots), default=None)

    @property
    def rows(self) -> int:
        """Rows of the current snapshot: counted only where another writer has marked rows as deleted."""
        if self._total("total-delete-files"):
            return self._spark.table(self.name).count()
        return self._total("total-records")

    @property
    def files(self) -> int:
        """Data files of the current snapshot."""
        return self._total("total-data-files")

    @property
    def size_bytes(self) -> int:
        """Bytes of the current snapshot's data files."""
        return self._total("total-files-size")

    @property
    def tags(self) -> dict[str, int]:
        """Snapshots by the tags that hold them."""
        refs = ((entry.getKey(), entry.getValue()) for entry in each(self._java.refs().entrySet()))
        return {str(name): int(ref.snapshotId()) for name, ref in refs if ref.isTag()}

    def tag(self, name: str, snapshot_id: int) -> None:
        """Let a snapshot be held by a tag of this name, unless there is one."""
        if name not in self.tags:
            self._java.manageSnapshots().createTag(name, snapshot_id).commit()

    def untag(self, name: str) -> None:
        """Let go of the snapshot that a tag holds."""
        self._java.manageSnapshots().removeTag(name).commit()

    def data_files(
        self, snapshot_id: int | None = None, runs: Sequence[str] | None = None
    ) -> list[DataFile] | None:
        """List the data files of a snapshot.

        Args:
            snapshot_id: Which one, of those that are kept; the current one by default.
            runs: Only those that may have rows with one of these in ``run_id``; any by default.

        Returns:
            The files, in no order; None where only Spark reads them: rows are marked as deleted, or a file is
            not Parquet.
        """
        scan = self._java.newScan()
        if snapshot_id is not None:
            scan = scan.useSnapshot(snapshot_id)
        snapshot = scan.snapshot()
        if snapshot is None:
            return []
        if runs is not None:
            session: Any = self._spark
            one_of = getattr(session._jvm.org.apache.iceberg.expressions.Expressions, "in")
            scan = scan.filter(one_of("run_id", list(runs)))
        elif int(snapshot.summary().get("total-data-files") or 0) > _FEW_FILES:
            return self._many(int(snapshot.snapshotId()))
        files = []
        with about(self.name), contextlib.closing(scan.planFiles()) as tasks:
            for task in each(tasks):
                file = task.file()
                if not task.deletes().isEmpty() or str(file.format()) != FORMAT:
                    return None
                begins = file.splitOffsets()
                row_groups = () if begins is None else tuple(json.loads(begins.toString()))
                files.append(
                    DataFile(file.location(), file.fileSizeInBytes(), file.recordCount(), row_groups)
                )
        return files

    def _many(self, snapshot_id: int) -> list[DataFile] | None:
        """List them by one Spark job, where asking for them one by one would take longer."""
        reader = self._spark.read.option("snapshot-id", snapshot_id)
        columns = (
            "content",
            "file_format",
            "file_path",
            "file_size_in_bytes",
            "record_count",
            "split_offsets",
        )
        rows = reader.table(f"{self.name}.files").select(*columns).collect()
        if any(row.content != 0 or row.file_format != FORMAT for row in rows):
            return None
        return [
            DataFile(row.file_path, row.file_size_in_bytes, row.record_count, tuple(row.split_offsets or ()))
            for row in rows
        ]

    @property
    def java(self) -> Any:
        """Iceberg's own ``org.apache.iceberg.Table``."""
        return self._java

    def _total(self, key: str) -> int:
        snapshot = self._java.currentSnapshot()
        return 0 if snapshot is None else int(snapshot.summary().get(key) or 0)


def sql_type(kind: str | dict[str, Any]) -> str:
    """Give the type of a column, as Iceberg's JSON has it, as SQL."""
    if isinstance(kind, str):
        return _SQL.get(kind, kind.upper())
    return f"ARRAY<{sql_type(kind['element'])}>" if kind["type"] == "list" else str(kind["type"]).upper()


def _field(name: str, kind: str | dict[str, Any], number: int, required: bool) -> pa.Field:
    if isinstance(kind, str):
        arrow = _ARROW[kind]
    else:
        arrow = pa.list_(_field("element", kind["element"], kind["element-id"], kind["element-required"]))
    return pa.field(name, arrow, not required, {"PARQUET:field_id": str(number)})
