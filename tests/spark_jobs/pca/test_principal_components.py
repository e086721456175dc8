from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from fruits.base.batches import to_list_column
from fruits.base.errors import ConstantFeaturesError, InputError, TooFewImagesError
from fruits.pca import principal_components
from fruits.pca.gramian import Gramian
from sklearn.decomposition import PCA

DIMS = 40


def features(n: int = 300, seed: int = 3) -> np.ndarray:
    """Features with a falling spectrum, within what MobileNetV2 gives."""
    rng = np.random.default_rng(seed)
    mixed = rng.standard_normal((n, 12)) @ rng.standard_normal((12, DIMS)) + 0.3 * rng.standard_normal((n, DIMS))
    return np.clip(mixed * 0.3 + 2.0, 0, 6).astype(np.float32)


def fitted(values: np.ndarray, **how_many: float) -> principal_components.Pca:
    sums = Gramian(values.shape[1])
    sums.add(values)
    return principal_components.fit(sums, "model", **how_many)


@pytest.mark.parametrize("k", [1, 5, DIMS])
def test_explained_variance_equals_scikit_learn_to_a_millionth(k):
    values = features()
    ours, theirs = fitted(values, k=k), PCA(k, svd_solver="full").fit(values.astype(np.float64))
    np.testing.assert_allclose(ours.explained_variance_ratio, theirs.explained_variance_ratio_, atol=1e-6)
    total = values.astype(np.float64).var(axis=0, ddof=1).sum()
    np.testing.assert_allclose(ours.explained_variance, theirs.explained_variance_, atol=1e-6 * total)


def test_on_features_that_need_no_rounding_scikit_learn_agrees_to_all_digits():
    values = (np.rint(features() * 2**14) / 2**14).astype(np.float32)
    ours, theirs = fitted(values, k=DIMS), PCA(svd_solver="full").fit(values.astype(np.float64))
    np.testing.assert_allclose(ours.explained_variance, theirs.explained_variance_, rtol=1e-10)


def test_components_and_projection_equal_scikit_learn_signs_included():
    values = features()
    ours, theirs = fitted(values, k=5), PCA(5, svd_solver="full").fit(values.astype(np.float64))
    np.testing.assert_allclose(ours.components, theirs.components_, atol=1e-3)
    np.testing.assert_allclose(ours.project(values), theirs.transform(values), atol=2e-3)


def test_the_largest_entry_of_each_component_is_positive():
    components = fitted(features(), k=10).components
    assert (components[np.arange(10), np.abs(components).argmax(axis=1)] > 0).all()


@pytest.mark.parametrize("share", [0.5, 0.9, 0.95, 0.999])
def test_the_fewest_components_with_the_share_are_kept(share):
    ratios = fitted(features(), variance=share).explained_variance_ratio
    assert ratios.sum() >= share > ratios[:-1].sum()


def test_all_of_the_variance_means_every_component_that_has_any():
    values = features(10)
    assert fitted(values, variance=1.0).k == 9


def test_the_order_of_the_images_changes_no_bit():
    values = features()
    assert fitted(values, variance=0.9).to_bytes() == fitted(values[::-1].copy(), variance=0.9).to_bytes()


@pytest.mark.parametrize(("n", "k"), [(10, 9), (3, 2), (2, 1)])
def test_more_components_than_images_can_carry_become_n_minus_one(n, k):
    model = fitted(features(n), k=DIMS)
    assert model.k == k
    assert np.isfinite(model.components).all()
    assert len(model.variance_curve) == n - 1


def test_components_without_variance_are_not_kept():
    twice = np.concatenate([features(4)] * 5)
    assert fitted(twice, k=10).k == 3


@pytest.mark.parametrize("n", [0, 1])
def test_none_or_one_image_is_a_named_error(n):
    with pytest.raises(TooFewImagesError, match=f"{n} image"):
        fitted(features(n) if n else np.zeros((0, DIMS), np.float32), variance=0.95)
    with pytest.raises(TooFewImagesError):
        principal_components.fit(None, "model", variance=0.95)


def test_constant_features_are_a_named_error():
    with pytest.raises(ConstantFeaturesError, match="same features"):
        fitted(np.full((20, DIMS), 1.5, np.float32), variance=0.95)


@pytest.mark.parametrize(
    "how_many",
    [{}, {"variance": 0.9, "k": 3}, {"variance": 0.0}, {"variance": 1.1}, {"variance": float("nan")}, {"k": 0}],
)
def test_an_impossible_choice_is_a_named_error(how_many):
    with pytest.raises(InputError):
        fitted(features(), **how_many)


def test_the_id_tells_what_the_model_was_computed_from():
    values = features()
    same, other_k, other_images = fitted(values, k=5), fitted(values, k=6), fitted(values[1:], k=5)
    assert fitted(values, k=5).pca_id == same.pca_id
    assert len({same.pca_id, other_k.pca_id, other_images.pca_id}) == 3


def test_a_saved_model_projects_the_same(tmp_path):
    values = features()
    model = fitted(values, k=5)
    (tmp_path / "m.npz").write_bytes(model.to_bytes())
    loaded = principal_components.load(str(tmp_path / "m.npz"))
    assert (loaded.pca_id, loaded.model_id, loaded.n, loaded.k) == (model.pca_id, "model", 300, 5)
    np.testing.assert_array_equal(loaded.project(values), model.project(values))


@pytest.mark.parametrize("content", [None, b"", b"not a zip", b"PK\x03\x04"])
def test_a_file_that_is_no_saved_model_is_a_named_error(tmp_path, content):
    path = tmp_path / "m.npz"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match="reduce_pca"):
        principal_components.load(str(path))


def test_a_saved_model_that_needs_pickle_is_refused(tmp_path):
    np.savez(tmp_path / "m.npz", pca_id=np.array([object()], dtype=object))
    with pytest.raises(InputError, match="not a saved PCA"):
        principal_components.load(str(tmp_path / "m.npz"))


def test_rows_that_cannot_be_projected_are_null_and_say_why():
    values = features(4)
    model = fitted(features(), k=2)
    rows = values.tolist()
    rows[1][0] = float("nan")
    rows[2] = rows[2][:-1]
    batch = pa.record_batch({"image_id": pa.array(list("abcd")), "features": pa.array(rows, pa.list_(pa.float32()))})
    (projected,) = principal_components.project_mapper(model)([batch])
    assert projected.column("finite").to_pylist() == [True, False, True, True]
    assert projected.column("dims").to_pylist() == [DIMS, DIMS, DIMS - 1, DIMS]
    assert [row is None for row in projected.column("pca").to_pylist()] == [False, True, True, False]
    np.testing.assert_allclose(projected.column("pca")[3].as_py(), model.project(values)[3], rtol=1e-6)


def test_one_bad_value_leaves_its_neighbours_projected():
    values = features(3)
    values[0, 0] = np.inf
    model = fitted(features(), k=2)
    (projected,) = principal_components.project_mapper(model)(
        [pa.record_batch({"image_id": pa.array(list("abc")), "features": to_list_column(values)})]
    )
    assert [row is None for row in projected.column("pca").to_pylist()] == [True, False, False]
