"""The only tests, with make_model's, that import TensorFlow in this process."""

from __future__ import annotations

import io
import os
from pathlib import Path

import h5py
import numpy as np
import pytest
from fruits.base.errors import WeightsError
from fruits.images.decoding import clean
from fruits.model import keras_reference
from fruits.model.embedding import LiteRtEmbedder, embed_all
from PIL import Image

from tests.spark_jobs.conftest import PHOTOS
from tests.spark_jobs.pictures import encoded, fruit


@pytest.fixture(scope="module")
def weights(model, models) -> bytes:
    return (models / model["reference_model_id"] / "weights.h5").read_bytes()


@pytest.fixture(scope="module")
def keras_model(weights):
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    return keras_reference.build(keras_reference.read_weights(weights))


def photos() -> list[bytes]:
    real = sorted(PHOTOS.glob("Test/*/*.jpg"))[::75]
    return [path.read_bytes() for path in real] or [encoded(fruit(seed)) for seed in range(8)]


def test_weights_are_read_in_the_order_of_get_weights(keras_model, weights):
    ours, theirs = keras_reference.read_weights(weights), keras_model.get_weights()
    assert len(ours) == len(theirs)
    assert all((a == b).all() for a, b in zip(ours, theirs, strict=True))


def test_litert_features_equal_keras_on_the_original_jpegs(keras_model, model):
    originals = np.stack(
        [
            np.asarray(
                Image.open(io.BytesIO(data)).convert("RGB").resize((224, 224), Image.Resampling.BILINEAR), np.float32
            )
            for data in photos()
        ]
    )
    expected = keras_model.predict(originals / 127.5 - 1.0, verbose=0)
    flatbuffer = (Path(model["folder"]) / "model.tflite").read_bytes()
    ours = embed_all(LiteRtEmbedder(flatbuffer, 1), [_Scalar(clean(data).pixels) for data in photos()])
    assert expected.std() > 0.1
    np.testing.assert_allclose(ours, expected, atol=1e-3)


def test_weights_of_another_shape_are_a_named_error(weights):
    arrays = keras_reference.read_weights(weights)
    with pytest.raises(WeightsError, match="array 3"):
        keras_reference.build([*arrays[:3], arrays[3][:-1], *arrays[4:]])
    with pytest.raises(WeightsError, match="arrays, expected"):
        keras_reference.build(arrays[:-1])


@pytest.mark.parametrize("make", ["nothing", "text", "other h5"])
def test_a_file_that_holds_no_weights_is_a_named_error(make):
    out = io.BytesIO()
    if make == "other h5":
        with h5py.File(out, "w") as file:
            file["x"] = [1.0]
    elif make == "text":
        out.write(b"not hdf5")
    with pytest.raises(WeightsError, match="not a Keras weights file"):
        keras_reference.read_weights(out.getvalue())


class _Scalar:
    """An Arrow binary scalar's one method."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    def as_py(self) -> bytes:
        return self.data


@pytest.mark.parametrize("kind", ["external storage", "external link", "virtual dataset", "more than the memory"])
def test_a_weights_file_reads_no_other_file_and_fills_no_memory(kind: str, tmp_path: Path) -> None:
    """A model is uploaded to the lake, where notebooks read it: a file of the operator's would go with it."""
    secret, shape = tmp_path / "secret", (3, 3, 3, 32)
    np.full(shape, 7, np.float32).tofile(secret)
    with h5py.File(tmp_path / "other.h5", "w") as other:
        other["x"] = np.full(shape, 7, np.float32)
    with h5py.File(tmp_path / "weights.h5", "w") as file:
        layer = file.create_group("Conv1")
        file.attrs["layer_names"], layer.attrs["weight_names"] = ["Conv1"], ["kernel"]
        if kind == "external storage":
            layer.create_dataset("kernel", shape=shape, dtype="f4", external=[(secret, 0, secret.stat().st_size)])
        elif kind == "external link":
            layer["kernel"] = h5py.ExternalLink(tmp_path / "other.h5", "x")
        elif kind == "virtual dataset":
            layout = h5py.VirtualLayout(shape, "f4")
            layout[...] = h5py.VirtualSource(tmp_path / "other.h5", "x", shape=shape)
            layer.create_virtual_dataset("kernel", layout)
        else:
            layer.create_dataset("kernel", shape=(10**6, 10**6), dtype="f4", chunks=(1000, 1000), compression="gzip")
    with pytest.raises(WeightsError, match="not a Keras weights file"):
        keras_reference.read_weights((tmp_path / "weights.h5").read_bytes())
