"""Record batches as mappers take and give them: flat buffers, no pandas, no Python lists of numbers."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

Mapper = Callable[[Iterable[Any]], Iterable[Any]]
"""What ``DataFrame.mapInArrow`` takes: from a partition's record batches to new ones."""


def without_pandas() -> None:
    """Keep pyarrow in this process from importing pandas before somebody asks for it.

    At the first value that it makes a column of, pyarrow asks whether it is one of pandas', and imports that to ask:
    half a second of each Python worker, none of which has any. It asks once. ``to_pandas`` imports it all the same;
    until then ``pa.array`` takes a Series for any sequence, its NaN for numbers: ``pa.Array.from_pandas`` does not.
    """
    sys.meta_path.insert(0, _NoPandas)
    try:
        pa.scalar(0)
    finally:
        sys.meta_path.remove(_NoPandas)


class _NoPandas:
    """An importer that knows of no pandas."""

    @staticmethod
    def find_spec(name: str, *_: object) -> None:
        if name == "pandas":
            raise ModuleNotFoundError(f"no {name}", name=name)


def rebatched(batches: Iterable[pa.RecordBatch], rows: int) -> Iterator[pa.RecordBatch]:
    """Cut a stream of record batches into batches of exactly `rows` rows, the last one excepted."""
    pending: list[pa.RecordBatch] = []
    count = 0
    for batch in batches:
        pending.append(batch)
        count += batch.num_rows
        if count < rows:
            continue
        whole = pa.concat_batches(pending)
        full = count - count % rows
        for start in range(0, full, rows):
            yield whole.slice(start, rows)
        pending, count = [whole.slice(full)], count - full
    if count:
        yield pa.concat_batches(pending)


def list_column(values: npt.NDArray[np.float32]) -> pa.ListArray:
    """Give a (n, d) float32 matrix as an Arrow list<float> column over the same buffer."""
    n, dims = values.shape
    offsets = pa.array(np.arange(0, (n + 1) * dims, dims, dtype=np.int32)[: n + 1])
    return pa.ListArray.from_arrays(offsets, pa.array(values.reshape(-1)))


def matrix(column: pa.ListArray, dims: int) -> npt.NDArray[np.float32]:
    """Give an Arrow list<float> column as a (n, dims) float32 matrix over the same buffer.

    Raises:
        ValueError: A row has another number of values.
    """
    values: npt.NDArray[np.float32] = column.flatten().to_numpy(zero_copy_only=True)
    if len(values) != len(column) * dims or np.any(np.diff(column.offsets.to_numpy()) != dims):
        raise ValueError(f"a row does not have {dims} features")
    return values.reshape(len(column), dims)
