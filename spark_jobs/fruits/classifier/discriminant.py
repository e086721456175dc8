"""Linear discriminant analysis with shrinkage, fitted from exact sums in the space of a PCA model.

The same as scikit-learn's ``LinearDiscriminantAnalysis(solver="lsqr", shrinkage=...)`` over the vectors of the photos,
without reading them again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from fruits.base.errors import NoClassifierError
from fruits.classifier.label_sums import LabelSums
from fruits.pca.principal_components import Pca

Float = npt.NDArray[np.float64]
Vectors = npt.NDArray[np.float32]


class Scores(NamedTuple):
    """What a classifier says of n vectors before calibration.

    Attributes:
        values: (n, labels) float64: the logarithm of each label's probability, up to a constant of the row.
        distances: (n,) float64: squared Mahalanobis distance from the nearest label's mean.
    """

    values: Float
    distances: Float


@dataclass(frozen=True)
class Calibration:
    """How scores become answers.

    Attributes:
        temperature: Scores are divided by it: a linear classifier is far too sure of itself.
        min_confidence: The least probability of an answer; above 1, nothing is answered.
        max_distance: The largest distance of an answer.
    """

    temperature: float
    min_confidence: float
    max_distance: float


class Answers(NamedTuple):
    """The answers for n vectors: places in the list of labels, most probable first, and whether the first is given.

    Attributes:
        ranked: (n, min(3, labels)) int64.
        confidence: (n,) float64: the calibrated probability of the first; 0 for a vector that is not finite.
        is_known: (n,) bool: False where the answer is "I do not know".
    """

    ranked: npt.NDArray[np.int64]
    confidence: Float
    is_known: npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Discriminant:
    """A fitted classifier.

    Attributes:
        labels: The labels, sorted.
        whitening: (k, k) float64: makes the scatter within labels the identity.
        means: (labels, k) float64: of each label, whitened.
        log_priors: (labels,) float64: of each label's share of the photos.
    """

    labels: list[str]
    whitening: Float
    means: Float
    log_priors: Float

    def score(self, vectors: Vectors) -> Scores:
        """Score vectors of the PCA model: (n, k) float32."""
        points = vectors.astype(np.float64) @ self.whitening
        nearness = points @ self.means.T - np.square(self.means).sum(axis=1) / 2
        distances = np.square(points).sum(axis=1) - 2 * nearness.max(axis=1)
        return Scores(nearness + self.log_priors, np.maximum(distances, 0.0))


def fit(sums: LabelSums, pca: Pca, shrinkage: float) -> Discriminant:
    """Fit a classifier.

    Args:
        sums: Of the labelled photos to learn from.
        pca: The PCA model of the vectors that it will name.
        shrinkage: How much of the scatter is replaced by that of a ball, above 0 and at most 1.

    Raises:
        NoClassifierError: Fewer than two labels, or no two photos of a label differ.
    """
    labels, n = sums.labels, sums.gramian.count
    if len(labels) < 2:
        raise NoClassifierError(f"{len(labels)} label(s) to learn from: a classifier needs at least 2")
    counts = np.array([sums.counts[label] for label in labels], np.float64)
    means = (sums.means() - pca.mean) @ pca.components.T
    offsets = means - (sums.gramian.mean() - pca.mean) @ pca.components.T
    total = pca.components @ sums.gramian.covariance() @ pca.components.T * (n - 1)
    within = (total - (offsets * counts[:, None]).T @ offsets) / n
    variance = np.trace(within) / len(within)
    if variance <= 1e-9 * np.trace(total) / (n * len(within)):
        raise NoClassifierError("no two photos of a label differ: each label needs several photos")
    shrunk = (1 - shrinkage) * within + shrinkage * variance * np.eye(len(within))
    whitening = np.linalg.inv(np.linalg.cholesky(shrunk)).T
    return Discriminant(labels, whitening, means @ whitening, np.log(counts / n))


def probabilities(scores: Float, temperature: float) -> Float:
    """Return the probability of each label, (n, labels) float64, from scores and a temperature."""
    scaled = (scores - scores.max(axis=1, keepdims=True)) / temperature
    weights = np.exp(scaled)
    shares: Float = weights / weights.sum(axis=1, keepdims=True)
    return shares


def answer(scores: Scores, calibration: Calibration) -> Answers:
    """Rank the labels of n vectors and decide which answers are given."""
    shares = np.nan_to_num(probabilities(scores.values, calibration.temperature))
    ranked = np.argsort(-shares, axis=1, kind="stable")[:, :3]
    confidence = shares[np.arange(len(shares)), ranked[:, 0]]
    is_known = (confidence >= calibration.min_confidence) & (scores.distances <= calibration.max_distance)
    return Answers(ranked, confidence, is_known)
