from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from fruits.quality import Facts, as_json, gate, neighbour_agreement

GOOD = Facts(
    images=10,
    rejects=1,
    images_without_features=0,
    features_without_image=0,
    features_without_pca=0,
    not_finite=0,
    wrong_dims=0,
    images_in_pca=10,
)


def failing(facts: Facts, max_reject_rate: float = 0.2) -> list[str]:
    return [name for name, check in gate(facts, max_reject_rate).items() if not check.ok]


def test_a_right_run_passes_every_check():
    assert failing(GOOD) == []


@pytest.mark.parametrize(
    ("change", "check"),
    [
        ({"images_without_features": 1}, "images_without_features"),
        ({"features_without_image": 1}, "features_without_image"),
        ({"features_without_pca": 1}, "features_without_pca"),
        ({"not_finite": 1}, "features_not_finite"),
        ({"wrong_dims": 1}, "features_of_wrong_dims"),
        ({"images_in_pca": 9}, "images_not_in_the_fit"),
        ({"images_in_pca": 11}, "images_not_in_the_fit"),
        ({"images": 1, "images_in_pca": 1, "rejects": 0}, "images"),
        ({"rejects": 3}, "reject_rate"),
    ],
)
def test_each_defect_fails_its_own_check(change, check):
    assert failing(replace(GOOD, **change)) == [check]


def test_the_reject_rate_is_allowed_up_to_its_limit():
    assert failing(replace(GOOD, rejects=10), max_reject_rate=0.5) == []


def test_an_empty_run_fails_without_dividing_by_zero():
    assert "images" in failing(replace(GOOD, images=0, rejects=0, images_in_pca=0))


def test_checks_are_plain_json():
    assert as_json(gate(GOOD, 0.2))["reject_rate"] == {"ok": True, "value": 1 / 11, "limit": 0.2}


def test_neighbours_of_two_clear_groups_agree():
    vectors = np.array([[0, 0], [0, 1], [9, 9], [9, 8]], np.float32)
    assert neighbour_agreement(vectors, list("aabb"), [""] * 4) == 1.0
    assert neighbour_agreement(vectors, list("abab"), [""] * 4) == 0.0


def test_a_neighbour_from_the_same_rotation_does_not_count():
    vectors = np.array([[0.0], [0.1], [5.0], [5.1]], np.float32)
    labels = ["a", "a", "b", "b"]
    kept_apart = neighbour_agreement(
        np.concatenate([vectors, [[5.2], [0.2]]]).astype(np.float32),
        [*labels, "a", "b"],
        ["r0", "r0", "r0", "r0", "r1", "r1"],
    )
    assert neighbour_agreement(vectors, labels, [""] * 4) == 1.0
    assert kept_apart == 0.0


def test_without_labels_to_compare_nothing_is_claimed():
    vectors = np.zeros((3, 2), np.float32)
    assert neighbour_agreement(vectors, ["a"] * 3, [""] * 3) is None
    assert neighbour_agreement(vectors, ["a", "b", "c"], [""] * 3) is None
