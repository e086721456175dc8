"""How far the images have moved away from the published PCA model, and whether that calls for a new one."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fruits.pca.principal_components import Pca, Spectrum

Float = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Drift:
    """The published PCA model compared with this run's images."""

    angle_degrees: float  # the largest principal angle between its subspace and theirs of the same dimension, 0 to 90
    explained_variance: float  # the share of their variance that the published model explains
    possible_variance: float  # the share that as many components can explain at best

    def loss(self, variance: float | None) -> float:
        """Return the share of the variance that keeping the published model loses.

        `variance` is the requested share; None where a number of components is requested.
        """
        return max(0.0, max(self.possible_variance, variance or 0.0) - self.explained_variance)


def measure(published: Pca, spectrum: Spectrum) -> Drift:
    """Compare a published PCA model with the spectrum of this run's images."""
    components = published.components
    explained = float(np.einsum("ij,jk,ik->", components, spectrum.covariance, components, optimize=True))
    return Drift(
        angle_degrees=largest_angle(components, spectrum.axes[: published.k]),
        explained_variance=min(1.0, explained / spectrum.total),
        possible_variance=min(1.0, float(spectrum.values[: published.k].sum()) / spectrum.total),
    )


def largest_angle(first: Float, second: Float) -> float:
    """Return the largest principal angle, in degrees, between two subspaces: (k, d) float64, orthonormal rows.

    Computed from its sine, the norm of what `first` leaves of `second`: the cosine of a small angle has lost its
    digits (Björck and Golub, 1973).
    """
    rest = second - (second @ first.T) @ first
    return math.degrees(math.asin(min(1.0, float(np.linalg.norm(rest, ord=2)))))


@dataclass(frozen=True)
class Limits:
    """The largest angle, and the largest share of the variance lost, before a new PCA model is published."""

    degrees: float
    loss: float


def replacement_reason(
    published: Pca | None, fresh: Pca, drift: Drift | None, limits: Limits, variance: float | None
) -> str | None:
    """Return why the `fresh` PCA model, of this run's images, must replace the published one; None when it need not.

    Before the first publication `published` is None. `drift` compares both; it is None then, too, and for the features
    of another model. `variance` is as for `Drift.loss`.
    """
    if published is None:
        return "nothing is published yet"
    if drift is None:
        return f"the model is another: {fresh.model_id[:12]} after {published.model_id[:12]}"
    if published.pca_id == fresh.pca_id:
        return None  # as many components of the same Gramian, whatever size was requested
    if published.asked != fresh.asked:
        return f"another size is requested: {fresh.asked} after {published.asked}"
    if variance is None and published.k != fresh.k:
        return f"the images can carry {fresh.k} components now, {published.k} are published"
    if drift.angle_degrees > limits.degrees:
        return f"the PCA models are {drift.angle_degrees:.2f} degrees apart, limit {limits.degrees:g}"
    if (loss := drift.loss(variance)) > limits.loss:
        return f"the published PCA model loses {loss:.2%} of the variance, limit {limits.loss:.2%}"
    return None


def to_metrics(
    drift: Drift | None, reason: str | None, limits: Limits, variance: float | None, fitted_on: int
) -> dict[str, Any]:
    """Return the drift as the stage's metrics hold it; a measure is None where nothing could be compared."""
    return {
        "angle_degrees": None if drift is None else drift.angle_degrees,
        "explained_variance_published_basis": None if drift is None else drift.explained_variance,
        "variance_loss": None if drift is None else drift.loss(variance),
        "limit_degrees": limits.degrees,
        "limit_variance_loss": limits.loss,
        "new_basis": reason is not None,
        "reason": reason,
        "fitted_on": fitted_on,
    }
