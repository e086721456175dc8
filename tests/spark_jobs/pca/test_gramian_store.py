"""Sums kept between nights over a real Iceberg table: always those that would be taken anew."""

from __future__ import annotations

import random

import numpy as np
import pyarrow as pa
import pytest
from fruits.base import schemas
from fruits.base.batches import to_list_column
from fruits.job import job_run
from fruits.lake import data_files, overwrite, tables
from fruits.lake.iceberg import Table
from fruits.pca import gramian, gramian_store
from fruits.publish import upkeep

from tests.spark_jobs.conftest import Nights

pytestmark = pytest.mark.spark

MODEL, OTHER = "a" * 64, "b" * 64


def begin(nights: Nights) -> job_run.Run:
    tables.ensure(nights.spark, nights.database)
    nights.runs = ["run-1"]
    arguments = job_run.parser("reduce_pca", "").parse_args(
        ["--database", nights.database, "--run-id", "run-1", "--run-folder", str(nights.run_folder)]
    )
    return job_run.Run("reduce_pca", arguments, nights.spark)


def add(run: job_run.Run, ids: list[int], night: int = 1, model_id: str = MODEL) -> None:
    """Append features that depend on the image and the night."""
    vectors = np.stack([np.random.default_rng((i, night)).uniform(0, 6, 1280) for i in ids]).astype(np.float32)
    rows = pa.table(
        {
            "image_id": [f"{i:064x}" for i in ids],
            "model_id": [model_id] * len(ids),
            "features": to_list_column(vectors),
            "content_sha256": ["c"] * len(ids),
            "run_id": [f"night-{night}"] * len(ids),
        }
    )
    run.spark.createDataFrame(rows).coalesce(1).writeTo(f"{run.arguments.database}.features").append()


def remove(run: job_run.Run, ids: list[int]) -> None:
    listed = ", ".join(f"'{i:064x}'" for i in ids)
    run.spark.sql(f"DELETE FROM {run.arguments.database}.features WHERE image_id IN ({listed})")


def summed_again(run: job_run.Run, model_id: str = MODEL) -> bytes:
    """The sums of what the table has now, past everything that is tested here."""
    rows = run.spark.table(f"{run.arguments.database}.features").where(f"model_id = '{model_id}'").select("features")
    total = gramian.Gramian()
    for batch in rows.toArrow().to_batches():
        total.add(np.array(batch.column("features").to_pylist(), np.float32))
    return total.to_bytes()


def drop_tags(run: job_run.Run) -> None:
    for tag in tags(run):
        run.spark.sql(f"ALTER TABLE {run.arguments.database}.features DROP TAG `{tag}`")


def tags(run: job_run.Run) -> dict[str, int]:
    return Table(run.spark, f"{run.arguments.database}.features").tags


def up_to_date(run: job_run.Run, model_id: str = MODEL) -> gramian_store.ModelGramian:
    with gramian_store.refresh(run, model_id) as kept:
        return kept


def updated(run: job_run.Run, model_id: str = MODEL) -> gramian_store.ModelGramian:
    kept = up_to_date(run, model_id)
    assert kept.gramian is not None
    assert kept.gramian.to_bytes() == summed_again(run, model_id)
    return kept


def test_each_night_adds_what_came_and_subtracts_what_went(nights):
    run = begin(nights)
    assert up_to_date(run).gramian is None, "an empty table"
    add(run, list(range(40)))
    assert "no sums of this model are kept" in updated(run).description
    add(run, list(range(40, 50)), night=2)
    assert updated(run).description == "added 10 rows to the kept sums and subtracted 0"
    assert updated(run).description == "nothing changed since the kept sums"
    remove(run, [44])
    assert updated(run).description == "added 9 rows to the kept sums and subtracted 10", "a file is rewritten whole"
    add(run, [44], night=3)
    add(run, [60, 61], night=3, model_id=OTHER)
    assert updated(run).description == "added 1 rows to the kept sums and subtracted 0"
    assert updated(run, OTHER).gramian.count == 2
    assert len(tags(run)) == 2, "one tag a model"


def test_any_mix_of_nights_gives_the_sums_taken_anew(nights):
    run, rng = begin(nights), random.Random(7)
    add(run, list(range(60)))
    present, night = set(range(60)), 1
    for what in rng.sample(["add", "change", "remove", "compact", "rerun", "lost tag", "two"] * 2, 14):
        night += 1
        some = rng.sample(sorted(present), 3)
        if what in ("add", "two"):
            add(run, [100 * night, 100 * night + 1], night)
            present |= {100 * night, 100 * night + 1}
        if what in ("remove", "two"):
            remove(run, some)
            present -= set(some)
        if what == "change":
            remove(run, some)
            add(run, some, night)
        if what == "compact":
            upkeep.compact(run, "features")
        if what == "lost tag":
            drop_tags(run)
        assert updated(run).gramian.count == len(present), what


def test_compaction_changes_no_row_and_is_not_counted(nights, monkeypatch):
    run = begin(nights)
    for night in range(3):
        add(run, list(range(10 * night, 10 * night + 10)), night)
    updated(run)
    before = Table(run.spark, f"{nights.database}.features").snapshot_id
    upkeep.compact(run, "features")
    assert Table(run.spark, f"{nights.database}.features").files == 1
    assert Table(run.spark, f"{nights.database}.features").snapshot_id != before
    assert updated(run).description == "nothing changed since the kept sums"


def test_compaction_before_the_sums_are_brought_up_to_date_is_not_taken_for_theirs(nights):
    run = begin(nights)
    add(run, list(range(10)))
    updated(run)
    add(run, list(range(10, 14)), night=2)
    upkeep.compact(run, "features")
    updated(run)


@pytest.mark.parametrize("killed_at", [(Table, "tag"), (overwrite, "replace"), (Table, "untag")])
def test_killed_between_any_two_commits_and_run_again_nothing_is_counted_twice(nights, monkeypatch, killed_at):
    run = begin(nights)
    add(run, list(range(40)))
    updated(run)
    add(run, list(range(40, 45)), night=2)

    class Killed(BaseException):
        pass

    def dying(*arguments):
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(*killed_at, dying)
        with pytest.raises(Killed):
            up_to_date(run)
    assert updated(run).gramian.count == 45
    assert updated(run).description == "nothing changed since the kept sums"
    assert gramian_store.image_count(run, MODEL) == 45
    remove(run, [3])
    updated(run)
    assert len(tags(run)) == 1


def test_expiry_keeps_the_tagged_snapshot_and_a_broken_history_is_no_matter(nights):
    from datetime import UTC, datetime, timedelta

    run = begin(nights)
    add(run, list(range(40)))
    updated(run)
    add(run, list(range(40, 45)), night=2)
    remove(run, [41])
    upkeep.expire(run, "features", datetime.now(UTC) + timedelta(days=1), retain=1)
    assert updated(run).description == "added 4 rows to the kept sums and subtracted 0"


def test_sums_of_a_snapshot_that_expired_are_taken_anew(nights):
    from datetime import UTC, datetime, timedelta

    run = begin(nights)
    add(run, list(range(40)))
    updated(run)
    drop_tags(run)
    add(run, list(range(40, 45)), night=2)
    upkeep.expire(run, "features", datetime.now(UTC) + timedelta(days=1), retain=1)
    assert updated(run).description.startswith("summed all 45 images: the snapshot")


def test_many_changed_rows_are_summed_on_the_executors(nights, monkeypatch):
    run = begin(nights)
    add(run, list(range(40)))
    updated(run)
    add(run, list(range(40, 50)), night=2)
    monkeypatch.setattr(gramian_store, "_ON_DRIVER_ROWS", 0)
    assert updated(run).description == "added 10 rows to the kept sums and subtracted 0"


def test_all_rows_of_a_large_table_are_summed_on_the_executors(nights, monkeypatch):
    run = begin(nights)
    for night in range(3):
        add(run, [2 * night, 2 * night + 1], night)
    monkeypatch.setattr(gramian_store, "_ON_DRIVER_ROWS", 0)
    monkeypatch.setattr(gramian_store, "_MAX_PARTS", 1)  # and merged there before they reach the driver
    assert updated(run).description == "summed all 6 images: no sums of this model are kept"


def test_when_most_files_changed_all_rows_are_summed_since_that_is_less(nights):
    run = begin(nights)
    add(run, list(range(40)))
    updated(run)
    remove(run, [1])
    assert "summed all 39 images: 79 rows lie in files that changed" in updated(run).description


def test_rows_marked_as_deleted_by_another_writer_are_summed_anew(nights):
    run = begin(nights)
    add(run, list(range(40)))
    updated(run)
    run.spark.sql(f"ALTER TABLE {nights.database}.features SET TBLPROPERTIES ('write.delete.mode' = 'merge-on-read')")
    remove(run, [1])
    assert "marked rows as deleted" in updated(run).description


def test_a_model_without_features_any_more_is_forgotten(nights):
    run = begin(nights)
    add(run, [1, 2])
    updated(run)
    remove(run, [1, 2])
    assert up_to_date(run).gramian is None
    assert gramian_store.stored_models(run) == []
    assert tags(run) == {}


def test_the_pieces_that_changed_are_those_of_other_files(nights):
    run = begin(nights)
    add(run, [1])
    before = Table(run.spark, f"{nights.database}.features").snapshot_id
    add(run, [2], night=2)
    now = Table(run.spark, f"{nights.database}.features").snapshot_id
    added, removed = data_files.compare_snapshots(run.spark, f"{nights.database}.features", before, now)
    assert [piece.rows for piece in added] == [1]
    assert removed == []
    assert schemas.KEYS["pca_sums"] == ("model_id",)
