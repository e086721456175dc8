"""Principal components from an exact Gramian: fit, project, save, load.

Unlike MLlib's ``PCAModel.transform``, `Pca.project` subtracts the mean, as scikit-learn's does.
"""

import hashlib
import io
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields
from typing import Any
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from fruits.base import objects, schemas
from fruits.base.batches import Mapper, to_list_column, to_matrix
from fruits.base.errors import ConstantFeaturesError, InputError, TooFewImagesError
from fruits.pca.gramian import Gramian

Float = npt.NDArray[np.float64]

_NO_VARIANCE = 1e-12
"""A component below this share of the variance is rounding: its direction means nothing."""


@dataclass(frozen=True)
class Pca:
    """A fitted PCA model. Its fields are columns of ``pca_models`` and arrays of ``pca_model.npz``.

    Attributes:
        pca_id: Hex SHA-256 of the model, the Gramian and k, the same on every machine.
        model_id: The model whose features it is for.
        asked: The requested size: ``variance=0.95`` or ``k=64``.
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
        """Project features, (n, d) float32, onto the components: (n, k) float32, centred on the fitted mean."""
        return ((features - self.mean) @ self.components.T).astype(np.float32)

    def to_bytes(self) -> bytes:
        """Serialize as an .npz file that needs no pickle; equal models give equal bytes."""
        out = io.BytesIO()
        np.savez(out, **vars(self))
        return out.getvalue()


def load(path: str) -> Pca:
    """Read a saved PCA model: ``load("pca_model.npz").project(features)``.

    Raises:
        InputError: There is no such file, or it is not a saved PCA model.
    """
    try:
        with np.load(io.BytesIO(objects.read_bytes(path)), allow_pickle=False) as saved:
            arrays = {field.name: saved[field.name] for field in fields(Pca)}
        return Pca(**{name: array if array.ndim else array.item() for name, array in arrays.items()})
    except FileNotFoundError as error:
        raise InputError(f"there is no saved PCA at {path}: run reduce_pca first") from error
    except (ValueError, KeyError, EOFError, OSError, BadZipFile) as error:
        raise InputError(f"{path} is not a saved PCA ({type(error).__name__}): run reduce_pca again") from error


@dataclass(frozen=True)
class Spectrum:
    """All principal axes of a Gramian, before a number of components is chosen."""

    gramian: Gramian
    covariance: Float  # (d, d)
    values: Float  # (d,), the variances along the axes, falling, none negative
    axes: Float  # (d, d), orthonormal rows, signed as components are

    @property
    def total(self) -> float:
        """The variance of all features together."""
        return float(self.values.sum())


def solve(gramian: Gramian | None) -> Spectrum:
    """Compute the principal axes of an exact Gramian.

    Raises:
        TooFewImagesError: Fewer than two images.
        ConstantFeaturesError: All images have the same features.
    """
    if gramian is None or gramian.count < 2:
        raise TooFewImagesError(
            f"{gramian.count if gramian else 0} image(s) with features: a PCA needs at least 2; see the rejects"
        )
    covariance = gramian.covariance()
    eigenvalues, eigenvectors = np.linalg.eigh(covariance)
    values = np.clip(eigenvalues[::-1], 0.0, None)
    spectrum = Spectrum(gramian, covariance, values, _signed(eigenvectors[:, ::-1].T))
    if spectrum.total == 0.0:
        raise ConstantFeaturesError(
            f"all {gramian.count} images have the same features: there is no variance to explain; "
            "are they one picture, or are the weights broken?"
        )
    return spectrum


def fit(gramian: Gramian | None, model_id: str, variance: float | None = None, k: int | None = None) -> Pca:
    """Fit a PCA model from an exact Gramian: `choose` from its `solve`, with the errors of both."""
    _check(variance, k)
    return choose(solve(gramian), model_id, variance, k)


def choose(spectrum: Spectrum, model_id: str, variance: float | None = None, k: int | None = None) -> Pca:
    """Keep the fewest first components that explain at least the share `variance`, in (0, 1], or else k of them.

    Of k, fewer are kept when there are fewer with any variance, at most min(n - 1, d).

    Raises:
        InputError: Neither or both of `variance` and `k`, or a value out of its range.
    """
    _check(variance, k)
    gramian = spectrum.gramian
    target = f"k={k}" if variance is None else f"variance={variance:g}"
    ratios = spectrum.values / spectrum.total
    most = min(gramian.count - 1, gramian.dims)
    curve = np.minimum(np.cumsum(ratios), 1.0)[:most]
    meaningful = max(1, min(most, int(np.count_nonzero(ratios > _NO_VARIANCE))))
    if variance is not None:
        # The tail of the curve misses 1 by rounding: a share of 1 means every component that has any variance.
        k = int(np.searchsorted(curve[:meaningful], variance)) + 1
    kept = min(k or 1, meaningful)
    return Pca(
        pca_id=hashlib.sha256(f"{model_id} {kept} ".encode() + gramian.to_bytes()).hexdigest(),
        model_id=model_id,
        asked=target,
        n=gramian.count,
        mean=gramian.mean(),
        components=np.ascontiguousarray(spectrum.axes[:kept]),
        explained_variance=spectrum.values[:kept],
        explained_variance_ratio=ratios[:kept],
        variance_curve=curve,
    )


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


def project_mapper(pca: Pca) -> Mapper:
    """Make the mapper from batches with image_id, features to `schemas.PROJECTION` batches.

    A row whose features cannot be projected has a NULL `pca`; the quality gate counts these.
    """
    dims = len(pca.mean)

    def map_batches(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            column = batch.column("features")
            try:
                features, lengths = to_matrix(column, dims), np.full(len(column), dims)
            except ValueError:
                features, lengths = _ragged_matrix(column, dims)
            yield _project(batch.column("image_id"), features, lengths, pca)

    return map_batches


def _ragged_matrix(column: pa.Array, dims: int) -> tuple[npt.NDArray[np.float32], npt.NDArray[Any]]:
    """Return rows of any length as (n, dims), zeros in place of another length, or NaN where those are not finite."""
    rows = [np.asarray(row.as_py() or [], np.float32) for row in column]
    blanks = [np.full(dims, 0 if np.isfinite(row).all() else np.nan, np.float32) for row in rows]
    features = [row if len(row) == dims else blank for row, blank in zip(rows, blanks, strict=True)]
    return np.stack(features), np.array([len(row) for row in rows])


def _project(ids: pa.Array, features: npt.NDArray[np.float32], lengths: npt.NDArray[Any], pca: Pca) -> pa.RecordBatch:
    finite = np.isfinite(features).all(axis=1)
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
        [ids, projected, pa.array(lengths.astype(np.int32)), pa.array(finite), norms], schema=schemas.PROJECTION
    )
