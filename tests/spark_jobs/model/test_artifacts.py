from __future__ import annotations

import hashlib
import json

import pytest
from fruits.base.errors import ModelMismatchError
from fruits.images import decoding
from fruits.model import artifacts
from fruits.model.networks import NETWORKS

DATA = b"a flatbuffer"
ID = hashlib.sha256(DATA).hexdigest()
CARD = {"model_id": ID, "engine": "litert", "file": "m.bin", "weights": "path", "dims": 1280, "input_px": 224}


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "m.bin").write_bytes(DATA)
    (tmp_path / "model.json").write_text(json.dumps(CARD))
    return tmp_path


@pytest.mark.parametrize("engine", [None, "litert"])
def test_the_artifact_is_read_with_where_its_weights_come_from(folder, engine):
    assert artifacts.read(str(folder), ID, engine) == artifacts.Artifact(ID, "litert", "path", DATA)


def test_an_artifact_is_of_the_network_that_its_card_names(folder):
    network = NETWORKS["MobileNetV3Large"]
    (folder / "model.json").write_text(json.dumps(CARD | {"network": network.name, "dims": network.dims}))
    assert artifacts.read(str(folder), ID, None).network == network


def test_a_network_follows_from_its_contract():
    for network in NETWORKS.values():
        assert network.input_px <= decoding.STORED_PX, "larger inputs gain nothing"
        assert network.limit / 2 < max(-network.low, network.high) <= network.limit
    assert [network.limit for network in NETWORKS.values()] == [8, 64, 64]


def test_an_artifact_of_another_digest_is_refused(folder):
    (folder / "m.bin").write_bytes(DATA + b"!")
    with pytest.raises(ModelMismatchError, match="SHA-256"):
        artifacts.read(str(folder), ID, None)


def test_an_artifact_for_another_engine_is_refused(folder):
    with pytest.raises(ModelMismatchError, match="engine litert"):
        artifacts.read(str(folder), ID, "tensorflow")


@pytest.mark.parametrize("missing", ["m.bin", "model.json"])
def test_an_artifact_that_is_not_there_is_a_named_error(folder, missing):
    (folder / missing).unlink()
    with pytest.raises(ModelMismatchError, match="make model"):
        artifacts.read(str(folder), ID, None)


@pytest.mark.parametrize("change", [{"dims": 1024}, {"input_px": 192}, {"engine": "onnx"}, {"network": "VGG16"}])
def test_an_artifact_of_other_dimensions_is_refused(folder, change):
    (folder / "model.json").write_text(json.dumps(CARD | change))
    with pytest.raises(ModelMismatchError, match="this code"):
        artifacts.read(str(folder), ID, None)


@pytest.mark.parametrize("text", ["{", "{}"])
def test_a_card_that_says_nothing_is_a_named_error(folder, text):
    (folder / "model.json").write_text(text)
    with pytest.raises(ModelMismatchError, match=r"model\.json"):
        artifacts.read(str(folder), ID, None)


def test_a_card_names_no_file_elsewhere(folder):
    (folder / "model.json").write_text(json.dumps(CARD | {"file": "../../dev/zero"}))
    with pytest.raises(ModelMismatchError, match="not beside it"):
        artifacts.read(str(folder), ID, None)
