"""The two engines that peers run, set up as fairly as we know how.

Keras: the model is called through a `tf.function` (103 images/s where `predict` gave 67), 32 images at a time, one
TensorFlow thread per worker so that two workers do not fight over two cores. LiteRT: batch 1, its fastest, one
thread per worker. The usual notebook (`notebook.py`) is the exception: it stays as it is published.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from bench.peers.contract import DIMS, Task
from bench.peers.pixels import INPUT_PX

BATCH = 32
"""Images per call of a peer's function."""

Engine = Callable[[np.ndarray], np.ndarray]
"""(n, 224, 224, 3) float32 to (n, 1280) float32."""


def quiet_tensorflow(threads: int | None) -> Any:
    """Import TensorFlow with `threads` threads (None: its own choice) and without its log lines."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import tensorflow as tf

    if threads is not None:
        try:
            tf.config.threading.set_intra_op_parallelism_threads(threads)
            tf.config.threading.set_inter_op_parallelism_threads(threads)
        except RuntimeError:
            pass  # a reused worker has TensorFlow running already, with the same threads
    return tf


def keras_model(weights: Path | None) -> Any:
    """MobileNetV2 without top, average-pooled; without weights its own random ones."""
    import keras

    model = keras.applications.MobileNetV2(
        include_top=False, weights=None, pooling="avg", input_shape=(INPUT_PX, INPUT_PX, 3)
    )
    if weights is not None:
        model.load_weights(weights)
    return model


def keras_engine(set_weights: Callable[[Any], None]) -> Engine:
    """Return the Keras model as a compiled function, on one thread; `set_weights` gives the fresh model its weights."""
    tf = quiet_tensorflow(threads=1)
    model = keras_model(None)
    set_weights(model)
    call = tf.function(
        lambda images: model(images, training=False),
        input_signature=[tf.TensorSpec((None, INPUT_PX, INPUT_PX, 3), tf.float32)],
    )
    return lambda images: call(tf.constant(images)).numpy()


def litert_engine(flatbuffer: bytes) -> Engine:
    """Return the LiteRT interpreter, on one thread, one image at a time."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=flatbuffer, num_threads=1)
    interpreter.allocate_tensors()
    input_index = interpreter.get_input_details()[0]["index"]
    output_index = interpreter.get_output_details()[0]["index"]

    def features(images: np.ndarray) -> np.ndarray:
        rows = np.empty((len(images), DIMS), dtype=np.float32)
        for row, image in zip(rows, images, strict=True):
            interpreter.set_tensor(input_index, image[np.newaxis])
            interpreter.invoke()
            row[:] = interpreter.get_tensor(output_index)[0]
        return rows

    return features


def engine_of(task: Task) -> Engine:
    """Return the engine that `task` names, with its model read from disk."""
    if task.engine == "litert":
        return litert_engine(task.model_bytes)
    return keras_engine(lambda model: model.load_weights(task.weights))
