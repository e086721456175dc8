"""The quality gate: what must hold before a PCA is published, and how well neighbours agree.

The part held out for the agreement is, for each photo, its own rotation sequence: its neighbour is looked for in the
others. The PCA itself is fitted on all photos, the judged ones too. It never sees a label, and a basis fitted without
them would be another than the one that is published. What that can flatter was measured once, on 900 photos of 20
fruits with 16 components, by fitting on half of the fruits and judging the other half: agreement 0.87 and 0.66, and
0.85 and 0.74 with the basis of all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class Check:
    """One condition of the gate.

    Attributes:
        ok: Whether it holds.
        value: What was found.
        limit: What is allowed.
    """

    ok: bool
    value: float
    limit: float


@dataclass(frozen=True)
class Facts:
    """What the gate judges: counts by key over the whole tables, and what was found in the rows not published yet.

    Rows that are published were looked at by the night that projected them, and are not read again.

    Attributes:
        images: Rows of ``images``.
        rejects: Rows of ``rejects``.
        images_without_features: Images with no features of this model, or only of other content.
        features_without_image: Features of this model whose image is gone.
        features_without_pca: Features that could not be projected.
        not_finite: Features with NaN or infinity.
        wrong_dims: Features of another length than the model gives.
        images_in_sums: Images in the sums that the basis was fitted on or compared with.
        smallest_norm: The smallest Euclidean norm of features projected tonight; None where there were none.
        largest_norm: The largest.
        explained_variance: The share of the variance of all images that the basis explains.
        agreement_features: 1-NN label agreement by raw features; None where there are no labels to compare.
        agreement_pca: The same by PCA.
        judged: Photos that the agreement was measured on.
    """

    images: int
    rejects: int
    images_without_features: int
    features_without_image: int
    features_without_pca: int
    not_finite: int
    wrong_dims: int
    images_in_sums: int
    smallest_norm: float | None
    largest_norm: float | None
    explained_variance: float
    agreement_features: float | None
    agreement_pca: float | None
    judged: int

    @property
    def reject_rate(self) -> float:
        """Share of the listed objects that are not images."""
        listed = self.images + self.rejects
        return self.rejects / listed if listed else 0.0


@dataclass(frozen=True)
class Limits:
    """What the gate allows.

    Attributes:
        reject_rate: Rejects among all listed objects, in [0, 1].
        smallest_norm: Of features: a vector of zeros says nothing about its photo.
        largest_norm: Of features: ReLU6 ends at 6, so that 6 * sqrt(1280) = 214.7 is never passed.
        explained_variance: The least share that the basis must explain.
        agreement: The least 1-NN label agreement, by features and by PCA; None with random weights, which are to
            show how the chain works and nothing else.
        judged: Photos below which agreement is chance and therefore only reported.
    """

    reject_rate: float = 0.2
    smallest_norm: float = 1e-3
    largest_norm: float = 6 * 1280**0.5
    explained_variance: float = 0.2
    agreement: float | None = None
    judged: int = 100


def gate(facts: Facts, limits: Limits) -> dict[str, Check]:
    """Judge a run.

    Returns:
        Each check by name; the gate passes when all are ok. A check that has nothing to judge is not among them.
    """
    none = {
        "images_without_features": facts.images_without_features,
        "features_without_image": facts.features_without_image,
        "features_without_pca": facts.features_without_pca,
        "features_not_finite": facts.not_finite,
        "features_of_wrong_dims": facts.wrong_dims,
        "images_not_in_the_sums": abs(facts.images - facts.images_in_sums),
    }
    checks = {name: Check(count == 0, count, 0) for name, count in none.items()}
    checks["images"] = Check(facts.images >= 2, facts.images, 2)
    checks["reject_rate"] = _at_most(facts.reject_rate, limits.reject_rate)
    checks["explained_variance"] = _at_least(facts.explained_variance, limits.explained_variance)
    if facts.smallest_norm is not None:
        checks["smallest_norm"] = _at_least(facts.smallest_norm, limits.smallest_norm)
    if facts.largest_norm is not None:
        checks["largest_norm"] = _at_most(facts.largest_norm, limits.largest_norm)
    if limits.agreement is not None and facts.judged >= limits.judged:
        for name in ("agreement_features", "agreement_pca"):
            agreement = getattr(facts, name)
            if agreement is not None:
                checks[name] = _at_least(agreement, limits.agreement)
    return checks


def _at_most(value: float, limit: float) -> Check:
    return Check(value <= limit, value, limit)


def _at_least(value: float, limit: float) -> Check:
    return Check(value >= limit, value, limit)


def as_json(checks: dict[str, Check]) -> dict[str, dict[str, Any]]:
    """Give the checks as the stage's metrics carry them."""
    return {name: asdict(check) for name, check in checks.items()}


def neighbour_agreement(
    vectors: npt.NDArray[np.float32], labels: Sequence[str], sequences: Sequence[str]
) -> tuple[float | None, int]:
    """Measure how often a photo's nearest neighbour has its label.

    Photos of one rotation sequence are near copies of each other, so that even random weights find them (0.993):
    where a label has several sequences, neighbours from a photo's own sequence do not count (0.35 then, and 0.83
    with ImageNet's weights).

    Args:
        vectors: (n, d) float32; n² distances are held at once.
        labels: n labels.
        sequences: n sequences (`keys.sequence`).

    Returns:
        The share in [0, 1] over photos whose label has another photo to find, and how many these are; None when
        there are none, or when there is only one label.
    """
    if len(set(labels)) < 2:
        return None, 0
    _, label = np.unique(np.asarray(labels, dtype=str), return_inverse=True)
    groups = [f"{name}\0{turn}" for name, turn in zip(labels, sequences, strict=True)]
    _, group = np.unique(np.asarray(groups, dtype=str), return_inverse=True)
    same_label, own = label[:, None] == label, group[:, None] == group
    # Where the names show no other sequence of a label, only the photo itself is left out.
    alone = own.sum(axis=1) == same_label.sum(axis=1)
    own[alone] = np.eye(len(label), dtype=bool)[alone]
    judged = np.any(same_label & ~own, axis=1)
    if not judged.any():
        return None, 0
    points = vectors.astype(np.float64)
    squares = np.einsum("ij,ij->i", points, points)
    distances = squares - 2.0 * (points @ points.T)
    distances[own] = np.inf
    hits = same_label[np.arange(len(label)), np.argmin(distances, axis=1)]
    return float(hits[judged].mean()), int(judged.sum())
