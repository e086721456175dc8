"""Exact sums of labelled features: a count and a sum for each label, and the Gramian of all.

Linear discriminant analysis needs nothing else. The sums are of the same whole numbers as those of
`fruits.pca.gramian`, so that the same photos give the same classifier to the last bit, in any order.
"""

import unicodedata
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from fruits.model.networks import MOBILENET_V2
from fruits.pca.gramian import Gramian, to_whole_numbers

Int = npt.NDArray[np.int64]


def normalize(label: str | None) -> str | None:
    """Return a label in the form in which labels are compared (NFC, no blanks around it); None without one."""
    return unicodedata.normalize("NFC", label).strip() or None if label else None


class LabelSums:
    """Counts and sums by label, and the Gramian of the photos of all labels together."""

    def __init__(self, dims: int = MOBILENET_V2.dims, limit: int = MOBILENET_V2.limit) -> None:
        self.gramian = Gramian(dims, limit)
        self.counts: dict[str, int] = {}
        self._sums: dict[str, Int] = {}

    @property
    def labels(self) -> list[str]:
        """The labels, sorted."""
        return sorted(self.counts)

    def add(self, labels: Sequence[str], features: npt.NDArray[np.float32]) -> None:
        """Add photos, a label and a row of features, (n, dims) float32, for each, with the errors of `Gramian.add`."""
        self.gramian.add(features)
        numbers = to_whole_numbers(features, self.gramian.scale_bits).astype(np.int64)
        by_label: dict[str, list[int]] = {}
        for row, label in enumerate(labels):
            by_label.setdefault(label, []).append(row)
        for label, rows in by_label.items():
            self.counts[label] = self.counts.get(label, 0) + len(rows)
            self._sums[label] = self._sums.get(label, 0) + numbers[rows].sum(axis=0)

    def means(self) -> npt.NDArray[np.float64]:
        """Return the mean features of each label, in the order of `labels`: (labels, dims) float64."""
        scale = 2.0**self.gramian.scale_bits
        return np.stack([self._sums[label] / (self.counts[label] * scale) for label in self.labels])

    def to_bytes(self) -> bytes:
        """Serialize, equal sums to equal bytes."""
        parts = [f"{label}\0{self.counts[label]}\0".encode() + self._sums[label].tobytes() for label in self.labels]
        return b"".join([self.gramian.to_bytes(), *parts])
