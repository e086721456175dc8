"""The reference engine: Keras' own MobileNetV2 with broadcast ``get_weights()``.

TensorFlow is imported only when an embedder is made, on the worker; the driver reads the weights with h5py alone.
"""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import numpy.typing as npt

from fruits.base.errors import WeightsError
from fruits.model.preprocessing import INPUT_PX

Array = npt.NDArray[np.float32]


def read_weights(data: bytes) -> list[Array]:
    """Read a weights file of Keras (HDF5, the layout with ``layer_names``) in the order of ``get_weights()``.

    Args:
        data: The file's bytes.

    Returns:
        The arrays, float32, layer by layer as the file lists them, which is the model's own order.

    Raises:
        WeightsError: Not such a file.
    """
    import h5py  # type: ignore[import-untyped]

    try:
        with h5py.File(io.BytesIO(data), "r") as file:
            root = file.get("model_weights", file)
            layers = [root[_text(name)] for name in root.attrs["layer_names"]]
            return [
                np.asarray(layer[_text(name)], np.float32)
                for layer in layers
                for name in layer.attrs["weight_names"]
            ]
    except (OSError, KeyError, ValueError, TypeError) as error:
        raise WeightsError(
            "not a Keras weights file: give an .h5 with layer_names and weight_names, as Keras' own "
            f"MobileNetV2 no_top weights are ({type(error).__name__})"
        ) from error


def build(weights: list[Array]) -> Any:
    """Build Keras' MobileNetV2 without top, average-pooled, with these weights.

    Args:
        weights: `read_weights` of a file, or ``model.get_weights()``.

    Returns:
        A ``keras.Model`` from (n, 224, 224, 3) float32 in [-1, 1] to (n, 1280) float32.

    Raises:
        WeightsError: Another number of arrays, or other shapes.
    """
    import keras

    model = keras.applications.MobileNetV2(
        input_shape=(INPUT_PX, INPUT_PX, 3), include_top=False, pooling="avg", weights=None
    )
    wanted = [tuple(array.shape) for array in model.get_weights()]
    given = [tuple(array.shape) for array in weights]
    if wanted != given:
        first = next(
            (
                f"array {i} is {b}, wanted {a}"
                for i, (a, b) in enumerate(zip(wanted, given, strict=False))
                if a != b
            ),
            f"{len(given)} arrays, wanted {len(wanted)}",
        )
        raise WeightsError(f"the weights do not fit MobileNetV2 1.0 without top: {first}")
    model.set_weights(weights)
    return model


class KerasEmbedder:
    """Keras' MobileNetV2 in a worker, on one thread, as the LiteRT engine runs."""

    def __init__(self, weights: list[Array], batch_size: int) -> None:
        import tensorflow as tf

        if not tf.config.threading.get_intra_op_parallelism_threads():
            tf.config.threading.set_intra_op_parallelism_threads(1)
            tf.config.threading.set_inter_op_parallelism_threads(1)
        self.batch_size = batch_size
        model = build(weights)
        self._run = tf.function(lambda pictures: model(pictures, training=False))
        self._buffer = np.zeros((batch_size, INPUT_PX, INPUT_PX, 3), np.float32)

    def input(self) -> Array:
        """See `fruits.model.embedding.Embedder.input`."""
        return self._buffer

    def embed(self) -> Array:
        """See `fruits.model.embedding.Embedder.embed`."""
        features: Array = self._run(self._buffer).numpy()
        return features


def _text(name: Any) -> str:
    return name.decode() if isinstance(name, bytes) else str(name)
