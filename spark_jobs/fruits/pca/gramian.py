"""Exact sums for the PCA: count, sum and Gramian of features, the same to the last bit in any order.

Features are rounded to multiples of 2**-14 and handled as whole numbers. MobileNetV2 pools ReLU6, so a feature is
within [0, 6]; with |x| <= 8 a number is at most 2**17 and a product at most 2**34, so that float64 (53 bits) holds
any sum of 2**19 products exactly: a block of that many rows may go through BLAS in any order. Blocks are then added
in two 64-bit limbs, which hold more rows than there are photos.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from fruits.base import schemas
from fruits.base.batches import Mapper, to_matrix
from fruits.base.errors import FeaturesOutOfRangeError
from fruits.model.embedding import DIMS

SCALE_BITS = 14
"""Features are rounded to multiples of 2**-14 = 6.1e-5, some 1e-8 of the variance of real features."""

LIMIT = 8.0
"""The largest magnitude of a feature for which the sums are exact."""

_EXACT_ROWS = 2**19
_BLOCK_ROWS = 4096
_HEADER = struct.Struct("<4sIQ")
_MAGIC = b"FSU1"

Float = npt.NDArray[np.float64]
Int = npt.NDArray[np.int64]


class _Limbs:
    """An array of whole numbers up to 2**95: ``high * 2**32 + low`` with low in [0, 2**32)."""

    def __init__(self, high: Int, low: Int) -> None:
        self.high = high
        self.low = low

    @classmethod
    def zeros(cls, shape: tuple[int, ...]) -> _Limbs:
        return cls(np.zeros(shape, np.int64), np.zeros(shape, np.int64))

    def add(self, values: Int) -> None:
        self.low += values & 0xFFFFFFFF
        self.high += values >> 32
        self._carry()

    def merge(self, other: _Limbs) -> None:
        self.low += other.low
        self.high += other.high
        self._carry()

    def take(self, other: _Limbs) -> None:
        self.low -= other.low
        self.high -= other.high
        self._carry()

    def whole(self) -> npt.NDArray[np.object_]:
        """Python's own integers, which have no limit."""
        whole: npt.NDArray[np.object_] = self.high.astype(object) * 2**32 + self.low.astype(object)
        return whole

    def _carry(self) -> None:
        self.high += self.low >> 32
        self.low &= 0xFFFFFFFF


class Sums:
    """Count, sum and Gramian of features rounded to 2**-14.

    Attributes:
        dims: Features per image.
        count: Images summed.
    """

    def __init__(self, dims: int = DIMS) -> None:
        self.dims = dims
        self.count = 0
        self._total = _Limbs.zeros((dims,))
        self._gram = _Limbs.zeros((dims, dims))
        self._block = np.empty((_BLOCK_ROWS, dims))
        self._filled = 0
        self._pending = np.zeros((dims, dims))
        self._pending_rows = 0

    def add(self, features: npt.NDArray[np.float32]) -> None:
        """Add images.

        Args:
            features: (n, dims) float32, every value within [-8, 8].

        Raises:
            FeaturesOutOfRangeError: A value is NaN, infinite or beyond 8.
        """
        if not np.all(np.abs(features) <= LIMIT):  # also false for NaN
            raise FeaturesOutOfRangeError(
                f"a feature is not a number within [-{LIMIT:g}, {LIMIT:g}]: MobileNetV2 gives [0, 6]; "
                "the model or its weights are broken"
            )
        start = 0
        while start < len(features):
            count = min(_BLOCK_ROWS - self._filled, len(features) - start)
            block = self._block[self._filled : self._filled + count]
            np.multiply(features[start : start + count], float(2**SCALE_BITS), out=block)
            np.rint(block, out=block)
            self._filled += count
            self.count += count
            start += count
            if self._filled == _BLOCK_ROWS:
                self._multiply()

    def merge(self, other: Sums) -> None:
        """Add the sums of other images."""
        self._settle()
        other._settle()
        self.count += other.count
        self._total.merge(other._total)
        self._gram.merge(other._gram)

    def take(self, other: Sums) -> None:
        """Take images out again: what is left is, to the last bit, the sums of the others alone.

        Raises:
            ValueError: `other` has more images than there are here.
        """
        if other.count > self.count:
            raise ValueError(f"cannot take {other.count} images out of {self.count}")
        self._settle()
        other._settle()
        self.count -= other.count
        self._total.take(other._total)
        self._gram.take(other._gram)

    def mean(self) -> Float:
        """Give the mean of each feature: (dims,) float64, correctly rounded."""
        self._settle()
        mean: Float = (self._total.whole() / (self.count * 2**SCALE_BITS)).astype(np.float64)
        return mean

    def covariance(self) -> Float:
        """Give the sample covariance (divided by n - 1): (dims, dims) float64, each entry correctly rounded.

        ``(n * gram - total * total') / (n * (n - 1))`` in whole numbers, then one division: subtracting in floats
        would cancel most of the digits.
        """
        self._settle()
        rows, columns = np.triu_indices(self.dims)
        total = self._total.whole()
        gram = _Limbs(self._gram.high[rows, columns], self._gram.low[rows, columns]).whole()
        upper = gram * self.count - total[rows] * total[columns]
        values = (upper / (self.count * (self.count - 1) * 4**SCALE_BITS)).astype(np.float64)
        covariance = np.empty((self.dims, self.dims))
        covariance[rows, columns] = values
        covariance[columns, rows] = values
        return covariance

    def to_bytes(self) -> bytes:
        """Give the sums as bytes, equal for equal sums: header, sum, upper triangle of the Gramian (13 MB)."""
        self._settle()
        upper = np.triu_indices(self.dims)
        parts = (self._total.high, self._total.low, self._gram.high[upper], self._gram.low[upper])
        header = _HEADER.pack(_MAGIC, self.dims, self.count)
        return header + b"".join(part.astype("<i8").tobytes() for part in parts)

    @classmethod
    def from_bytes(cls, data: bytes) -> Sums:
        """Read what `to_bytes` gave.

        Raises:
            ValueError: Not such bytes.
        """
        magic, dims, count = _HEADER.unpack_from(data)
        triangle = dims * (dims + 1) // 2
        if magic != _MAGIC or len(data) != _HEADER.size + 8 * 2 * (dims + triangle):
            raise ValueError("not the bytes of PCA sums")
        values = np.frombuffer(data, "<i8", offset=_HEADER.size).astype(np.int64)
        sums = cls(dims)
        sums.count = count
        sums._total = _Limbs(values[:dims].copy(), values[dims : 2 * dims].copy())
        upper = np.triu_indices(dims)
        for limb, part in zip(
            (sums._gram.high, sums._gram.low),
            (values[2 * dims : 2 * dims + triangle], values[2 * dims + triangle :]),
            strict=True,
        ):
            limb[upper] = part
            limb.T[upper] = part
        return sums

    def _multiply(self) -> None:
        block = self._block[: self._filled]
        # The same array twice, once transposed: NumPy calls BLAS' symmetric product, half the work.
        self._pending += block.T @ block
        self._pending_rows += len(block)
        self._total.add(block.sum(axis=0).astype(np.int64))
        self._filled = 0
        if self._pending_rows + _BLOCK_ROWS > _EXACT_ROWS:
            self._fold()

    def _fold(self) -> None:
        self._gram.add(self._pending.astype(np.int64))
        self._pending[:] = 0
        self._pending_rows = 0

    def _settle(self) -> None:
        if self._filled:
            self._multiply()
        if self._pending_rows:
            self._fold()


def summer(dims: int = DIMS) -> Mapper:
    """Make the mapper that sums a partition's features: batches with `features` to one `schemas.GRAMIAN` row."""

    def sum_up(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        sums = summed(batches, dims)
        yield pa.record_batch([pa.array([sums.to_bytes()], pa.binary())], schema=schemas.GRAMIAN)

    return sum_up


def summed(batches: Iterable[pa.RecordBatch], dims: int = DIMS) -> Sums:
    """Sum batches with `features`.

    Returns:
        The sums, with nothing left to multiply: two threads may read them at once.

    Raises:
        FeaturesOutOfRangeError: A row does not have `dims` features, or one of them is out of range.
    """
    sums = Sums(dims)
    for batch in batches:
        try:
            sums.add(to_matrix(batch.column("features"), dims))
        except ValueError as error:
            raise FeaturesOutOfRangeError(f"{error}: featurize again with --full-refresh") from error
    sums._settle()
    return sums


def merger() -> Mapper:
    """Make the mapper that merges a partition's sums into one row, so that few of them reach the driver."""

    def merge(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        merged = merged_sums(row for batch in batches for row in batch.column("sums").to_pylist())
        if merged is not None:
            yield pa.record_batch([pa.array([merged.to_bytes()], pa.binary())], schema=schemas.GRAMIAN)

    return merge


def merged_sums(parts: Iterator[bytes]) -> Sums | None:
    """Merge sums given as bytes; None when there are none."""
    merged: Sums | None = None
    for part in parts:
        sums = Sums.from_bytes(part)
        if merged is None:
            merged = sums
        else:
            merged.merge(sums)
    return merged
