"""Write data files with Arrow, on executors or on the driver, and commit them with Iceberg.

Spark's writer takes vectors number by number, in code that a JVM never compiles well within half a minute: for the
features of 2,000 pictures on two cores, a twentieth of the whole job. Arrow writes the same columns from their buffers.
"""

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
from fruits.base.java_errors import annotate_errors
from fruits.base.objects import find_s3_for, writer
from fruits.job.job_run import Run
from fruits.lake import tables
from fruits.lake.iceberg import Table, iterate
from fruits.lake.tables import COMPRESSION, FILE_BYTES, ROW_GROUP_BYTES

_READERS = 16  # of footers: each waits for S3 most of the time
_DATA_FILE_PROPERTIES = ("write.", "encryption.")
_OTHER_PROPERTIES = ("write.metadata.", "write.delete.", "write.update.", "write.merge.")


def needs_spark(table: Table) -> str | None:
    """Return why only Spark's writer can write a table of `schemas.TABLES`.

    Returns:
        A partition spec, a sort order or a property, in words; None for a table as `tables.ensure` creates it.
    """
    # A spec whose fields are all void counts as unpartitioned, but its files still carry a partition.
    if not table.java.spec().fields().isEmpty():
        return f"partitioned by {', '.join(str(field) for field in iterate(table.java.spec().fields()))}"
    if table.java.sortOrder().isSorted():
        return "sorted"
    expected = tables.properties(table.short_name)
    for key, value in sorted(table.properties.items()):
        is_relevant = key.startswith(_DATA_FILE_PROPERTIES) and not key.startswith(_OTHER_PROPERTIES)
        if is_relevant and expected.get(key) != value:
            return f"{key} is {value}"
    return None


def is_left_to_spark(run: Run, *tables: Table) -> bool:
    """Tell whether only Spark's writer can write one of the tables, and log why."""
    reasons = {table.short_name: needs_spark(table) for table in tables}
    for name, reason in reasons.items():
        if reason:
            run.log(f"{name} is {reason}: Spark writes it")
    return any(reasons.values())


def file_writer(table: Table, mapper: Mapper, constants: Mapping[str, Any] | None = None) -> Mapper:
    """Return a mapper that writes another mapper's rows to data files, invisible to readers until their commit.

    The table does not need Spark's writer (`needs_spark`). The rows have its columns, except the `constants`, which
    are the same in all rows.

    Returns:
        A mapper to `schemas.DATA_FILE`: a row for each file, which ends with the row group that takes it to
        `FILE_BYTES`. A failed task leaves no file that it had not finished. When a file's row is lost (with its
        executor, its job or to a second attempt), no snapshot refers to the file; upkeep and erasure remove it.
    """
    schema, constants = table.schema, dict(constants or {})
    folder = _data_folder(table)
    s3 = find_s3_for(folder)
    flat = [field.name for field in schema if not pa.types.is_nested(field.type)]

    def write(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        groups = _row_groups(_complete(mapper(batches), schema, constants))
        for first in groups:
            yield pa.RecordBatch.from_pylist([write_file(chain([first], groups))], schemas.DATA_FILE)

    def write_file(groups: Iterable[pa.Table]) -> dict[str, Any]:
        uri = f"{folder}{uuid.uuid4()}.parquet"
        with writer(uri, s3) as out:
            with pq.ParquetWriter(
                out,
                schema,
                compression=COMPRESSION,
                use_dictionary=list(constants),  # numbers and digests do not repeat
                write_statistics=flat,
            ) as parquet:
                for group in groups:
                    parquet.write_table(group)
                    if out.tell() >= FILE_BYTES:
                        break
            size = out.seek(0, 2)
            footer = pq.read_metadata(out)
        begins = [footer.row_group(number).column(0).data_page_offset for number in range(footer.num_row_groups)]
        return {"uri": uri, "size_bytes": size, "rows": footer.num_rows, "row_groups": begins}

    return write


def append(spark: SparkSession, table: Table, files: pa.Table) -> None:
    """Append files (`schemas.DATA_FILE`) that were written for a table, in one commit; no files, no commit.

    Raises:
        Py4JJavaError: The commit failed, or its reply was lost.
    """
    if not len(files):
        return
    change = table.java.newAppend()
    for file in to_java(spark, table, files):
        change = change.appendFile(file)
    with annotate_errors(table.name):
        change.commit()


def to_java(spark: SparkSession, table: Table, files: pa.Table) -> list[Any]:
    """Convert files to ``org.apache.iceberg.DataFile``, with the column bounds that the table asks for."""
    session: Any = spark
    iceberg = session._jvm.org.apache.iceberg
    io, spec, config = table.java.io(), table.java.spec(), iceberg.MetricsConfig.forTable(table.java)

    def convert(file: dict[str, Any]) -> Any:
        opened = io.newInputFile(file["uri"], file["size_bytes"])
        builder = iceberg.DataFiles.builder(spec).withPath(file["uri"]).withFormat("parquet")
        builder = builder.withFileSizeInBytes(file["size_bytes"])
        builder = builder.withMetrics(iceberg.parquet.ParquetUtil.fileMetrics(opened, config))
        return builder.withSplitOffsets(_to_java_longs(session, file["row_groups"])).build()

    with ThreadPoolExecutor(_READERS) as readers:
        return list(readers.map(convert, files.to_pylist()))


def _data_folder(table: Table) -> str:
    return str(table.java.locationProvider().newDataLocation("x")).removesuffix("x")


def _complete(
    batches: Iterable[pa.RecordBatch], schema: pa.Schema, constants: Mapping[str, Any]
) -> Iterator[pa.RecordBatch]:
    """Add the constant columns to batches and cast them to the table's schema."""
    values = {name: pa.scalar(value, schema.field(name).type) for name, value in constants.items()}
    for batch in batches:
        columns = [
            pa.repeat(values[field.name], batch.num_rows)
            if field.name in values
            else batch.column(field.name).cast(field.type)
            for field in schema
        ]
        yield pa.record_batch(columns, schema=schema)


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


def _to_java_longs(session: Any, numbers: list[int]) -> Any:
    """Convert numbers to a Java list of Long; py4j would convert small numbers to Integer."""
    array = session.sparkContext._gateway.new_array(session._jvm.long, len(numbers))
    for index, number in enumerate(numbers):
        array[index] = number
    return session._jvm.java.util.stream.LongStream.of(array).boxed().toList()
