"""Exact sums of labelled features: a count and a sum for each label, and the Gramian of all.

Linear discriminant analysis needs nothing else. The sums are of the same whole numbers as those of
`fruits.pca.gramian`, so that the same photos give the same classifier to the last bit, in any order.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from fruits.model.embedding import DIMS
from fruits.pca.gramian import SCALE_BITS, Gramian

Float = npt.NDArray[np.float64]
Int = npt.NDArray[np.int64]


def normalize(label: str | None) -> str | None:
    r"""Return a label in the form in which labels are compared; None for a photo that has none.

    Examples:
        >>> normalize("Cafe\u0301 ") == normalize("Caf\u00e9"), normalize(" ")
        (True, None)
    """
    return unicodedata.normalize("NFC", label).strip() or None if label else None


class LabelSums:
    """Counts and sums by label, and the Gramian of all labelled photos.

    Attributes:
        gramian: Of the photos of all labels together.
        counts: The number of photos by label.
    """

    def __init__(self, dims: int = DIMS) -> None:
        self.gramian = Gramian(dims)
        self.counts: dict[str, int] = {}
        self._sums: dict[str, Int] = {}

    @property
    def labels(self) -> list[str]:
        """The labels, sorted."""
        return sorted(self.counts)

    def add(self, labels: Sequence[str], features: npt.NDArray[np.float32]) -> None:
        """Add photos: a label and a row of features, (n, dims) float32, for each.

        Raises:
            FeaturesOutOfRangeError: A value is NaN, infinite or out of the range of `Gramian.add`.
        """
        self.gramian.add(features)
        numbers = np.rint(features.astype(np.float64) * 2**SCALE_BITS).astype(np.int64)
        by_label: dict[str, list[int]] = {}
        for row, label in enumerate(labels):
            by_label.setdefault(label, []).append(row)
        for label, rows in by_label.items():
            self._combine(label, len(rows), numbers[rows].sum(axis=0), 1)

    def merge(self, other: LabelSums) -> None:
        """Add the photos of other sums."""
        self.gramian.merge(other.gramian)
        for label, count in other.counts.items():
            self._combine(label, count, other._sums[label], 1)

    def subtract(self, other: LabelSums) -> None:
        """Remove photos: the result equals, to the last bit, the sums of those that remain.

        Raises:
            ValueError: `other` has more photos of a label than these sums.
        """
        for label, count in other.counts.items():
            if count > self.counts.get(label, 0):
                raise ValueError(f"cannot subtract {count} photos of {label!r} from {self.counts.get(label, 0)}")
        self.gramian.subtract(other.gramian)
        for label, count in other.counts.items():
            self._combine(label, count, other._sums[label], -1)

    def means(self) -> Float:
        """Return the mean features of each label, in the order of `labels`: (labels, dims) float64."""
        return np.stack([self._sums[label] / (self.counts[label] * 2.0**SCALE_BITS) for label in self.labels])

    def to_bytes(self) -> bytes:
        """Serialize, equal sums to equal bytes."""
        parts = [f"{label}\0{self.counts[label]}\0".encode() + self._sums[label].tobytes() for label in self.labels]
        return b"".join([self.gramian.to_bytes(), *parts])

    def _combine(self, label: str, count: int, sums: Int, sign: int) -> None:
        self.counts[label] = self.counts.get(label, 0) + sign * count
        self._sums[label] = self._sums.get(label, 0) + sign * sums
        if not self.counts[label]:
            del self.counts[label], self._sums[label]
