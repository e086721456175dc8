"""The model artifact under ``models/<model_id>/``, which the driver reads once and checks by its digest."""

import hashlib
import json
from dataclasses import dataclass
from typing import Any

from fruits.base import objects
from fruits.base.errors import ModelMismatchError
from fruits.model.networks import MOBILENET_V2, NETWORKS, Network

ENGINES = ("litert", "tensorflow")


@dataclass(frozen=True)
class Artifact:
    """A model as the driver broadcasts it."""

    model_id: str  # hex SHA-256 of `data`
    engine: str  # ``litert`` (a flatbuffer) or ``tensorflow`` (a Keras weights file)
    weights: str  # their origin: ``imagenet``, ``path`` or ``random``
    data: bytes  # of the file
    network: Network = MOBILENET_V2


def read(folder: str, model_id: str, engine: str | None) -> Artifact:
    """Read the artifact in a folder, ``models/<model_id>``, and check that its digest is `model_id`.

    An `engine` of None takes the artifact's own.

    Raises:
        ModelMismatchError: The artifact is missing, or has another digest, engine or dimensions.
    """
    try:
        card = _card(objects.read_bytes(objects.join(folder, "model.json")), folder)
        data = objects.read_bytes(objects.join(folder, card["file"]))
    except FileNotFoundError as error:
        raise ModelMismatchError(f"{error}: run `make model` and upload its output") from error
    digest = hashlib.sha256(data).hexdigest()
    if digest != model_id:
        raise ModelMismatchError(
            f"{folder}/{card['file']} has SHA-256 {digest}, requested is {model_id}: the artifact is not the "
            "model of the settings; upload it again or correct model_id"
        )
    if engine not in (None, card["engine"]):
        raise ModelMismatchError(
            f"{folder} is for engine {card['engine']}, requested is {engine}: name the model of that engine"
        )
    network = NETWORKS.get(card.get("network", MOBILENET_V2.name))  # before there were others, none was named
    if not network or (card["dims"], card["input_px"]) != (network.dims, network.input_px):
        known = "; ".join(f"{each.name} with {each.dims} and {each.input_px}" for each in NETWORKS.values())
        raise ModelMismatchError(
            f"{folder} is of network {card.get('network')}, dims {card['dims']}, input {card['input_px']} px: this "
            f"code runs {known}"
        )
    if card["engine"] not in ENGINES:
        raise ModelMismatchError(f"{folder} has engine {card['engine']}: this code runs {' or '.join(ENGINES)}")
    return Artifact(model_id, card["engine"], card["weights"], data, network)


def _card(data: bytes, folder: str) -> dict[str, Any]:
    try:
        card = json.loads(data)
    except ValueError as error:
        raise ModelMismatchError(f"{folder}/model.json is not JSON: {error}") from error
    if missing := {"file", "engine", "weights", "dims", "input_px"} - set(card):
        raise ModelMismatchError(f"{folder}/model.json lacks {sorted(missing)}: run `make model` again")
    if "/" in str(card["file"]):
        raise ModelMismatchError(f"{folder}/model.json names {card['file']}, which is not beside it")
    return dict(card)
