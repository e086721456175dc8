"""The driver aligns small tables and executors align large ones, with the same results."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import load_images
import pyarrow as pa
import pytest
from fruits.lake import align, tables
from fruits.lake.data_files import Tasks
from fruits.lake.iceberg import Table
from fruits.lake.tables import SparkRows

from tests.spark_jobs.conftest import Nights, record_mapped_column
from tests.spark_jobs.pictures import encoded, fruit, orchard

pytestmark = pytest.mark.spark

VOLATILE = ("loaded_at", "etag")  # the etag of a file is its time


def run_twice(nights: Nights) -> list[dict[str, Any]]:
    """Run twice: photos appear, change, break, are repaired and disappear; another model has features."""
    orchard(nights.photos, labels=2, each=4)
    for name in ("changes", "breaks", "goes"):
        (nights.photos / f"{name}.jpg").write_bytes(encoded(fruit(len(name))))
    for name in ("mended", "goes too"):
        (nights.photos / f"{name}.jpg").write_bytes(b"<html>")
    first = nights.night("--k", "3")
    goes = nights.table("images").where("source_key IN ('goes.jpg', 'changes.jpg')").select("image_id")
    of_another_model = nights.table("features").join(goes, "image_id", "left_semi").collect()
    others = {"model_id": "f" * 64, "content_sha256": "f" * 64, "run_id": "run-9"}
    rows = [row.asDict() | others for row in of_another_model]
    features = nights.table("features")
    nights.spark.createDataFrame(rows, features.schema).writeTo(f"{nights.database}.features").append()
    (nights.photos / "changes.jpg").write_bytes(encoded(fruit(99, (80, 60))))
    (nights.photos / "breaks.jpg").write_bytes(b"<html>broken</html>")
    (nights.photos / "mended.jpg").write_bytes(encoded(fruit(5)))
    (nights.photos / "goes.jpg").unlink()
    (nights.photos / "goes too.jpg").unlink()
    second = nights.night("--k", "3")
    assert second["featurize"]["features"]["computed"] == 2, "what changed and what was mended"
    return [
        {
            stage: {name: value for name, value in metrics.items() if name != "seconds"}
            for stage, metrics in stages.items()
        }
        for stages in (first, second)
    ]


def test_tables_too_large_for_the_driver_come_to_the_same(
    nights: Nights, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "twin").mkdir()
    large = Nights(nights.spark, f"{nights.database}_large", tmp_path / "twin", tmp_path / "twins", nights.model)
    on_driver = run_twice(nights)
    monkeypatch.setattr(align, "ROW_GROUP_ROWS", 0)
    assert isinstance(align.key_columns(nights.spark, f"{nights.database}.images"), SparkRows)
    on_executors = run_twice(large)

    for table in ("images", "rejects", "features", "pca"):
        assert nights.rows(table, *VOLATILE) == large.rows(table, *VOLATILE)
    for expected, actual in zip(on_driver, on_executors, strict=True):
        for stage in ("load_images", "featurize"):
            expected[stage].pop("bytes")
            actual[stage].pop("bytes")
            assert actual[stage] == expected[stage]


BATCH_ROWS = "spark.sql.execution.arrow.maxRecordsPerBatch"
LOCAL_RELATION = "spark.sql.execution.arrow.localRelationThreshold"


@pytest.fixture
def batch_rows(spark: Any) -> Iterator[Callable[[int], None]]:
    """Set the session's batches for the length of a test."""
    before = spark.conf.get(BATCH_ROWS)
    yield lambda rows: spark.conf.set(BATCH_ROWS, str(rows))
    spark.conf.set(BATCH_ROWS, before)


def classify(rows: pa.Table) -> tuple[pa.Table, align.Tally]:
    images = align.group_by_image(rows["image_id"], {name: rows[name] for name in ("etag", "run", "code")})
    return images, align.Tally({"keys": len(images)}, frozenset(images["run"].to_pylist()))


def classify_whole_shares(rows: pa.Table) -> tuple[pa.Table, align.Tally]:
    assert rows["image_id"].num_chunks == 1, "a batch of pictures' size is for pictures"
    return classify(rows)


SCHEMA = pa.schema([(name, pa.string()) for name in ("image_id", "etag", "run", "code")])


@pytest.mark.parametrize("share_rows", [1, 200_000])
def test_the_driver_classifies_its_own_rows_and_executors_the_rest(
    nights: Nights, monkeypatch: pytest.MonkeyPatch, batch_rows: Callable[[int], None], share_rows: int
) -> None:
    orchard(nights.photos, labels=1, each=5)
    nights.load()
    name, spark = f"{nights.database}.images", nights.spark
    on_driver = align.key_columns(spark, name, etag="etag", run="run_id")
    empty = align.key_columns(spark, f"{nights.database}.rejects", code="error_code")
    aligned, tally = align.align(spark, [on_driver, empty], classify, SCHEMA)
    expected = sorted((row["image_id"], row["etag"], row["run_id"], None) for row in nights.rows("images"))
    assert aligned.is_on_driver
    assert sorted(tuple(row.values()) for row in aligned.rows.to_pylist()) == expected
    assert tally == align.Tally({"keys": 5}, frozenset({expected[0][2]}))

    monkeypatch.setattr(align, "ROW_GROUP_ROWS", 2)
    monkeypatch.setattr(align, "_SHARE_ROWS", share_rows)
    by_spark = align.key_columns(spark, name, etag="etag", run="run_id")
    assert isinstance(by_spark, SparkRows)
    assert (by_spark.rows, by_spark.frame.columns) == (5, on_driver.column_names)
    batch_rows(1)
    on_executors, total = align.align(spark, [by_spark, empty], classify_whole_shares, SCHEMA)
    assert not on_executors.is_on_driver
    assert on_executors.rows.rdd.getNumPartitions() == max(spark.sparkContext.defaultParallelism, -(-5 // share_rows))
    assert spark.conf.get(BATCH_ROWS) == "1"
    nights.spark.sql(f"DELETE FROM {name}")
    assert sorted(map(tuple, on_executors.rows.collect())) == expected, "a later commit changes nothing"
    assert total == tally


@pytest.mark.parametrize("is_on_driver", [True, False])
def test_aligned_rows_are_selected_by_columns_and_flags(spark: Any, is_on_driver: bool) -> None:
    rows = pa.table(
        {
            "image_id": ["d", "b", "a", "c"],
            "label": ["Apple", None, "Fig", "Kiwi"],
            "present": [True, True, False, True],
            "missing": [True, False, True, True],
        }
    )
    aligned = align.AlignedRows(spark, rows if is_on_driver else spark.createDataFrame(rows).repartition(3))
    assert aligned.is_on_driver == is_on_driver
    frame = aligned.frame(["label", "image_id"], "present", "missing")
    assert sorted(map(tuple, frame.collect())) == [("Apple", "d"), ("Kiwi", "c")]
    assert frame.columns == ["label", "image_id"]
    to_join = aligned.to_join(["image_id"], "present")
    analyzed = str(to_join._jdf.queryExecution().analyzed())
    assert ("strategy=broadcast" in analyzed) == is_on_driver, "not what is large"
    assert sorted(row.image_id for row in aligned.collect(["image_id"], "missing")) == ["a", "c", "d"]
    first = aligned.collect(["image_id", "label"], "present", limit=2)
    assert [(row.image_id, row.label) for row in first] == [("b", None), ("c", "Kiwi")]
    labelled = aligned.map(lambda batches: batches, pa.schema([("label", pa.string())]), 2, ["label"], "present")
    assert (labelled.tasks == 2) == is_on_driver, "Spark's shuffle spreads what is large"
    assert sorted(labelled.fetch()["label"].to_pylist(), key=str) == ["Apple", "Kiwi", None]


def test_tasks_get_equal_shares_of_neighbours(spark: Any) -> None:
    rows = pa.table({"image_id": list("abcdefg"), "is_new": [True] * 7})
    mapped = align.AlignedRows(spark, rows).map(iter, pa.schema([("image_id", pa.string())]), 3, ["image_id"], "is_new")
    source = mapped.source
    assert isinstance(source, Tasks)
    shares = [["".join(batch["image_id"].to_pylist()) for batch in source.read(task)] for task in range(source.count)]
    assert shares == [["adg"], ["be"], ["cf"]]


@pytest.mark.parametrize(("task_bytes", "batches"), [(512 * 1024, 2), (1_000, 4)])
def test_many_rows_go_to_spark_in_few_batches_and_no_large_task(
    spark: Any, monkeypatch: pytest.MonkeyPatch, batch_rows: Callable[[int], None], task_bytes: int, batches: int
) -> None:
    rows = pa.concat_tables(pa.table({"image_id": [str(n)], "wanted": [True]}) for n in range(500))
    aligned = align.AlignedRows(spark, rows)
    batch_rows(64)
    before = spark.conf.get(LOCAL_RELATION)
    monkeypatch.setattr(align, "_LOCAL_RELATION_BYTES", "0")
    monkeypatch.setattr(align, "_TASK_BYTES", task_bytes)
    frame = aligned.to_join(["image_id"], "wanted")
    assert frame.rdd.getNumPartitions() == batches
    assert "LocalTableScan" not in plan_of(frame)
    large = spark.range(1_000).selectExpr("CAST(id AS STRING) AS image_id")
    joined = large.join(frame, "image_id", "left_semi")
    assert "BroadcastHashJoin" in plan_of(joined)
    assert sorted(row.image_id for row in joined.collect()) == sorted(rows["image_id"].to_pylist())
    assert (spark.conf.get(BATCH_ROWS), spark.conf.get(LOCAL_RELATION)) == ("64", before), "as they were"


def plan_of(frame: Any) -> str:
    return str(frame._jdf.queryExecution().executedPlan())


@pytest.mark.parametrize("table", ["images", "features"])
def test_the_files_of_a_run_are_found_without_opening_others(nights: Nights, table: str) -> None:
    tables.ensure(nights.spark, nights.database)
    name = f"{nights.database}.{table}"
    runs = [f"scheduled__2026-11-{day}T02:00:00+00:00" for day in (21, 22, 23)]
    for run in runs:
        row = {
            field.name: {"string": run, "int": 1, "binary": b"p", "array<float>": [1.0]}.get(
                field.dataType.simpleString(), datetime(2026, 11, 23, tzinfo=UTC)
            )
            for field in nights.spark.table(name).schema
        }
        nights.spark.createDataFrame([row], nights.spark.table(name).schema).writeTo(name).append()
    files = Table(nights.spark, name).data_files(runs=[runs[1], "another"])
    assert files is not None
    assert len(files) == 1


@pytest.mark.parametrize("driver_rows", [0, 50_000])
def test_nothing_is_loaded_twice_for_two_commits(
    nights: Nights, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, driver_rows: int
) -> None:
    monkeypatch.setattr(align, "ROW_GROUP_ROWS", driver_rows)
    orchard(nights.photos, labels=1, each=3)
    nights.load()
    seen = tmp_path / "seen"
    record_mapped_column(monkeypatch, load_images.loading, "load_mapper", "source_key", seen)
    (nights.photos / "one more.jpg").write_bytes(encoded(fruit(7)))
    (nights.photos / "broken.jpg").write_bytes(b"<html>")
    (nights.photos / "Label 0" / "r0_0_100.jpg").write_bytes(encoded(fruit(8)))
    nights.load()
    assert sorted(seen.read_text().splitlines()) == ["Label 0/r0_0_100.jpg", "broken.jpg", "one more.jpg"]
