"""The database's tables are made once, and looking for them costs nothing."""

from __future__ import annotations

import hashlib
import uuid
from typing import Any, NoReturn

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fruits.base.batches import list_column
from fruits.base.objects import open_arrow
from fruits.base.schemas import TABLES
from fruits.lake import iceberg, tables
from fruits.lake.iceberg import Table

pytestmark = pytest.mark.spark


@pytest.fixture
def database(spark: Any) -> str:
    """A database with all tables."""
    name = f"lake.tables_{uuid.uuid4().hex[:8]}"
    assert iceberg.names(spark, name) is None
    tables.ensure(spark, name)
    return name


def test_all_tables_are_made(spark: Any, database: str) -> None:
    assert iceberg.names(spark, database) == set(TABLES)
    assert all(spark.table(f"{database}.{table}").isEmpty() for table in TABLES)


def test_a_writer_holds_few_rows_and_no_large_dictionary(spark: Any, database: str) -> None:
    number = 4_000
    digests = [hashlib.sha256(n.to_bytes(2)).hexdigest() for n in range(number)]
    rows = {
        "image_id": digests,
        "content_sha256": digests[::2] * 2,
        "pca": list_column(np.random.default_rng(1).random((number, 1_280), np.float32)),
        "run_id": ["run"] * number,
    }
    name = f"{database}.pca"
    schema = spark.table(name).schema
    others = {field: ["text"] * number for field in schema.names if field not in rows}
    frame = spark.createDataFrame(pa.table(rows | others)).select(*schema.names)
    frame.coalesce(1).writeTo(name).append()
    (file,) = Table(spark, name).data_files()
    with open_arrow(file.uri, None) as opened, pq.ParquetFile(opened) as parquet:
        first = parquet.metadata.row_group(0)
        encodings = {
            first.column(at).path_in_schema: first.column(at).encodings for at in range(first.num_columns)
        }
        assert parquet.num_row_groups == 2, "20 MB, 16 MB each at most"
    assert "PLAIN_DICTIONARY" not in encodings["content_sha256"], "128 kB"
    assert "PLAIN_DICTIONARY" in encodings["run_id"]


def test_tables_that_are_there_are_not_asked_for_one_by_one(
    spark: Any, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def sql(*arguments: Any) -> NoReturn:
        raise AssertionError(f"a statement for a table that is there: {arguments[1]}")

    monkeypatch.setattr(type(spark), "sql", sql)
    tables.ensure(spark, database)


def test_a_table_that_is_missing_is_made_and_the_others_stay(spark: Any, database: str) -> None:
    spark.sql(f"INSERT INTO {database}.rejects VALUES ('i', 'k', 'e', 'code', 'why', 'run')")
    spark.sql(f"DROP TABLE {database}.pca_sums")
    tables.ensure(spark, database)
    assert iceberg.names(spark, database) == set(TABLES)
    assert spark.table(f"{database}.rejects").count() == 1


def test_what_a_lost_executor_held_is_computed_again(spark: Any) -> None:
    def held_rdds() -> set[str]:
        found = spark.sparkContext._jsc.sc().getPersistentRDDs()
        return set(found.keys().toList().mkString(" ").split())

    before = held_rdds()
    frame = tables.computed(spark.range(7).toDF("id"))
    held = held_rdds() - before
    assert held
    for rdd in held:
        spark._jvm.org.apache.spark.SparkEnv.get().blockManager().removeRdd(int(rdd))
    assert sorted(row.id for row in frame.collect()) == list(range(7))
