"""Tables laid side by side by key, through their narrow columns: how a job finds out what there is to do.

The driver reads tables of few rows itself, as it does a listing of one row group (`fruits.listing`): executors would
be busy for two seconds each night with loading and compiling what reads Parquet.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial, reduce

from pyspark.sql import DataFrame, GroupedData, SparkSession
from pyspark.sql import functions as F  # noqa: N812 - Spark's own convention

from fruits import data_files, tables
from fruits.iceberg import Table
from fruits.listing import ROW_GROUP_ROWS


def side(spark: SparkSession, table: str, **columns: str) -> DataFrame:
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
        here = data_files.whole(spark, table, list(taken.values()))
        return spark.createDataFrame(here.rename_columns(list(taken)))
    reader = spark.read.option("snapshot-id", str(found.snapshot_id))
    return reader.table(table).select(*(F.col(name).alias(alias) for alias, name in taken.items()))


def held(sides: Sequence[DataFrame], laid: DataFrame) -> DataFrame:
    """Compute what `together` led to now, once, and hold it: on the driver where the driver has all sides."""
    return tables.fetched(laid) if _here(sides) else tables.computed(laid)


def _here(sides: Sequence[DataFrame]) -> bool:
    return all(side.isLocal() for side in sides)


def together(sides: Sequence[DataFrame]) -> GroupedData:
    """Group the rows of all sides by image_id; each has NULL in the columns of the others.

    Args:
        sides: Frames with image_id; no other column is in two of them.

    Returns:
        The groups: in one partition, without a shuffle, where the driver has all sides.
    """
    rows = reduce(partial(DataFrame.unionByName, allowMissingColumns=True), sides)
    if _here(sides):
        rows = rows.coalesce(1)
    return rows.groupBy("image_id")
