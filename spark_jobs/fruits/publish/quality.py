"""The quality gate: the conditions for publishing a PCA model, and the agreement of nearest neighbours.

The agreement leaves out each photo's own rotation sequence when it looks for the photo's neighbour. The PCA is fitted
on all photos, the judged ones too: it never sees a label, and a model fitted without them would differ from the
published one. The possible bias was measured on 900 photos of 20 fruits with 16 components, by fitting on half of the
fruits and judging the other half: agreement 0.87 and 0.66, and 0.85 and 0.74 with the model of all fruits.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class Check:
    """A condition of the gate: whether it holds, the measured value and the allowed limit."""

    ok: bool
    value: float
    limit: float


@dataclass(frozen=True)
class Facts:
    """Facts for the gate: counts by key over the whole tables, and measurements of the rows to publish.

    The run that projected a row measured it, so published rows are not read again. In a long history, the photos of one
    run hardly change a share of all photos. Facts that end in `_of_run` or `_of_new` judge them by themselves.
    """

    images: int
    rejects: int
    images_of_run: int  # loaded by this run
    rejects_of_run: int  # first rejected by this run
    images_without_features: int  # of this model and of their current content
    features_without_image: int
    features_without_pca: int  # features that could not be projected
    not_finite: int  # features with NaN or infinity
    wrong_dims: int  # features whose length differs from the model's
    images_in_sums: int  # images in the statistics that the PCA model was fitted on or compared with
    smallest_norm: float | None  # Euclidean norm of features projected in this run; None if there were none
    largest_norm: float | None
    explained_variance: float  # share of the variance of all images that the PCA model explains
    agreement_features: float | None  # 1-NN label agreement by raw features; None without labels to compare
    agreement_pca: float | None
    judged_photos: int  # that the agreement was measured on
    new_photos: int = 0  # of those that are not published yet, how many are measured
    explained_variance_of_new: float | None = None  # share of their variance; None without any
    judged_new_photos: int = 0
    agreement_of_new: float | None = None  # their 1-NN label agreement by PCA

    @property
    def reject_rate(self) -> float:
        """The share of the listed objects that are not images."""
        return _share(self.rejects, self.images)

    @property
    def reject_rate_of_run(self) -> float:
        """The share of the objects of this run that are not images."""
        return _share(self.rejects_of_run, self.images_of_run)


def _share(rejects: int, images: int) -> float:
    return rejects / (rejects + images) if rejects else 0.0


@dataclass(frozen=True)
class Limits:
    """Limits of the gate."""

    reject_rate: float = 0.2  # of all listed objects, and of those of the run
    judged_rejects: int = 5  # with fewer rejects, the rate of a run is chance and not judged
    smallest_norm: float = 1e-3  # a vector of zeros says nothing about its photo
    largest_norm: float = 6 * 1280**0.5  # of MobileNetV2: ReLU6 ends at 6, so 6 * sqrt(1280) = 214.7 is the maximum
    explained_variance: float = 0.2
    agreement: float | None = None  # None with random weights, which only demonstrate the pipeline
    judged_photos: int = 100  # with fewer photos, agreement is chance and only reported; so is the variance of new ones


def gate(facts: Facts, limits: Limits) -> dict[str, Check]:
    """Compare facts with limits.

    Returns:
        Each check by name; the gate passes when all are ok. Checks without anything to judge are left out.
    """
    defects = {
        "images_without_features": facts.images_without_features,
        "features_without_image": facts.features_without_image,
        "features_without_pca": facts.features_without_pca,
        "features_not_finite": facts.not_finite,
        "features_of_wrong_dims": facts.wrong_dims,
        "images_not_in_the_sums": abs(facts.images - facts.images_in_sums),
    }
    checks = {name: Check(count == 0, count, 0) for name, count in defects.items()}
    checks["images"] = Check(facts.images >= 2, facts.images, 2)
    checks["reject_rate"] = _at_most(facts.reject_rate, limits.reject_rate)
    if facts.rejects_of_run >= limits.judged_rejects:
        checks["reject_rate_of_run"] = _at_most(facts.reject_rate_of_run, limits.reject_rate)
    checks["explained_variance"] = _at_least(facts.explained_variance, limits.explained_variance)
    if facts.explained_variance_of_new is not None and facts.new_photos >= limits.judged_photos:
        checks["explained_variance_of_new"] = _at_least(facts.explained_variance_of_new, limits.explained_variance)
    if facts.smallest_norm is not None:
        checks["smallest_norm"] = _at_least(facts.smallest_norm, limits.smallest_norm)
    if facts.largest_norm is not None:
        checks["largest_norm"] = _at_most(facts.largest_norm, limits.largest_norm)
    for name, photos in {
        "agreement_features": facts.judged_photos,
        "agreement_pca": facts.judged_photos,
        "agreement_of_new": facts.judged_new_photos,
    }.items():
        agreement = getattr(facts, name)
        if limits.agreement is not None and agreement is not None and photos >= limits.judged_photos:
            checks[name] = _at_least(agreement, limits.agreement)
    return checks


def _at_most(value: float, limit: float) -> Check:
    return Check(value <= limit, value, limit)


def _at_least(value: float, limit: float) -> Check:
    return Check(value >= limit, value, limit)


def to_json(checks: dict[str, Check]) -> dict[str, dict[str, Any]]:
    """Convert the checks to JSON for the stage's metrics."""
    return {name: asdict(check) for name, check in checks.items()}


def neighbour_agreement(
    vectors: npt.NDArray[np.float32],
    labels: Sequence[str],
    sequences: Sequence[str],
    selected: Sequence[bool] | None = None,
) -> tuple[float | None, int]:
    """Measure how often a photo's nearest neighbour has the same label.

    Photos of a rotation sequence are nearly equal, so even random weights match them (0.993). If a label has several
    sequences, neighbours from a photo's own sequence do not count (then 0.35, and 0.83 with ImageNet's weights).

    Args:
        vectors: (n, d) float32; memory holds n² distances.
        labels: n labels.
        sequences: n sequences (`keys.sequence`).
        selected: n flags: judge these photos, by the neighbours among all; None judges all.

    Returns:
        The share in [0, 1] over judged photos whose label has another photo, and the number of these; None if there are
        none, or only a single label.
    """
    if len(set(labels)) < 2:
        return None, 0
    _, label = np.unique(np.asarray(labels, dtype=str), return_inverse=True)
    groups = [f"{name}\0{turn}" for name, turn in zip(labels, sequences, strict=True)]
    _, group = np.unique(np.asarray(groups, dtype=str), return_inverse=True)
    same_label, own = label[:, None] == label, group[:, None] == group
    # If the names show no other sequence of a label, only the photo itself is left out.
    alone = own.sum(axis=1) == same_label.sum(axis=1)
    own[alone] = np.eye(len(label), dtype=bool)[alone]
    judged = np.any(same_label & ~own, axis=1)
    judged &= selected is None or np.asarray(selected, dtype=bool)
    if not judged.any():
        return None, 0
    points = vectors.astype(np.float64)
    squares = np.einsum("ij,ij->i", points, points)
    distances = squares - 2.0 * (points @ points.T)
    distances[own] = np.inf
    hits = same_label[np.arange(len(label)), np.argmin(distances, axis=1)]
    return float(hits[judged].mean()), int(judged.sum())
