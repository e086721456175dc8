"""Principal components from exact sums: fit, project, save, load.

Unlike MLlib's ``PCAModel.transform``, `Pca.project` subtracts the mean, as scikit-learn's does.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from fruits.base import objects, schemas
from fruits.base.batches import Mapper, to_list_column, to_matrix
from fruits.base.errors import ConstantFeaturesError, InputError, TooFewImagesError
from fruits.pca.gramian import Sums

Float = npt.NDArray[np.float64]

_NO_VARIANCE = 1e-12
"""A component below this share of the variance is rounding: its direction means nothing."""


@dataclass(frozen=True)
class Pca:
    """A fitted PCA.

    Attributes:
        pca_id: Hex SHA-256 of the model, the sums and k: what it was computed from, on whichever machine.
        model_id: The model whose features it is for.
        asked: What was asked for: ``variance=0.95`` or ``k=64``.
        n: Images it was fitted on.
        mean: (d,) float64.
        components: (k, d) float64, orthonormal rows, by falling variance; the entry of the largest magnitude in
            each row is positive.
        explained_variance: (k,) float64, with n - 1 in the denominator.
        explained_variance_ratio: (k,) float64, shares of the total variance of all d features.
        variance_curve: (min(n - 1, d),) float64: the share that the first 1, 2, 3... components explain.
    """

    pca_id: str
    model_id: str
    asked: str
    n: int
    mean: Float
    components: Float
    explained_variance: Float
    explained_variance_ratio: Float
    variance_curve: Float

    @property
    def k(self) -> int:
        """Number of components."""
        return len(self.components)

    def project(self, features: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Project features onto the components.

        Args:
            features: (n, d) float32.

        Returns:
            (n, k) float32, centred on the fitted mean; computed in float64.
        """
        return ((features - self.mean) @ self.components.T).astype(np.float32)

    def to_bytes(self) -> bytes:
        """Give the model as the bytes of an .npz file that needs no pickle; equal models give equal bytes."""
        out = io.BytesIO()
        np.savez(
            out,
            pca_id=self.pca_id,
            model_id=self.model_id,
            asked=self.asked,
            n=self.n,
            mean=self.mean,
            components=self.components,
            explained_variance=self.explained_variance,
            explained_variance_ratio=self.explained_variance_ratio,
            variance_curve=self.variance_curve,
        )
        return out.getvalue()


def load(path: str) -> Pca:
    """Read a saved PCA.

    Args:
        path: A path or URI of ``pca_model.npz``.

    Returns:
        The fitted PCA: ``load("pca_model.npz").project(features)``.

    Raises:
        InputError: There is no such file, or it is not a saved PCA.
    """
    try:
        with np.load(io.BytesIO(objects.read_bytes(path)), allow_pickle=False) as saved:
            return Pca(
                pca_id=str(saved["pca_id"]),
                model_id=str(saved["model_id"]),
                asked=str(saved["asked"]),
                n=int(saved["n"]),
                mean=saved["mean"],
                components=saved["components"],
                explained_variance=saved["explained_variance"],
                explained_variance_ratio=saved["explained_variance_ratio"],
                variance_curve=saved["variance_curve"],
            )
    except FileNotFoundError as error:
        raise InputError(f"there is no saved PCA at {path}: run reduce_pca first") from error
    except (ValueError, KeyError, EOFError, OSError, BadZipFile) as error:
        raise InputError(
            f"{path} is not a saved PCA ({type(error).__name__}): run reduce_pca again"
        ) from error


@dataclass(frozen=True)
class Spectrum:
    """The principal axes of some sums: all of them, before any number of components is chosen.

    Attributes:
        sums: What they are of.
        covariance: (d, d) float64.
        values: (d,) float64, the variances along the axes, falling, none negative.
        axes: (d, d) float64, orthonormal rows, signed as components are.
    """

    sums: Sums
    covariance: Float
    values: Float
    axes: Float

    @property
    def total(self) -> float:
        """The variance of all features together."""
        return float(self.values.sum())


def spectrum(sums: Sums | None) -> Spectrum:
    """Solve for the principal axes of exact sums.

    Raises:
        TooFewImagesError: Fewer than two images.
        ConstantFeaturesError: All images have the same features.
    """
    if sums is None or sums.count < 2:
        raise TooFewImagesError(
            f"{0 if sums is None else sums.count} image(s) with features: a PCA needs at least 2; see the rejects"
        )
    covariance = sums.covariance()
    eigenvalues, eigenvectors = np.linalg.eigh(covariance)
    found = Spectrum(
        sums, covariance, np.clip(eigenvalues[::-1], 0.0, None), _signed(eigenvectors[:, ::-1].T)
    )
    if found.total == 0.0:
        raise ConstantFeaturesError(
            f"all {sums.count} images have the same features: there is no variance to explain; "
            "are they one picture, or are the weights broken?"
        )
    return found


def fit(sums: Sums | None, model_id: str, variance: float | None = None, k: int | None = None) -> Pca:
    """Fit a PCA from exact sums: `choose` of their `spectrum`, with the errors of both."""
    _check(variance, k)
    return choose(spectrum(sums), model_id, variance, k)


def choose(found: Spectrum, model_id: str, variance: float | None = None, k: int | None = None) -> Pca:
    """Keep the first components of a spectrum.

    Args:
        found: The axes.
        model_id: The model whose features were summed.
        variance: Keep the fewest components that explain at least this share, in (0, 1].
        k: Keep this many components; fewer when there are fewer with any variance, at most min(n - 1, d).

    Raises:
        InputError: Neither or both of `variance` and `k`, or one out of its range.
    """
    _check(variance, k)
    sums, asked = found.sums, asked_for(variance, k)
    ratios = found.values / found.total
    most = min(sums.count - 1, sums.dims)
    curve = np.minimum(np.cumsum(ratios), 1.0)[:most]
    meaningful = max(1, min(most, int(np.count_nonzero(ratios > _NO_VARIANCE))))
    if variance is not None:
        # The tail of the curve misses 1 by rounding; asking for all of it means all that has any variance.
        k = int(np.searchsorted(curve[:meaningful], variance)) + 1
    kept = min(k or 1, meaningful)
    return Pca(
        pca_id=hashlib.sha256(f"{model_id} {kept} ".encode() + sums.to_bytes()).hexdigest(),
        model_id=model_id,
        asked=asked,
        n=sums.count,
        mean=sums.mean(),
        components=np.ascontiguousarray(found.axes[:kept]),
        explained_variance=found.values[:kept],
        explained_variance_ratio=ratios[:kept],
        variance_curve=curve,
    )


def asked_for(variance: float | None, k: int | None) -> str:
    """Write down what was asked for, so that tomorrow's run can tell whether it asks for the same."""
    return f"k={k}" if variance is None else f"variance={variance:g}"


def _check(variance: float | None, k: int | None) -> None:
    if (variance is None) == (k is None):
        raise InputError("give either a share of the variance or a number of components")
    if variance is not None and not 0 < variance <= 1:
        raise InputError(f"variance {variance} is not a share in (0, 1], for example 0.95")
    if k is not None and k < 1:
        raise InputError(f"k = {k} is not a number of components: give 1 or more")


def _signed(components: Float) -> Float:
    largest = np.argmax(np.abs(components), axis=1)
    signs = np.sign(components[np.arange(len(components)), largest])
    return np.ascontiguousarray(components * signs[:, None])


def projector(pca: Pca) -> Mapper:
    """Make the mapper that projects features: batches with image_id, features to `schemas.PROJECTION` batches.

    A row whose features cannot be projected has a NULL `pca`; the quality gate counts these.
    """
    dims = len(pca.mean)

    def project(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            column = batch.column("features")
            try:
                features = to_matrix(column, dims)
            except ValueError:
                yield _one_by_one(batch, pca)
                continue
            finite = np.asarray(np.isfinite(features).all(axis=1))
            yield _projected(batch.column("image_id"), features, finite, pca, np.full(len(column), dims))

    return project


def _one_by_one(batch: pa.RecordBatch, pca: Pca) -> pa.RecordBatch:
    dims = len(pca.mean)
    rows = [np.asarray(row.as_py() or [], np.float32) for row in batch.column("features")]
    lengths = np.array([len(row) for row in rows])
    features = np.stack([row if len(row) == dims else np.full(dims, np.nan, np.float32) for row in rows])
    finite = np.array([bool(np.isfinite(row).all()) for row in rows])
    return _projected(batch.column("image_id"), features, finite, pca, lengths)


def _projected(
    ids: pa.Array,
    features: npt.NDArray[np.float32],
    finite: npt.NDArray[np.bool_],
    pca: Pca,
    lengths: npt.NDArray[Any],
) -> pa.RecordBatch:
    usable = finite & (lengths == len(pca.mean))
    clean = np.where(usable[:, None], features, np.float32(0))
    values = pca.project(clean)
    norms = pa.array(np.sqrt(np.einsum("ij,ij->i", clean, clean)), pa.float32(), mask=~usable)
    projected = to_list_column(values)
    if not usable.all():
        projected = pa.array(
            [row if good else None for row, good in zip(projected.to_pylist(), usable, strict=True)],
            pa.list_(pa.float32()),
        )
    return pa.record_batch(
        [ids, projected, pa.array(lengths.astype(np.int32)), pa.array(finite), norms],
        schema=schemas.PROJECTION,
    )
