"""Pixels to features inside a Python worker.

The interpreter is kept in this module: a reused worker keeps its imported modules, and with them the ready
interpreter, from task to task, while a global of the job's script would be made again for each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from fruits.base import schemas
from fruits.base.batches import Mapper, rebatch, to_list_column
from fruits.model.preprocessing import INPUT_PX, fill

DIMS = 1280
"""Features per image."""

_OUT_ROWS = 64

Array = npt.NDArray[np.float32]


class Embedder(Protocol):
    """A ready model in this process.

    Attributes:
        batch_size: How many pictures one `embed` takes.
    """

    batch_size: int

    def input(self) -> Array:
        """Give the (batch_size, 224, 224, 3) float32 buffer to fill; not to be kept across `embed`."""

    def embed(self) -> Array:
        """Run the model on what is in the buffer: (batch_size, 1280) float32, valid until the next call."""


class LiteRtEmbedder:
    """MobileNetV2 as a LiteRT flatbuffer, on one thread: Spark already runs one worker per core."""

    def __init__(self, flatbuffer: bytes, batch_size: int) -> None:
        from ai_edge_litert.interpreter import Interpreter

        self.batch_size = batch_size
        self._interpreter = Interpreter(model_content=flatbuffer, num_threads=1)
        self._input = self._interpreter.get_input_details()[0]["index"]
        self._output = self._interpreter.get_output_details()[0]["index"]
        self._interpreter.resize_tensor_input(self._input, [batch_size, INPUT_PX, INPUT_PX, 3], strict=True)
        self._interpreter.allocate_tensors()
        self._buffer = np.zeros((batch_size, INPUT_PX, INPUT_PX, 3), np.float32)

    def input(self) -> Array:
        """See `Embedder.input`."""
        return self._buffer

    def embed(self) -> Array:
        """See `Embedder.embed`."""
        self._interpreter.set_tensor(self._input, self._buffer)
        self._interpreter.invoke()
        features: Array = self._interpreter.get_tensor(self._output)
        return features


_ready: dict[tuple[str, int], Embedder] = {}


def embedder(model_id: str, batch_size: int, make: Callable[[], Embedder]) -> Embedder:
    """Give this worker's model, made on first use and kept; another model or batch size replaces it."""
    key = (model_id, batch_size)
    if key not in _ready:
        _ready.clear()
        _ready[key] = make()
    return _ready[key]


def mapper(broadcast: Any, model_id: str, engine: str, batch_size: int) -> Mapper:
    """Make the mapper that turns pixels into features.

    Args:
        broadcast: Spark broadcast of the flatbuffer's bytes, or of Keras' list of weight arrays.
        model_id: What the broadcast value is, for the worker's cache.
        engine: ``litert`` or ``tensorflow``.
        batch_size: Pictures per call of the model, across the borders of Arrow batches.

    Returns:
        A mapper from batches with image_id, content_sha256, pixels to `schemas.EMBEDDING` batches.
    """

    def make() -> Embedder:
        if engine == "litert":
            return LiteRtEmbedder(broadcast.value, batch_size)
        from fruits.model.keras_reference import KerasEmbedder

        return KerasEmbedder(broadcast.value, batch_size)

    def embed(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        rows = batch_size * max(1, _OUT_ROWS // batch_size)
        for batch in rebatch(batches, rows):
            model = embedder(model_id, batch_size, make)
            features = embed_all(model, batch.column("pixels"))
            yield pa.record_batch(
                [batch.column("image_id"), batch.column("content_sha256"), to_list_column(features)],
                schema=schemas.EMBEDDING,
            )

    return embed


def embed_all(model: Embedder, pixels: pa.Array) -> Array:
    """Embed a column of encoded pictures.

    Args:
        model: The model.
        pixels: n encoded pictures, binary.

    Returns:
        (n, 1280) float32. A last, partial batch runs with what is left in the buffer behind it; a row's features
        do not depend on its neighbours, to the bit.
    """
    features = np.empty((len(pixels), DIMS), np.float32)
    for start in range(0, len(pixels), model.batch_size):
        count = min(model.batch_size, len(pixels) - start)
        buffer = model.input()
        for slot in range(count):
            # The one copy that Pillow's WebP decoder asks for: it takes bytes, and makes them of any other buffer.
            fill(pixels[start + slot].as_py(), buffer[slot])
        features[start : start + count] = model.embed()[:count]
    return features
