"""Align the rows of several tables by image_id, through narrow columns, to find what a job has to do.

A `Classifier` is a function over Arrow that decides from all rows of some keys what to do with each key. When every
table has few rows, the driver reads and classifies them itself, because planning and compiling a Spark query takes a
second or two. Otherwise each executor classifies a share of the keys.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial, reduce
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import DataFrame, Row, SparkSession
from pyspark.sql import functions as F  # noqa: N812 - Spark's own convention
from pyspark.sql.types import StructType

from fruits.base import schemas
from fruits.base.batches import Mapper
from fruits.lake import data_files, tables
from fruits.lake.data_files import MappedRows, Tasks
from fruits.lake.iceberg import Table
from fruits.lake.input_listing import ROW_GROUP_ROWS
from fruits.lake.tables import SparkRows

Flags = npt.NDArray[np.bool_]
"""A bool for each row."""

KeyColumns: TypeAlias = pa.Table | SparkRows
"""Rows with image_id: in the driver's memory, or read by Spark."""

_SHARE_ROWS = 200_000  # about 50 MB in a Python worker
_BATCH_ROWS = 10_000
_ARROW_BATCH_ROWS = "spark.sql.execution.arrow.maxRecordsPerBatch"
_LOCAL_RELATION = "spark.sql.execution.arrow.localRelationThreshold"
# Rows up to this size become a LocalRelation: Spark knows their number and reads them without a job.
_LOCAL_RELATION_BYTES = "256k"
_TASK_BYTES = 512 * 1024  # Spark warns about tasks larger than 1000 KiB
_TALLY = "tally"


@dataclass(frozen=True)
class Tally:
    """Totals over keys, which can be added up."""

    counts: Mapping[str, int]
    runs: frozenset[str] = frozenset()  # that wrote the rows to work on

    def __add__(self, other: Tally) -> Tally:
        counts = {name: count + other.counts[name] for name, count in self.counts.items()}
        return Tally(counts, self.runs | other.runs)


Classifier = Callable[[pa.Table], tuple[pa.Table, Tally]]
"""A function from all rows of some keys, with NULL in the columns of other tables, to rows to work on and totals."""


@dataclass(frozen=True)
class AlignedRows:
    """The rows that a classifier returned, which later commits do not change."""

    spark: SparkSession
    rows: pa.Table | DataFrame  # in the driver's memory, or persisted on the executors' disks

    @property
    def is_on_driver(self) -> bool:
        """Whether the driver holds the rows."""
        return isinstance(self.rows, pa.Table)

    def frame(self, columns: Sequence[str], *flags: str) -> DataFrame:
        """Return some columns of the rows in which all the flags (columns of bool) are set."""
        if isinstance(self.rows, pa.Table):
            return from_arrow(self.spark, self._select(columns, flags))
        return self.rows.where(" AND ".join(flags)).select(*columns)

    def map(self, mapper: Mapper, schema: pa.Schema, tasks: int, columns: Sequence[str], *flags: str) -> MappedRows:
        """Apply a mapper to some columns of the rows in which all the flags are set, in equal tasks.

        Rows of the driver travel in a broadcast: Spark SQL and its shuffle take a second to plan.
        """
        if not isinstance(self.rows, pa.Table):
            return MappedRows(self.frame(columns, *flags).repartition(tasks), mapper, schema)
        rows = self._select(columns, flags).combine_chunks()
        # Neighbours in a listing are alike: each task gets every n-th row, so that large photos are spread.
        shares = self.spark.sparkContext.broadcast(
            [rows.take(pa.array(range(n, len(rows), tasks))) for n in range(tasks)]
        )
        return MappedRows(Tasks(self.spark, tasks, lambda n: shares.value[n].to_batches()), mapper, schema)

    def to_join(self, columns: Sequence[str], *flags: str) -> DataFrame:
        """Return `frame` for the right side of a join; broadcast rows of the driver, whose size Spark may not know."""
        frame = self.frame(columns, *flags)
        return F.broadcast(frame) if self.is_on_driver else frame

    def collect(self, columns: Sequence[str], *flags: str, limit: int | None = None) -> list[Row]:
        """Collect few rows in which all the flags are set: all of them, or the first by image_id."""
        if isinstance(self.rows, pa.Table):
            rows = self._select(columns, flags)
            rows = rows if limit is None else rows.sort_by("image_id").slice(0, limit)
            return [Row(**row) for row in rows.to_pylist()]
        frame = self.frame(columns, *flags)
        return (frame if limit is None else frame.orderBy("image_id").limit(limit)).collect()

    def _select(self, columns: Sequence[str], flags: Sequence[str]) -> pa.Table:
        is_selected = reduce(pc.and_, (self.rows[flag] for flag in flags))
        return self.rows.select(list(columns)).filter(is_selected)


def key_columns(spark: SparkSession, table: str, **columns: str) -> KeyColumns:
    """Read the image ids of a table and some narrow columns, which get the names of the arguments.

    Returns:
        All rows of the current snapshot, whatever is committed later; in the driver's memory when there are at most
        `input_listing.ROW_GROUP_ROWS`.
    """
    names = {"image_id": "image_id"} | columns
    current = Table(spark, table)
    if current.rows <= ROW_GROUP_ROWS:
        rows: pa.Table = data_files.read_table(spark, table, list(names.values()))
        return rows.rename_columns(list(names))
    reader = spark.read.option("snapshot-id", str(current.snapshot_id))
    frame = reader.table(table).select(*(F.col(name).alias(alias) for alias, name in names.items()))
    return SparkRows(frame, current.rows)


def align(
    spark: SparkSession, sides: Sequence[KeyColumns], classify: Classifier, schema: pa.Schema
) -> tuple[AlignedRows, Tally]:
    """Align the rows of all sides by image_id and classify each key once.

    The sides share no column but image_id, and a side that Spark reads is not empty. The classifier gets all rows of a
    key in the same call.

    Returns:
        The rows of `schema` that the classifier returns, and the totals over all keys.
    """
    on_driver = [side for side in sides if isinstance(side, pa.Table)]
    if len(on_driver) == len(sides):
        rows, tally = classify(pa.concat_tables(on_driver, promote_options="default"))
        return AlignedRows(spark, rows), tally
    frames = [side.frame if isinstance(side, SparkRows) else from_arrow(spark, side) for side in sides]
    united = reduce(partial(DataFrame.unionByName, allowMissingColumns=True), frames)
    row_count = sum(side.rows if isinstance(side, SparkRows) else len(side) for side in sides)
    shares = max(spark.sparkContext.defaultParallelism, -(-row_count // _SHARE_ROWS))
    fields = schema.append(pa.field(_TALLY, pa.string()))
    nullable = pa.schema([field.with_nullable(True) for field in fields])
    classified = united.repartition(shares, "image_id").mapInArrow(
        _share_mapper(classify, nullable), schemas.to_spark(nullable)
    )
    # The session's batches are sized for pixels; these rows are narrow.
    with _spark_settings(spark, {_ARROW_BATCH_ROWS: str(_BATCH_ROWS)}):
        frame = tables.materialize(classified)
    texts = frame.where(f"{_TALLY} IS NOT NULL").select(_TALLY).collect()
    tallies = [Tally(counts, frozenset(runs)) for counts, runs in (json.loads(row[0]) for row in texts)]
    return AlignedRows(spark, frame.where(f"{_TALLY} IS NULL").drop(_TALLY)), reduce(Tally.__add__, tallies)


def _share_mapper(classify: Classifier, schema: pa.Schema) -> Mapper:
    """Return a mapper that classifies a share of the keys and appends a row with its tally."""

    def map_share(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        share = list(batches)
        if share:
            rows, tally = classify(pa.Table.from_batches(share))
            yield from rows.append_column(_TALLY, pa.nulls(len(rows), pa.string())).cast(schema).to_batches()
            text = json.dumps([tally.counts, sorted(tally.runs)])
            yield pa.RecordBatch.from_pylist([{_TALLY: text}], schema)

    return map_share


def from_arrow(spark: SparkSession, rows: pa.Table, schema: StructType | None = None) -> DataFrame:
    """Convert rows of the driver to a frame.

    Many rows stay in Arrow, in a batch for each core or more: a LocalRelation holds each row several times in Java
    while a query runs.
    """
    batches = max(spark.sparkContext.defaultParallelism, -(-rows.nbytes // _TASK_BYTES))
    batch_rows = max(1, -(-len(rows) // batches))
    with _spark_settings(spark, {_ARROW_BATCH_ROWS: str(batch_rows), _LOCAL_RELATION: _LOCAL_RELATION_BYTES}):
        return spark.createDataFrame(rows.combine_chunks(), schema)


@contextmanager
def _spark_settings(spark: SparkSession, settings: Mapping[str, str]) -> Iterator[None]:
    """Change settings of the session while a frame is created or computed."""
    before = {name: str(spark.conf.get(name)) for name in settings}
    for name, value in settings.items():
        spark.conf.set(name, value)
    try:
        yield
    finally:
        for name, value in before.items():
            spark.conf.set(name, value)


def group_by_image(
    ids: pa.ChunkedArray, largest: Mapping[str, Any], summed: Mapping[str, Any] | None = None
) -> pa.Table:
    """Group columns by image_id, and return them with it, in no order.

    Of the columns in `largest` take each group's largest value that is not NULL; of those in `summed`, int64 without
    NULL, the sum.
    """
    summed = summed or {}
    columns = {"image_id": ids, **largest, **summed}
    aggregations = [(name, "max") for name in largest] + [(name, "sum") for name in summed]
    grouped = pa.table(columns).group_by("image_id").aggregate(aggregations)
    return grouped.rename_columns(["image_id", *largest, *summed])


def is_not_null(column: pa.ChunkedArray) -> Flags:
    """Return where a column is not NULL."""
    flags: Flags = column.is_valid().to_numpy()
    return flags


def equals(column: pa.ChunkedArray, other: Any) -> Flags:
    """Return where a column equals another column or a value; NULL equals nothing."""
    flags: Flags = pc.fill_null(pc.equal(column, other), False).to_numpy()
    return flags


def is_in(column: pa.ChunkedArray, values: Iterable[str]) -> Flags:
    """Return where a column has one of the values."""
    flags: Flags = pc.is_in(column, pa.array(values, pa.string())).to_numpy()
    return flags


def null_unless(flags: Flags, column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return a column with NULL where the flag is not set."""
    return pc.if_else(pa.array(flags), column, None)


def with_flags(rows: pa.Table, schema: pa.Schema, **flags: Flags) -> pa.Table:
    """Return the columns of a schema, each from the flags or from the rows."""
    columns = [pa.array(flags[name]) if name in flags else rows[name] for name in schema.names]
    return pa.table(columns, schema=schema)


def count_flags(**flags: Flags) -> dict[str, int]:
    """Count the flags that are set, by name."""
    return {name: int(np.count_nonzero(values)) for name, values in flags.items()}
