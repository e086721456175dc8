from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from fruits.pca import drift, principal_components
from fruits.pca.drift import Drift, Limits
from fruits.pca.gramian import Gramian

DIMS = 12
LIMITS = Limits(degrees=30.0, loss=0.02)


def values(n: int, seed: int, stretched: int = 0) -> np.ndarray:
    """Features whose variance falls from the coordinate `stretched` on."""
    spread = np.roll(np.linspace(1.0, 0.05, DIMS), stretched)
    return (3 + np.random.default_rng(seed).standard_normal((n, DIMS)) * spread).clip(0, 6).astype(np.float32)


def spectrum(*parts: np.ndarray) -> principal_components.Spectrum:
    sums = Gramian(DIMS)
    for part in parts:
        sums.add(part)
    return principal_components.solve(sums)


@pytest.mark.parametrize("degrees", [0.0, 1e-7, 0.5, 30.0, 89.9, 90.0])
def test_a_plane_turned_by_an_angle_is_that_angle_away(degrees):
    turned = np.radians(degrees)
    first = np.eye(4)[:2]
    second = np.array([[1, 0, 0, 0], [0, np.cos(turned), np.sin(turned), 0]])
    assert drift.largest_angle(first, second) == pytest.approx(degrees, rel=1e-6, abs=1e-12)


def test_the_choice_of_axes_within_a_subspace_makes_no_angle():
    axes = np.linalg.qr(np.random.default_rng(1).standard_normal((6, 6)))[0]
    mixed = np.linalg.qr(np.random.default_rng(2).standard_normal((3, 3)))[0] @ axes[:3]
    assert drift.largest_angle(axes[:3], mixed) < 1e-5


def test_a_pca_model_explains_of_tonights_images_what_projecting_them_keeps():
    first, second = values(200, 1), values(100, 2, stretched=3)
    published = principal_components.choose(spectrum(first), "m", k=3)
    both = np.concatenate([first, second]).astype(np.float64)
    centred = np.rint(both * 2**14) / 2**14
    centred -= centred.mean(axis=0)
    kept = (centred @ published.components.T).var(axis=0).sum() / centred.var(axis=0).sum()
    measured = drift.measure(published, spectrum(first, second))
    assert measured.explained_variance == pytest.approx(kept, abs=1e-9)
    assert measured.possible_variance >= measured.explained_variance


def test_the_same_images_have_not_drifted():
    same = spectrum(values(200, 1))
    published = principal_components.choose(same, "m", k=3)
    measured = drift.measure(published, same)
    assert measured.angle_degrees < 1e-5
    assert measured.loss(None) < 1e-12
    assert drift.replacement_reason(published, published, measured, LIMITS, None) is None


def test_another_kind_of_image_asks_for_a_new_pca_model():
    published = principal_components.choose(spectrum(values(200, 1)), "m", k=3)
    tonight = spectrum(values(200, 1), values(800, 2, stretched=6))
    measured = drift.measure(published, tonight)
    assert "degrees apart" in str(
        drift.replacement_reason(published, principal_components.choose(tonight, "m", k=3), measured, LIMITS, None)
    )


MEASURED = Drift(angle_degrees=1.0, explained_variance=0.90, possible_variance=0.91)


@pytest.mark.parametrize(
    ("published", "measured", "variance", "reason"),
    [
        ({}, MEASURED, None, None),
        ({"model_id": "other"}, None, None, "the model is another"),
        ({"asked": "k=4"}, MEASURED, None, "another size is requested"),
        ({}, replace(MEASURED, angle_degrees=30.1), None, "degrees apart"),
        ({}, replace(MEASURED, explained_variance=0.88), None, "loses 3.00% of the variance"),
        ({"asked": "variance=0.93"}, MEASURED, 0.93, "loses 3.00% of the variance"),
    ],
)
def test_each_limit_asks_for_a_new_pca_model_by_itself(published, measured, variance, reason):
    fresh = principal_components.choose(spectrum(values(50, 1)), "m", k=3)
    if variance is not None:
        fresh = replace(fresh, asked=f"variance={variance}")
    yesterday = replace(fresh, pca_id="of yesterday", **published)
    new = drift.replacement_reason(yesterday, fresh, measured, LIMITS, variance)
    assert (new is None) if reason is None else (reason in str(new))


def test_the_same_pca_model_asked_for_in_other_words_stays():
    fresh = principal_components.choose(spectrum(values(50, 1)), "m", k=3)
    assert drift.replacement_reason(replace(fresh, asked="variance=0.5"), fresh, MEASURED, LIMITS, None) is None


def test_more_components_than_last_night_could_carry_ask_for_a_new_pca_model():
    few, many = (principal_components.choose(spectrum(values(n, 1)), "m", k=8) for n in (5, 50))
    measured = drift.measure(few, spectrum(values(50, 1)))
    assert "can carry 8" in str(drift.replacement_reason(few, many, measured, Limits(90, 1), None))
