"""A network is a name: it goes through conversion, jobs and readers by configuration alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import erase_images
import h5py
import numpy as np
import pytest
from fruits.base.errors import WeightsError
from fruits.job import job_run
from fruits.model import artifacts, keras_reference, preprocessing
from fruits.model.networks import MOBILENET_V2, NETWORKS, Network
from fruits.pca import gramian_store

from dev import make_model
from fruits_lake import matrix
from tests.fruits_lake.test_lake import as_lake, copy_lake, ids_of
from tests.spark_jobs.conftest import Nights
from tests.spark_jobs.pictures import encoded, fruit, orchard

pytestmark = [pytest.mark.spark, pytest.mark.timeout(900)]


def random_file(network: Network, path: Path) -> Path:
    """Write Keras' own random weights, with statistics of batch norms by which activations keep their scale."""
    import keras

    keras.utils.set_random_seed(28)
    model = keras_reference.blank(network)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0.0
    pictures = np.empty((8, network.input_px, network.input_px, 3), np.float32)
    for number, picture in enumerate(pictures):
        preprocessing.fill(encoded(fruit(number)), picture, network)
    model(pictures, training=True)
    with h5py.File(path, "w") as file:  # in the layout of Keras' own weights files
        file.attrs["layer_names"] = [layer.name for layer in model.layers]
        for layer in model.layers:
            group = file.create_group(layer.name)
            group.attrs["weight_names"] = [weight.path for weight in layer.weights]
            for weight in layer.weights:
                group.create_dataset(weight.path, data=weight.numpy())
    return path


@pytest.mark.parametrize("name", [name for name in NETWORKS if name != MOBILENET_V2.name])
def test_another_network_goes_through_the_whole_chain_by_its_name(name: str, nights: Nights, tmp_path: Path) -> None:
    network = NETWORKS[name]
    orchard(nights.photos, labels=2, each=4)
    before = nights.night("--k", "3")
    card = make_model.make(str(random_file(network, tmp_path / "weights.h5")), tmp_path / "lake" / "models", network)
    artifact = artifacts.read(str(tmp_path / "lake" / "models" / card["model_id"]), card["model_id"], "litert")
    assert (artifact.network, card["dims"], card["weights"]) == (network, network.dims, "path")

    nights.model = card | {"folder": str(tmp_path / "lake" / "models" / card["model_id"])}
    night = nights.night("--k", "4")

    # All photos are featurized anew; nothing of the other network's vectors is left in what is published.
    facts = night["featurize"]["features"]
    assert (facts["computed"], facts["network"], facts["dims"]) == (8, name, network.dims)
    features = {
        row["image_id"]: row["features"] for row in nights.rows("features") if row["model_id"] == card["model_id"]
    }
    assert {len(vector) for vector in features.values()} == {network.dims}
    assert night["reduce_pca"]["pca"]["pca_id"] != before["reduce_pca"]["pca"]["pca_id"]
    limit = night["publish"]["quality"]["checks"]["largest_norm"]["limit"]
    assert limit == pytest.approx(network.high * network.dims**0.5)
    lake = as_lake(nights, tmp_path / "lake")
    vectors = lake.vectors()
    about: dict[str, Any] = json.loads(lake.vectors(nights.runs[-1]).schema.metadata[b"fruits"])
    assert (about["network"], about["model_id"], matrix(vectors).shape) == (name, card["model_id"], (8, 4))
    assert f"{name}'s output, from {network.low:g} to {network.high:g}" in about["units"]["pca"]
    values = np.array([features[row["image_id"]] for row in vectors.to_pylist()])
    covariance = np.cov(values.T)
    share = np.trace(np.cov(matrix(vectors).T)) / np.trace(covariance)
    assert share == pytest.approx(np.linalg.eigvalsh(covariance)[-4:].sum() / np.trace(covariance), rel=1e-3)
    for image_id, path in list(ids_of(nights.photos).items())[:2]:
        nearest = lake.neighbours(path).to_pylist()[0]
        assert (nearest["image_id"], round(nearest["distance"], 3)) == (image_id, 0.0), "as the jobs computed it"

    # An erasure sums the rest again at the network's own fixed point, and the next night builds on that.
    (tmp_path / "request.json").write_text(json.dumps({"image_ids": [image_id], "content_sha256": []}))
    nights.runs.append("erasure")
    arguments = ["--database", nights.database, "--run-id", "erasure", "--run-folder", str(nights.run_folder)]
    options = erase_images.parser().parse_args([*arguments, "--erasure", str(tmp_path / "request.json")])
    run = job_run.Run("erase_images", options, nights.spark)
    erase_images.erase_images(run)
    assert gramian_store.image_count(run, card["model_id"]) == 7
    with gramian_store.refresh(run, card["model_id"], network=network) as kept:
        assert kept.description == "nothing changed since the kept sums"
    copy_lake(nights, tmp_path / "lake")
    assert image_id not in lake.vectors()["image_id"].to_pylist()


def test_a_declared_range_that_changes_is_summed_anew(nights: Nights) -> None:
    orchard(nights.photos, labels=1, each=3)
    nights.night("--k", "2")
    run = job_run.Run("reduce_pca", nights_arguments(nights), nights.spark)
    wider = NETWORKS["EfficientNetV2B0"]  # as many features, in another range
    with gramian_store.refresh(run, nights.model["model_id"], network=wider) as kept:
        assert kept.gramian is not None
        assert (kept.gramian.limit, kept.gramian.count) == (64, 3)
        assert kept.description == "summed all 3 images: the kept sums are of another range of features"


def nights_arguments(nights: Nights) -> Any:
    import reduce_pca

    return reduce_pca.parser().parse_args(nights.arguments("reduce_pca", "--k", "2"))


def test_weights_of_another_network_and_random_ones_are_refused(tmp_path: Path) -> None:
    network = NETWORKS["MobileNetV3Large"]
    with pytest.raises(WeightsError, match="random weights are made for MobileNetV2 only: give an .h5 of MobileNetV3L"):
        make_model.make("random", tmp_path, network)
    (tmp_path / "weights.h5").write_bytes(make_model.random_weights())
    with pytest.raises(WeightsError, match="do not fit MobileNetV3Large without top"):
        make_model.make(str(tmp_path / "weights.h5"), tmp_path, network)
