"""Spark reads the rows that the driver has overwritten, and all other rows stay."""

from __future__ import annotations

import uuid
from typing import Any

import pyarrow as pa
import pytest
from fruits.base import schemas
from fruits.lake import iceberg, overwrite, tables
from fruits.lake.iceberg import Table

pytestmark = pytest.mark.spark


@pytest.fixture
def database(spark: Any) -> str:
    name = f"lake.kept_{uuid.uuid4().hex[:8]}"
    tables.ensure(spark, name)
    return name


def sums(model_id: str, n: int) -> pa.Table:
    row = {"model_id": model_id, "n": n, "sums": b"\0\1", "features_snapshot": 2**62, "run_id": "night é"}
    return pa.Table.from_pylist([row], schemas.PCA_SUMS)


def test_the_rows_of_one_model_are_replaced_and_those_of_another_stay(spark: Any, database: str) -> None:
    table = f"{database}.pca_sums"
    by_spark = spark.createDataFrame(sums("a", 1)).coalesce(1)
    by_spark.writeTo(table).append()
    overwrite.replace(spark, table, sums("b", 2), {"model_id": "b"})
    overwrite.replace(spark, table, sums("a", 3), {"model_id": "a"})
    overwrite.replace(spark, table, sums("b", 4), {"model_id": "b"})
    stored = spark.table(table).orderBy("model_id").toArrow()
    assert stored.cast(schemas.PCA_SUMS) == pa.concat_tables([sums("a", 3), sums("b", 4)])
    assert spark.table(table).where("model_id = 'b' AND n = 4").count() == 1, "Spark leaves none out"
    assert Table(spark, table).files == Table(spark, table).rows == 2
    assert Table(spark, table).snapshots == 4


def test_a_file_with_other_rows_too_keeps_them(spark: Any, database: str) -> None:
    table = f"{database}.pca_sums"
    both = spark.createDataFrame(pa.concat_tables([sums("a", 1), sums("b", 2)])).coalesce(1)
    both.writeTo(table).append()
    overwrite.replace(spark, table, sums("a", 3), {"model_id": "a"})
    assert [(row.model_id, row.n) for row in spark.table(table).orderBy("model_id").collect()] == [("a", 3), ("b", 2)]
    assert Table(spark, table).snapshots == 2, "one commit"


def test_an_overwritten_file_records_its_row_groups(spark: Any, database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    table = f"{database}.pca_sums"
    overwrite.replace(spark, table, sums("a", 1), {"model_id": "a"})
    few = Table(spark, table).data_files()
    assert few is not None
    assert [(file.rows, file.row_groups) for file in few] == [(1, (4,))]
    monkeypatch.setattr(iceberg, "_FEW_FILES", 0)
    assert Table(spark, table).data_files() == few


def test_lists_pictures_and_nulls_are_read_as_written(spark: Any, database: str) -> None:
    table = f"{database}.samples"
    rows = pa.Table.from_pylist(
        [
            {
                "image_id": "1",
                "model_id": "m",
                "content_sha256": "c",
                "features_run_id": "r",
                "features": [0.5, -1.0],
                "thumbnail": b"p",
            },
            {
                "image_id": "2",
                "model_id": "m",
                "content_sha256": "c",
                "features_run_id": "r",
                "features": [],
                "thumbnail": None,
            },
        ],
        schemas.SAMPLES,
    )
    overwrite.replace(spark, table, rows, {})
    assert spark.table(table).orderBy("image_id").toArrow().to_pylist() == rows.to_pylist()
    overwrite.replace(spark, table, rows.slice(1).select(rows.column_names[::-1]), {})
    assert [row.image_id for row in spark.table(table).collect()] == ["2"]
    overwrite.replace(spark, table, rows.slice(2), {})
    assert spark.table(table).count() == Table(spark, table).files == 0
