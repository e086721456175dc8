"""Whole columns of an Iceberg table, read by Arrow straight from its Parquet files.

Spark's reader makes lists one number at a time: 10,000 rows of 1280 features cost a core 1.7 s, read here 0.6 s,
without a copy. So what wants every row of a table takes it from here, and so does what wants few: the files of the
runs that wrote them are few as well, and planning a Spark job takes longer than reading them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from heapq import heapreplace
from itertools import pairwise
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F  # noqa: N812 - Spark's own convention

from fruits.base import schemas
from fruits.base.batches import Mapper, without_pandas
from fruits.base.objects import (
    S3Location,
    open_arrow,
    place,
    where_is_s3,
)
from fruits.lake.iceberg import DataFile, Table

_BATCH_ROWS = 1024  # more no longer fit the processor's cache: 4096 take twice as long
_ROWS_EACH = 100_000
_READERS = 16  # each waits for S3, most of the time
_HERE_BYTES = 64 * 1024 * 1024
_LITERALS = 20
_EVEN = 1.05  # a shuffle of pixels takes a twentieth of the model's time: so much longer a partition may be

Wanted = Mapping[str, Sequence[str]]
"""Which rows: those that have one of some values in each of some columns. Files are chosen by ``run_id``."""


@dataclass(frozen=True)
class Piece:
    """A share of a Parquet file: the row groups that begin in a range of its bytes.

    The ranges of a file's pieces cover it and do not overlap, so that each row group is in one of them.

    Attributes:
        uri: The file's.
        begin: The first byte.
        end: The one after the last.
        rows: About how many rows it has, by its share of the bytes.
    """

    uri: str
    begin: int
    end: int
    rows: int


@dataclass(frozen=True)
class Dealt:
    """What tasks read from files themselves.

    Attributes:
        spark: The session.
        tasks: How many tasks.
        read: What the task of a number reads.
    """

    spark: SparkSession
    tasks: int
    read: Callable[[int], Iterator[pa.RecordBatch]]


@dataclass(frozen=True)
class Mapped:
    """Rows that a mapper makes, when they are asked for, of a frame's or of what tasks read from files themselves.

    Attributes:
        source: The frame; or what each task reads.
        mapper: From record batches to record batches of `schema`.
        schema: Of the rows.
    """

    source: DataFrame | Dealt
    mapper: Mapper
    schema: pa.Schema

    @property
    def tasks(self) -> int | None:
        """How many tasks read files; None where Spark's reader decides."""
        return self.source.tasks if isinstance(self.source, Dealt) else None

    def frame(self) -> DataFrame:
        """Give the rows to Spark, to go on with.

        Evaluated twice, tasks read the same files: those of the snapshot that was the present one.
        """
        source, mapper = self.source, self.mapper
        if not isinstance(source, Dealt):
            return source.mapInArrow(mapper, schemas.spark(self.schema))
        spark, hands, read = source.spark, source.tasks, source.read

        def of_tasks(numbers: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
            for batch in numbers:
                for number in batch.column(0).to_pylist():
                    yield from mapper(read(number))

        return spark.range(0, hands, 1, hands).mapInArrow(of_tasks, schemas.spark(self.schema))

    def fetched(self) -> pa.Table:
        """Give the rows, few of them, to the driver: past SQL, whose planning takes half a second, where it can be."""
        source, mapper = self.source, self.mapper
        if not isinstance(source, Dealt):
            return self.frame().toArrow().cast(self.schema)
        hands, read, schema = source.tasks, source.read, self.schema

        def of_tasks(numbers: Iterable[int]) -> Iterator[bytes]:
            for number in numbers:
                for batch in mapper(read(number)):
                    yield batch.cast(schema).serialize().to_pybytes()

        found = source.spark.sparkContext.parallelize(range(hands), hands).mapPartitions(of_tasks).collect()
        return pa.Table.from_batches(
            [pa.ipc.read_record_batch(pa.py_buffer(batch), schema) for batch in found], schema
        )


def mapped(
    spark: SparkSession,
    table: str,
    columns: Sequence[str],
    wanted: Wanted,
    mapper: Mapper,
    schema: pa.Schema,
    cores: int,
    pieces: list[Piece] | None = None,
    batch_rows: int = _BATCH_ROWS,
) -> Mapped:
    """Apply a mapper to some columns of some rows, as ``mapInArrow`` would.

    Args:
        spark: A session with the catalog configured.
        table: ``catalog.database.table``.
        columns: What the mapper gets.
        wanted: Which rows.
        mapper: From record batches to record batches of `schema`.
        schema: Of the result.
        cores: Partitions, as a rule the tasks that run at once; more when they would be long, fewer when there are
            fewer pieces.
        pieces: Only of these (`pieces_of`, `changed`); None for the table's.
        batch_rows: How many rows the mapper gets at once, at most; of a table with delete files as the session says.
    """
    pieces = pieces_of(spark, table, wanted) if pieces is None else pieces
    if pieces is None:
        # Another writer deleted by marking rows (merge-on-read), which only Spark's reader knows to leave out.
        return Mapped(by_spark(spark, table, columns, wanted), mapper, schema)
    dealt = _dealt(pieces, _hands(pieces, cores))
    s3 = where_is_s3() if any(place(piece.uri).bucket for piece in pieces) else None

    def read(task: int) -> Iterator[pa.RecordBatch]:
        without_pandas()
        return _batches(dealt[task], columns, wanted, batch_rows, s3)

    return Mapped(Dealt(spark, len(dealt), read), mapper, schema)


def changed(spark: SparkSession, table: str, before: int, now: int) -> tuple[list[Piece], list[Piece]] | None:
    """Tell two snapshots apart by their files, which never change once they are written.

    Args:
        spark: A session with the catalog configured.
        table: ``catalog.database.table``.
        before: A snapshot that the table still has.
        now: A later one.

    Returns:
        The pieces of the files that only `now` has, and of those that only `before` has. A rewritten file is in
        both lists, with the rows that it carries over. None where a snapshot has delete files.
    """
    found = Table(spark, table)
    old, new = found.data_files(before), found.data_files(now)
    if old is None or new is None:
        return None
    kept = {file.uri for file in old} & {file.uri for file in new}
    added, removed = ([file for file in files if file.uri not in kept] for files in (new, old))
    return _cut(added), _cut(removed)


def batches(pieces: list[Piece], columns: Sequence[str], wanted: Wanted) -> Iterator[pa.RecordBatch]:
    """Read a few pieces here, on the driver."""
    s3 = where_is_s3() if any(place(piece.uri).bucket for piece in pieces) else None
    yield from _batches(pieces, columns, wanted, _BATCH_ROWS, s3)


def here(spark: SparkSession, table: str, columns: Sequence[str], wanted: Wanted) -> pa.Table:
    """Read some columns of few rows to the driver: straight from the files of their runs, where these are small.

    Args:
        spark: A session with the catalog configured.
        table: ``catalog.database.table``.
        columns: Which columns.
        wanted: Which rows.

    Returns:
        The rows in no order, with the types that the table has. Files of more than 64 MB in all Spark reads.
    """
    found = Table(spark, table)
    files = found.data_files(runs=wanted.get("run_id"))
    if files is None or sum(file.size_bytes for file in files) > _HERE_BYTES:
        return by_spark(spark, table, columns, wanted).toArrow()
    schema = _columns(found, columns)
    return pa.Table.from_batches(
        [batch.cast(schema) for batch in batches(_cut(files), columns, wanted)], schema
    )


def by_spark(spark: SparkSession, table: str, columns: Sequence[str], wanted: Wanted) -> DataFrame:
    """Give some columns of some rows as Spark reads them: see `here`."""
    found = spark.table(table)
    for name, values in wanted.items():
        if name == "run_id" or len(values) <= _LITERALS:
            found = found.where(F.col(name).isin(*values))  # by which files are chosen, and not by a join
        else:
            ids = spark.createDataFrame(pa.table({name: pa.array(values, pa.string())}))
            found = found.join(F.broadcast(ids), name, "left_semi")
    return found.select(*columns)


def whole(spark: SparkSession, table: str, columns: Sequence[str]) -> pa.Table:
    """Read some columns of a table of few rows here, on the driver, where planning a Spark job takes longer."""
    found = Table(spark, table)
    files = found.data_files()
    if files is None:
        return spark.table(table).select(*columns).toArrow()
    schema = _columns(found, columns)
    if not files:
        return schema.empty_table()
    s3 = where_is_s3() if any(place(file.uri).bucket for file in files) else None

    def read(file: DataFile) -> pa.Table:
        with open_arrow(file.uri, s3) as opened, pq.ParquetFile(opened) as parquet:
            return parquet.read(columns=list(columns), use_threads=False).select(list(columns)).cast(schema)

    with ThreadPoolExecutor(_READERS) as readers:
        return pa.concat_tables(readers.map(read, files))


def rows(spark: SparkSession, table: str, columns: Sequence[str]) -> list[dict[str, Any]]:
    """Give `whole` row by row."""
    found: list[dict[str, Any]] = whole(spark, table, columns).to_pylist()
    return found


def _columns(table: Table, columns: Sequence[str]) -> pa.Schema:
    schema = table.schema
    return pa.schema([schema.field(name) for name in columns])


def pieces_of(spark: SparkSession, table: str, wanted: Wanted) -> list[Piece] | None:
    """Cut the files of a table's present snapshot that may have some rows; None where it has delete files."""
    files = Table(spark, table).data_files(runs=wanted.get("run_id"))
    return None if files is None else _cut(files)


def _cut(files: list[DataFile]) -> list[Piece]:
    pieces = []
    for file in sorted(files, key=lambda file: file.uri):
        borders = [0, *file.row_groups[1:], file.size_bytes]
        pieces += [
            Piece(file.uri, begin, end, round(file.rows * (end - begin) / file.size_bytes))
            for begin, end in pairwise(borders)
        ]
    return pieces


def even(pieces: list[Piece], rows: int, parts: int) -> bool:
    """Tell whether `parts` partitions of these pieces are about as long as equal parts of the rows wanted of them."""
    longest = max(sum(piece.rows for piece in hand) for hand in _dealt(pieces, parts))
    return longest <= _EVEN * rows / parts


def _hands(pieces: list[Piece], cores: int) -> int:
    rows = sum(piece.rows for piece in pieces)
    return cores * max(1, -(-rows // (cores * _ROWS_EACH)))


def _dealt(pieces: list[Piece], hands: int) -> list[list[Piece]]:
    """Deal pieces out so that every hand has about the same number of rows."""
    dealt: list[list[Piece]] = [[] for _ in range(max(1, min(hands, len(pieces))))]
    held = [(0, hand) for hand in range(len(dealt))]
    for piece in sorted(pieces, key=lambda piece: -piece.rows):
        rows, hand = held[0]
        dealt[hand].append(piece)
        heapreplace(held, (rows + piece.rows, hand))
    return dealt


def _batches(
    pieces: list[Piece], columns: Sequence[str], wanted: Wanted, batch_rows: int, s3: S3Location | None
) -> Iterator[pa.RecordBatch]:
    allowed = {name: pa.array(values, pa.string()) for name, values in wanted.items()}
    for piece in pieces:
        with open_arrow(piece.uri, s3) as file, pq.ParquetFile(file) as parquet:
            own = [
                number
                for number in range(parquet.num_row_groups)
                if piece.begin <= parquet.metadata.row_group(number).column(0).data_page_offset < piece.end
            ]
            for batch in parquet.iter_batches(
                batch_rows, own, columns=[*columns, *wanted], use_threads=False
            ):
                for name, values in allowed.items():
                    has = pc.is_in(batch.column(name), values)
                    batch = batch if pc.all(has).as_py() else batch.filter(has)
                if batch.num_rows:
                    yield batch.select(list(columns))
