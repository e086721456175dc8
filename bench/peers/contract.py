"""What a peer is told, and what it answers: arguments in, one line of JSON out."""

import argparse
import json
import sys
import time
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa

KEY = "key"
"""Column of a peer's result: the photo's path below the folder, with forward slashes."""

FEATURES = "features"
"""Column of a peer's result: 1280 float32."""

DIMS = 1280

T = TypeVar("T", bound=Any)


@dataclass(frozen=True)
class Task:
    """One run of one peer."""

    images: Path  # folder of photos, `<label>/<file>.jpg`
    engine: str  # `keras` or `litert`
    weights: Path  # Keras weights, for the engine `keras`
    flatbuffer: Path  # LiteRT model, for the engine `litert`
    out: Path  # folder that gets the features as Parquet files
    workers: int  # processes that run the model, each with one thread unless the peer says otherwise; slots of Spark

    @property
    def model_bytes(self) -> bytes:
        """The LiteRT flatbuffer."""
        return self.flatbuffer.read_bytes()


def parse(kind: type[T], doc: str | None) -> T:
    """Read a peer's command line, which has an option for each field of a dataclass."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    for option in fields(kind):
        is_path = option.type is Path
        parser.add_argument(f"--{option.name}", type=_absolute if is_path else option.type, required=True)
    return kind(**vars(parser.parse_args()))


def _absolute(text: str) -> Path:
    return Path(text).resolve()


class Clock:
    """The same clock for everybody.

    It starts when the framework could take work (Spark's context, Ray's node, the bare process) and stops when the
    results are on disk. In between lie worker start-up, loading the model, reading, decoding, inference, writing.
    """

    def __init__(self) -> None:
        self._started = time.perf_counter()

    def report(self, **figures: object) -> None:
        """Print the answer: `seconds` since the clock started, and what else the peer has measured."""
        line = {"seconds": round(time.perf_counter() - self._started, 3), **figures}
        sys.stdout.write(json.dumps(line) + "\n")
        sys.stdout.flush()


def result_table(keys: list[str], rows: np.ndarray) -> pa.Table:
    """Return a peer's result: keys and (n, 1280) float32 features."""
    return pa.table({KEY: pa.array(keys, pa.string()), FEATURES: vectors(rows)})


def vectors(rows: np.ndarray) -> pa.FixedSizeListArray:
    """(n, 1280) float32 as one Arrow array, not copied."""
    return pa.FixedSizeListArray.from_arrays(pa.array(np.ascontiguousarray(rows).reshape(-1)), DIMS)
