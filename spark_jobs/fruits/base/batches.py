"""Helpers for Arrow record batches in mappers: flat buffers, no pandas, no Python lists of numbers."""

import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

Mapper = Callable[[Iterable[Any]], Iterable[Any]]
"""A function for ``DataFrame.mapInArrow``: it maps the record batches of a partition to new ones."""


def block_pandas_import() -> None:
    """Keep pyarrow from importing pandas until the caller uses pandas itself.

    pyarrow imports pandas when it converts its first value, to check whether the value is a pandas object. That costs
    each Python worker half a second. pyarrow checks only once; ``to_pandas`` still imports pandas later. Until then,
    ``pa.array`` treats a Series as a plain sequence with NaN as a number; ``pa.Array.from_pandas`` does not.
    """
    sys.meta_path.insert(0, _PandasBlocker)
    try:
        pa.scalar(0)
    finally:
        sys.meta_path.remove(_PandasBlocker)


class _PandasBlocker:
    """An importer that fails for pandas."""

    @staticmethod
    def find_spec(name: str, *_: object) -> None:
        if name == "pandas":
            raise ModuleNotFoundError(f"no {name}", name=name)


def rebatch(batches: Iterable[pa.RecordBatch], rows: int) -> Iterator[pa.RecordBatch]:
    """Cut a stream of record batches into batches of exactly `rows` rows; the last one can be shorter."""
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


def to_list_column(values: npt.NDArray[np.float32]) -> pa.ListArray:
    """Convert a (n, d) float32 matrix to an Arrow list<float> column over the same buffer."""
    n, dims = values.shape
    offsets = pa.array(np.arange(0, (n + 1) * dims, dims, dtype=np.int32)[: n + 1])
    return pa.ListArray.from_arrays(offsets, pa.array(values.reshape(-1)))


def to_matrix(column: pa.ListArray, dims: int) -> npt.NDArray[np.float32]:
    """Convert an Arrow list<float> column to a (n, dims) float32 matrix over the same buffer.

    Raises:
        ValueError: A row does not have `dims` values.
    """
    values: npt.NDArray[np.float32] = column.flatten().to_numpy(zero_copy_only=True)
    if len(values) != len(column) * dims or np.any(np.diff(column.offsets.to_numpy()) != dims):
        raise ValueError(f"a row does not have {dims} features")
    return values.reshape(len(column), dims)
