"""Spark and Iceberg read files that Arrow has written as if Spark had written them."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fruits.base import objects, schemas
from fruits.base.batches import Mapper
from fruits.base.objects import S3Location, parse_uri
from fruits.lake import tables, writing
from fruits.lake.data_files import Selection
from fruits.lake.iceberg import Table

pytestmark = pytest.mark.spark

CONSTANTS = {"model_id": "a" * 64, "run_id": "scheduled__2026-11-30T02:00:00+00:00"}


@pytest.fixture
def table(spark: Any) -> Table:
    database = f"lake.writing_{uuid.uuid4().hex[:8]}"
    tables.ensure(spark, database)
    return Table(spark, f"{database}.features")


def embeddings(ids: Iterable[int], rows: int = 64) -> Iterator[pa.RecordBatch]:
    """Yield batches as featurize makes them, including an empty batch."""
    ids = list(ids)
    yield pa.RecordBatch.from_pylist([], schemas.EMBEDDING)
    for start in range(0, len(ids), rows):
        yield pa.RecordBatch.from_pylist(
            [
                {"image_id": f"{number:04}", "content_sha256": f"c{number}", "features": [number / 4, -1.5]}
                for number in ids[start : start + rows]
            ],
            schemas.EMBEDDING,
        )


def write(table: Table, mapper: Mapper, batches: Iterable[pa.RecordBatch]) -> pa.Table:
    return pa.Table.from_batches(writing.file_writer(table, mapper, CONSTANTS)(batches), schemas.DATA_FILE)


def data_of(table: Table) -> list[Path]:
    folder = Path(parse_uri(table.java.locationProvider().newDataLocation("x")).key).parent
    return sorted(folder.glob("*")) if folder.is_dir() else []


def test_spark_reads_written_files_by_field_id(spark: Any, table: Table) -> None:
    for ids in (range(100), range(100, 130)):
        writing.append(spark, table, write(table, iter, embeddings(ids)))
    spark.sql(f"ALTER TABLE {table.name} RENAME COLUMN content_sha256 TO content")
    rows = spark.table(table.name).orderBy("image_id").collect()
    assert [(row.image_id, row.content, list(row.features)) for row in rows] == [
        (f"{number:04}", f"c{number}", [number / 4, -1.5]) for number in range(130)
    ]
    assert {(row.model_id, row.run_id) for row in rows} == {tuple(CONSTANTS.values())}
    assert (table_now := Table(spark, table.name)).rows == 130
    assert table_now.files == table_now.snapshots == 2


def test_iceberg_knows_the_runs_of_a_file_and_where_its_row_groups_begin(
    spark: Any, table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writing, "ROW_GROUP_BYTES", 1)
    writing.append(spark, table, write(table, iter, embeddings(range(100), rows=30)))
    now = Table(spark, table.name)
    (file,) = now.data_files(runs=[CONSTANTS["run_id"]]) or []
    assert now.data_files(runs=[CONSTANTS["run_id"][:-1]]) == [], "the bounds are whole"
    footer = pq.read_metadata(parse_uri(file.uri).key)
    assert (file.rows, file.size_bytes) == (100, Path(parse_uri(file.uri).key).stat().st_size)
    begins = [footer.row_group(number).column(0).data_page_offset for number in range(4)]
    assert file.row_groups == tuple(begins)
    ids = Selection(spark, table.name, ["image_id"])
    assert [sum(batch.num_rows for batch in ids.batches([file_slice])) for file_slice in ids.slices() or []] == [
        30,
        30,
        30,
        10,
    ]
    bounds = spark.table(f"{table.name}.files").select("readable_metrics.*").first()
    assert (bounds.image_id.lower_bound, bounds.image_id.upper_bound) == ("0000", "0099")
    columns = {
        column.path_in_schema: column
        for column in (footer.row_group(0).column(number) for number in range(footer.num_columns))
    }
    assert {column.compression for column in columns.values()} == {"ZSTD"}
    vectors = columns["features.list.element"]
    assert not vectors.is_stats_set
    assert [name for name in columns if columns[name].has_dictionary_page] == ["model_id", "run_id"]


def test_a_file_ends_at_its_size_and_the_next_one_begins(
    spark: Any, table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writing, "ROW_GROUP_BYTES", 1)
    monkeypatch.setattr(writing, "FILE_BYTES", 1)
    files = write(table, iter, embeddings(range(100), rows=30))
    assert files["rows"].to_pylist() == [30, 30, 30, 10]
    writing.append(spark, table, files)
    assert sorted(row.image_id for row in spark.table(table.name).collect()) == [
        f"{number:04}" for number in range(100)
    ]
    assert len(data_of(table)) == 4


def test_a_task_that_fails_leaves_nothing_and_nothing_to_write_makes_no_file_and_no_commit(
    spark: Any, table: Table
) -> None:
    def fails(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        yield from batches
        raise OSError("the disk is full")

    with pytest.raises(OSError, match="disk is full"):
        write(table, fails, embeddings(range(100)))
    assert data_of(table) == []
    nothing = write(table, iter, embeddings([]))
    writing.append(spark, table, nothing)
    assert (len(nothing), data_of(table), Table(spark, table.name).snapshots) == (0, [], 0)


def test_executors_get_the_location_of_s3(table: Table, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    location = S3Location("http://127.0.0.1:1", "eu-west-1")
    calls: list[tuple[str, S3Location | None]] = []

    @contextlib.contextmanager
    def record(uri: str, s3: S3Location | None) -> Iterator[BinaryIO]:
        calls.append((uri, s3))
        with objects.writer(str(tmp_path / "file.parquet"), None) as out:
            yield out

    class InS3:
        schema, java = table.schema, table.java
        folder = "s3://lake/tables/fruits/features/data/"

    monkeypatch.setattr(writing, "find_s3_for", lambda uri: location)
    monkeypatch.setattr(writing, "writer", record)
    monkeypatch.setattr(writing, "_data_folder", lambda table: table.folder)
    assert len(write(InS3, iter, embeddings(range(3)))) == 1  # type: ignore[arg-type]
    [(uri, s3)] = calls
    assert uri.startswith(InS3.folder)
    assert s3 == location


def test_upkeep_sees_the_file_of_a_killed_writer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Iceberg ignores names that begin with a dot or an underscore."""
    seen: list[str] = []
    monkeypatch.setattr(Path, "replace", lambda part, _: seen.append(part.name))
    objects.write_bytes(str(tmp_path / "file.parquet"), b"x")
    [name] = seen
    assert name != "file.parquet"
    assert not name.startswith((".", "_"))
