"""Exact Gramian of features for the PCA: count, sum and sum of products, equal to the last bit in any order.

Features are rounded to a fixed point and handled as whole numbers of at most 2**17: multiples of 2**-14 where the
network's features are within 8, as MobileNetV2's ReLU6 is, and coarser ones where its range is larger. A product is at
most 2**34, so that float64 (53 bits) holds any sum of 2**19 products exactly: a block of that many rows may go through
BLAS in any order. Blocks are then added in two 64-bit limbs, which hold more rows than there are photos.
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
from fruits.model.networks import MOBILENET_V2

NUMBER_BITS = 17
"""Of a feature of the limit: 2**-14 = 6.1e-5, to which 8 is rounded, is some 1e-8 of the variance of real features."""

_EXACT_ROWS = 2**19
_BLOCK_ROWS = 4096
_HEADER = struct.Struct("<4sHHQ")  # the third: by how many bits the fixed point is coarser than 2**-14
_MAGIC = b"FSU1"

Float = npt.NDArray[np.float64]
Int = npt.NDArray[np.int64]


def to_whole_numbers(features: npt.NDArray[np.float32], scale_bits: int, out: Float | None = None) -> Float:
    """Return features as multiples of 2**-scale_bits, each rounded to a whole number: float64 of the same shape."""
    scaled: Float = np.multiply(features, float(2**scale_bits), out=out, dtype=np.float64)
    return np.rint(scaled, out=scaled)


class _Limbs:
    """An array of whole numbers up to 2**95: ``high * 2**32 + low`` with low in [0, 2**32)."""

    def __init__(self, high: Int, low: Int) -> None:
        self.high = high
        self.low = low

    @classmethod
    def zeros(cls, shape: tuple[int, ...]) -> _Limbs:
        return cls(np.zeros(shape, np.int64), np.zeros(shape, np.int64))

    def add(self, high: Int | np.int64, low: Int) -> None:
        self.high += high
        self.low += low
        self.high += self.low >> 32
        self.low &= 0xFFFFFFFF

    def to_integers(self) -> npt.NDArray[np.object_]:
        """Return Python's own integers, which have no limit."""
        integers: npt.NDArray[np.object_] = self.high.astype(object) * 2**32 + self.low.astype(object)
        return integers


class Gramian:
    """Count, sum and Gramian of the `dims` features of `count` images, rounded to 2**-scale_bits.

    `limit` is the largest magnitude of a feature: a power of two, as of `Network.limit`.
    """

    def __init__(self, dims: int = MOBILENET_V2.dims, limit: int = MOBILENET_V2.limit) -> None:
        self.dims, self.limit = dims, limit
        self.scale_bits = NUMBER_BITS + 1 - limit.bit_length()
        self.count = 0
        self._sum = _Limbs.zeros((dims,))
        self._products = _Limbs.zeros((dims, dims))
        self._block = np.empty((_BLOCK_ROWS, dims))
        self._filled = 0
        self._pending = np.zeros((dims, dims))
        self._pending_rows = 0

    def add(self, features: npt.NDArray[np.float32]) -> None:
        """Add the features of images: (n, dims) float32, every value within the limit.

        Raises:
            FeaturesOutOfRangeError: A value is NaN, infinite or beyond the limit.
        """
        if not np.all(np.abs(features) <= self.limit):  # also false for NaN
            raise FeaturesOutOfRangeError(
                f"a feature is not a number within [-{self.limit}, {self.limit}], the range of its network: "
                "the model or its weights are broken"
            )
        start = 0
        while start < len(features):
            count = min(_BLOCK_ROWS - self._filled, len(features) - start)
            block = self._block[self._filled : self._filled + count]
            to_whole_numbers(features[start : start + count], self.scale_bits, out=block)
            self._filled += count
            self.count += count
            start += count
            if self._filled == _BLOCK_ROWS:
                self._multiply()

    def merge(self, other: Gramian) -> None:
        """Add the images of another Gramian."""
        self._combine(other, 1)

    def subtract(self, other: Gramian) -> None:
        """Remove images: the result equals, to the last bit, the Gramian of the remaining ones.

        Raises:
            ValueError: `other` has more images than this Gramian.
        """
        if other.count > self.count:
            raise ValueError(f"cannot subtract {other.count} images from {self.count}")
        self._combine(other, -1)

    def mean(self) -> Float:
        """Return the mean of each feature: (dims,) float64, correctly rounded."""
        self.settle()
        mean: Float = (self._sum.to_integers() / (self.count * 2**self.scale_bits)).astype(np.float64)
        return mean

    def covariance(self) -> Float:
        """Return the sample covariance (divided by n - 1): (dims, dims) float64, each entry correctly rounded.

        ``(n * products - sum * sum') / (n * (n - 1))`` in whole numbers, then one division: subtracting in floats
        would cancel most of the digits.
        """
        self.settle()
        rows, columns = np.triu_indices(self.dims)
        total = self._sum.to_integers()
        products = _Limbs(self._products.high[rows, columns], self._products.low[rows, columns]).to_integers()
        upper = products * self.count - total[rows] * total[columns]
        values = (upper / (self.count * (self.count - 1) * 4**self.scale_bits)).astype(np.float64)
        covariance = np.empty((self.dims, self.dims))
        covariance[rows, columns] = values
        covariance[columns, rows] = values
        return covariance

    def to_bytes(self) -> bytes:
        """Serialize, equal Gramians to equal bytes: header, sum, upper triangle of the products (13 MB)."""
        self.settle()
        upper = np.triu_indices(self.dims)
        parts = (self._sum.high, self._sum.low, self._products.high[upper], self._products.low[upper])
        header = _HEADER.pack(_MAGIC, self.dims, self.limit.bit_length() - MOBILENET_V2.limit.bit_length(), self.count)
        return header + b"".join(part.astype("<i8").tobytes() for part in parts)

    @classmethod
    def from_bytes(cls, data: bytes) -> Gramian:
        """Read the bytes of `to_bytes`.

        Raises:
            ValueError: `data` has another format or length.
        """
        magic, dims, coarser, count = _HEADER.unpack_from(data)
        triangle = dims * (dims + 1) // 2
        if magic != _MAGIC or coarser >= NUMBER_BITS or len(data) != _HEADER.size + 8 * 2 * (dims + triangle):
            raise ValueError("not the bytes of a Gramian")
        values = np.frombuffer(data, "<i8", offset=_HEADER.size).astype(np.int64)
        gramian = cls(dims, MOBILENET_V2.limit << coarser)
        gramian.count = count
        gramian._sum = _Limbs(values[:dims].copy(), values[dims : 2 * dims].copy())
        upper = np.triu_indices(dims)
        products = gramian._products
        for limb, part in zip((products.high, products.low), np.split(values[2 * dims :], 2), strict=True):
            limb[upper] = part
            limb.T[upper] = part
        return gramian

    def settle(self) -> None:
        """Multiply and add what is still pending, after which two threads may read at once."""
        if self._filled:
            self._multiply()
        if self._pending_rows:
            self._fold()

    def _combine(self, other: Gramian, sign: int) -> None:
        if (self.dims, self.limit) != (other.dims, other.limit):
            raise ValueError(f"features of {other.dims} to {other.limit} are not those of {self.dims} to {self.limit}")
        self.settle()
        other.settle()
        self.count += sign * other.count
        self._sum.add(sign * other._sum.high, sign * other._sum.low)
        self._products.add(sign * other._products.high, sign * other._products.low)

    def _multiply(self) -> None:
        block = self._block[: self._filled]
        # The same array twice, once transposed: NumPy calls BLAS' symmetric product, half the work.
        self._pending += block.T @ block
        self._pending_rows += len(block)
        self._sum.add(np.int64(0), block.sum(axis=0).astype(np.int64))
        self._filled = 0
        if self._pending_rows + _BLOCK_ROWS > _EXACT_ROWS:
            self._fold()

    def _fold(self) -> None:
        self._products.add(np.int64(0), self._pending.astype(np.int64))
        self._pending[:] = 0
        self._pending_rows = 0


def sum_mapper(dims: int = MOBILENET_V2.dims, limit: int = MOBILENET_V2.limit) -> Mapper:
    """Make the mapper from batches with `features` to one `schemas.GRAMIAN` row for each partition."""

    def map_batches(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        yield _row(sum_batches(batches, dims, limit))

    return map_batches


def sum_batches(
    batches: Iterable[pa.RecordBatch], dims: int = MOBILENET_V2.dims, limit: int = MOBILENET_V2.limit
) -> Gramian:
    """Compute the Gramian of batches with `features`, settled.

    Raises:
        FeaturesOutOfRangeError: A row does not have `dims` features, or one of them is out of range.
    """
    gramian = Gramian(dims, limit)
    for batch in batches:
        try:
            gramian.add(to_matrix(batch.column("features"), dims))
        except ValueError as error:
            raise FeaturesOutOfRangeError(f"{error}: featurize again with --full-refresh") from error
    gramian.settle()
    return gramian


def merge_mapper() -> Mapper:
    """Make the mapper that merges a partition's Gramians into one row, so that few of them reach the driver."""

    def map_batches(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        merged = merge_serialized(row for batch in batches for row in batch.column("sums").to_pylist())
        if merged is not None:
            yield _row(merged)

    return map_batches


def merge_serialized(parts: Iterator[bytes]) -> Gramian | None:
    """Merge serialized Gramians; None when there are none."""
    merged: Gramian | None = None
    for part in parts:
        gramian = Gramian.from_bytes(part)
        if merged is None:
            merged = gramian
        else:
            merged.merge(gramian)
    return merged


def _row(gramian: Gramian) -> pa.RecordBatch:
    return pa.record_batch([pa.array([gramian.to_bytes()], pa.binary())], schema=schemas.GRAMIAN)
