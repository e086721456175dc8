"""reduce_pca and publish, which only mean something together."""

from __future__ import annotations

import io
import json

import numpy as np
import publish
import pyarrow.parquet as pq
import pytest
from fruits import job, pca, tables
from fruits.errors import (
    ConstantFeaturesError,
    FeaturesOutOfRangeError,
    InputError,
    QualityGateError,
    TooFewImagesError,
)
from PIL import Image
from pyspark.sql import functions as F  # noqa: N812 - Spark's own convention
from sklearn.decomposition import PCA

from tests.spark_jobs.conftest import Nights
from tests.spark_jobs.pictures import encoded, fruit, orchard

pytestmark = pytest.mark.spark


def made_up(nights: Nights, features: np.ndarray) -> None:
    """Write images and features without photos: only the keys and the vectors matter here."""
    tables.ensure(nights.spark, nights.database)
    nights.runs.append("run-1")
    ids = [f"image {i:04}" for i in range(len(features))]
    images = [
        (
            i,
            f"Label {n % 3}/r{n % 2}_{n}.jpg",
            "e",
            f"Label {n % 3}",
            10,
            10,
            encoded(fruit(n, (10, 10)), "WEBP"),
            f"c{n}",
        )
        for n, i in enumerate(ids)
    ]
    columns = ["image_id", "source_key", "etag", "label", "width_px", "height_px", "pixels", "content_sha256"]
    frame = nights.spark.createDataFrame(images, columns).withColumns(
        {"run_id": F.lit("run-1"), "loaded_at": F.current_timestamp()}
    )
    for name in ("width_px", "height_px"):
        frame = frame.withColumn(name, F.col(name).cast("int"))
    tables.merge(nights.spark, nights.database, "images", frame.localCheckpoint(), None)
    rows = [
        (i, nights.model["model_id"], row.tolist(), f"c{n}", "run-1")
        for n, (i, row) in enumerate(zip(ids, features, strict=True))
    ]
    schema = nights.table("features").schema
    tables.merge(nights.spark, nights.database, "features", nights.spark.createDataFrame(rows, schema), None)


def spread(n: int) -> np.ndarray:
    rng = np.random.default_rng(8)
    return np.abs(rng.standard_normal((n, 1280)) * np.linspace(1, 0.05, 1280)).clip(0, 6).astype(np.float32)


@pytest.fixture
def one_night(nights: Nights) -> Nights:
    """Photos of three labels, loaded, featurized, reduced and published."""
    orchard(nights.photos, labels=3, each=6)
    nights.metrics = nights.night("--variance", "0.9")
    return nights


def test_a_published_run_is_right_in_every_table_and_file(one_night):
    nights, metrics = one_night, one_night.metrics
    ids = {row["image_id"] for row in nights.rows("images")}
    features = np.array([row["features"] for row in nights.rows("features")])
    theirs = PCA(svd_solver="full").fit(features)
    summary = metrics["reduce_pca"]["pca"]
    kept = theirs.explained_variance_ratio_[: summary["k"]].sum()
    assert summary["explained_variance"] == pytest.approx(kept, abs=1e-6)
    assert summary["n"] == len(ids) == 18
    assert kept >= 0.9
    curve = metrics["reduce_pca"]["variance_curve"]
    np.testing.assert_allclose(curve, np.cumsum(theirs.explained_variance_ratio_)[:17], atol=1e-6)

    model = pca.load(str(nights.run_folder / "pca_model.npz"))
    (published,) = nights.rows("pca_models")
    assert (published["pca_id"], published["k"], published["n"]) == (model.pca_id, model.k, 18)
    np.testing.assert_array_equal(published["components"], model.components)
    np.testing.assert_array_equal(published["mean"], model.mean)

    by_id = {row["image_id"]: row for row in nights.rows("features")}
    rows = tables.current_pca(nights.spark, nights.database).collect()
    assert {row.image_id for row in rows} == ids
    for row in rows:
        projected = model.project(np.array([by_id[row.image_id]["features"]], np.float32))[0]
        np.testing.assert_allclose(row.pca, projected, atol=1e-5)
        assert row.label.startswith("Label ")

    export = pq.read_table(nights.run_folder / "pca.parquet")
    assert export.column_names == ["image_id", "label", "pca"]
    assert export.column("image_id").to_pylist() == sorted(ids)
    sample = pq.read_table(nights.run_folder / "sample.parquet")
    assert sample.column_names == ["image_id", "label", "pc1", "pc2", "thumbnail"]
    assert set(sample.column("image_id").to_pylist()) == ids
    assert max(Image.open(io.BytesIO(sample.column("thumbnail")[0].as_py())).size) <= 48

    stage = metrics["publish"]
    assert stage["published"] is True
    assert all(check["ok"] for check in stage["quality"]["checks"].values())
    assert 0 <= stage["quality"]["knn_accuracy_features"] <= 1
    assert stage["bytes"]["pca"] > 0


def test_a_rerun_publishes_once_and_changes_no_row(one_night):
    nights = one_night
    before = [nights.rows(table) for table in ("features", "pca", "pca_models")]
    commits = [nights.commits(table) for table in ("images", "features", "pca", "pca_models")]
    nights.night("--variance", "0.9")
    assert [nights.rows(table) for table in ("features", "pca", "pca_models")] == before
    assert [nights.commits(table) for table in ("images", "features", "pca", "pca_models")] == commits


def test_removed_images_leave_every_table_and_the_last_publication_is_current(one_night):
    nights = one_night
    first = tables.current_pca_id(nights.spark, nights.database)
    (nights.photos / "Label 0" / "r0_0_100.jpg").unlink()
    nights.night("--variance", "0.9")
    ids = {row["image_id"] for row in nights.rows("images")}
    assert len(ids) == 17
    for table in ("features", "pca"):
        assert {row["image_id"] for row in nights.rows(table)} == ids
    current = tables.current_pca(nights.spark, nights.database).collect()
    assert (
        {row.pca_id for row in current} == {tables.current_pca_id(nights.spark, nights.database)} != {first}
    )

    (nights.photos / "Label 0" / "r0_0_100.jpg").write_bytes(encoded(fruit(0)))
    nights.night("--variance", "0.9")
    assert tables.current_pca_id(nights.spark, nights.database) == first, "the first basis is right again"
    assert len(nights.rows("pca_models")) == 2
    assert tables.current_pca(nights.spark, nights.database).count() == 18


def test_a_failed_gate_publishes_nothing_and_keeps_what_was_current(one_night):
    nights = one_night
    before = [nights.rows(table) for table in ("pca", "pca_models")]
    for number in range(6):
        (nights.photos / f"broken {number}.jpg").write_bytes(b"<html>")
    (nights.photos / "new.jpg").write_bytes(encoded(fruit(500)))
    with pytest.raises(QualityGateError, match="reject_rate is 0.24, limit 0.2"):
        nights.night("--variance", "0.9")
    assert [nights.rows(table) for table in ("pca", "pca_models")] == before
    written = json.loads((nights.run_folder / "stages" / "publish.json").read_text())
    assert written["published"] is False
    assert [name for name, check in written["quality"]["checks"].items() if not check["ok"]] == [
        "reject_rate"
    ]
    assert not (nights.run_folder / "pca.parquet").exists()


def test_killed_before_the_last_commit_nothing_is_current_and_a_rerun_publishes(nights, monkeypatch):
    made_up(nights, spread(30))
    nights.run("reduce_pca", "--k", "4")
    with monkeypatch.context() as patch:
        patch.setattr(publish, "_publish", lambda run, fitted: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            nights.run("publish")
    assert tables.current_pca(nights.spark, nights.database).count() == 0
    nights.run("publish")
    assert tables.current_pca(nights.spark, nights.database).count() == 30
    assert len(nights.rows("pca")) == 30


def test_equal_totals_do_not_hide_rows_of_other_images(nights):
    """One image without features and one feature row without image: the counts alone are equal."""
    made_up(nights, spread(12))
    nights.run("reduce_pca", "--k", "2")
    swapped = F.when(F.col("image_id") == "image 0003", F.lit("stranger")).otherwise(F.col("image_id"))
    rows = nights.table("features").withColumn("image_id", swapped).localCheckpoint()
    nights.spark.sql(f"TRUNCATE TABLE {nights.database}.features")
    rows.writeTo(f"{nights.database}.features").append()
    with pytest.raises(QualityGateError) as failed:
        nights.run("publish")
    assert "images_without_features is 1" in str(failed.value)
    assert "features_without_image is 1" in str(failed.value)


def test_features_that_are_no_numbers_are_caught_before_and_after_the_fit(nights):
    made_up(nights, spread(10))
    nights.run("reduce_pca", "--k", "2")
    broken = spread(10)
    broken[4, 7] = np.nan
    nights.spark.sql(f"DROP TABLE {nights.database}.features")
    nights.spark.sql(f"DROP TABLE {nights.database}.images")
    made_up(nights, broken)
    with pytest.raises(QualityGateError, match="features_not_finite is 1"):
        nights.run("publish")
    with pytest.raises(Exception, match="feature is not a number") as failed:
        nights.run("reduce_pca", "--k", "2")
    assert isinstance(job.named(failed.value), FeaturesOutOfRangeError)


@pytest.mark.parametrize(
    ("features", "error"),
    [
        (spread(0), TooFewImagesError),
        (spread(1), TooFewImagesError),
        (np.ones((5, 1280), np.float32), ConstantFeaturesError),
    ],
    ids=["no image", "one image", "constant features"],
)
def test_what_has_no_components_is_a_named_error_and_leaves_no_model(nights, features, error):
    if len(features):
        made_up(nights, features)
    else:
        nights.runs.append("run-1")
    with pytest.raises(error):
        nights.run("reduce_pca", "--variance", "0.95")
    assert not (nights.run_folder / "pca_model.npz").exists()


def test_more_components_than_images_can_carry_are_stated_and_the_model_does_not_depend_on_partitions(nights):
    made_up(nights, spread(6))
    assert nights.run("reduce_pca", "--k", "64")["pca"]["k"] == 5
    first = (nights.run_folder / "pca_model.npz").read_bytes()
    rows = nights.table("features").orderBy(F.desc("image_id")).repartition(5).localCheckpoint()
    nights.spark.sql(f"TRUNCATE TABLE {nights.database}.features")
    rows.writeTo(f"{nights.database}.features").append()
    nights.run("reduce_pca", "--k", "64")
    assert (nights.run_folder / "pca_model.npz").read_bytes() == first


def test_many_partial_sums_are_merged_on_the_executors_first(nights, monkeypatch):
    made_up(nights, spread(12))
    nights.run("reduce_pca", "--k", "3")
    first = (nights.run_folder / "pca_model.npz").read_bytes()
    monkeypatch.setattr("reduce_pca._MAX_PARTS", 1)
    rows = nights.table("features").repartition(3).localCheckpoint()
    nights.spark.sql(f"TRUNCATE TABLE {nights.database}.features")
    rows.writeTo(f"{nights.database}.features").append()
    nights.run("reduce_pca", "--k", "3")
    assert (nights.run_folder / "pca_model.npz").read_bytes() == first


def test_a_pca_of_another_model_is_not_published(nights):
    made_up(nights, spread(5))
    nights.run("reduce_pca", "--k", "2")
    with pytest.raises(InputError, match="asked for was"):
        nights.run("publish", "--model-id", "other")
