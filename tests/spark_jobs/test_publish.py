"""reduce_pca and publish, which only mean something together."""

from __future__ import annotations

import io
import json
import os
import time
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import publish
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fruits.base.batches import to_list_column
from fruits.base.errors import (
    ConstantFeaturesError,
    FeaturesOutOfRangeError,
    InputError,
    QualityGateError,
    TooFewImagesError,
)
from fruits.lake import tables
from fruits.lake.iceberg import Table
from fruits.pca import principal_components, registry
from fruits.publish import export, samples, upkeep
from PIL import Image
from pyspark.sql import functions as F  # noqa: N812 - Spark's own convention
from sklearn.decomposition import PCA

from tests.models import WEIGHTS
from tests.spark_jobs.conftest import Nights, current_pca
from tests.spark_jobs.pictures import encoded, fruit, orchard

pytestmark = pytest.mark.spark


def write_features(nights: Nights, features: np.ndarray, first: int = 0) -> None:
    """Write images and features without photos: only the keys and the vectors matter here."""
    tables.ensure(nights.spark, nights.database)
    nights.runs = nights.runs or ["run-1"]
    numbers = range(first, first + len(features))
    common = {"image_id": [f"image {n:04}" for n in numbers], "content_sha256": [f"c{n}" for n in numbers]}
    images = common | {
        "source_key": [f"Label {n % 3}/r{n % 2}_{n}.jpg" for n in numbers],
        "label": [f"Label {n % 3}" for n in numbers],
        "pixels": [encoded(fruit(n, (10, 10)), "WEBP") for n in numbers],
    }
    constants = {"etag": "e", "width_px": 10, "height_px": 10, "run_id": "run-1", "loaded_at": datetime.now(UTC)}
    append(nights, "images", images, constants)
    vectors = common | {"features": to_list_column(features)}
    append(nights, "features", vectors, {"model_id": nights.model["model_id"], "run_id": "run-1"})


def append(nights: Nights, table: str, columns: dict[str, object], constants: dict[str, object]) -> None:
    frame = nights.spark.createDataFrame(pa.table(columns))
    frame = frame.withColumns({name: F.lit(value) for name, value in constants.items()})
    frame.select(*nights.table(table).columns).writeTo(f"{nights.database}.{table}").append()


def another_run(nights: Nights) -> None:
    nights.runs.append(f"run-{len(nights.runs) + 1}")


def tags(nights: Nights) -> dict[str, int]:
    """The snapshots of `features` that are held."""
    return Table(nights.spark, f"{nights.database}.features").tags


def forget(nights: Nights, image_id: str) -> None:
    """Remove an image as a complete load and featurize would."""
    for table in ("images", "features"):
        nights.spark.sql(f"DELETE FROM {nights.database}.{table} WHERE image_id = '{image_id}'")


def published(nights: Nights, *how_many: str) -> dict[str, object]:
    """Reduce and publish."""
    nights.run("reduce_pca", *(how_many or ("--k", "2")))
    return nights.run("publish")


def spread(n: int) -> np.ndarray:
    rng = np.random.default_rng(8)
    return np.abs(rng.standard_normal((n, 1280)) * np.linspace(1, 0.05, 1280)).clip(0, 6).astype(np.float32)


@pytest.fixture(scope="module")
def reduced(spark, model, tmp_path_factory) -> Nights:
    """One night as far as its basis, for tests of what is refused: what one of them publishes changes no other."""
    folder = tmp_path_factory.mktemp("reduced")
    nights = Nights(spark, "lake.reduced", folder / "photos", folder / "runs", model)
    write_features(nights, spread(120))
    nights.run("reduce_pca", "--k", "4")
    return nights


def test_a_whole_night_is_right_in_every_table_and_file_and_the_same_night_again_changes_none(nights):
    orchard(nights.photos, labels=3, each=6)
    metrics = nights.night("--variance", "0.9")
    ids = {row["image_id"] for row in nights.rows("images")}
    features = np.array([row["features"] for row in nights.rows("features")])
    theirs = PCA(svd_solver="full").fit(features)
    # Rounding to 2**-14 weighs more on features of random weights, which hardly vary.
    near = 1e-6 if WEIGHTS.is_file() else 1e-5
    summary = metrics["reduce_pca"]["pca"]
    kept = theirs.explained_variance_ratio_[: summary["k"]].sum()
    assert summary["explained_variance"] == pytest.approx(kept, abs=near)
    assert summary["n"] == len(ids) == 18
    assert kept >= 0.9
    curve = metrics["reduce_pca"]["variance_curve"]
    np.testing.assert_allclose(curve, np.cumsum(theirs.explained_variance_ratio_)[:17], atol=near)

    model = principal_components.load(str(nights.run_folder / "pca_model.npz"))
    (row_of_model,) = nights.rows("pca_models")
    assert (row_of_model["pca_id"], row_of_model["k"], row_of_model["n"]) == (model.pca_id, model.k, 18)
    np.testing.assert_array_equal(row_of_model["components"], model.components)
    np.testing.assert_array_equal(row_of_model["mean"], model.mean)

    by_id = {row["image_id"]: row for row in nights.rows("features")}
    rows = current_pca(nights.spark, nights.database).collect()
    assert {row.image_id for row in rows} == ids
    for row in rows:
        projected = model.project(np.array([by_id[row.image_id]["features"]], np.float32))[0]
        np.testing.assert_allclose(row.pca, projected, atol=1e-5)
        assert row.label.startswith("Label ")

    export = pq.read_table(nights.run_folder / "pca.parquet")
    assert export.column_names == ["image_id", "label", "pca", "run_id"]
    assert export.column("image_id").to_pylist() == sorted(ids)
    assert set(export.column("run_id").to_pylist()) == {nights.runs[-1]}
    about = json.loads(export.schema.metadata[b"fruits"])
    assert {name: about[name] for name in ("pca_id", "model_id", "k", "asked", "n")} == {
        name: row_of_model[name] for name in ("pca_id", "model_id", "k", "asked", "n")
    }
    assert (about["format_version"], about["run_id"], about["weights"]) == (1, nights.runs[-1], "random")
    assert set(about["units"]) == {"pca"}
    sample = pq.read_table(nights.run_folder / "sample.parquet")
    assert sample.column_names == ["image_id", "label", "pc1", "pc2", "thumbnail"]
    assert set(sample.column("image_id").to_pylist()) == ids
    assert max(Image.open(io.BytesIO(sample.column("thumbnail")[0].as_py())).size) <= 48

    stage = metrics["publish"]
    assert stage["published"] is True
    assert all(check["ok"] for check in stage["quality"]["checks"].values())
    assert 0 <= stage["quality"]["knn_accuracy_features"] <= 1
    assert stage["bytes"]["pca"] > 0

    before = [nights.rows(table) for table in ("images", "features", "pca", "pca_models")]
    commits = [nights.commits(table) for table in ("images", "rejects", "features", "pca", "pca_models")]
    assert nights.night("--variance", "0.9")["publish"]["published"] is True
    assert [nights.rows(table) for table in ("images", "features", "pca", "pca_models")] == before
    assert [nights.commits(table) for table in ("images", "rejects", "features", "pca", "pca_models")] == commits


def test_removed_images_leave_the_pca_and_the_pca_model_published_last_is_the_current_one(nights):
    values = spread(12)
    write_features(nights, values)
    published(nights, "--k", "2", "--max-variance-loss", "0")
    first = nights.current_pca_id()
    forget(nights, "image 0003")
    published(nights, "--k", "2", "--max-variance-loss", "0")
    assert {row["image_id"] for row in nights.rows("pca")} == {f"image {n:04}" for n in range(12) if n != 3}
    current = {row.pca_id for row in current_pca(nights.spark, nights.database).collect()}
    assert current == {nights.current_pca_id()} != {first}

    write_features(nights, values[3:4], first=3)
    published(nights, "--k", "2", "--max-variance-loss", "0")
    assert nights.current_pca_id() == first, "the first basis is right again"
    assert len(nights.rows("pca_models")) == 2
    assert current_pca(nights.spark, nights.database).count() == 12


def test_while_the_images_do_not_drift_the_pca_model_stays_and_only_new_rows_are_projected(nights):
    values = spread(60)
    write_features(nights, values[:58])
    published(nights, "--k", "5")
    first = {row["image_id"]: row for row in nights.rows("pca")}
    basis = nights.current_pca_id()
    another_run(nights)
    write_features(nights, values[58:], first=58)
    forget(nights, "image 0003")
    reduced = nights.run("reduce_pca", "--k", "5", "--max-variance-loss", "0.2")
    assert reduced["drift"]["new_basis"] is False
    assert 0 < reduced["drift"]["angle_degrees"] <= 90
    assert reduced["drift"]["fitted_on"] == 58
    assert reduced["pca"]["n"] == 59
    assert nights.run("publish")["published"] is True
    rows = {row["image_id"]: row for row in nights.rows("pca")}
    assert {row["pca_id"] for row in rows.values()} == {basis}
    assert set(rows) == set(first) - {"image 0003"} | {"image 0058", "image 0059"}
    assert all(rows[image_id] == row for image_id, row in first.items() if image_id in rows)
    assert len(nights.rows("pca_models")) == 1
    export = pq.read_table(nights.run_folder / "pca.parquet")
    assert export.column("image_id").to_pylist() == sorted(rows)


def test_features_computed_again_are_projected_again_onto_the_same_pca_model(nights):
    values = spread(40)
    write_features(nights, values)
    published(nights, "--k", "5")
    nights.spark.sql(f"DELETE FROM {nights.database}.features WHERE image_id = 'image 0007'")
    vectors = {"image_id": ["image 0007"], "content_sha256": ["c7"], "features": to_list_column(values[7:8] / 2)}
    append(nights, "features", vectors, {"model_id": nights.model["model_id"], "run_id": "run-2"})
    another_run(nights)
    published(nights, "--k", "5", "--max-variance-loss", "0.2")
    model = principal_components.load(str(nights.run_folder / "pca_model.npz"))
    (row,) = [row for row in nights.rows("pca") if row["image_id"] == "image 0007"]
    np.testing.assert_allclose(row["pca"], model.project(values[7:8] / 2)[0], atol=1e-5)
    assert len(nights.rows("pca")) == 40


def test_a_run_that_is_planned_anew_projects_and_shows_what_changed_since_it_published(nights):
    orchard(nights.photos, labels=2, each=8)
    nights.night("--k", "3")
    photo = nights.photos / "Label 0" / "r0_0_100.jpg"
    photo.write_bytes(encoded(fruit(99, (80, 60))))
    nights.runs.clear()  # all of its tasks are cleared: it lists anew, under its id
    nights.night("--k", "3", "--max-variance-loss", "1")
    (image,) = [row for row in nights.rows("images") if row["source_key"] == "Label 0/r0_0_100.jpg"]
    features, projected, sample = (
        next(row for row in nights.rows(table) if row["image_id"] == image["image_id"])
        for table in ("features", "pca", "samples")
    )
    assert {row["run_id"] for row in nights.rows("features")} == {"run-1"}, "it wrote both versions"
    assert len(nights.rows("pca_models")) == 1, "the basis stays"
    model = principal_components.load(str(nights.run_folder / "pca_model.npz"))
    vector = np.array([features["features"]], np.float32)
    np.testing.assert_allclose(projected["pca"], model.project(vector)[0], atol=1e-5)
    assert sample["features"] == features["features"]
    assert {row["content_sha256"] for row in (features, projected, sample)} == {image["content_sha256"]}
    shown = pq.read_table(nights.run_folder / "sample.parquet").to_pylist()
    (thumbnail,) = [row["thumbnail"] for row in shown if row["image_id"] == image["image_id"]]
    assert Image.open(io.BytesIO(thumbnail)).size == (48, 36)


def test_the_first_pca_model_is_new_and_so_is_that_of_another_model_each_for_its_own_reason(nights):
    write_features(nights, spread(20))
    assert nights.run("reduce_pca", "--k", "2")["drift"]["reason"] == "nothing is published yet"
    nights.run("publish")
    features = nights.table("features").withColumn("model_id", F.lit("other")).localCheckpoint()
    features.writeTo(f"{nights.database}.features").append()
    drift = nights.run("reduce_pca", "--k", "2", "--model-id", "other")["drift"]
    assert drift["reason"] == f"the model is another: other after {nights.model['model_id'][:12]}"
    assert (drift["new_basis"], drift["angle_degrees"]) == (True, None)


def test_the_same_pca_model_asked_for_in_other_words_stays_that_night_and_the_next(nights):
    values = spread(60)
    write_features(nights, values[:58])
    k = str(nights.run("reduce_pca", "--variance", "0.3")["pca"]["k"])
    nights.run("publish")
    basis, rows = nights.current_pca_id(), nights.rows("pca")
    another_run(nights)
    assert nights.run("reduce_pca", "--k", k)["drift"]["new_basis"] is False
    nights.run("publish")
    (model,) = nights.rows("pca_models")
    assert (model["pca_id"], model["asked"]) == (basis, f"k={k}")
    assert nights.rows("pca") == rows
    another_run(nights)
    write_features(nights, values[58:], first=58)
    assert nights.run("reduce_pca", "--k", k, "--max-variance-loss", "0.2")["drift"]["reason"] is None
    nights.run("publish")
    assert nights.current_pca_id() == basis
    assert len(nights.rows("pca")) == 60


def test_yesterdays_pca_model_is_kept_and_can_be_published_again_complete_and_older_ones_are_gone(nights):
    values = spread(60)
    ids = []
    for night, until in enumerate((40, 50, 55)):
        write_features(nights, values[(0, 40, 50)[night] : until], first=(0, 40, 50)[night])
        another_run(nights)
        published(nights, "--k", "4", "--max-variance-loss", "0")
        ids.append(nights.current_pca_id())
    assert len(set(ids)) == 3
    assert {row["pca_id"] for row in nights.rows("pca")} == set(ids[1:])
    assert {row["pca_id"] for row in nights.rows("pca_models")} == set(ids[1:])
    nights.run("publish", "--pca-id", ids[1])
    assert nights.current_pca_id() == ids[1]
    assert current_pca(nights.spark, nights.database).count() == 55, "it got the rows that it lacked"
    with pytest.raises(InputError, match="the current one and the one before it are kept"):
        nights.run("publish", "--pca-id", ids[0])


def test_killed_between_the_two_deletes_of_an_old_pca_model_a_rerun_drops_its_rows(nights, monkeypatch):
    write_features(nights, spread(20))
    published(nights)
    current = nights.current_pca_id()
    for days, name in ((1, "before"), (2, "old")):
        of_then = {
            "pca": {"pca_id": F.lit(name)},
            "pca_models": {
                "pca_id": F.lit(name),
                "published_at": F.col("published_at") - F.expr(f"INTERVAL {days} DAYS"),
            },
        }
        for table, columns in of_then.items():
            rows = nights.table(table).where(f"pca_id = '{current}'").withColumns(columns).localCheckpoint()
            rows.writeTo(f"{nights.database}.{table}").append()
    delete = tables.delete

    def killed_before_pca(spark, name, condition):
        if name.endswith(".pca"):
            raise KeyboardInterrupt
        delete(spark, name, condition)

    with monkeypatch.context() as patch:
        patch.setattr(registry.tables, "delete", killed_before_pca)
        with pytest.raises(KeyboardInterrupt):
            nights.run("publish")
    kept = {current, "before"}
    assert {row["pca_id"] for row in nights.rows("pca_models")} == kept, "none is listed without its rows"
    assert {row["pca_id"] for row in nights.rows("pca")} == {*kept, "old"}
    nights.run("publish")
    assert {row["pca_id"] for row in nights.rows("pca")} == kept
    assert {row["pca_id"] for row in nights.rows("pca_models")} == kept


def test_the_sums_of_a_former_model_go_with_its_last_pca_model_and_their_tag_with_them(nights, monkeypatch):
    write_features(nights, spread(20))
    published(nights)
    former, model_id = nights.model["model_id"], "b" * 64
    nights.model = nights.model | {"model_id": model_id}
    rows = nights.table("features").withColumn("model_id", F.lit(model_id)).localCheckpoint()
    rows.writeTo(f"{nights.database}.features").append()
    another_run(nights)
    published(nights)
    models = [row["model_id"] for row in nights.rows("pca_sums")]
    assert sorted(models) == sorted([former, model_id]), "both have a basis that can be published again"

    another_run(nights)
    nights.run("reduce_pca", "--k", "3")

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Table, "untag", killed)
        with pytest.raises(KeyboardInterrupt):
            nights.run("publish")
    assert [row["model_id"] for row in nights.rows("pca_sums")] == [model_id]
    assert len(tags(nights)) == 2
    nights.run("publish")
    (kept,) = nights.rows("pca_sums")
    assert list(tags(nights).values()) == [kept["features_snapshot"]]


def test_upkeep_that_pays_is_done_by_publish(nights, monkeypatch):
    for first, until in ((0, 18), (18, 20)):
        write_features(nights, spread(20)[first:until], first=first)
    nights.run("reduce_pca", "--k", "3")
    features = Table(nights.spark, f"{nights.database}.features")
    folder = Path(features.data_files()[0].uri.removeprefix("file:")).parent
    old, young = folder / "left-by-a-killed-job.parquet", folder / "of-another-writer.parquet"
    for path, days in ((old, upkeep.ORPHAN_DAYS + 1), (young, upkeep.ORPHAN_DAYS - 1)):
        path.write_bytes(b"x")
        os.utime(path, (time.time() - 86_400 * days,) * 2)
    for name, value in (("SMALL_FILES", 1), ("EXPIRE_FROM", 2), ("KEPT_DAYS", 0), ("KEPT_SNAPSHOTS", 1)):
        monkeypatch.setattr(upkeep, name, value)
    rows = nights.rows("features")

    done = nights.run("publish")["upkeep"]

    assert set(done["features"]) == {"compact", "expire", "orphans"}
    features = Table(nights.spark, f"{nights.database}.features")
    assert (features.files, features.snapshots) == (1, 1)
    assert list(features.tags.values()) == [features.snapshot_id], "the kept sums cover it"
    assert (old.exists(), young.exists()) == (False, True)
    assert nights.rows("features") == rows


def test_a_pca_model_whose_rows_were_deleted_becomes_current_only_complete(nights):
    write_features(nights, spread(20))
    published(nights, "--k", "3")
    basis = nights.current_pca_id()
    nights.spark.sql(f"DELETE FROM {nights.database}.pca WHERE image_id < 'image 0010'")
    nights.spark.sql(f"DELETE FROM {nights.database}.pca_models WHERE pca_id = '{basis}'")
    another_run(nights)
    published(nights, "--k", "3")
    assert nights.current_pca_id() == basis
    assert current_pca(nights.spark, nights.database).count() == 20


@pytest.mark.parametrize("few", [50, 0])
def test_a_second_night_reads_the_pixels_and_vectors_of_few_samples(nights, monkeypatch, few):
    monkeypatch.setattr(samples, "_FEW", few)
    write_features(nights, spread(30))
    published(nights)
    counts = []
    for name in ("_read_features", "_read_thumbnails"):
        real = getattr(samples, name)
        monkeypatch.setattr(samples, name, lambda *a, real=real: counts.append(len(a[-1])) or real(*a))
    another_run(nights)
    write_features(nights, spread(32)[30:], first=30)
    published(nights, "--k", "2", "--max-variance-loss", "0.5")
    assert counts == [2, 2]
    sample = pq.read_table(nights.run_folder / "sample.parquet").select(["image_id", "thumbnail"])
    pixels = nights.table("images").select("image_id", "pixels").toArrow()
    of_their_own = pa.Table.from_batches(export.thumbnails(pixels.to_batches()))
    assert sample.num_rows == 32
    assert sample.sort_by("image_id").to_pylist() == of_their_own.sort_by("image_id").to_pylist()


def test_bytes_of_the_pca_are_those_of_the_current_pca_model(nights):
    write_features(nights, spread(40))
    first = published(nights, "--k", "4")["bytes"]["pca"]
    another_run(nights)
    published(nights, "--k", "5")
    both = tables.size_bytes(nights.spark, nights.database, "pca")
    now = nights.run("publish")["bytes"]["pca"]
    assert 0.7 * first < now < 0.7 * both


def test_with_weights_that_know_something_neighbours_must_agree(reduced):
    with pytest.raises(QualityGateError, match=r"agreement_features is 0\.\d+, limit 0\.9"):
        reduced.run("publish", "--weights", "path", "--min-agreement", "0.9")
    assert reduced.run("publish", "--weights", "random", "--min-agreement", "0.9")["published"] is True


def test_a_pca_model_that_explains_too_little_is_not_published(reduced):
    with pytest.raises(QualityGateError, match=r"explained_variance is 0\.\d+, limit 0\.9"):
        reduced.run("publish", "--min-explained-variance", "0.9")


def test_metrics_of_another_model_than_the_saved_one_are_not_published(reduced, monkeypatch):
    monkeypatch.setattr(publish.stage_metrics, "read", lambda folder, stage: {"pca": {"pca_id": "another"}})
    with pytest.raises(InputError, match="are of PCA another, .*: run reduce_pca again"):
        reduced.run("publish")


def test_a_failed_gate_publishes_nothing_and_keeps_what_was_current(nights):
    write_features(nights, spread(12))
    published(nights)
    before = [nights.rows(table) for table in ("pca", "pca_models")]
    write_features(nights, spread(13)[12:], first=12)
    rejects = {"image_id": [f"x{n}" for n in range(4)], "source_key": [f"{n}.jpg" for n in range(4)]}
    append(nights, "rejects", rejects, {"etag": "e", "error_code": "empty", "detail": "d", "run_id": "run-2"})
    nights.runs.append("run-2")
    nights.run("reduce_pca", "--k", "2")
    with pytest.raises(QualityGateError, match=r"reject_rate is 0\.235294, limit 0\.2: nothing was published"):
        nights.run("publish")
    assert [nights.rows(table) for table in ("pca", "pca_models")] == before
    written = json.loads((nights.run_folder / "stages" / "publish.json").read_text())
    assert written["published"] is False
    assert [name for name, check in written["quality"]["checks"].items() if not check["ok"]] == ["reject_rate"]
    assert not (nights.run_folder / "pca.parquet").exists()


def test_killed_before_the_last_commit_nothing_is_current_and_a_rerun_publishes(nights, monkeypatch):
    write_features(nights, spread(30))
    nights.run("reduce_pca", "--k", "4")
    with monkeypatch.context() as patch:
        patch.setattr(publish, "_make_current", lambda run, fitted, known: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            nights.run("publish")
    assert current_pca(nights.spark, nights.database).count() == 0
    nights.run("publish")
    assert current_pca(nights.spark, nights.database).count() == 30
    assert len(nights.rows("pca")) == 30


def test_equal_totals_do_not_hide_rows_of_other_images(nights):
    """One image without features and one feature row without image: the counts alone are equal."""
    write_features(nights, spread(12))
    nights.run("reduce_pca", "--k", "2")
    swapped = F.when(F.col("image_id") == "image 0003", F.lit("stranger")).otherwise(F.col("image_id"))
    rows = nights.table("features").withColumn("image_id", swapped).localCheckpoint()
    nights.spark.sql(f"TRUNCATE TABLE {nights.database}.features")
    rows.writeTo(f"{nights.database}.features").append()
    with pytest.raises(QualityGateError) as failed:
        nights.run("publish")
    assert "images_without_features is 1" in str(failed.value)
    assert "features_without_image is 1" in str(failed.value)


def test_features_that_are_no_numbers_are_not_fitted(nights):
    broken = spread(5)
    broken[4, 7] = np.nan
    write_features(nights, broken)
    with pytest.raises(FeaturesOutOfRangeError, match="feature is not a number"):
        nights.run("reduce_pca", "--k", "2")


def failed_checks(nights: Nights, *arguments: str) -> dict[str, float]:
    """Publish what the gate refuses, and give what it found wrong."""
    with pytest.raises(QualityGateError):
        nights.run("publish", *arguments)
    written = json.loads((nights.run_folder / "stages" / "publish.json").read_text())
    checks = written["quality"]["checks"]
    return {name: check["value"] for name, check in checks.items() if not check["ok"]}


def test_what_is_wrong_in_features_that_came_after_the_fit_is_counted_row_by_row(nights, monkeypatch):
    """Zeros, one too large, one of another length, one that is no number; however many rows they come with."""
    write_features(nights, spread(12))
    published(nights)
    vectors = np.stack([np.zeros(1280), np.full(1280, 7), spread(1)[0], np.full(1280, np.nan)])
    write_features(nights, vectors.astype(np.float32), first=12)
    nights.spark.sql(f"DELETE FROM {nights.database}.features WHERE image_id = 'image 0014'")
    short = {"image_id": ["image 0014"], "content_sha256": ["c14"], "features": [[1.0] * 640]}
    append(nights, "features", short, {"model_id": nights.model["model_id"], "run_id": "run-1"})
    expected = {
        "features_not_finite": 1,
        "features_of_wrong_dims": 1,
        "features_without_pca": 2,
        "images_not_in_the_sums": 4,
        "smallest_norm": 0,
        "largest_norm": pytest.approx(7 * 1280**0.5),
    }
    assert failed_checks(nights) == expected, "few, on the driver"
    monkeypatch.setattr(publish, "_FEW", 0)
    assert failed_checks(nights) == expected, "many, of some runs"
    nights.spark.sql(f"TRUNCATE TABLE {nights.database}.pca")
    assert failed_checks(nights) == expected, "all that there are, from their files"


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
    nights.runs.append("run-1")
    if len(features):
        write_features(nights, features)
    with pytest.raises(error):
        nights.run("reduce_pca", "--variance", "0.95")
    assert not (nights.run_folder / "pca_model.npz").exists()


def test_more_components_than_images_can_carry_are_stated_and_the_model_does_not_depend_on_partitions(nights):
    write_features(nights, spread(6))
    assert nights.run("reduce_pca", "--k", "64")["pca"]["k"] == 5
    first = (nights.run_folder / "pca_model.npz").read_bytes()
    rows = nights.table("features").orderBy(F.desc("image_id")).repartition(5).localCheckpoint()
    nights.spark.sql(f"TRUNCATE TABLE {nights.database}.features")
    rows.writeTo(f"{nights.database}.features").append()
    nights.run("reduce_pca", "--k", "64")
    assert (nights.run_folder / "pca_model.npz").read_bytes() == first


def test_a_pca_of_another_model_is_not_published(reduced):
    with pytest.raises(InputError, match="--model-id is other"):
        reduced.run("publish", "--model-id", "other")


def clusters(numbers: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Features of three clear groups."""
    centres = np.zeros((3, 1280), np.float32)
    centres[np.arange(3), np.arange(3)] = 5
    return centres[numbers % 3] + 0.01 * rng.random((len(numbers), 1280), np.float32)


def publish_with_history(nights: Nights, new: np.ndarray) -> dict[str, float]:
    """Publish 300 good photos; then give what the gate refuses of a run that adds the `new` ones."""
    write_features(nights, clusters(np.arange(300), np.random.default_rng(1)))
    published(nights)
    another_run(nights)
    write_features(nights, new, first=300)
    nights.run("reduce_pca", "--k", "2", "--max-variance-loss", "1")
    return failed_checks(nights, "--weights", "path", "--min-explained-variance", "0.2")


def test_a_broken_upload_is_refused_however_long_the_history(nights):
    write_features(nights, spread(120))
    published(nights)
    another_run(nights)
    rejects = {"image_id": [f"x{n}" for n in range(5)], "source_key": [f"{n}.jpg" for n in range(5)]}
    append(nights, "rejects", rejects, {"etag": "e", "error_code": "empty", "detail": "d", "run_id": "run-2"})
    nights.run("reduce_pca", "--k", "2")
    assert failed_checks(nights) == {"reject_rate_of_run": 1.0}


def test_new_photos_with_wrong_labels_are_refused_among_many_with_right_ones(nights):
    wrong = clusters(np.arange(301, 401), np.random.default_rng(2))
    failed = publish_with_history(nights, wrong)
    assert list(failed) == ["agreement_of_new"]
    assert failed["agreement_of_new"] < 0.3, "only those of one wrong group agree with each other"


def test_new_photos_that_the_components_do_not_describe_are_refused_among_many_that_they_do(nights):
    rng = np.random.default_rng(2)
    strange = clusters(np.arange(300, 400), rng)
    strange[:, :3] = 5 / 3  # the mean of the three groups
    strange[:, 3:] += rng.random((100, 1277), np.float32) / 10
    failed = publish_with_history(nights, strange)
    assert failed["explained_variance_of_new"] < 0.1
    assert "explained_variance" not in failed
