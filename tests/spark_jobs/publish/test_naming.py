"""Names for photos: fitted, published, followed and refused in whole nights over tables without pixels."""

from __future__ import annotations

import hashlib
import json
from argparse import Namespace
from datetime import UTC, datetime
from typing import Any

import erase_images
import numpy as np
import pyarrow as pa
import pytest
from fruits.base import keys
from fruits.base.batches import to_list_column
from fruits.base.errors import QualityGateError
from fruits.classifier import registry
from fruits.classifier.discriminant import Classifier
from fruits.job import job_run, stage_metrics
from fruits.lake import align, tables
from fruits.lake.iceberg import Table
from fruits.publish import naming, upkeep
from fruits.publish.naming import Target, refit_reason
from pyspark.sql import functions as F  # noqa: N812 - Spark's own convention

from tests.spark_jobs.conftest import Nights
from tests.spark_jobs.pictures import encoded, fruit

pytestmark = pytest.mark.spark

LABELS = ("Apple", "Cherry", "Kiwi", "Tomato")
AXES = np.random.default_rng(3).normal(0, 1, (8, 1280))
WEBP = encoded(fruit(1, (10, 10)), "WEBP")


def vector(label: str, key: str, spread: float = 0.4) -> np.ndarray:
    """Features near those of a label, the same for the same key."""
    centre, own = (
        np.random.default_rng(int(hashlib.sha256(text.encode()).hexdigest()[:8], 16)).normal(0, size, 8)
        for text, size in ((label, 1.0), (key, spread))
    )
    return (3 + (centre + own) @ AXES / 12).clip(0, 6).astype(np.float32)


def series(label: str, turns: range, each: int = 9) -> dict[str, str]:
    """Keys of labelled photos, and what is on each."""
    return {f"{label}/r{turn}_{number}.jpg": label for turn in turns for number in range(each)}


ORCHARD = {key: label for name in LABELS for key, label in series(name, range(6)).items()}
UPLOADS = {"phone1.jpg": "Kiwi", "phone2.jpg": "Apple", "phone3.jpg": "a chair"}


def bring(nights: Nights, photos: dict[str, str], run: str = "run-1", content: str = "") -> None:
    """Write images and features of photos as load_images and featurize would; `content` is that of all of them."""
    tables.ensure(nights.spark, nights.database)
    nights.runs.append(run)
    ids = [keys.image_id(key) for key in photos]
    contents = [hashlib.sha256((content or f"{key} {seen}").encode()).hexdigest() for key, seen in photos.items()]
    common = {"image_id": ids, "content_sha256": contents}
    images = common | {
        "source_key": list(photos),
        "label": pa.array([keys.label(key, "") for key in photos], pa.string()),
        "pixels": [WEBP] * len(photos),
    }
    constants = {"etag": "e", "width_px": 10, "height_px": 10, "run_id": run, "loaded_at": datetime.now(UTC)}
    append(nights, "images", images, constants)
    vectors = common | {"features": to_list_column(np.stack([vector(label, key) for key, label in photos.items()]))}
    append(nights, "features", vectors, {"model_id": nights.model["model_id"], "run_id": run})


def append(nights: Nights, table: str, columns: dict[str, Any], constants: dict[str, object]) -> None:
    frame = nights.spark.createDataFrame(pa.table(columns)).withColumns({k: F.lit(v) for k, v in constants.items()})
    frame.select(*nights.table(table).columns).writeTo(f"{nights.database}.{table}").append()


def remove(nights: Nights, *photos: str) -> None:
    for table in ("images", "features"):
        ids = ", ".join(f"'{keys.image_id(key)}'" for key in photos)
        nights.spark.sql(f"DELETE FROM {nights.database}.{table} WHERE image_id IN ({ids})")


def erase(nights: Nights, key: str) -> dict[str, int]:
    request, folder = nights.run_folder / "request.json", str(nights.folder / "erasure")
    request.write_text(json.dumps({"image_ids": [keys.image_id(key)], "content_sha256": []}))
    common = ["--database", nights.database, "--run-id", "erasure", "--run-folder", folder]
    arguments = erase_images.parser().parse_args([*common, "--erasure", str(request)])
    erase_images.erase_images(job_run.Run("erase_images", arguments, nights.spark))
    rows: dict[str, int] = stage_metrics.read(folder, "erase_images")["rows"]
    return rows


def night(nights: Nights, *options: str) -> dict[str, Any]:
    """Reduce and publish; return what the classifier came to."""
    nights.run("reduce_pca", "--k", "8", "--max-variance-loss", "1")
    metrics: dict[str, Any] = nights.run("publish", *options)["classifier"]
    return metrics


def names(nights: Nights) -> dict[str, Any]:
    """The rows of the current classifier by key."""
    key_of = {keys.image_id(key): key for key in (*ORCHARD, *UPLOADS, *(f"new{n}.jpg" for n in range(9)))}
    return {key_of.get(row["image_id"], row["image_id"]): row for row in nights.rows("predictions")}


def test_a_first_night_names_every_photo_and_does_not_name_a_chair(nights):
    bring(nights, ORCHARD | UPLOADS)
    metrics = night(nights)
    rows = names(nights)
    assert "failure" not in metrics
    writes = stage_metrics.read(str(nights.run_folder), "publish")["writes"]
    assert {"classifiers", "predictions"} <= writes.keys()
    assert rows.keys() == {*ORCHARD, *UPLOADS}
    assert [rows[key]["label"] for key in UPLOADS] == ["Kiwi", "Apple", None]
    assert np.mean([rows[key]["label"] == label for key, label in ORCHARD.items()]) > 0.9
    (published,) = nights.rows("classifiers")
    assert {row["classifier_id"] for row in rows.values()} == {published["classifier_id"]}
    assert (published["labels"], published["n"], published["pca_id"]) == (list(LABELS), 216, nights.current_pca_id())
    assert (metrics["reason"], metrics["is_new"], metrics["photos"]) == ("none is published yet", True, 216)
    assert (metrics["named"], metrics["unlabelled"], metrics["unlabelled_known"]) == (219, 3, 2)
    assert metrics["top1"]["share"] == published["top1"] > 0.9
    assert metrics["judged"] + metrics["learned"] + metrics["near_equal"] == 216
    assert {image_id: name for image_id, name, _ in metrics["examples"]} == {
        keys.image_id("phone1.jpg"): "Kiwi",
        keys.image_id("phone2.jpg"): "Apple",
        keys.image_id("phone3.jpg"): None,
    }
    json.dumps(json.loads(published["evaluation"]), allow_nan=False)


def test_a_classifier_that_fits_names_only_what_is_new_and_follows_what_changed_or_went(nights):
    bring(nights, ORCHARD | UPLOADS)
    first = night(nights)
    for table in ("classifiers", "predictions"):  # a column that somebody has added stays NULL
        nights.spark.sql(f"ALTER TABLE {nights.database}.{table} ADD COLUMN note STRING FIRST")
    before = names(nights)
    remove(nights, "phone2.jpg", "Kiwi/r0_0.jpg", "Kiwi/r0_1.jpg")
    bring(nights, {"Kiwi/r0_1.jpg": "Tomato", "new0.jpg": "Cherry"}, "run-2")
    metrics = night(nights)
    after = names(nights)
    assert (metrics["is_new"], metrics["reason"], metrics["named"]) == (False, None, 2)
    assert metrics["classifier_id"] == first["classifier_id"]
    assert before.keys() - after.keys() == {"phone2.jpg", "Kiwi/r0_0.jpg"}
    assert {key for key, row in after.items() if row != before.get(key)} == {"Kiwi/r0_1.jpg", "new0.jpg"}
    assert {row["note"] for row in after.values()} == {None}
    assert (after["Kiwi/r0_1.jpg"]["label"], after["new0.jpg"]["label"]) == ("Tomato", "Cherry")
    commits = nights.commits("predictions")
    assert night(nights)["is_new"] is False
    assert nights.commits("predictions") == commits, "nothing to name, no commit"


def test_after_any_nights_a_new_classifier_is_to_the_bit_the_one_of_a_fresh_lake(nights, spark, model, tmp_path):
    bring(nights, ORCHARD)
    night(nights)
    erase(nights, "Cherry/r2_2.jpg")
    remove(nights, "Kiwi/r0_0.jpg", "Apple/r1_1.jpg")
    bring(nights, {"Apple/r1_1.jpg": "Cherry", **series("Plum", range(5))}, "run-2")
    assert night(nights)["reason"] == "a label came or went"
    (grown,) = nights.rows("classifiers", "run_id", "published_at")
    fresh = Nights(spark, f"{nights.database}_fresh", nights.photos, tmp_path / "fresh", model)
    everything = {**ORCHARD, "Apple/r1_1.jpg": "Cherry", **series("Plum", range(5))}
    del everything["Kiwi/r0_0.jpg"], everything["Cherry/r2_2.jpg"]
    bring(fresh, dict(reversed(everything.items())))
    fresh.run("reduce_pca", "--k", "8")
    # The PCA of the first night stays in one lake, so that the other one has to use it, too.
    pca = nights.rows("pca_models")[0]
    for table in ("pca_models",):
        nights.table(table).select(*fresh.table(table).columns).writeTo(f"{fresh.database}.{table}").append()
    fresh.run("publish", "--pca-id", pca["pca_id"])
    (anew,) = fresh.rows("classifiers", "run_id", "published_at")
    assert anew == grown
    assert {row["classifier_id"] for row in nights.rows("predictions")} == {grown["classifier_id"]}


def test_new_photos_that_are_named_wrong_call_for_a_new_classifier(nights):
    bring(nights, ORCHARD)
    first = night(nights)
    bring(nights, dict.fromkeys(series("Kiwi", range(9, 13)), "Tomato"), "run-2")
    metrics = night(nights, "--refit-share", "0.5")
    assert "0.0% of 36 new photos are right" in metrics["reason"]
    assert metrics["classifier_id"] != first["classifier_id"]
    assert {row["run_id"] for row in nights.rows("predictions")} == {"run-2"}, "all are named anew"


@pytest.mark.parametrize(
    ("photos", "why"),
    [
        (dict(list(ORCHARD.items())[:90]), "90 labelled photos: at least 100"),
        (series("Kiwi", range(15)), "1 label"),
        ({f"Kiwi/{name.replace('/', '_')}": label for name, label in ORCHARD.items()}, "1 label"),
        (dict.fromkeys(ORCHARD, "the same"), "by guessing"),
    ],
    ids=["too few", "one label", "one folder", "labels that nothing tells apart"],
)
def test_photos_that_do_not_suffice_leave_a_green_night_without_names(nights, photos, why):
    bring(nights, photos)
    metrics = night(nights)
    assert why in metrics["failure"]
    assert "classifier_id" not in metrics
    assert nights.rows("classifiers") == nights.rows("predictions") == []


def test_where_none_can_be_fitted_yesterdays_classifier_stays_and_names_what_is_new(nights):
    bring(nights, ORCHARD)
    first = night(nights)
    remove(nights, *(key for key in ORCHARD if not key.startswith("Kiwi")))
    bring(nights, {"new1.jpg": "Kiwi"}, "run-2")
    metrics = night(nights)
    assert "54 labelled photos" in metrics["failure"]
    assert metrics["classifier_id"] == first["classifier_id"]
    assert names(nights).keys() == {*series("Kiwi", range(6)), "new1.jpg"}
    assert names(nights)["new1.jpg"]["label"] == "Kiwi"


def test_switched_off_it_names_nothing_and_keeps_no_name_of_before(nights):
    bring(nights, ORCHARD)
    night(nights)
    metrics = night(nights, "--classifier", "off")
    assert metrics == {"reason": "the classifier is off"}
    assert nights.rows("classifiers") == nights.rows("predictions") == []
    assert night(nights)["is_new"] is True


@pytest.mark.parametrize(
    ("module", "commit", "is_new"),
    [(naming, "_commit", False), (registry, "publish", False), (registry, "delete_others", True)],
    ids=["before its names", "before its classifier", "before it deletes the other's names"],
)
def test_after_a_kill_readers_see_names_of_one_classifier_and_the_next_night_leaves_no_others(
    nights, monkeypatch, module, commit, is_new
):
    bring(nights, ORCHARD)
    first = night(nights)
    bring(nights, series("Plum", range(5)), "run-2")

    def kill(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(module, commit, kill)
        with pytest.raises(KeyboardInterrupt):
            night(nights)
    (current,) = (row["classifier_id"] for row in nights.rows("classifiers"))
    assert (current != first["classifier_id"]) is is_new
    own = [row["image_id"] for row in nights.rows("predictions") if row["classifier_id"] == current]
    assert len(set(own)) == len(own) == (261 if is_new else 216)
    metrics = night(nights)
    rows = nights.rows("predictions")
    assert len({row["image_id"] for row in rows}) == len(rows) == 261
    assert {row["classifier_id"] for row in rows} == {metrics["classifier_id"]} != {first["classifier_id"]}


def test_a_run_that_cannot_name_the_photos_publishes_no_pca_model(nights, monkeypatch):
    bring(nights, ORCHARD)
    monkeypatch.setattr(naming, "_commit", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        night(nights)
    assert nights.current_pca_id() is None


def test_what_could_not_be_fitted_is_tried_again_only_with_other_photos_or_settings(nights, monkeypatch):
    tries = []
    add = naming._sum
    monkeypatch.setattr(naming, "_sum", lambda *arguments: (tries.append(1), add(*arguments))[1])
    bring(nights, dict.fromkeys(ORCHARD, "the same"))
    first = night(nights)
    assert "by guessing" in first["failure"]
    assert night(nights) == first
    assert len(tries) == 1
    night(nights, "--held-out-share", "0.4")
    assert len(tries) == 2
    bring(nights, {"Kiwi/r0_9.jpg": "the same"}, "run-2")
    night(nights)
    assert len(tries) == 3


def test_a_pca_model_that_is_published_again_gets_a_classifier_and_one_that_is_no_longer_kept_leaves_none(nights):
    bring(nights, ORCHARD | UPLOADS)
    first = night(nights)
    (classifier,) = nights.rows("classifiers", "run_id", "published_at")
    nights.run("reduce_pca", "--k", "12")
    assert nights.run("publish")["classifier"]["reason"] == "the PCA model is another"
    again = nights.run("publish", "--pca-id", classifier["pca_id"])["classifier"]
    assert (again["reason"], again["named"]) == ("the PCA model is another", 219)
    assert again["examples"] == first["examples"], "one of each photo, by this classifier"
    assert again["classifier_id"] == first["classifier_id"]
    assert nights.rows("classifiers", "run_id", "published_at") == [classifier]
    assert {row["classifier_id"] for row in nights.rows("predictions")} == {classifier["classifier_id"]}

    remove(nights, *(key for key in ORCHARD if not key.startswith("Kiwi")))
    for k, left in (("5", [classifier]), ("4", [])):
        nights.run("reduce_pca", "--k", k)
        assert "54 labelled photos" in nights.run("publish")["classifier"]["failure"]
        assert nights.rows("classifiers", "run_id", "published_at") == left
    assert nights.rows("predictions") == []


def test_upkeep_compacts_the_names_and_expires_both_tables(nights, monkeypatch):
    bring(nights, ORCHARD)
    night(nights)
    rows = nights.rows("predictions")
    nights.table("predictions").repartition(2 * upkeep.SMALL_FILES).writeTo(
        f"{nights.database}.predictions"
    ).overwritePartitions()
    for name in ("EXPIRE_FROM", "KEPT_SNAPSHOTS"):
        monkeypatch.setattr(upkeep, name, 1)
    monkeypatch.setattr(upkeep, "KEPT_DAYS", -1)
    report = upkeep.maintain(job_run.Run("upkeep", Namespace(database=nights.database, run_id="u"), nights.spark))
    assert report["predictions"].keys() == {"compact", "expire", "orphans"}
    assert report["classifiers"].keys() == {"expire", "orphans"}
    assert Table(nights.spark, f"{nights.database}.predictions").files == 1
    assert nights.rows("predictions") == rows
    assert night(nights)["is_new"] is False


def test_awkward_labels_are_learned_and_one_content_under_two_labels_is_not(nights):
    bring(nights, ORCHARD)
    accents = {f"{form}/r{n}_0.jpg": "Papaya" for n in range(4) for form in ("Pe\u0301ra", "P\u00e9ra", " P\u00e9ra ")}
    bring(nights, {"Lemon/only.jpg": "Lemon", **accents})
    bring(nights, {"Kiwi/r0_77.jpg": "Kiwi", "Apple/r0_77.jpg": "Kiwi"}, content="the same photo")
    metrics = night(nights)
    (published,) = nights.rows("classifiers")
    assert published["labels"] == ["Apple", "Cherry", "Kiwi", "Lemon", "P\u00e9ra", "Tomato"]
    assert metrics["contradictory"] == 2
    assert metrics["judged"] + metrics["learned"] + metrics["near_equal"] == 216 + 1 + 12
    named = {row["image_id"]: row["label"] for row in nights.rows("predictions")}
    assert len(named) == 216 + 1 + 12 + 2
    assert {named[keys.image_id(key)] for key in accents} <= {"P\u00e9ra", None}


def test_a_thousand_labels_are_learned_and_the_metrics_stay_small(nights):
    labels = {f"Label {number}": f"what is on {number}" for number in range(1000)}
    bring(nights, {f"{label}/r{turn}_0.jpg": seen for label, seen in labels.items() for turn in range(2)})
    metrics = night(nights)
    (published,) = nights.rows("classifiers")
    assert (len(published["labels"]), published["n"], metrics["named"]) == (1000, 2000, 2000)
    assert len(json.dumps(metrics)) < 100_000


def test_features_that_are_nan_are_refused_and_names_stay(nights, monkeypatch):
    bring(nights, ORCHARD)
    night(nights)
    nights.run("reduce_pca", "--k", "8", "--max-variance-loss", "1")
    before = nights.rows("predictions"), nights.rows("classifiers")
    monkeypatch.setitem(globals(), "vector", lambda *_: np.full(1280, np.nan, np.float32))
    folder = nights.run_folder
    bring(nights, {"new1.jpg": "Kiwi"}, "run-2")
    nights.runs.append(folder.name)
    with pytest.raises(QualityGateError, match="finite"):
        nights.run("publish")
    assert (nights.rows("predictions"), nights.rows("classifiers")) == before


def test_many_photos_are_named_by_spark_as_few_are_on_the_driver(nights, monkeypatch):
    bring(nights, ORCHARD | UPLOADS)
    few = night(nights)
    expected = nights.rows("predictions")
    night(nights, "--classifier", "off")
    monkeypatch.setattr(naming, "_FEW", 1)
    monkeypatch.setattr(align, "ROW_GROUP_ROWS", 1)
    many = night(nights)
    assert {name: many[name] for name in few if name != "reason"} == {n: few[n] for n in few if n != "reason"}
    assert nights.rows("predictions") == expected
    bring(nights, {"new2.jpg": "Kiwi", "new3.jpg": "Apple"}, "run-2")
    assert night(nights)["named"] == 2
    assert (names(nights)["new2.jpg"]["label"], names(nights)["new3.jpg"]["label"]) == ("Kiwi", "Apple")


def test_an_erased_photo_has_no_name_and_the_classifier_stays(nights):
    bring(nights, ORCHARD | UPLOADS)
    first = night(nights)
    assert erase(nights, "phone1.jpg")["predictions"] == 1
    assert names(nights).keys() == {*ORCHARD, "phone2.jpg", "phone3.jpg"}
    assert night(nights)["classifier_id"] == first["classifier_id"]
    assert names(nights).keys() == {*ORCHARD, "phone2.jpg", "phone3.jpg"}


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({}, None),
        ({"pca": "other"}, "the PCA model is another"),
        ({"asked": "shrinkage=0.2"}, "other settings are requested: shrinkage=0.2 after shrinkage=0.1"),
        ({"label_set": "more"}, "a label came or went"),
        ({"labelled": 110, "kept": 100}, None),
        ({"labelled": 100, "kept": 89}, "22.0% of the labelled photos changed, limit 10.0%"),
        ({"labelled": 111, "kept": 100}, "11.0% of the labelled photos changed, limit 10.0%"),
    ],
)
def test_a_new_classifier_is_fitted_for_each_stated_reason_only(changes, reason):
    facts: dict[str, Any] = {
        "pca": "p",
        "asked": "shrinkage=0.1",
        "label_set": "same",
        "labelled": 100,
        "kept": 100,
    } | changes
    nothing = np.zeros((0, 0))
    published = Classifier(
        [], nothing, nothing, nothing, *("c", "p", "shrinkage=0.1", "same", 100, 1.0, 0.0, 1.0, 1.0, "{}", "run-1")
    )
    target = Target(facts["pca"], facts["asked"], facts["label_set"])
    assert refit_reason(published, target, facts, 0.1) == reason
    assert refit_reason(None, target, facts, 0.1) == "none is published yet"
