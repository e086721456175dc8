"""Linear discriminant analysis with shrinkage, fitted from exact sums in the space of a PCA model.

The same as scikit-learn's ``LinearDiscriminantAnalysis(solver="lsqr", shrinkage=...)`` over the photos' vectors.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fruits.base.errors import NoClassifierError
from fruits.classifier.label_sums import LabelSums
from fruits.pca.principal_components import Pca

Float = npt.NDArray[np.float64]


class Scores(NamedTuple):
    """What a classifier says of n vectors before calibration."""

    values: Float  # (n, labels): the logarithm of each label's probability, up to a constant of the row
    distances: Float  # (n,): squared Mahalanobis distance from the nearest label's mean


class Calibration(NamedTuple):
    """How scores become answers."""

    temperature: float  # scores are divided by it: a linear classifier is far too sure of itself
    min_confidence: float  # the least probability of an answer; above 1, nothing is answered
    max_distance: float  # the largest distance of an answer


class Answers(NamedTuple):
    """The answers for n vectors; `is_known` is False where the answer is "I do not know"."""

    ranked: npt.NDArray[np.int64]  # (n, min(3, labels)): places in the list of labels, most probable first
    confidence: Float  # (n,): calibrated probability of the first; 0 for a vector that is not finite
    is_known: npt.NDArray[np.bool_]  # (n,)


@dataclass(frozen=True)
class Discriminant:
    """A fitted classifier."""

    labels: list[str]  # sorted
    whitening: Float  # (k, k): makes the scatter within labels the identity
    means: Float  # (labels, k): whitened
    log_priors: Float  # (labels,): logarithm of each label's share of the photos

    def score(self, vectors: npt.NDArray[np.float32]) -> Scores:
        """Score vectors of the PCA model: (n, k) float32."""
        points = vectors.astype(np.float64) @ self.whitening
        nearness = points @ self.means.T - np.square(self.means).sum(axis=1) / 2
        distances = np.square(points).sum(axis=1) - 2 * nearness.max(axis=1)
        return Scores(nearness + self.log_priors, np.maximum(distances, 0.0))


def fit(sums: LabelSums, pca: Pca, shrinkage: float) -> Discriminant:
    """Fit a classifier for the vectors of a PCA model; `shrinkage` is above 0 and at most 1.

    Raises:
        NoClassifierError: No two photos of a label differ.
    """
    labels, n = sums.labels, sums.gramian.count
    counts = np.array([sums.counts[label] for label in labels], np.float64)
    means = (sums.means() - pca.mean) @ pca.components.T
    offsets = means - (sums.gramian.mean() - pca.mean) @ pca.components.T
    total = pca.components @ sums.gramian.covariance() @ pca.components.T * (n - 1) / n
    within = total - (offsets * counts[:, None]).T @ offsets / n
    if np.trace(within) <= 1e-9 * np.trace(total):
        raise NoClassifierError("no two photos of a label differ: each label needs several photos")
    ball = np.trace(within) / len(within) * np.eye(len(within))
    whitening = np.linalg.inv(np.linalg.cholesky((1 - shrinkage) * within + shrinkage * ball)).T
    return Discriminant(labels, whitening, means @ whitening, np.log(counts / n))


def probabilities(scores: Float, temperature: float) -> Float:
    """Return the probability of each label, (n, labels) float64, from scores and a temperature."""
    weights = np.exp((scores - scores.max(axis=1, keepdims=True)) / temperature)
    shares: Float = weights / weights.sum(axis=1, keepdims=True)
    return shares


def answer(scores: Scores, calibration: Calibration) -> Answers:
    """Rank the labels of n vectors and decide which answers are given."""
    shares = np.nan_to_num(probabilities(scores.values, calibration.temperature))
    ranked = np.argsort(-shares, axis=1, kind="stable")[:, :3]
    confidence = shares[np.arange(len(shares)), ranked[:, 0]]
    is_known = (confidence >= calibration.min_confidence) & (scores.distances <= calibration.max_distance)
    return Answers(ranked, confidence, is_known)


@dataclass(frozen=True)
class Classifier(Discriminant):
    """A published classifier. Its fields are columns of ``classifiers``, whose comments say what they are."""

    classifier_id: str
    pca_id: str
    settings: str
    label_set: str
    n: int
    temperature: float
    min_confidence: float
    max_distance: float
    top1: float
    evaluation: str
    run_id: str

    @classmethod
    def from_row(cls, row: dict[str, Any]) -> Classifier:
        """Read a row of ``classifiers``."""
        arrays = {name: np.array(row[name]) for name in ("whitening", "means", "log_priors")}
        return cls(**{field.name: row[field.name] for field in fields(cls)} | arrays)

    def name(self, vectors: npt.NDArray[np.float32]) -> Answers:
        """Name vectors of its PCA model: (n, k) float32."""
        return answer(self.score(vectors), Calibration(self.temperature, self.min_confidence, self.max_distance))
