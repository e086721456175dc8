"""One run of the whole pipeline, as a user starts it: `make demo`, with KEEP so that the tables can be read."""

from __future__ import annotations

import hashlib
import io
import json
import re
from pathlib import Path

import boto3
import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image, ImageOps
from pyiceberg.catalog import load_catalog

from fruits_lake import Lake
from tests.e2e.conftest import CLUSTER, GOOD_PHOTOS, WEIGHTS

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1800)]


@pytest.fixture(scope="session")
def catalog(demo):
    endpoint = {
        "region": "eu-west-1",
        "access-key-id": demo["keys"]["aws_access_key_id"],
        "secret-access-key": demo["keys"]["aws_secret_access_key"],
    }
    return load_catalog(
        "lake",
        type="glue",
        **{f"glue.{name}": value for name, value in endpoint.items()},
        **{f"s3.{name}": value for name, value in endpoint.items()},
        **{"glue.endpoint": demo["endpoint"], "s3.endpoint": demo["endpoint"]},
    )


@pytest.fixture(scope="session")
def run(demo):
    return json.loads((demo["folder"] / "run.json").read_text())


@pytest.fixture(scope="session")
def tables(catalog, run):
    (database,) = (name for (name,) in catalog.list_namespaces() if catalog.list_tables(name))
    return {name: catalog.load_table((database, name)).scan().to_arrow() for _, name in catalog.list_tables(database)}


def image_ids(photos: Path) -> dict[str, Path]:
    return {
        hashlib.sha256(f"images/demo/{path.relative_to(photos).as_posix()}".encode()).hexdigest(): path
        for path in photos.rglob("*.jpg")
    }


def upright(path: Path) -> np.ndarray:
    """A photo's pixels as a person sees them: (height, width, 3) uint8."""
    return np.asarray(ImageOps.exif_transpose(Image.open(path)).convert("RGB"))


def test_every_photo_is_an_image_or_a_reject_by_key(photos, tables):
    images = set(tables["images"]["image_id"].to_pylist())
    rejects = set(tables["rejects"]["image_id"].to_pylist())
    assert images | rejects == set(image_ids(photos))
    assert not images & rejects
    names = {image_ids(photos)[image_id].name for image_id in rejects}
    assert names == {"page.jpg", "cut.jpg"}


def test_labels_are_the_folders_and_metadata_is_gone(photos, tables):
    for row in tables["images"].to_pylist():
        folder = image_ids(photos)[row["image_id"]].parent
        assert row["label"] == (None if folder == photos else folder.name)
        stored = Image.open(io.BytesIO(row["pixels"]))
        assert not stored.getexif()
        assert not {"exif", "icc_profile", "comment", "xmp"} & set(stored.info)


def test_features_and_pca_have_exactly_the_images(tables):
    images = sorted(tables["images"]["image_id"].to_pylist())
    assert sorted(tables["features"]["image_id"].to_pylist()) == images
    assert sorted(tables["pca"]["image_id"].to_pylist()) == images


def test_stored_pixels_are_those_of_the_original(photos, tables):
    for row in tables["images"].slice(0, 20).to_pylist():
        original = upright(image_ids(photos)[row["image_id"]])
        np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(row["pixels"]))), original)


def test_the_published_pca_is_scikit_learns(tables, run):
    sklearn = pytest.importorskip("sklearn.decomposition")
    features = np.array(tables["features"].sort_by("image_id")["features"].to_pylist(), dtype=np.float64)
    (model,) = tables["pca_models"].to_pylist()
    reference = sklearn.PCA(n_components=model["k"], svd_solver="full").fit(features)
    np.testing.assert_allclose(model["explained_variance_ratio"], reference.explained_variance_ratio_, atol=1e-6)
    rows = np.array(tables["pca"].sort_by("image_id")["pca"].to_pylist())
    expected = reference.transform(features)
    signs = np.sign((rows * expected).sum(axis=0))
    np.testing.assert_allclose(rows[:, :20], (expected * signs)[:, :20], atol=2e-3)
    assert run["pca"]["k"] == model["k"]


def test_every_photo_has_a_name_of_the_one_classifier_and_those_without_a_label_are_shown(tables, run):
    names, facts = tables["predictions"].to_pylist(), run["classifier"]
    if not WEIGHTS.is_file() or CLUSTER == "yarn":  # photos that do not suffice
        assert facts["failure"]
        assert names == tables["classifiers"].to_pylist() == []
        return
    (classifier,) = tables["classifiers"].to_pylist()
    assert {row["classifier_id"] for row in names} == {classifier["classifier_id"]} == {facts["classifier_id"]}
    assert classifier["pca_id"] == run["pca"]["pca_id"]
    assert sorted(row["image_id"] for row in names) == sorted(tables["images"]["image_id"].to_pylist())
    unlabelled = sorted(row["image_id"] for row in tables["images"].to_pylist() if row["label"] is None)
    shown = {row["image_id"]: (row["label"], row["confidence"]) for row in names if row["image_id"] in unlabelled}
    assert [image_id for image_id, _, _ in facts["examples"]] == unlabelled
    assert {image_id: (name, sure) for image_id, name, sure in facts["examples"]} == shown
    assert facts["top1"]["low"] > 0.5


def test_run_json_tells_what_the_tables_hold(tables, run, demo):
    assert run["state"] == "succeeded"
    assert run["images"]["seen"] == GOOD_PHOTOS + 2
    assert run["images"]["loaded"] == tables["images"].num_rows == GOOD_PHOTOS
    assert run["images"]["rejected"] == tables["rejects"].num_rows == 2
    assert run["features"]["rows"] == GOOD_PHOTOS
    assert run["features"]["weights"] in (("path",) if WEIGHTS.is_file() else ("imagenet", "random"))
    assert run["cluster"]["state"] == "TERMINATED"
    assert run["region"] == "eu-west-1"


def test_the_model_is_read_once_by_the_driver_and_broadcast(demo, run):
    key = f"models/{run['features']['model_id']}/model.tflite"
    reads = [call for call in demo["calls"] if key in call["path"] and call["method"] == "GET"]
    assert len(reads) == 1


def test_the_results_can_be_looked_at(demo, tables):
    page = (demo["folder"] / "report.html").read_text()
    assert "<svg" in page
    exported = pq.read_table(demo["folder"] / "pca.parquet")
    assert sorted(exported["image_id"].to_pylist()) == sorted(tables["pca"]["image_id"].to_pylist())


def test_the_demo_leaves_its_lake(demo, photos, tables, run):
    lake = Lake.open(demo["folder"])
    vectors = lake.vectors()
    assert vectors.sort_by("image_id")["pca"].to_pylist() == tables["pca"].sort_by("image_id")["pca"].to_pylist()
    states = {row["run_id"].partition("__")[0]: row["state"] for row in lake.runs().to_pylist()}
    assert states == {"demo": "succeeded", "again": "skipped"}
    image_id = vectors["image_id"][0].as_py()
    (nearest,) = lake.neighbours(image_ids(photos)[image_id], k=1).to_pylist()
    assert nearest["image_id"] == image_id
    assert nearest["distance"] < 1e-3
    (why,) = lake.why(image_id).to_pylist()
    assert why["loaded_by"] == why["published_by"] == run["run_id"]
    assert why["weights"] == run["features"]["weights"]
    assert run["run_id"] in lake.model_card()


def test_the_demos_folder_and_its_account_say_the_same(demo, run, monkeypatch):
    for name, value in demo["keys"].items():
        monkeypatch.setenv(name.upper(), value)
    monkeypatch.setenv("AWS_ENDPOINT_URL", demo["endpoint"])
    monkeypatch.setenv("AWS_REGION", "eu-west-1")
    s3 = boto3.client("s3", endpoint_url=demo["endpoint"], region_name="eu-west-1", **demo["keys"])
    bucket = next(entry["Name"] for entry in s3.list_buckets()["Buckets"] if "-lake-" in entry["Name"])
    folder, account = Lake.open(demo["folder"]), Lake.open(f"s3://{bucket}", "fruits_demo")
    vectors = folder.vectors()
    assert vectors.sort_by("image_id").equals(account.vectors().sort_by("image_id"))
    image_id = vectors["image_id"][0].as_py()
    for ask in (Lake.neighbours, Lake.why, Lake.photo):
        assert ask(folder, image_id).to_pylist() == ask(account, image_id).to_pylist()
    assert folder.model_card() == account.model_card()
    assert folder.runs().equals(account.runs())


def test_a_second_night_over_the_same_photos_is_skipped_without_a_cluster(demo):
    assert re.search(r"second night +same photos: skipped, DAG run success", demo["out"])
