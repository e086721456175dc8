"""Convert the weights of a network into the LiteRT flatbuffer that the Spark jobs broadcast.

Writes OUT/<model_id>/{model.tflite, model.json} and, for the reference engine, OUT/<id>/{weights.h5, model.json};
prints the model.json of the flatbuffer as a line. The same weights give the same model_id on every machine, and are
not converted again while the result exists. Runs in .venv-spark, and imports TensorFlow only to convert.
"""

import argparse
import contextlib
import hashlib
import io
import json
import os
import socket
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "spark_jobs"))

import numpy as np
from fruits.base import objects
from fruits.base.errors import FruitsError, WeightsError
from fruits.model import keras_reference
from fruits.model.embedding import Array
from fruits.model.networks import MOBILENET_V2, NETWORKS, Network

DOWNLOAD_STALL_S = 10
RANDOM_SEED = 20

Card = dict[str, Any]


def main(argv: list[str] | None = None) -> int:
    """Parse the command line, make the model and print its card."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--weights",
        default=None,
        metavar="PATH|imagenet|random",
        help="an .h5 of the network's weights without top, Keras' own ImageNet weights (downloaded once), or seeded "
        "random ones; default: imagenet, or random with a warning when they cannot be downloaded",
    )
    parser.add_argument("--network", choices=NETWORKS, default=MOBILENET_V2.name, help="default: %(default)s")
    parser.add_argument("--out", type=Path, default=Path(".cache/models"), help="default: %(default)s")
    arguments = parser.parse_args(argv)
    try:
        card = make(arguments.weights, arguments.out, NETWORKS[arguments.network])
    except FruitsError as error:
        sys.stderr.write(f"ERROR {type(error).__name__}: {error}\n")
        return error.exit_status
    print(json.dumps(card, sort_keys=True))
    return 0


def make(weights: str | None, out: Path, network: Network = MOBILENET_V2) -> Card:
    """Make both artifacts in the folder of models, unless they exist; return the ``model.json`` of the LiteRT one.

    `weights` is a path, ``imagenet``, ``random``, or None for imagenet with random as the last resort.

    Raises:
        WeightsError: The weights are missing, cannot be downloaded, or do not fit the network.
    """
    data, origin = _weights(weights, network)
    digest = hashlib.sha256(data).hexdigest()
    reference_card = _card(digest, "tensorflow", "weights.h5", origin, digest, network)
    key = {"weights_sha256": digest, "converter": converter(), "network": network.name}
    for path in sorted(out.glob("*/model.json")):
        card: Card = {"network": MOBILENET_V2.name} | json.loads(path.read_text())
        if card.get("engine") == "litert" and key.items() <= card.items() and _is_whole(path.parent, card):
            reference = out / card["reference_model_id"]
            if (reference / "weights.h5").is_file():
                _log(f"model {card['model_id'][:12]} exists already")
                _write_card(reference, reference_card)
                return _write_card(path.parent, card | {"weights": origin})
    try:
        arrays = keras_reference.read_weights(data)
        _log("converting the weights; TensorFlow takes some 20 seconds")
        flatbuffer = convert(arrays, network)
    except WeightsError as error:
        raise WeightsError(f"{weights or origin}: {error}") from error
    model_id = hashlib.sha256(flatbuffer).hexdigest()
    objects.write_bytes(str(out / digest / "weights.h5"), data)
    _write_card(out / digest, reference_card)
    objects.write_bytes(str(out / model_id / "model.tflite"), flatbuffer)
    card = _card(model_id, "litert", "model.tflite", origin, digest, network)
    return _write_card(out / model_id, card | key | {"reference_model_id": digest})


def convert(weights: list[Array], network: Network = MOBILENET_V2) -> bytes:
    """Convert ``get_weights()`` into a float32 LiteRT flatbuffer; the same weights give the same bytes.

    Raises:
        WeightsError: The weights do not fit the network without top.
    """
    with _tensorflow() as tf:
        # The names of a second model in the same process differ, and with them the bytes.
        tf.keras.backend.clear_session()
        model = keras_reference.build(weights, network)
        return bytes(tf.lite.TFLiteConverter.from_keras_model(model).convert())


def converter() -> str:
    """Return the version of TensorFlow, on which the flatbuffer's bytes depend besides the weights."""
    for name in ("tensorflow-cpu", "tensorflow"):
        with contextlib.suppress(metadata.PackageNotFoundError):
            return f"tensorflow {metadata.version(name)}"
    raise WeightsError("TensorFlow is not installed here: run this in .venv-spark")


def random_weights() -> bytes:
    """Return seeded random weights of MobileNetV2 as a Keras weights file, the same bytes on every machine.

    He's initialisation keeps the scale of the activations through the layers; with Keras' own they vanish.
    """
    import h5py  # type: ignore[import-untyped]

    with _tensorflow() as tf:
        tf.keras.backend.clear_session()
        model = keras_reference.blank(MOBILENET_V2)
        layers = [(layer.name, [(w.path, w.numpy()) for w in layer.weights]) for layer in model.layers]
    generator = np.random.default_rng(RANDOM_SEED)
    out = io.BytesIO()
    with h5py.File(out, "w") as file:
        file.attrs["layer_names"] = [name for name, _ in layers]
        for name, arrays in layers:
            group = file.create_group(name)
            group.attrs["weight_names"] = [path for path, _ in arrays]
            for path, array in arrays:
                # Kernels alone have more than one dimension; batch norm keeps its neutral start.
                drawn = generator.standard_normal(array.shape)
                if array.ndim > 1:
                    fan_in = np.prod(array.shape[:2]) * (1 if "depthwise" in name else array.shape[-2])
                    array = drawn * np.sqrt(2.0 / fan_in)
                group.create_dataset(path, data=array.astype(np.float32))
    return out.getvalue()


def _weights(source: str | None, network: Network) -> tuple[bytes, str]:
    """Return the bytes of a weights file and their origin, which is ``path`` for any file."""
    if source == "random":
        return _warn_and_randomize("--weights random", network), "random"
    if source not in (None, "imagenet"):
        try:
            if Path(str(source)).is_fifo():  # reading it might never end
                raise WeightsError(f"cannot read the weights file {source}: a pipe; give an .h5 file")
            return Path(str(source)).read_bytes(), "path"
        except OSError as error:
            raise WeightsError(f"cannot read the weights file {source}: {error.strerror}; give an .h5 file") from error
    try:
        return _imagenet(network), "imagenet"
    except WeightsError as error:
        if source == "imagenet":
            raise
        return _warn_and_randomize(str(error), network), "random"


def _imagenet(network: Network) -> bytes:
    home = Path(os.environ.get("KERAS_HOME", str(Path.home() / ".keras")))
    path = home / "models" / network.weights_file
    if not path.is_file():
        _log("downloading Keras' ImageNet weights")
        # urllib has no timeout of its own; a stalled network must not block the demo.
        before = socket.getdefaulttimeout()
        socket.setdefaulttimeout(DOWNLOAD_STALL_S)
        try:
            with _tensorflow() as tf:
                getattr(tf.keras.applications, network.name)(
                    input_shape=(network.input_px, network.input_px, 3), include_top=False, weights="imagenet"
                )
        except Exception as error:  # urllib, ssl, zipfile and Keras each have their own
            raise WeightsError(
                f"Keras' ImageNet weights could not be downloaded ({type(error).__name__}): give --weights FILE.h5"
            ) from error
        finally:
            socket.setdefaulttimeout(before)
    if not path.is_file():
        raise WeightsError(f"Keras left no {path}: give --weights FILE.h5")
    return path.read_bytes()


def _warn_and_randomize(reason: str, network: Network) -> bytes:
    """Print a prominent warning and return random weights."""
    if network != MOBILENET_V2:  # what is random would leave the range of its features
        raise WeightsError(f"{reason}, and random weights are made for MobileNetV2 only: give an .h5 of {network.name}")
    meaning = "The features will say next to nothing about fruit. Good for a trial of the pipeline only."
    bar = "!" * 78
    sys.stderr.write(f"{bar}\n!! WARNING: RANDOM WEIGHTS\n!! {reason}.\n!! {meaning}\n{bar}\n")
    return random_weights()


def _card(model_id: str, engine: str, file: str, origin: str, weights_sha256: str, network: Network) -> Card:
    return {
        "model_id": model_id,
        "engine": engine,
        "file": file,
        "weights": origin,
        "weights_sha256": weights_sha256,
        "network": network.name,
        "dims": network.dims,
        "input_px": network.input_px,
    }


def _is_whole(folder: Path, card: Card) -> bool:
    path = folder / card["file"]
    return path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == str(card["model_id"])


def _write_card(folder: Path, card: Card) -> Card:
    objects.write_bytes(str(folder / "model.json"), json.dumps(card, indent=1, sort_keys=True).encode())
    return card


def _log(message: str) -> None:
    sys.stderr.write(f"make_model: {message}\n")


@contextlib.contextmanager
def _tensorflow() -> Iterator[Any]:
    """Import TensorFlow while its output, that of C++ included, goes nowhere."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
    os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
    sys.stdout.flush()
    stdout, stderr = os.dup(1), os.dup(2)
    with open(os.devnull, "wb") as null:  # noqa: PTH123 - a device
        for stream in (1, 2):
            os.dup2(null.fileno(), stream)
    try:
        import tensorflow

        yield tensorflow
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        for stream, copy in enumerate((stdout, stderr), 1):
            os.dup2(copy, stream)
            os.close(copy)


if __name__ == "__main__":
    sys.exit(main())
