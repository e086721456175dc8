"""What there is to do is found by the driver in small tables and by executors in large ones: the same."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import load_images
import pyarrow as pa
import pytest
from fruits.lake import align, tables
from fruits.lake.iceberg import Table
from fruits.lake.tables import Large

from tests.spark_jobs.conftest import Nights, note_what_passes
from tests.spark_jobs.pictures import encoded, fruit, orchard

pytestmark = pytest.mark.spark

VOLATILE = ("loaded_at", "etag")  # the etag of a file is its time


def history(nights: Nights) -> list[dict[str, Any]]:
    """Two nights: photos come, change, break, are mended and go; another model has features, another basis rows."""
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
            stage: {name: told for name, told in metrics.items() if name != "seconds"}
            for stage, metrics in one.items()
        }
        for one in (first, second)
    ]


def test_tables_too_large_for_the_driver_come_to_the_same(
    nights: Nights, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "twin").mkdir()
    large = Nights(
        nights.spark, f"{nights.database}_large", tmp_path / "twin", tmp_path / "twins", nights.model
    )
    here = history(nights)
    monkeypatch.setattr(align, "ROW_GROUP_ROWS", 0)
    assert isinstance(align.side(nights.spark, f"{nights.database}.images"), Large)
    by_executors = history(large)

    for table in ("images", "rejects", "features", "pca"):
        assert nights.rows(table, *VOLATILE) == large.rows(table, *VOLATILE)
    for night, other in zip(here, by_executors, strict=True):
        for stage in ("load_images", "featurize"):
            night[stage].pop("bytes")
            other[stage].pop("bytes")
            assert night[stage] == other[stage]


BATCH_ROWS = "spark.sql.execution.arrow.maxRecordsPerBatch"
LOCAL_RELATION = "spark.sql.execution.arrow.localRelationThreshold"


@pytest.fixture
def batch_rows(spark: Any) -> Iterator[Callable[[int], None]]:
    """Set the session's batches for the length of a test."""
    before = spark.conf.get(BATCH_ROWS)
    yield lambda rows: spark.conf.set(BATCH_ROWS, str(rows))
    spark.conf.set(BATCH_ROWS, before)


def look(rows: pa.Table) -> tuple[pa.Table, align.Told]:
    row = align.by_key(rows["image_id"], {name: rows[name] for name in ("etag", "run", "code")})
    return row, align.Told({"keys": len(row)}, frozenset(row["run"].to_pylist()))


def look_at_whole_shares(rows: pa.Table) -> tuple[pa.Table, align.Told]:
    assert rows["image_id"].num_chunks == 1, "a batch of pictures' size is for pictures"
    return look(rows)


LOOKED = pa.schema([(name, pa.string()) for name in ("image_id", "etag", "run", "code")])


@pytest.mark.parametrize("share_rows", [1, 200_000])
def test_what_the_driver_has_it_looks_at_itself_and_the_rest_executors_do(
    nights: Nights, monkeypatch: pytest.MonkeyPatch, batch_rows: Callable[[int], None], share_rows: int
) -> None:
    orchard(nights.photos, labels=1, each=5)
    nights.load()
    name, spark = f"{nights.database}.images", nights.spark
    here = align.side(spark, name, etag="etag", run="run_id")
    empty = align.side(spark, f"{nights.database}.rejects", code="error_code")
    looked, told = align.together(spark, [here, empty], look, LOOKED)
    expected = sorted((row["image_id"], row["etag"], row["run_id"], None) for row in nights.rows("images"))
    assert looked.is_here
    assert sorted(tuple(row.values()) for row in looked.held.to_pylist()) == expected
    assert told == align.Told({"keys": 5}, frozenset({expected[0][2]}))

    monkeypatch.setattr(align, "ROW_GROUP_ROWS", 2)
    monkeypatch.setattr(align, "_SHARE_ROWS", share_rows)
    there = align.side(spark, name, etag="etag", run="run_id")
    assert isinstance(there, Large)
    assert (there.rows, there.frame.columns) == (5, here.column_names)
    batch_rows(1)
    by_executors, told_there = align.together(spark, [there, empty], look_at_whole_shares, LOOKED)
    assert not by_executors.is_here
    assert by_executors.held.rdd.getNumPartitions() == max(
        spark.sparkContext.defaultParallelism, -(-5 // share_rows)
    )
    assert spark.conf.get(BATCH_ROWS) == "1"
    nights.spark.sql(f"DELETE FROM {name}")
    assert sorted(map(tuple, by_executors.held.collect())) == expected, "held, whatever is committed later"
    assert told_there == told


@pytest.mark.parametrize("is_here", [True, False])
def test_a_query_gets_the_rows_and_columns_that_it_is_about(spark: Any, is_here: bool) -> None:
    rows = pa.table(
        {
            "image_id": ["d", "b", "a", "c"],
            "label": ["Apple", None, "Fig", "Kiwi"],
            "present": [True, True, False, True],
            "missing": [True, False, True, True],
        }
    )
    laid = align.Laid(spark, rows if is_here else spark.createDataFrame(rows).repartition(3))
    assert laid.is_here == is_here
    frame = laid.frame(["label", "image_id"], "present", "missing")
    assert sorted(map(tuple, frame.collect())) == [("Apple", "d"), ("Kiwi", "c")]
    assert frame.columns == ["label", "image_id"]
    to_join = laid.to_join(["image_id"], "present")
    analyzed = str(to_join._jdf.queryExecution().analyzed())
    assert ("strategy=broadcast" in analyzed) == is_here, "not what is large"
    assert sorted(laid.ids("missing")) == ["a", "c", "d"]
    first = laid.first(2, ["image_id", "label"], "present")
    assert [(row.image_id, row.label) for row in first] == [("b", None), ("c", "Kiwi")]


@pytest.mark.parametrize(("task_bytes", "batches"), [(512 * 1024, 2), (1_000, 4)])
def test_many_rows_go_to_spark_in_few_batches_that_make_no_large_tasks(
    spark: Any,
    monkeypatch: pytest.MonkeyPatch,
    batch_rows: Callable[[int], None],
    task_bytes: int,
    batches: int,
) -> None:
    rows = pa.concat_tables(pa.table({"image_id": [str(n)], "wanted": [True]}) for n in range(500))
    laid = align.Laid(spark, rows)
    batch_rows(64)
    before = spark.conf.get(LOCAL_RELATION)
    monkeypatch.setattr(align, "_LOCAL_RELATION_BYTES", "0")
    monkeypatch.setattr(align, "_TASK_BYTES", task_bytes)
    frame = laid.to_join(["image_id"], "wanted")
    assert frame.rdd.getNumPartitions() == batches
    assert "LocalTableScan" not in plan(frame)
    large = spark.range(1_000).selectExpr("CAST(id AS STRING) AS image_id")
    joined = large.join(frame, "image_id", "left_semi")
    assert "BroadcastHashJoin" in plan(joined)
    assert sorted(row.image_id for row in joined.collect()) == sorted(rows["image_id"].to_pylist())
    assert (spark.conf.get(BATCH_ROWS), spark.conf.get(LOCAL_RELATION)) == ("64", before), "as they were"


def plan(frame: Any) -> str:
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
    found = Table(nights.spark, name).data_files(runs=[runs[1], "another"])
    assert found is not None
    assert len(found) == 1


@pytest.mark.parametrize("rows_here", [0, 50_000])
def test_nothing_is_loaded_twice_for_two_commits(
    nights: Nights, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows_here: int
) -> None:
    monkeypatch.setattr(align, "ROW_GROUP_ROWS", rows_here)
    orchard(nights.photos, labels=1, each=3)
    nights.load()
    seen = tmp_path / "seen"
    note_what_passes(monkeypatch, load_images.loading, "loader", "source_key", seen)
    (nights.photos / "one more.jpg").write_bytes(encoded(fruit(7)))
    (nights.photos / "broken.jpg").write_bytes(b"<html>")
    (nights.photos / "Label 0" / "r0_0_100.jpg").write_bytes(encoded(fruit(8)))
    nights.load()
    assert sorted(seen.read_text().splitlines()) == [
        "Label 0/r0_0_100.jpg",
        "broken.jpg",
        "one more.jpg",
    ]
