"""Data files that our own Python writes, on executors or on the driver, and Iceberg commits.

Spark's writer takes vectors number by number, in code that a JVM of half a minute never compiles well: of 2,000
pictures' features on two cores that was a twentieth of the whole job. Arrow writes the same columns from their buffers.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pyspark.sql import SparkSession

from fruits.base import schemas
from fruits.base.batches import Mapper
from fruits.base.java_errors import about
from fruits.base.objects import place, where_is_s3, writer
from fruits.lake import tables
from fruits.lake.iceberg import Table, each
from fruits.lake.tables import COMPRESSION, ROW_GROUP_BYTES

_READERS = 16  # of footers: each waits for S3, most of the time


_STEERS_FILES = ("write.", "encryption.")
_STEERS_NO_FILE = ("write.metadata.", "write.delete.", "write.update.", "write.merge.")


def needs_spark(table: Table) -> str | None:
    """Say what a table asks for that only Spark's writer does.

    Args:
        table: A table of `schemas.TABLES`.

    Returns:
        A partition spec, a sort order or a property, in words; None for a table as `tables.ensure` makes it.
    """
    # A spec whose fields are all void counts as unpartitioned, and its files carry a partition all the same.
    if not table.java.spec().fields().isEmpty():
        return f"partitioned by {', '.join(str(field) for field in each(table.java.spec().fields()))}"
    if table.java.sortOrder().isSorted():
        return "sorted"
    ours = tables.properties(table.short_name)
    for key, value in sorted(table.properties.items()):
        steers = key.startswith(_STEERS_FILES) and not key.startswith(_STEERS_NO_FILE)
        if steers and ours.get(key) != value:
            return f"{key} is {value}"
    return None


def to_files(table: Table, mapper: Mapper, same: Mapping[str, str] | None = None) -> Mapper:
    """Make a mapper write what it makes into a data file of a table, which no reader sees before it is committed.

    Args:
        table: The table, of which `needs_spark` says nothing.
        mapper: To record batches with the table's columns but those of `same`.
        same: Columns that have one value in all rows.

    Returns:
        A mapper to `schemas.DATA_FILE`: a row for the file, none where there is nothing to write. What fails before its
        file is whole leaves none. A file whose row is lost, with its executor, its job or to a second attempt, no
        snapshot knows: upkeep and erasure remove it.
    """
    schema, same = table.schema, dict(same or {})
    folder = _folder(table)
    s3 = where_is_s3() if place(folder).bucket else None
    flat = [field.name for field in schema if not pa.types.is_nested(field.type)]

    def write(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        uri = f"{folder}{uuid.uuid4()}.parquet"
        groups = _row_groups(_whole(mapper(batches), schema, same))
        first = next(groups, None)
        if first is None:
            return
        with writer(uri, s3) as out:
            with pq.ParquetWriter(
                out,
                schema,
                compression=COMPRESSION,
                use_dictionary=list(same),  # numbers and digests do not repeat
                write_statistics=flat,
            ) as parquet:
                for group in chain([first], groups):
                    parquet.write_table(group)
            size = out.seek(0, 2)
            written = pq.read_metadata(out)
        begins = [
            written.row_group(number).column(0).data_page_offset for number in range(written.num_row_groups)
        ]
        file = {"uri": uri, "size_bytes": size, "rows": written.num_rows, "row_groups": begins}
        yield pa.RecordBatch.from_pylist([file], schemas.DATA_FILE)

    return write


def append(spark: SparkSession, table: Table, files: pa.Table) -> None:
    """Add files to a table, in one commit; none, no commit.

    Args:
        spark: The session.
        table: The table that they were written for.
        files: `schemas.DATA_FILE`.

    Raises:
        Py4JJavaError: The commit failed, or its reply was lost.
    """
    if not len(files):
        return
    change = table.java.newAppend()
    for file in java(spark, table, files):
        change = change.appendFile(file)
    with about(table.name):
        change.commit()


def java(spark: SparkSession, table: Table, files: pa.Table) -> list[Any]:
    """Give files as Iceberg knows them, ``org.apache.iceberg.DataFile``, with the bounds that the table asks for."""
    session: Any = spark
    iceberg = session._jvm.org.apache.iceberg
    io, spec, config = table.java.io(), table.java.spec(), iceberg.MetricsConfig.forTable(table.java)

    def known(file: dict[str, Any]) -> Any:
        opened = io.newInputFile(file["uri"], file["size_bytes"])
        made = iceberg.DataFiles.builder(spec).withPath(file["uri"]).withFormat("parquet")
        made = made.withFileSizeInBytes(file["size_bytes"])
        made = made.withMetrics(iceberg.parquet.ParquetUtil.fileMetrics(opened, config))
        return made.withSplitOffsets(_longs(session, file["row_groups"])).build()

    with ThreadPoolExecutor(_READERS) as readers:
        return list(readers.map(known, files.to_pylist()))


def _folder(table: Table) -> str:
    return str(table.java.locationProvider().newDataLocation("x")).removesuffix("x")


def _whole(
    batches: Iterable[pa.RecordBatch], schema: pa.Schema, same: Mapping[str, str]
) -> Iterator[pa.RecordBatch]:
    """Give batches all columns of the table."""
    values = {name: pa.scalar(value, schema.field(name).type) for name, value in same.items()}
    for batch in batches:
        yield pa.record_batch(
            [
                pa.repeat(values[field.name], batch.num_rows)
                if field.name in values
                else batch.column(field.name).cast(field.type)
                for field in schema
            ],
            schema=schema,
        )


def _row_groups(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.Table]:
    pending: list[pa.RecordBatch] = []
    size = 0
    for batch in batches:
        if not batch.num_rows:
            continue
        pending.append(batch)
        size += batch.nbytes
        if size >= ROW_GROUP_BYTES:
            yield pa.Table.from_batches(pending)
            pending, size = [], 0
    if pending:
        yield pa.Table.from_batches(pending)


def _longs(session: Any, numbers: list[int]) -> Any:
    """Give Java a list of Long: py4j would make a list of Integer of small numbers."""
    array = session.sparkContext._gateway.new_array(session._jvm.long, len(numbers))
    for index, number in enumerate(numbers):
        array[index] = number
    return session._jvm.java.util.stream.LongStream.of(array).boxed().toList()
