"""reduce_pca and publish killed with SIGKILL around their commits, run again: the same tables as one clean run."""

from __future__ import annotations

import pytest
from fruits.lake.iceberg import Table
from fruits.publish import upkeep

from tests.spark_jobs.conftest import Nights
from tests.spark_jobs.pictures import encoded, fruit, orchard
from tests.spark_jobs.test_kills import Submitted

pytestmark = [pytest.mark.spark, pytest.mark.slow, pytest.mark.timeout(600)]

TABLES = ("features", "pca_sums", "pca", "pca_models", "samples")
SIZE = ("--k", "3", "--max-variance-loss")


def nights_before(nights: Nights, loss: str) -> None:
    """One night published, and the next one as far as its features: photos came, changed and went."""
    if not list(nights.photos.iterdir()):
        orchard(nights.photos, labels=2, each=8)
    nights.night(*SIZE, loss)


def next_night(nights: Nights) -> None:
    (nights.photos / "new.jpg").write_bytes(encoded(fruit(51)))
    (nights.photos / "Label 0" / "r0_0_100.jpg").write_bytes(encoded(fruit(52)))
    (nights.photos / "Label 1" / "r1_1_100.jpg").unlink(missing_ok=True)


def features_of(nights: Nights) -> None:
    nights.load()
    nights.run("featurize")


def kill_after_commit(nights: Nights, stage: str, table: str, folder, *arguments: str, commits: int = 1) -> None:
    """Kill the job as soon as the table has so many more versions."""
    kill_at_file(nights, stage, table, "metadata/v*.metadata.json", commits, folder, *arguments)


def kill_at_file(nights: Nights, stage: str, table: str, pattern: str, number: int, folder, *arguments: str) -> None:
    """Kill the job as soon as the table has so many more files of a kind."""
    job = Submitted(nights, stage, folder, *arguments)
    before = job.files(table, pattern)
    job.kill_at(lambda job: job.files(table, pattern) >= before + number)
    for name in TABLES:
        nights.spark.catalog.refreshTable(f"{nights.database}.{name}")


def left(nights: Nights) -> list[object]:
    """What a reader and the next night find."""
    current = max(nights.rows("pca_models"), key=lambda row: row["published_at"])
    return [
        [(row["n"], bytes(row["sums"])) for row in nights.rows("pca_sums")],
        current["pca_id"],
        [row for row in nights.rows("pca", "run_id", "features_run_id") if row["pca_id"] == current["pca_id"]],
        nights.rows("samples"),
    ]


def bases_of(nights: Nights, table: str) -> set[str]:
    return {row["pca_id"] for row in nights.rows(table)}


def scatter(nights: Nights) -> None:
    """Spread the features over so many files that compaction pays."""
    rows = nights.spark.createDataFrame(nights.table("features").toArrow())
    nights.spark.sql(f"TRUNCATE TABLE {nights.database}.features")
    rows.repartition(rows.count()).writeTo(f"{nights.database}.features").append()
    assert Table(nights.spark, f"{nights.database}.features").files > upkeep.SMALL_FILES


STAYS, NEW = "1", "0"


@pytest.mark.parametrize(
    ("stage", "table", "loss"),
    [
        pytest.param("reduce_pca", "features", NEW, id="the tag is made"),
        pytest.param("reduce_pca", "pca_sums", NEW, id="the sums are committed"),
        pytest.param("publish", "pca", STAYS, id="the rows of the basis that stays are committed"),
        pytest.param("publish", "pca", NEW, id="the rows of a new basis are committed"),
        pytest.param("publish", "samples", STAYS, id="the samples of the basis that stays are committed"),
        pytest.param("publish", "samples", NEW, id="the samples are committed, the new basis is not"),
        pytest.param("publish", "pca_models", NEW, id="a new basis is committed"),
    ],
)
def test_killed_after_each_commit_and_run_again(nights, tmp_path, stage, table, loss):
    clean = Nights(nights.spark, f"{nights.database}_clean", nights.photos, tmp_path / "clean", nights.model)
    for database in (nights, clean):
        nights_before(database, loss)
    next_night(nights)
    for database in (nights, clean):
        features_of(database)
    if stage == "publish":
        nights.run("reduce_pca", *SIZE, loss)
    kill_after_commit(nights, stage, table, tmp_path, *((*SIZE, loss) if stage == "reduce_pca" else ()))
    for database in (nights, clean):
        database.run("reduce_pca", *SIZE, loss)
        database.run("publish")
    assert left(nights) == left(clean)
    assert len(left(nights)[2]) == 16


@pytest.mark.parametrize(
    "pattern",
    [
        pytest.param("data/*.parquet", id="its file is being written"),
        pytest.param("metadata/v*.metadata.json", id="it is committed, the kept sums do not cover it yet"),
    ],
)
def test_killed_during_compaction_and_run_again(nights, tmp_path, pattern):
    clean = Nights(nights.spark, f"{nights.database}_clean", nights.photos, tmp_path / "clean", nights.model)
    orchard(nights.photos, labels=2, each=20)
    for database in (nights, clean):
        features_of(database)
    scatter(nights)
    nights.run("reduce_pca", *SIZE, STAYS)
    kill_at_file(nights, "publish", "features", pattern, 1, tmp_path)
    for database in (nights, clean):
        database.run("reduce_pca", *SIZE, STAYS)
        database.run("publish")
    assert left(nights) == left(clean)
    assert nights.rows("features") == clean.rows("features")
    assert Table(nights.spark, f"{nights.database}.features").files == 1


def test_killed_between_the_two_deletes_of_an_old_pca_model_and_run_again(nights, tmp_path):
    for _ in range(2):
        nights_before(nights, NEW)
        (nights.photos / f"{len(nights.runs)}.jpg").write_bytes(encoded(fruit(60 + len(nights.runs))))
    features_of(nights)
    nights.run("reduce_pca", *SIZE, NEW)
    kill_after_commit(nights, "publish", "pca_models", tmp_path, commits=2)
    listed = bases_of(nights, "pca_models")
    assert len(listed) == 2
    assert len(bases_of(nights, "pca")) == 3, "it was killed too late"
    nights.run("reduce_pca", *SIZE, NEW)
    nights.run("publish")
    assert bases_of(nights, "pca") == bases_of(nights, "pca_models") == listed
