"""Tables laid side by side by key, through their narrow columns: how a job finds out what there is to do.

What to make of the rows of some keys is one function over Arrow, a `Look`. Where all tables have few rows the driver
reads them, as it does a listing of one row group (`fruits.lake.input_listing`), and looks itself: Spark would be busy
for a
second or two each night with planning and compiling. Else executors look, each at a share of the keys.
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
from fruits.lake.iceberg import Table
from fruits.lake.input_listing import ROW_GROUP_ROWS
from fruits.lake.tables import Large

Flags = npt.NDArray[np.bool_]
"""One bool a row."""

Side: TypeAlias = pa.Table | Large
"""Rows with image_id: in the driver's memory, or Spark's to read."""

_SHARE_ROWS = 200_000  # 50 MB or so in a Python worker
_BATCH_ROWS = 10_000
_BATCH_ROWS_OF_SPARK = "spark.sql.execution.arrow.maxRecordsPerBatch"
_LOCAL_RELATION = "spark.sql.execution.arrow.localRelationThreshold"
# Up to it rows become a LocalRelation: Spark knows their number, and needs no job to have them.
_LOCAL_RELATION_BYTES = "256k"
_TASK_BYTES = 512 * 1024  # of tasks beyond 1000 KiB Spark warns
_TOLD = "told"


@dataclass(frozen=True)
class Told:
    """What adds up over keys.

    Attributes:
        counts: Numbers by name.
        runs: The runs whose rows there is something to do with.
    """

    counts: Mapping[str, int]
    runs: frozenset[str] = frozenset()

    def __add__(self, other: Told) -> Told:
        counts = {name: count + other.counts[name] for name, count in self.counts.items()}
        return Told(counts, self.runs | other.runs)

    def to_json(self) -> str:
        """Give it as text, which travels in a row."""
        return json.dumps({"counts": self.counts, "runs": sorted(self.runs)})

    @staticmethod
    def from_json(text: str) -> Told:
        """Read what `to_json` wrote."""
        said = json.loads(text)
        return Told(said["counts"], frozenset(said["runs"]))


Look = Callable[[pa.Table], tuple[pa.Table, Told]]
"""From all rows of some keys, each with NULL in the columns of other tables, to the rows that a job goes on with."""


@dataclass(frozen=True)
class Laid:
    """The rows that a look gave: in the driver's memory, or held on the executors' disks; no commit changes them.

    The driver has them in Arrow's few buffers, and a query gets of them what it is about (`from_arrow`).

    Attributes:
        spark: The session.
        held: The rows.
    """

    spark: SparkSession
    held: pa.Table | DataFrame

    @property
    def is_here(self) -> bool:
        """Whether the driver has the rows."""
        return isinstance(self.held, pa.Table)

    def frame(self, columns: Sequence[str], *flags: str) -> DataFrame:
        """Give some columns of the rows with all of some flags (columns of bool) set."""
        if isinstance(self.held, pa.Table):
            return from_arrow(self.spark, self._table(columns, flags))
        return self.held.where(" AND ".join(flags)).select(*columns)

    def to_join(self, columns: Sequence[str], *flags: str) -> DataFrame:
        """Give the same for a join's right side: what the driver has is broadcast, as Spark may not know its size."""
        found = self.frame(columns, *flags)
        return F.broadcast(found) if self.is_here else found

    def ids(self, *flags: str) -> list[str]:
        """Give the image ids of few rows, those with all of some flags set, to the driver."""
        return [row.image_id for row in self._rows(["image_id"], flags)]

    def first(self, number: int, columns: Sequence[str], *flags: str) -> list[Row]:
        """Give the first rows by image_id of those with all of some flags set, `number` at most, to the driver."""
        return self._rows(columns, flags, number)

    def _rows(self, columns: Sequence[str], flags: Sequence[str], first: int | None = None) -> list[Row]:
        if isinstance(self.held, pa.Table):
            found = self._table(columns, flags)
            found = found if first is None else found.sort_by("image_id").slice(0, first)
            return [Row(**row) for row in found.to_pylist()]
        frame = self.frame(columns, *flags)
        return (frame if first is None else frame.orderBy("image_id").limit(first)).collect()

    def _table(self, columns: Sequence[str], flags: Sequence[str]) -> pa.Table:
        chosen = reduce(pc.and_, (self.held[flag] for flag in flags))
        return self.held.select(list(columns)).filter(chosen)


def side(spark: SparkSession, table: str, **columns: str) -> Side:
    """Give the ids of a table's rows, and some narrow columns.

    Args:
        spark: A session with the catalog configured.
        table: ``catalog.database.table``, with a column ``image_id``.
        **columns: The table's columns, by the names that they get.

    Returns:
        All rows of the present snapshot, whatever is committed later: image_id and these columns; in the driver's
        memory where there are at most `listing.ROW_GROUP_ROWS`.
    """
    taken = {"image_id": "image_id"} | columns
    found = Table(spark, table)
    if found.rows <= ROW_GROUP_ROWS:
        rows: pa.Table = data_files.whole(spark, table, list(taken.values()))
        return rows.rename_columns(list(taken))
    reader = spark.read.option("snapshot-id", str(found.snapshot_id))
    narrow = reader.table(table).select(*(F.col(name).alias(alias) for alias, name in taken.items()))
    return Large(narrow, found.rows)


def together(spark: SparkSession, sides: Sequence[Side], look: Look, schema: pa.Schema) -> tuple[Laid, Told]:
    """Look at the rows of all sides, key by key, once.

    Args:
        spark: The session.
        sides: No column but image_id is in two of them; one that is large has rows.
        look: What to make of the rows of some keys; it is called with all rows of a key or none.
        schema: Of the rows that it gives.

    Returns:
        These rows, and what was told of all of them.
    """
    here = [side for side in sides if isinstance(side, pa.Table)]
    if len(here) == len(sides):
        rows, told = look(pa.concat_tables(here, promote_options="default"))
        return Laid(spark, rows), told
    frames = [side.frame if isinstance(side, Large) else from_arrow(spark, side) for side in sides]
    united = reduce(partial(DataFrame.unionByName, allowMissingColumns=True), frames)
    number = sum(side.rows if isinstance(side, Large) else len(side) for side in sides)
    shares = max(spark.sparkContext.defaultParallelism, -(-number // _SHARE_ROWS))
    with_told = schema.append(pa.field(_TOLD, pa.string()))
    nullable = pa.schema([field.with_nullable(True) for field in with_told])
    looked = united.repartition(shares, "image_id").mapInArrow(
        _share(look, nullable), schemas.spark(nullable)
    )
    # The session's batches are cut for pixels; these rows are narrow.
    with _settings(spark, {_BATCH_ROWS_OF_SPARK: str(_BATCH_ROWS)}):
        held = tables.computed(looked)
    of_shares = [Told.from_json(row[0]) for row in held.where(f"{_TOLD} IS NOT NULL").select(_TOLD).collect()]
    return Laid(spark, held.where(f"{_TOLD} IS NULL").drop(_TOLD)), reduce(Told.__add__, of_shares)


def from_arrow(spark: SparkSession, rows: pa.Table, schema: StructType | None = None) -> DataFrame:
    """Give Spark rows that the driver has.

    Many stay in Arrow, a batch for each core or more: a LocalRelation has each row several times over, in Java, while
    a query runs.

    Args:
        spark: The session.
        rows: The rows.
        schema: Of the frame; None for what Spark makes of theirs.
    """
    batches = max(spark.sparkContext.defaultParallelism, -(-rows.nbytes // _TASK_BYTES))
    each = max(1, -(-len(rows) // batches))
    with _settings(spark, {_BATCH_ROWS_OF_SPARK: str(each), _LOCAL_RELATION: _LOCAL_RELATION_BYTES}):
        return spark.createDataFrame(rows.combine_chunks(), schema)


@contextmanager
def _settings(spark: SparkSession, settings: Mapping[str, str]) -> Iterator[None]:
    """Set what Spark reads when a frame is made or computed, for a while."""
    before = {name: str(spark.conf.get(name)) for name in settings}
    for name, value in settings.items():
        spark.conf.set(name, value)
    try:
        yield
    finally:
        for name, value in before.items():
            spark.conf.set(name, value)


def _share(look: Look, schema: pa.Schema) -> Mapper:
    """Make the mapper that looks at one share of the keys; its last row tells what adds up."""

    def mapped(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        share = list(batches)
        if share:
            rows, told = look(pa.Table.from_batches(share))
            yield from rows.append_column(_TOLD, pa.nulls(len(rows), pa.string())).cast(schema).to_batches()
            yield pa.RecordBatch.from_pylist([{_TOLD: told.to_json()}], schema)

    return mapped


def by_key(
    ids: pa.ChunkedArray, largest: Mapping[str, Any], summed: Mapping[str, Any] | None = None
) -> pa.Table:
    """Group columns by image_id.

    Args:
        ids: image_id of each row.
        largest: Columns of which each group has the largest value, NULLs aside.
        summed: Columns of int64 without NULL, of which each group has the sum.

    Returns:
        image_id and these columns, in no order.
    """
    summed = summed or {}
    columns = {"image_id": ids, **largest, **summed}
    asked = [(name, "max") for name in largest] + [(name, "sum") for name in summed]
    grouped = pa.table(columns).group_by("image_id").aggregate(asked)
    return grouped.rename_columns(["image_id", *largest, *summed])


def given(column: pa.ChunkedArray) -> Flags:
    """Tell where a column is not NULL."""
    flags: Flags = column.is_valid().to_numpy()
    return flags


def same(column: pa.ChunkedArray, other: Any) -> Flags:
    """Tell where a column equals another one, or a value; NULL equals nothing."""
    flags: Flags = pc.fill_null(pc.equal(column, other), False).to_numpy()
    return flags


def among(column: pa.ChunkedArray, values: Iterable[str]) -> Flags:
    """Tell where a column has one of some values."""
    flags: Flags = pc.is_in(column, pa.array(values, pa.string())).to_numpy()
    return flags


def where(flags: Flags, column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Give a column with NULL where a flag is not set."""
    return pc.if_else(pa.array(flags), column, None)


def flagged(row: pa.Table, schema: pa.Schema, **flags: Flags) -> pa.Table:
    """Give a schema's columns of some rows: each is a flag, or the rows' own."""
    columns = [pa.array(flags[name]) if name in flags else row[name] for name in schema.names]
    return pa.table(columns, schema=schema)


def counts(**flags: Flags) -> dict[str, int]:
    """Count the flags that are set."""
    return {name: int(np.count_nonzero(of)) for name, of in flags.items()}
