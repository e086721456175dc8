"""Read columns of an Iceberg table straight from its Parquet files with Arrow.

Spark's reader builds lists number by number: 10,000 rows of 1280 features take a core 1.7 s, and 0.6 s here, without a
copy. Jobs that need every row of a table read it here. So do jobs that need few rows: the files of the runs that wrote
them are few, and planning a Spark job takes longer than reading them.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from heapq import heapreplace
from itertools import pairwise
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F  # noqa: N812 - Spark's own convention

from fruits.base import schemas
from fruits.base.batches import Mapper, block_pandas_import
from fruits.base.objects import S3Location, find_s3_for, open_arrow
from fruits.lake.iceberg import DataFile, Table

_BATCH_ROWS = 1024  # larger batches do not fit the processor's cache: 4096 take twice as long
_TASK_ROWS = 100_000
_READERS = 16  # each waits for S3 most of the time
_DRIVER_BYTES = 64 * 1024 * 1024
_LITERALS = 20
_MAX_IMBALANCE = 1.05  # shuffling pixels takes a twentieth of the model's time, so a partition may be this much longer

RowFilter = Mapping[str, Sequence[str]]
"""Allowed values by column; a row must match in each of them. ``run_id`` also selects the files."""


@dataclass(frozen=True)
class FileSlice:
    """A share of a Parquet file: the row groups that begin in a range of its bytes.

    The ranges of a file's slices cover the file without overlap, so each row group is in exactly one of them.
    """

    uri: str
    begin: int
    end: int
    rows: int  # approximate, by the slice's share of the bytes


@dataclass(frozen=True)
class Tasks:
    """Tasks that read their rows themselves; `read` reads the rows of the task of a number."""

    spark: SparkSession
    count: int
    read: Callable[[int], Iterable[pa.RecordBatch]]


@dataclass(frozen=True)
class MappedRows:
    """The rows that a mapper makes from a source; they are computed on use."""

    source: DataFrame | Tasks  # a frame, or tasks that read rows
    mapper: Mapper  # from record batches to record batches of `schema`
    schema: pa.Schema  # the schema of the result

    @property
    def tasks(self) -> int | None:
        """How many tasks read the rows; None if Spark decides."""
        return self.source.count if isinstance(self.source, Tasks) else None

    def frame(self) -> DataFrame:
        """Return the rows as a frame; each evaluation reads the files of the same snapshot."""
        source, mapper = self.source, self.mapper
        if not isinstance(source, Tasks):
            return source.mapInArrow(mapper, schemas.to_spark(self.schema))
        read = source.read

        def run_tasks(numbers: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
            for batch in numbers:
                for number in batch.column(0).to_pylist():
                    yield from mapper(read(number))

        tasks = source.spark.range(0, source.count, 1, source.count)
        return tasks.mapInArrow(run_tasks, schemas.to_spark(self.schema))

    def fetch(self) -> pa.Table:
        """Fetch the rows, few of them, to the driver; tasks need no SQL, which takes 0.5 s to plan."""
        source, mapper, schema = self.source, self.mapper, self.schema
        if not isinstance(source, Tasks):
            return self.frame().toArrow().cast(schema)
        read = source.read

        def run_tasks(numbers: Iterable[int]) -> Iterator[bytes]:
            for number in numbers:
                for batch in mapper(read(number)):
                    yield batch.cast(schema).serialize().to_pybytes()

        tasks = source.spark.sparkContext.parallelize(range(source.count), source.count)
        buffers = tasks.mapPartitions(run_tasks).collect()
        return pa.Table.from_batches(
            [pa.ipc.read_record_batch(pa.py_buffer(buffer), schema) for buffer in buffers], schema
        )


@dataclass(frozen=True)
class Selection:
    """Some columns of some rows of a table (``catalog.database.table``)."""

    spark: SparkSession
    table: str
    columns: Sequence[str]
    where: RowFilter = field(default_factory=dict)

    def slices(self) -> list[FileSlice] | None:
        """Return slices of the current files that can hold selected rows; None if the table has delete files."""
        files = Table(self.spark, self.table).data_files(runs=self.where.get("run_id"))
        return None if files is None else _slice(files)

    def map(
        self,
        mapper: Mapper,
        schema: pa.Schema,
        cores: int,
        slices: list[FileSlice] | None = None,
        batch_rows: int = _BATCH_ROWS,
    ) -> MappedRows:
        """Apply a mapper to the rows, as ``mapInArrow`` does; its record batches have the `schema`.

        A task for each of the `cores` reads the slices, by default all of the table: more tasks if they would be long,
        fewer if there are fewer slices. The mapper gets at most `batch_rows` at once; the session decides if the table
        has delete files.
        """
        slices = self.slices() if slices is None else slices
        if slices is None:
            # Another writer marked rows as deleted (merge-on-read); only Spark's reader leaves them out.
            return MappedRows(self.frame(), mapper, schema)
        shares, columns, where = _assign(slices, _task_count(slices, cores)), self.columns, self.where
        s3 = find_s3_for(*(file.uri for file in slices))

        def read(task: int) -> Iterator[pa.RecordBatch]:
            block_pandas_import()
            return _read_slices(shares[task], columns, where, batch_rows, s3)

        return MappedRows(Tasks(self.spark, len(shares), read), mapper, schema)

    def batches(self, slices: list[FileSlice]) -> Iterator[pa.RecordBatch]:
        """Read the selected rows of a few slices on the driver."""
        s3 = find_s3_for(*(file.uri for file in slices))
        yield from _read_slices(slices, self.columns, self.where, _BATCH_ROWS, s3)

    def read(self) -> pa.Table:
        """Read few rows to the driver, in no order, with the table's types; Spark reads more than 64 MB of files."""
        current = Table(self.spark, self.table)
        files = current.data_files(runs=self.where.get("run_id"))
        if files is None or sum(file.size_bytes for file in files) > _DRIVER_BYTES:
            return self.frame().toArrow()
        schema = _select_fields(current, self.columns)
        return pa.Table.from_batches([batch.cast(schema) for batch in self.batches(_slice(files))], schema)

    def frame(self) -> DataFrame:
        """Return the rows as Spark's reader reads them."""
        frame = self.spark.table(self.table)
        for name, values in self.where.items():
            if name == "run_id" or len(values) <= _LITERALS:
                frame = frame.where(F.col(name).isin(*values))  # a join would not select files
            else:
                allowed = self.spark.createDataFrame(pa.table({name: pa.array(values, pa.string())}))
                frame = frame.join(F.broadcast(allowed), name, "left_semi")
        return frame.select(*self.columns)


def compare_snapshots(
    spark: SparkSession, table: str, before: int, now: int
) -> tuple[list[FileSlice], list[FileSlice]] | None:
    """Compare two snapshots of a table by their files, which never change.

    Returns:
        The slices of files that only `now` has, and of those that only `before` has. A rewritten file is in both
        lists, with the rows that it carries over. None if a snapshot has delete files.
    """
    current = Table(spark, table)
    old, new = current.data_files(before), current.data_files(now)
    if old is None or new is None:
        return None
    common = {file.uri for file in old} & {file.uri for file in new}
    added, removed = ([file for file in files if file.uri not in common] for files in (new, old))
    return _slice(added), _slice(removed)


def read_table(spark: SparkSession, table: str, columns: Sequence[str]) -> pa.Table:
    """Read some columns of all rows of a small table to the driver, where planning a Spark job takes longer."""
    current = Table(spark, table)
    files = current.data_files()
    if files is None:
        return spark.table(table).select(*columns).toArrow()
    schema = _select_fields(current, columns)
    if not files:
        return schema.empty_table()
    s3 = find_s3_for(*(file.uri for file in files))

    def read(file: DataFile) -> pa.Table:
        with open_arrow(file.uri, s3) as opened, pq.ParquetFile(opened) as parquet:
            return parquet.read(columns=list(columns), use_threads=False).select(list(columns)).cast(schema)

    with ThreadPoolExecutor(_READERS) as readers:
        return pa.concat_tables(readers.map(read, files))


def read_dicts(spark: SparkSession, table: str, columns: Sequence[str]) -> list[dict[str, Any]]:
    """Read a small table as `read_table` does, each row as a dictionary."""
    rows: list[dict[str, Any]] = read_table(spark, table, columns).to_pylist()
    return rows


def is_balanced(slices: list[FileSlice], rows: int, parts: int) -> bool:
    """Return whether `parts` partitions of the slices are about as long as equal parts of the selected rows."""
    longest = max(sum(file.rows for file in share) for share in _assign(slices, parts))
    return longest <= _MAX_IMBALANCE * rows / parts


def _select_fields(table: Table, columns: Sequence[str]) -> pa.Schema:
    schema = table.schema
    return pa.schema([schema.field(name) for name in columns])


def _slice(files: list[DataFile]) -> list[FileSlice]:
    """Cut files at the row groups that their writers recorded."""
    slices = []
    for file in sorted(files, key=lambda file: file.uri):
        borders = [0, *file.row_groups[1:], file.size_bytes]
        slices += [
            FileSlice(file.uri, begin, end, round(file.rows * (end - begin) / file.size_bytes))
            for begin, end in pairwise(borders)
        ]
    return slices


def _task_count(slices: list[FileSlice], cores: int) -> int:
    rows = sum(file.rows for file in slices)
    return cores * max(1, -(-rows // (cores * _TASK_ROWS)))


def _assign(slices: list[FileSlice], tasks: int) -> list[list[FileSlice]]:
    """Assign slices to tasks so that each has about the same number of rows."""
    shares: list[list[FileSlice]] = [[] for _ in range(max(1, min(tasks, len(slices))))]
    totals = [(0, task) for task in range(len(shares))]
    for file in sorted(slices, key=lambda file: -file.rows):
        rows, task = totals[0]
        shares[task].append(file)
        heapreplace(totals, (rows + file.rows, task))
    return shares


def _read_slices(
    slices: list[FileSlice], columns: Sequence[str], where: RowFilter, batch_rows: int, s3: S3Location | None
) -> Iterator[pa.RecordBatch]:
    allowed = {name: pa.array(values, pa.string()) for name, values in where.items()}
    for share in slices:
        with open_arrow(share.uri, s3) as file, pq.ParquetFile(file) as parquet:
            row_groups = [
                number
                for number in range(parquet.num_row_groups)
                if share.begin <= parquet.metadata.row_group(number).column(0).data_page_offset < share.end
            ]
            for batch in parquet.iter_batches(batch_rows, row_groups, columns=[*columns, *where], use_threads=False):
                for name, values in allowed.items():
                    matches = pc.is_in(batch.column(name), values)
                    batch = batch if pc.all(matches).as_py() else batch.filter(matches)
                if batch.num_rows:
                    yield batch.select(list(columns))
