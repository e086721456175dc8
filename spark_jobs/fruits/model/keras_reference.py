"""The reference engine: Keras' own network with broadcast ``get_weights()``.

Only an embedder, on the worker, imports TensorFlow; the driver reads the weights with h5py alone.
"""

import io
from typing import Any

import numpy as np

from fruits.base.errors import WeightsError
from fruits.model.embedding import Array, Embedder
from fruits.model.networks import MOBILENET_V2, Network

_MOST_VALUES = 10_000_000  # of an array; the largest of MobileNetV2 has 409,600


def read_weights(data: bytes) -> list[Array]:
    """Read a weights file of Keras (HDF5, the layout with ``layer_names``) in the order of ``get_weights()``.

    Returns:
        The arrays, float32, layer by layer as the file lists them, which is the model's own order.

    Raises:
        WeightsError: `data` has another format.
    """
    import h5py  # type: ignore[import-untyped]

    try:
        with h5py.File(io.BytesIO(data), "r") as file:
            root = file.get("model_weights", file)
            layers = [root[_text(name)] for name in root.attrs["layer_names"]]
            arrays = [layer[_text(name)] for layer in layers for name in layer.attrs["weight_names"]]
            if any(array.external or array.is_virtual or array.size > _MOST_VALUES for array in arrays):
                raise ValueError("HDF5 would read any file of this machine, or more than its memory")
            return [np.asarray(array, np.float32) for array in arrays]
    except (AttributeError, OSError, KeyError, ValueError, TypeError) as error:
        raise WeightsError(
            "not a Keras weights file: give an .h5 with layer_names and weight_names, as Keras' own "
            f"weights without top are ({type(error).__name__})"
        ) from error


def blank(network: Network) -> Any:
    """Build Keras' network without top, average-pooled, with weights of no meaning.

    Returns:
        A ``keras.Model`` from (n, input_px, input_px, 3) float32, as `preprocessing.fill` makes them, to (n, dims)
        float32.
    """
    import keras

    shape = network.input_px, network.input_px, 3
    return getattr(keras.applications, network.name)(input_shape=shape, include_top=False, pooling="avg", weights=None)


def build(weights: list[Array], network: Network = MOBILENET_V2) -> Any:
    """Build `blank` with the arrays of ``get_weights()``.

    Raises:
        WeightsError: The number of arrays or a shape differs.
    """
    model = blank(network)
    expected = [tuple(array.shape) for array in model.get_weights()]
    shapes = [tuple(array.shape) for array in weights]
    if shapes != expected:
        pairs = enumerate(zip(expected, shapes, strict=False))
        difference = next(
            (f"array {i} is {actual}, expected {shape}" for i, (shape, actual) in pairs if shape != actual),
            f"{len(shapes)} arrays, expected {len(expected)}",
        )
        raise WeightsError(f"the weights do not fit {network.name} without top: {difference}")
    model.set_weights(weights)
    return model


class KerasEmbedder(Embedder):
    """Keras' network in a worker, on one thread, like the LiteRT engine."""

    def __init__(self, weights: list[Array], batch_size: int, network: Network) -> None:
        import tensorflow as tf

        super().__init__(batch_size, network)
        if not tf.config.threading.get_intra_op_parallelism_threads():
            tf.config.threading.set_intra_op_parallelism_threads(1)
            tf.config.threading.set_inter_op_parallelism_threads(1)
        model = build(weights, network)
        self._run = tf.function(lambda pictures: model(pictures, training=False))

    def embed(self) -> Array:
        """See `Embedder.embed`."""
        features: Array = self._run(self.buffer).numpy()
        return features


def _text(name: Any) -> str:
    return name.decode() if isinstance(name, bytes) else str(name)
