"""The database's tables are created once, and checking for them runs no statement."""

from __future__ import annotations

import hashlib
import uuid
from typing import Any, NoReturn

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fruits.base.batches import to_list_column
from fruits.base.objects import open_arrow
from fruits.base.schemas import TABLES
from fruits.lake import iceberg, tables
from fruits.lake.iceberg import Table

pytestmark = pytest.mark.spark


@pytest.fixture
def database(spark: Any) -> str:
    """A database with all tables."""
    name = f"lake.tables_{uuid.uuid4().hex[:8]}"
    assert iceberg.table_names(spark, name) is None
    tables.ensure(spark, name)
    return name


def test_all_tables_are_created(spark: Any, database: str) -> None:
    assert iceberg.table_names(spark, database) == set(TABLES)
    assert all(spark.table(f"{database}.{table}").isEmpty() for table in TABLES)


def test_a_writer_holds_few_rows_and_no_large_dictionary(spark: Any, database: str) -> None:
    number = 4_000
    digests = [hashlib.sha256(n.to_bytes(2)).hexdigest() for n in range(number)]
    rows = {
        "image_id": digests,
        "content_sha256": digests[::2] * 2,
        "pca": to_list_column(np.random.default_rng(1).random((number, 1_280), np.float32)),
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
        encodings = {first.column(at).path_in_schema: first.column(at).encodings for at in range(first.num_columns)}
        assert parquet.num_row_groups == 2, "20 MB, 16 MB each at most"
    assert "PLAIN_DICTIONARY" not in encodings["content_sha256"], "128 kB"
    assert "PLAIN_DICTIONARY" in encodings["run_id"]


def test_existing_tables_take_no_statement(spark: Any, database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def sql(*arguments: Any) -> NoReturn:
        raise AssertionError(f"a statement for an existing table: {arguments[1]}")

    monkeypatch.setattr(type(spark), "sql", sql)
    tables.ensure(spark, database)


def test_a_missing_table_is_created_and_the_others_stay(spark: Any, database: str) -> None:
    spark.sql(f"INSERT INTO {database}.rejects VALUES ('i', 'k', 'e', 'code', 'why', 'run')")
    spark.sql(f"DROP TABLE {database}.pca_sums")
    tables.ensure(spark, database)
    assert iceberg.table_names(spark, database) == set(TABLES)
    assert spark.table(f"{database}.rejects").count() == 1


def test_rows_of_a_lost_executor_are_computed_again(spark: Any) -> None:
    def persisted_rdds() -> set[str]:
        rdds = spark.sparkContext._jsc.sc().getPersistentRDDs()
        return set(rdds.keys().toList().mkString(" ").split())

    before = persisted_rdds()
    frame = tables.materialize(spark.range(7).toDF("id"))
    persisted = persisted_rdds() - before
    assert persisted
    for rdd in persisted:
        spark._jvm.org.apache.spark.SparkEnv.get().blockManager().removeRdd(int(rdd))
    assert sorted(row.id for row in frame.collect()) == list(range(7))
