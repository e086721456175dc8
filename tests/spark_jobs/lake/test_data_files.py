"""Columns read without Spark's reader equal those that Spark reads."""

from __future__ import annotations

import dataclasses
import hashlib
import uuid
from collections.abc import Iterable, Iterator
from typing import Any

import pyarrow as pa
import pytest
from fruits.lake import data_files, iceberg, tables
from fruits.lake.data_files import FileSlice, MappedRows, Selection
from fruits.lake.iceberg import Table
from pyspark.sql import functions

pytestmark = pytest.mark.spark

MODEL, OTHER = "a" * 64, "b" * 64
OF_MODEL = {"model_id": [MODEL]}


def image_id(number: int) -> str:
    return hashlib.sha256(str(number).encode()).hexdigest()


def features(spark: Any, ids: range, model_id: str) -> Any:
    rows = [(image_id(i), model_id, [float(i % 7), float(i)], "c" * 64, "night") for i in ids]
    return spark.createDataFrame(
        rows, "image_id string, model_id string, features array<float>, content_sha256 string, run_id string"
    )


@pytest.fixture
def table(spark: Any) -> str:
    """A table of 500 rows of one model and 40 of another, in three files of which one holds both models."""
    database = f"lake.files_{uuid.uuid4().hex[:8]}"
    tables.ensure(spark, database)
    name = f"{database}.features"
    features(spark, range(300), MODEL).coalesce(1).writeTo(name).append()
    features(spark, range(40), OTHER).coalesce(1).writeTo(name).append()
    both = features(spark, range(300, 500), MODEL).union(features(spark, range(40, 60), OTHER))
    both.coalesce(1).writeTo(name).append()
    return name


def check_batches(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        assert batch.schema.names == ["image_id", "features"]
        assert batch.num_rows
        yield batch


def read(spark: Any, table: str, cores: int = 2) -> MappedRows:
    columns = ["image_id", "features"]
    schema = pa.schema([Table(spark, table).schema.field(name) for name in columns])
    return Selection(spark, table, columns, OF_MODEL).map(check_batches, schema, cores)


def rows_read(spark: Any, table: str) -> list[tuple[Any, ...]]:
    """Read the rows in both ways, which must agree."""
    mapped = read(spark, table)
    fetched = mapped.fetch()
    assert fetched.schema == mapped.schema
    collected = rows(mapped.frame())
    assert sorted(tuple(row.values()) for row in fetched.to_pylist()) == collected
    return collected


def rows(frame: Any) -> list[tuple[Any, ...]]:
    return sorted(tuple(row) for row in frame.collect())


def by_spark(spark: Any, table: str) -> list[tuple[Any, ...]]:
    return rows(spark.table(table).where(f"model_id = '{MODEL}'").select("image_id", "features"))


def test_the_rows_of_one_model_are_those_that_spark_reads(spark: Any, table: str) -> None:
    assert rows_read(spark, table) == by_spark(spark, table)
    assert len(by_spark(spark, table)) == 500


def test_fetched_rows_have_the_declared_schema(spark: Any, table: str) -> None:
    """A batch travels without its schema: read as another type, its bytes would be other numbers."""

    def count(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        yield pa.record_batch({"rows": pa.array([sum(batch.num_rows for batch in batches)], pa.int64())})

    schema = pa.schema([pa.field("rows", pa.float64())])
    mapped = Selection(spark, table, ["image_id"], OF_MODEL).map(count, schema, 1)
    assert mapped.fetch().to_pydict() == {"rows": [500.0]}


def test_files_are_assigned_to_as_many_tasks_as_cores(spark: Any, table: str) -> None:
    for cores in (1, 2, 8):
        mapped = read(spark, table, cores)
        assert mapped.frame().rdd.getNumPartitions() == mapped.tasks == min(cores, 3)


def test_a_deleted_row_is_not_read(spark: Any, table: str) -> None:
    spark.sql(f"DELETE FROM {table} WHERE image_id = '{image_id(7)}'")
    assert rows_read(spark, table) == by_spark(spark, table)
    assert len(by_spark(spark, table)) == 499


@pytest.mark.parametrize("few_files", [200, 0])
def test_rows_marked_as_deleted_by_another_writer_are_not_read(
    spark: Any, table: str, few_files: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(iceberg, "_FEW_FILES", few_files)
    spark.sql(f"ALTER TABLE {table} SET TBLPROPERTIES ('write.delete.mode' = 'merge-on-read')")
    spark.sql(f"DELETE FROM {table} WHERE image_id = '{image_id(7)}'")
    assert spark.table(f"{table}.files").where("content <> 0").count()
    assert rows_read(spark, table) == by_spark(spark, table)
    assert len(by_spark(spark, table)) == 499
    remaining = data_files.read_dicts(spark, table, ["image_id", "model_id"])
    assert len(remaining) == Table(spark, table).rows == 558  # of both models
    assert {"image_id": image_id(7), "model_id": MODEL} not in remaining
    two = {"image_id": [image_id(7), image_id(8)]}
    assert Selection(spark, table, ["image_id"], OF_MODEL | two).read().to_pydict() == {"image_id": [image_id(8)]}

    # Rewriting the file leaves the other writer's marks behind, which mark nothing any more.
    spark.sql(f"ALTER TABLE {table} SET TBLPROPERTIES ('write.delete.mode' = 'copy-on-write')")
    spark.sql(f"DELETE FROM {table} WHERE image_id = '{image_id(8)}'")
    assert Table(spark, table).rows == spark.table(table).count() == 556


def test_a_small_table_read_on_the_driver_has_the_rows_that_spark_reads(spark: Any, table: str) -> None:
    read_rows = data_files.read_dicts(spark, table, ["image_id", "features", "model_id"])
    of_model = [(row["image_id"], row["features"]) for row in read_rows if row["model_id"] == MODEL]
    assert sorted(of_model) == by_spark(spark, table)
    assert len(read_rows) == 560


@pytest.mark.parametrize("driver_bytes", [64 * 1024 * 1024, 0])
@pytest.mark.parametrize("literals", [20, 0])
def test_few_rows_read_on_the_driver_are_the_selected_rows(
    spark: Any, table: str, driver_bytes: int, literals: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    later = features(spark, range(500, 510), MODEL).withColumn("run_id", functions.lit("later"))
    later.coalesce(1).writeTo(table).append()
    monkeypatch.setattr(data_files, "_DRIVER_BYTES", driver_bytes)
    monkeypatch.setattr(data_files, "_LITERALS", literals)
    opened: list[str] = []
    real = data_files.open_arrow
    monkeypatch.setattr(data_files, "open_arrow", lambda uri, s3: opened.append(uri) or real(uri, s3))
    where = {"run_id": ["later"], "image_id": [image_id(number) for number in (7, 501, 509, 510)]}
    selected = Selection(spark, table, ["features", "image_id"], OF_MODEL | where).read()
    assert selected.column_names == ["features", "image_id"]
    assert sorted(selected["features"].to_pylist()) == [[4.0, 501.0], [5.0, 509.0]]
    assert len(opened) == (1 if driver_bytes else 0), "only the file of that run"
    nothing = Selection(spark, table, ["image_id"], OF_MODEL | {"run_id": ["nobody's"]}).read()
    assert nothing.to_pydict() == {"image_id": []}


def test_files_listed_by_spark_are_those_that_the_driver_lists(
    spark: Any, table: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = Table(spark, table).snapshot_id
    spark.sql(f"DELETE FROM {table} WHERE image_id = '{image_id(7)}'")

    def list_files(snapshot_id: int | None = None, runs: list[str] | None = None) -> set[iceberg.DataFile]:
        files = Table(spark, table).data_files(snapshot_id, runs=runs)
        assert files is not None
        return set(files)

    few = [list_files(), list_files(before), list_files(runs=["night"])]
    assert [sum(file.rows for file in files) for files in few] == [558, 560, 558]
    assert len(few[0] & few[1]) == 1
    monkeypatch.setattr(iceberg, "_FEW_FILES", 0)
    assert [list_files(), list_files(before), list_files(runs=["night"])] == few
    assert list_files(runs=["nobody's"]) == set()


def test_a_file_of_many_row_groups_is_read_in_slices(spark: Any, table: str, monkeypatch: pytest.MonkeyPatch) -> None:
    spark.sql(f"DELETE FROM {table}")
    spark.sql(f"ALTER TABLE {table} SET TBLPROPERTIES ('write.parquet.row-group-size-bytes' = '1000000')")
    many = spark.range(0, 20_000, 1, 1).selectExpr(
        "sha2(string(id), 256) AS image_id",
        f"'{MODEL}' AS model_id",
        "transform(sequence(1, 64), x -> float(hash(id, x))) AS features",
        "'c' AS content_sha256",
        "'night' AS run_id",
    )
    many.writeTo(table).append()
    selection = Selection(spark, table, ["image_id"], OF_MODEL)
    slices = selection.slices()
    assert slices is not None
    assert len(slices) > len({file_slice.uri for file_slice in slices}) == 1
    assert all(list(selection.batches([file_slice])) for file_slice in slices)
    assert rows_read(spark, table) == by_spark(spark, table)

    # A writer that records only some of its row groups, or none: each is still in a single slice.
    (file,) = Table(spark, table).data_files() or []
    monkeypatch.setattr(iceberg, "_FEW_FILES", 0)
    assert [file] == Table(spark, table).data_files()
    for recorded in (file.row_groups[::2], ()):
        cut = data_files._slice([dataclasses.replace(file, row_groups=recorded)])
        assert len(cut) == max(1, len(recorded))
        assert sum(file_slice.rows for file_slice in cut) == pytest.approx(20_000, abs=len(cut))
        ids = pa.Table.from_batches(selection.batches(cut))
        assert sorted(ids["image_id"].to_pylist()) == [row[0] for row in by_spark(spark, table)]


def test_an_empty_table_gives_no_rows(spark: Any, table: str) -> None:
    spark.sql(f"DELETE FROM {table}")
    assert rows_read(spark, table) == []


def test_slices_are_assigned_evenly() -> None:
    slices = [FileSlice("f", number, number + 1, rows) for number, rows in enumerate((50, 10, 20, 20))]
    shares = data_files._assign(slices, 2)
    assert [sum(file_slice.rows for file_slice in share) for share in shares] == [50, 50]


@pytest.mark.parametrize(
    ("sizes", "rows", "parts", "balanced"),
    [
        ((50, 10, 20, 20), 100, 2, True),
        ((52, 48), 100, 2, True),
        ((53, 47), 100, 2, False),
        ((100,), 100, 2, False),
        ((50, 50), 60, 2, False),  # the selected rows could all be in one of them
    ],
)
def test_partitions_are_balanced_when_none_is_longer_than_its_share(
    sizes: tuple[int, ...], rows: int, parts: int, balanced: bool
) -> None:
    slices = [FileSlice("f", number, number + 1, size) for number, size in enumerate(sizes)]
    assert data_files.is_balanced(slices, rows, parts) is balanced
