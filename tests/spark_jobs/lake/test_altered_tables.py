"""Tables that a data engineer has altered: the next run writes as they require, and every reader finds all rows."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from fruits.base import schemas
from fruits.base.errors import TableError
from fruits.lake import tables, writing
from fruits.lake.iceberg import Table
from pyiceberg.expressions import EqualTo
from pyiceberg.table import StaticTable

from tests.spark_jobs.conftest import Nights, current_pca
from tests.spark_jobs.pictures import encoded, fruit, orchard

pytestmark = pytest.mark.spark

VOID = "void(model_id)"
TRANSFORMS = ("bucket(16, image_id)", "truncate(2, image_id)", "model_id", "run_id", VOID)
OF_TIME = ("years(loaded_at)", "months(loaded_at)", "days(loaded_at)", "hours(loaded_at)")


def partition(nights: Nights, name: str, transform: str) -> None:
    """Add a partition field; one that is void is what dropping a field of a table of format 1 leaves."""
    table = f"{nights.database}.{name}"
    if transform != VOID:
        nights.spark.sql(f"ALTER TABLE {table} ADD PARTITION FIELD {transform}")
        return
    java = Table(nights.spark, table).java
    metadata = java.operations().current()
    void = nights.spark._jvm.org.apache.iceberg.PartitionSpec.builderFor(java.schema())
    changed = metadata.updatePartitionSpec(void.alwaysNull("model_id").build())
    java.operations().commit(metadata, changed)


def by_pyiceberg(nights: Nights, name: str, column: str, value: str) -> int:
    """Count rows by a filter, as a reader without Spark does: it passes over files by their partitions."""
    java = Table(nights.spark, f"{nights.database}.{name}").java
    location = java.operations().current().metadataFileLocation().removeprefix("file:")
    return len(StaticTable.from_metadata(location).scan(row_filter=EqualTo(column, value)).to_arrow())


def assert_each_row_is_found(nights: Nights, name: str, rows: int) -> None:
    """Look for each row by its id and its run, and group by the columns that tables are partitioned by."""
    columns = [column for column in ("model_id", "run_id") if column in schemas.table_columns(name)]
    ids = nights.table(name).select("image_id", *columns).collect()
    assert len({row.image_id for row in ids}) == len(ids) == rows
    for row in ids:
        assert nights.table(name).where(f"image_id = '{row.image_id}'").count() == 1
        assert by_pyiceberg(nights, name, "image_id", row.image_id) == 1
    for column in columns:
        counted = {row[column]: row["count"] for row in nights.table(name).groupBy(column).count().collect()}
        assert sum(counted.values()) == rows
        for value, number in counted.items():
            assert nights.table(name).where(f"{column} = '{value}'").count() == number
            assert by_pyiceberg(nights, name, column, value) == number


def partitions(nights: Nights, name: str) -> set[Any]:
    """The partitions of the files that the current spec describes."""
    current = Table(nights.spark, f"{nights.database}.{name}").java.spec().specId()
    files = nights.spark.table(f"{nights.database}.{name}.files")
    return {tuple(row.partition) for row in files.where(f"spec_id = {current}").collect()}


@pytest.mark.parametrize("transform", TRANSFORMS)
def test_features_go_into_the_partitions_that_the_table_asks_for(nights: Nights, transform: str) -> None:
    orchard(nights.photos, labels=1, each=2)
    nights.load()
    nights.run("featurize")
    partition(nights, "features", transform)
    orchard(nights.photos, labels=1, each=5)
    nights.load()
    assert nights.run("featurize")["features"]["computed"] == 3
    assert_each_row_is_found(nights, "features", 5)
    written = partitions(nights, "features")
    assert written
    assert (None,) not in written or transform == VOID


@pytest.mark.parametrize("transform", ["bucket(4, image_id)", "truncate(8, source_key)", "label", *OF_TIME])
def test_images_go_into_the_partitions_that_the_table_asks_for(nights: Nights, transform: str) -> None:
    orchard(nights.photos, labels=1, each=2)
    nights.load()
    partition(nights, "images", transform)
    orchard(nights.photos, labels=2, each=2)
    (nights.photos / "Label 0" / "r0_0_100.jpg").unlink()
    nights.load()
    assert_each_row_is_found(nights, "images", 3)
    assert (None,) not in partitions(nights, "images")


def test_a_night_runs_over_tables_that_are_all_partitioned_sorted_or_in_another_format(nights: Nights) -> None:
    orchard(nights.photos, labels=2, each=3)
    nights.night("--k", "2")
    for name in ("images", "features", "pca"):
        partition(nights, name, "bucket(2, image_id)")
    for name in ("samples", "pca_sums"):
        partition(nights, name, "truncate(4, model_id)")
    for name in ("rejects", "pca_models"):
        nights.spark.sql(f"ALTER TABLE {nights.database}.{name} WRITE ORDERED BY run_id")
    orchard(nights.photos, labels=2, each=5)
    nights.night("--k", "2")
    for name in ("images", "features", "samples"):
        assert_each_row_is_found(nights, name, 10)
    assert current_pca(nights.spark, nights.database).count() == 10
    assert nights.table("pca_sums").where(f"model_id = '{nights.model['model_id']}' AND n = 10").count() == 1
    assert by_pyiceberg(nights, "pca_sums", "model_id", nights.model["model_id"]) == 1
    for name in schemas.TABLES:
        nights.spark.sql(f"ALTER TABLE {nights.database}.{name} SET TBLPROPERTIES ('write.format.default' = 'orc')")
    orchard(nights.photos, labels=3, each=5)
    (nights.photos / "Label 0" / "r0_0_100.jpg").unlink()
    nights.night("--k", "2")
    files = nights.spark.table(f"{nights.database}.features.files").collect()
    assert {row.file_format for row in files} == {"PARQUET", "ORC"}
    orchard(nights.photos, labels=4, each=5)
    nights.night("--k", "2")
    for name in ("images", "features", "samples"):
        assert_each_row_is_found(nights, name, 20)
    assert current_pca(nights.spark, nights.database).count() == 20


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ("WRITE ORDERED BY image_id", "sorted"),
        ("SET TBLPROPERTIES ('write.parquet.compression-codec' = 'gzip')", "compression-codec is gzip"),
        ("SET TBLPROPERTIES ('write.object-storage.enabled' = 'true')", "object-storage.enabled is true"),
        ("SET TBLPROPERTIES ('write.parquet.bloom-filter-enabled.column.image_id' = 'true')", "bloom-filter"),
    ],
)
def test_what_else_a_table_asks_for_is_left_to_sparks_writer(nights: Nights, change: str, reason: str) -> None:
    tables.ensure(nights.spark, nights.database)
    name = f"{nights.database}.features"
    assert {writing.needs_spark(Table(nights.spark, f"{nights.database}.{table}")) for table in schemas.TABLES} == {
        None
    }
    nights.spark.sql(f"ALTER TABLE {name} {change}")
    assert reason in (writing.needs_spark(Table(nights.spark, name)) or "")


def test_properties_that_steer_no_data_file_leave_the_writer_as_it_is(nights: Nights) -> None:
    tables.ensure(nights.spark, nights.database)
    name = f"{nights.database}.features"
    nights.spark.sql(
        f"ALTER TABLE {name} SET TBLPROPERTIES ('write.metadata.metrics.default' = 'full', 'owner.team' = 'data')"
    )
    nights.spark.sql(f"ALTER TABLE {name} UNSET TBLPROPERTIES ('write.parquet.dict-size-bytes')")
    assert writing.needs_spark(Table(nights.spark, name)) is None


def test_columns_that_someone_has_added_stay_null_in_new_rows_and_as_they_are_in_replaced_ones(nights: Nights) -> None:
    orchard(nights.photos, labels=2, each=2)
    nights.night("--k", "2")
    for name in schemas.TABLES:
        nights.spark.sql(
            f"ALTER TABLE {nights.database}.{name} "
            "ADD COLUMNS (note STRING, checked DATE AFTER run_id, price STRUCT<eur: DECIMAL(9, 2), by: STRING>)"
            if "run_id" in schemas.table_columns(name)
            else f"ALTER TABLE {nights.database}.{name} ADD COLUMN note STRING FIRST"
        )
    nights.spark.sql(f"UPDATE {nights.database}.images SET note = 'ripe' WHERE source_key LIKE 'Label 0/r0%'")
    (nights.photos / "Label 0" / "r0_0_100.jpg").write_bytes(encoded(fruit(99)))
    (nights.photos / "Label 0" / "page.jpg").write_bytes(b"<html>")
    (nights.photos / "Label 1" / "r1_1_100.jpg").unlink()
    for number in range(2):
        (nights.photos / "Label 1" / f"r0_{7 + number}_100.jpg").write_bytes(encoded(fruit(100 + number)))
        assert nights.night("--k", "2")["publish"]["published"]
    notes = {row.source_key: row.note for row in nights.table("images").collect()}
    assert notes.pop("Label 0/r0_0_100.jpg") == "ripe"
    assert list(notes.values()) == [None] * 4
    for name in schemas.TABLES.keys() - {"images", "classifiers", "predictions"}:  # too few photos for a classifier
        assert {row.note for row in nights.table(name).collect()} == {None}, name
    assert current_pca(nights.spark, nights.database).count() == 5


@pytest.mark.parametrize(
    ("table", "change", "refusal"),
    [
        ("images", "ALTER COLUMN width_px TYPE BIGINT", r"width_px is BIGINT and must be INT.*drop the table"),
        ("samples", "RENAME COLUMN thumbnail TO picture", "thumbnail is missing.*rename it back"),
        ("pca", "DROP COLUMN label", "label is missing.*drop the table"),
        ("pca_models", "required note", "note is NOT NULL.*ALTER COLUMN note DROP NOT NULL"),
        ("images", "required label", "label is NOT NULL.*ALTER COLUMN label DROP NOT NULL"),
    ],
)
def test_a_column_that_the_jobs_cannot_write_is_refused_before_they_begin(
    nights: Nights, table: str, change: str, refusal: str
) -> None:
    tables.ensure(nights.spark, nights.database)
    name = f"{nights.database}.{table}"
    if change.startswith("required"):
        column = change.split()[1]
        update = Table(nights.spark, name).java.updateSchema().allowIncompatibleChanges()
        string = nights.spark._jvm.org.apache.iceberg.types.Types.StringType.get()
        known = column in schemas.table_columns(table)
        (update.requireColumn(column) if known else update.addRequiredColumn(column, string)).commit()
    else:
        nights.spark.sql(f"ALTER TABLE {name} {change}")
    orchard(nights.photos, labels=1, each=1)
    with pytest.raises(TableError, match=rf"^{name}: column {refusal}"):
        nights.load()
    assert nights.commits("images") == 0


@pytest.fixture
def elsewhere(nights: Nights, tmp_path: Path) -> Nights:
    """A night's tables in a folder of their own: a second catalog, whose folder a test copies or moves."""
    orchard(nights.photos, labels=1, each=3)
    for catalog, folder in (("first", "out"), ("second", "other")):
        prefix = f"spark.sql.catalog.{catalog}{tmp_path.name}"
        nights.spark.conf.set(prefix, "org.apache.iceberg.spark.SparkCatalog")
        nights.spark.conf.set(f"{prefix}.type", "hadoop")
        nights.spark.conf.set(f"{prefix}.warehouse", str(tmp_path / folder))
    nights.database = f"first{tmp_path.name}.fruits"
    nights.night("--k", "2")
    nights.database = f"second{tmp_path.name}.fruits"
    return nights


def files_in(folder: Path) -> set[str]:
    return {str(path) for path in folder.rglob("*") if path.is_file()}


def test_a_night_on_a_copied_warehouse_is_refused_and_touches_neither(elsewhere: Nights, tmp_path: Path) -> None:
    shutil.copytree(tmp_path / "out", tmp_path / "other")
    before = files_in(tmp_path / "out") | files_in(tmp_path / "other")
    with pytest.raises(TableError, match=rf"was copied from {tmp_path}/out to {tmp_path}/other,"):
        elsewhere.load()
    assert files_in(tmp_path / "out") | files_in(tmp_path / "other") == before


def test_a_night_on_a_moved_warehouse_is_refused_until_a_link_leads_there(elsewhere: Nights, tmp_path: Path) -> None:
    (tmp_path / "out").rename(tmp_path / "other")
    with pytest.raises(TableError, match=rf"was moved from .*: ln -s {tmp_path}/other {tmp_path}/out;"):
        elsewhere.load()
    assert not (tmp_path / "out").exists()
    (tmp_path / "out").symlink_to(tmp_path / "other")
    (elsewhere.photos / "Label 0" / "r0_9_100.jpg").write_bytes(encoded(fruit(99)))
    elsewhere.night("--k", "2")
    assert elsewhere.table("images").count() == 4
