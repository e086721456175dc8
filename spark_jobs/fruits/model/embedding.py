"""Pixels to features inside a Python worker.

This module keeps the interpreter: a reused worker keeps its imported modules, and with them the interpreter, from task
to task, while a global of the job's script is created again for each task.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from fruits.base import schemas
from fruits.base.batches import Mapper, rebatch, to_list_column
from fruits.model.networks import MOBILENET_V2, Network
from fruits.model.preprocessing import fill

_OUT_ROWS = 64

Array = npt.NDArray[np.float32]


class Embedder:
    """A model in this process.

    `buffer`, (batch_size, input_px, input_px, 3) float32, is the model's input, to fill before each `embed`.
    """

    def __init__(self, batch_size: int, network: Network) -> None:
        self.batch_size, self.network = batch_size, network
        self.buffer = np.zeros((batch_size, network.input_px, network.input_px, 3), np.float32)

    def embed(self) -> Array:
        """Run the model on the buffer: (batch_size, dims) float32, valid until the next call."""
        raise NotImplementedError


class LiteRtEmbedder(Embedder):
    """A network as a LiteRT flatbuffer, on one thread: Spark already runs one worker per core."""

    def __init__(self, flatbuffer: bytes, batch_size: int, network: Network = MOBILENET_V2) -> None:
        from ai_edge_litert.interpreter import Interpreter

        super().__init__(batch_size, network)
        self._interpreter = Interpreter(model_content=flatbuffer, num_threads=1)
        self._input = self._interpreter.get_input_details()[0]["index"]
        self._output = self._interpreter.get_output_details()[0]["index"]
        self._interpreter.resize_tensor_input(self._input, self.buffer.shape, strict=True)
        self._interpreter.allocate_tensors()

    def embed(self) -> Array:
        """See `Embedder.embed`."""
        self._interpreter.set_tensor(self._input, self.buffer)
        self._interpreter.invoke()
        features: Array = self._interpreter.get_tensor(self._output)
        return features


_ready: dict[tuple[str, int], Embedder] = {}


def worker_embedder(model_id: str, batch_size: int, make: Callable[[], Embedder]) -> Embedder:
    """Return this worker's model, created on first use; another model or batch size replaces it."""
    key = (model_id, batch_size)
    if key not in _ready:
        _ready.clear()
        _ready[key] = make()
    return _ready[key]


def embed_mapper(
    broadcast: Any, model_id: str, engine: str, batch_size: int, network: Network = MOBILENET_V2
) -> Mapper:
    """Make the mapper from batches with image_id, content_sha256, pixels to `schemas.EMBEDDING` batches.

    `broadcast` is Spark's of the flatbuffer's bytes (engine ``litert``) or of Keras' list of weight arrays
    (``tensorflow``); `model_id` names it in the worker's cache. A batch crosses the borders of Arrow batches.
    """

    def make() -> Embedder:
        if engine == "litert":
            return LiteRtEmbedder(broadcast.value, batch_size, network)
        from fruits.model.keras_reference import KerasEmbedder

        return KerasEmbedder(broadcast.value, batch_size, network)

    def map_batches(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        rows = batch_size * max(1, _OUT_ROWS // batch_size)
        for batch in rebatch(batches, rows):
            features = embed_all(worker_embedder(model_id, batch_size, make), batch.column("pixels"))
            columns = [batch.column("image_id"), batch.column("content_sha256"), to_list_column(features)]
            yield pa.record_batch(columns, schema=schemas.EMBEDDING)

    return map_batches


def embed_all(model: Embedder, pixels: pa.Array) -> Array:
    """Embed n encoded pictures: (n, dims) float32.

    A last, partial batch runs with earlier pictures in the rest of the buffer; a row's features do not depend on its
    neighbours, to the bit.
    """
    features = np.empty((len(pixels), model.network.dims), np.float32)
    for start in range(0, len(pixels), model.batch_size):
        count = min(model.batch_size, len(pixels) - start)
        for slot in range(count):
            # Pillow's WebP decoder needs bytes, and would copy any other buffer.
            fill(pixels[start + slot].as_py(), model.buffer[slot], model.network)
        features[start : start + count] = model.embed()[:count]
    return features
