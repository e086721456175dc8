from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from fruits.job import job_run
from fruits.lake import tables
from fruits.lake.iceberg import Table
from fruits.publish import upkeep
from fruits.publish.upkeep import TableStats

from tests.spark_jobs.conftest import Nights
from tests.spark_jobs.pca.test_gramian_store import add, begin, updated

MB = 1024 * 1024


@pytest.mark.parametrize(
    ("stats", "wants"),
    [
        (TableStats(1, 10 * MB, 1, 0), False),
        (TableStats(16, 10 * MB, 1, 0), False),
        (TableStats(17, 10 * MB, 1, 0), True),
        (TableStats(100, 100 * 128 * MB, 1, 0), False),
        (TableStats(150, 100 * 128 * MB, 1, 0), False),
        (TableStats(200, 100 * 128 * MB, 1, 0), True),
        (TableStats(2 * 256, 10 * MB, 1, 0, partitions=256), False),
        (TableStats(16 * 256, 10 * MB, 1, 0, partitions=256), False),
        (TableStats(17 * 256, 10 * MB, 1, 0, partitions=256), True),
    ],
)
def test_compaction_pays_when_it_takes_half_of_many_files_away(stats, wants):
    assert stats.wants_compaction is wants


@pytest.mark.parametrize(("snapshots", "days", "wants"), [(39, 30, False), (40, 6.9, False), (40, 7.1, True)])
def test_expiry_waits_until_many_snapshots_are_old(snapshots, days, wants):
    assert TableStats(1, 1, snapshots, days).wants_expiry is wants


@pytest.mark.spark
def test_a_usual_night_commits_nothing(nights: Nights) -> None:
    run = begin(nights)
    add(run, [1, 2])
    before = nights.commits("features")
    assert upkeep.maintain(run) == {}
    assert nights.commits("features") == before


@pytest.mark.spark
def test_a_few_files_in_each_partition_are_not_compacted(nights: Nights) -> None:
    run = begin(nights)
    features = f"{nights.database}.features"
    nights.spark.sql(f"ALTER TABLE {features} ADD PARTITION FIELD bucket(8, image_id)")
    for first in (0, 100, 200):
        add(run, list(range(first, first + 40)))
    stats = upkeep.read_stats(Table(nights.spark, features))
    assert (stats.files, stats.partitions) == (3 * 8, 8), "more files than an unpartitioned table may have"
    assert upkeep.maintain(run) == {}


@pytest.mark.spark
def test_many_small_files_become_one_and_the_rows_stay(nights: Nights) -> None:
    run = begin(nights)
    for i in range(18):
        add(run, [i])
    updated(run)
    rows = nights.rows("features")
    assert list(upkeep.maintain(run)["features"]) == ["compact"]
    assert Table(run.spark, f"{nights.database}.features").files == 1
    assert nights.rows("features") == rows
    assert updated(run).description == "nothing changed since the kept sums"


@pytest.mark.spark
def test_orphans_go_and_files_of_the_table_and_young_ones_stay(nights: Nights, spark) -> None:
    run = begin(nights)
    add(run, [1])
    (file,) = spark.table(f"{nights.database}.features.files").select("file_path").collect()
    orphan = Path(file.file_path.removeprefix("file:")).parent / "left-by-a-killed-job.parquet"
    orphan.write_bytes(b"x")
    assert upkeep.remove_orphans(run, "features", datetime.now(UTC) - timedelta(days=3)) == 0
    assert orphan.exists()
    assert upkeep.remove_orphans(run, "features", datetime.now(UTC) + timedelta(days=1)) == 1
    assert not orphan.exists()
    assert len(nights.rows("features")) == 1
    assert isinstance(run, job_run.Run)
    assert tables.METADATA_VERSIONS == "20"
