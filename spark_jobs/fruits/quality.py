"""The quality gate: what must hold before a PCA is published, and how well neighbours agree."""

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
    """What the gate judges: counts by key, over the whole tables.

    Attributes:
        images: Rows of ``images``.
        rejects: Rows of ``rejects``.
        images_without_features: Images with no features of this model, or only of other content.
        features_without_image: Features of this model whose image is gone.
        features_without_pca: Features that were not projected, or projected rows without features.
        not_finite: Features with NaN or infinity.
        wrong_dims: Features of another length than the model gives.
        images_in_pca: Images that the PCA was fitted on.
    """

    images: int
    rejects: int
    images_without_features: int
    features_without_image: int
    features_without_pca: int
    not_finite: int
    wrong_dims: int
    images_in_pca: int

    @property
    def reject_rate(self) -> float:
        """Share of the listed objects that are not images."""
        listed = self.images + self.rejects
        return self.rejects / listed if listed else 0.0


def gate(facts: Facts, max_reject_rate: float) -> dict[str, Check]:
    """Judge a run.

    Args:
        facts: What was counted.
        max_reject_rate: Allowed share of rejects among all listed objects, in [0, 1].

    Returns:
        Each check by name; the gate passes when all are ok.
    """
    none = {
        "images_without_features": facts.images_without_features,
        "features_without_image": facts.features_without_image,
        "features_without_pca": facts.features_without_pca,
        "features_not_finite": facts.not_finite,
        "features_of_wrong_dims": facts.wrong_dims,
        "images_not_in_the_fit": abs(facts.images - facts.images_in_pca),
    }
    checks = {name: Check(count == 0, count, 0) for name, count in none.items()}
    checks["images"] = Check(facts.images >= 2, facts.images, 2)
    checks["reject_rate"] = Check(facts.reject_rate <= max_reject_rate, facts.reject_rate, max_reject_rate)
    return checks


def as_json(checks: dict[str, Check]) -> dict[str, dict[str, Any]]:
    """Give the checks as the stage's metrics carry them."""
    return {name: asdict(check) for name, check in checks.items()}


def neighbour_agreement(
    vectors: npt.NDArray[np.float32], labels: Sequence[str], sequences: Sequence[str]
) -> float | None:
    """Measure how often a photo's nearest neighbour has its label.

    Photos of one rotation sequence are near copies of each other, so that even random weights find them (0.993):
    where a label has several sequences, neighbours from a photo's own sequence do not count (0.35 then, and 0.83
    with ImageNet's weights).

    Args:
        vectors: (n, d) float32.
        labels: n labels.
        sequences: n sequences (`keys.sequence`).

    Returns:
        The share in [0, 1] over photos whose label has another photo to find; None when there are none, or when
        there is only one label.
    """
    if len(set(labels)) < 2:
        return None
    _, label = np.unique(np.asarray(labels, dtype=str), return_inverse=True)
    groups = [f"{name}\0{turn}" for name, turn in zip(labels, sequences, strict=True)]
    _, group = np.unique(np.asarray(groups, dtype=str), return_inverse=True)
    points = vectors.astype(np.float64)
    squares = np.einsum("ij,ij->i", points, points)
    found = hits = 0
    for i in range(len(points)):
        same_label = label == label[i]
        own = group == group[i]
        if own.sum() == same_label.sum():  # the names show no other sequence of this label
            own = np.arange(len(points)) == i
        if not np.any(same_label & ~own):
            continue
        distances = squares - 2.0 * (points @ points[i])
        distances[own] = np.inf
        found += 1
        hits += bool(same_label[int(np.argmin(distances))])
    return hits / found if found else None
