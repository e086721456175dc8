"""How far the images have moved away from the published basis, and whether that asks for a new one."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fruits.pca.principal_components import Pca, Spectrum

Float = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Drift:
    """The published basis against the one that tonight's sums would give.

    Attributes:
        angle_degrees: The largest principal angle between the two subspaces of the same dimension, 0 to 90.
        explained_variance: The share of tonight's variance that the published basis explains.
        possible_variance: The share that as many components could explain at best.
    """

    angle_degrees: float
    explained_variance: float
    possible_variance: float

    def loss(self, variance: float | None) -> float:
        """Tell the share of the variance that is lost by keeping the published basis.

        Args:
            variance: The share that was asked for; None where a number of components was.
        """
        wanted = max(self.possible_variance, variance or 0.0)
        return max(0.0, wanted - self.explained_variance)


def measure(published: Pca, tonight: Spectrum) -> Drift:
    """Compare a published basis with tonight's sums."""
    components = published.components
    same_size = tonight.axes[: published.k]
    explained = float(np.einsum("ij,jk,ik->", components, tonight.covariance, components, optimize=True))
    return Drift(
        angle_degrees=largest_angle(components, same_size),
        explained_variance=min(1.0, explained / tonight.total),
        possible_variance=min(1.0, float(tonight.values[: published.k].sum()) / tonight.total),
    )


def largest_angle(first: Float, second: Float) -> float:
    """Give the largest principal angle between two subspaces, in degrees.

    By its sine, the norm of what `first` leaves of `second`: the cosine of a small angle has lost its digits
    (Björck and Golub, 1973).

    Args:
        first: (k, d) float64, orthonormal rows.
        second: (k, d) float64, orthonormal rows.
    """
    rest = second - (second @ first.T) @ first
    return math.degrees(math.asin(min(1.0, float(np.linalg.norm(rest, ord=2)))))


@dataclass(frozen=True)
class Limits:
    """What may drift before a new basis is published.

    Attributes:
        degrees: The largest angle.
        loss: The largest share of the variance lost.
    """

    degrees: float
    loss: float


def why_new(
    published: Pca | None, fresh: Pca, drift: Drift | None, limits: Limits, variance: float | None
) -> str | None:
    """Say why tonight's basis must replace the published one; None when it need not.

    Args:
        published: The current basis; None before the first publication.
        fresh: The basis that tonight's sums give.
        drift: The two compared; None where there are no two, or they are of different models.
        limits: What may drift.
        variance: The share that was asked for; None where a number of components was.
    """
    if published is None:
        return "nothing is published yet"
    if drift is None:
        return f"the model is another: {fresh.model_id[:12]} after {published.model_id[:12]}"
    if published.pca_id == fresh.pca_id:
        return None  # as many components of the same sums, whatever was asked for
    if published.asked != fresh.asked:
        return f"another size is asked for: {fresh.asked} after {published.asked}"
    if variance is None and published.k != fresh.k:
        return f"the images can carry {fresh.k} components now, {published.k} are published"
    if drift.angle_degrees > limits.degrees:
        return f"the bases are {drift.angle_degrees:.2f} degrees apart, limit {limits.degrees:g}"
    if drift.loss(variance) > limits.loss:
        return (
            f"the published basis loses {drift.loss(variance):.2%} of the variance, limit {limits.loss:.2%}"
        )
    return None


def as_json(
    drift: Drift | None, new: str | None, limits: Limits, variance: float | None, fitted_on: int
) -> dict[str, Any]:
    """Give the drift as the stage's metrics carry it; the measures are None where nothing could be compared."""
    return {
        "angle_degrees": None if drift is None else drift.angle_degrees,
        "explained_variance_published_basis": None if drift is None else drift.explained_variance,
        "variance_loss": None if drift is None else drift.loss(variance),
        "limit_degrees": limits.degrees,
        "limit_variance_loss": limits.loss,
        "new_basis": new is not None,
        "reason": new,
        "fitted_on": fitted_on,
    }
