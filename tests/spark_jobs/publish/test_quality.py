from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from fruits.publish.quality import Facts, Limits, gate, neighbour_agreement, to_json

GOOD = Facts(
    images=10,
    rejects=1,
    images_of_run=10,
    rejects_of_run=1,
    images_without_features=0,
    features_without_image=0,
    features_without_pca=0,
    not_finite=0,
    wrong_dims=0,
    images_in_sums=10,
    smallest_norm=20.0,
    largest_norm=40.0,
    explained_variance=0.95,
    new_photos=500,
    explained_variance_of_new=0.95,
    agreement_features=0.8,
    agreement_pca=0.8,
    judged_photos=500,
    agreement_of_new=0.8,
    judged_new_photos=500,
)
LIMITS = Limits(agreement=0.5)


def failing(facts: Facts, limits: Limits = LIMITS) -> list[str]:
    return [name for name, check in gate(facts, limits).items() if not check.ok]


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
        ({"images_in_sums": 9}, "images_not_in_the_sums"),
        ({"images_in_sums": 11}, "images_not_in_the_sums"),
        ({"images": 1, "images_in_sums": 1, "rejects": 0}, "images"),
        ({"smallest_norm": 0.0}, "smallest_norm"),
        ({"largest_norm": 215.0}, "largest_norm"),
        ({"explained_variance": 0.19}, "explained_variance"),
        ({"explained_variance": float("nan")}, "explained_variance"),
        ({"agreement_features": 0.35}, "agreement_features"),
        ({"agreement_pca": 0.35}, "agreement_pca"),
        ({"rejects": 3}, "reject_rate"),
        ({"images": 1000, "images_in_sums": 1000, "rejects": 20, "rejects_of_run": 20}, "reject_rate_of_run"),
        (
            {"images_of_run": 0, "rejects": 5, "images": 990, "images_in_sums": 990, "rejects_of_run": 5},
            "reject_rate_of_run",
        ),
        ({"explained_variance_of_new": 0.19}, "explained_variance_of_new"),
        ({"explained_variance_of_new": float("nan")}, "explained_variance_of_new"),
        ({"agreement_of_new": 0.35}, "agreement_of_new"),
    ],
)
def test_each_defect_fails_its_own_check(change, check):
    assert failing(replace(GOOD, **change)) == [check]


def test_the_reject_rate_is_allowed_up_to_its_limit():
    assert failing(replace(GOOD, rejects=10), replace(LIMITS, reject_rate=0.5)) == []


def test_a_night_of_few_photos_is_not_judged_by_itself():
    few = {"images_of_run": 1, "rejects": 2, "rejects_of_run": 2, "judged_new_photos": 99, "new_photos": 99}
    assert failing(replace(GOOD, **few, explained_variance_of_new=0.0, agreement_of_new=0.0)) == []


def test_an_empty_run_fails_without_dividing_by_zero():
    assert "images" in failing(replace(GOOD, images=0, rejects=0, images_in_sums=0))


def test_checks_are_plain_json():
    assert to_json(gate(GOOD, LIMITS))["reject_rate"] == {"ok": True, "value": 1 / 11, "limit": 0.2}


def test_neighbours_of_two_clear_groups_agree():
    vectors = np.array([[0, 0], [0, 1], [9, 9], [9, 8]], np.float32)
    assert neighbour_agreement(vectors, list("aabb"), [""] * 4) == (1.0, 4)
    assert neighbour_agreement(vectors, list("abab"), [""] * 4) == (0.0, 4)


def test_a_neighbour_from_the_same_rotation_does_not_count():
    vectors = np.array([[0.0], [0.1], [5.0], [5.1]], np.float32)
    labels = ["a", "a", "b", "b"]
    kept_apart = neighbour_agreement(
        np.concatenate([vectors, [[5.2], [0.2]]]).astype(np.float32),
        [*labels, "a", "b"],
        ["r0", "r0", "r0", "r0", "r1", "r1"],
    )[0]
    assert neighbour_agreement(vectors, labels, [""] * 4) == (1.0, 4)
    assert kept_apart == 0.0


def test_without_labels_to_compare_nothing_is_claimed():
    vectors = np.zeros((3, 2), np.float32)
    assert neighbour_agreement(vectors, ["a"] * 3, [""] * 3) == (None, 0)
    assert neighbour_agreement(vectors, ["a", "b", "c"], [""] * 3) == (None, 0)


@pytest.mark.parametrize("limits", [Limits(), replace(LIMITS, judged_photos=501)], ids=["random weights", "few photos"])
def test_agreement_is_reported_and_not_enforced(limits):
    checks = gate(replace(GOOD, agreement_features=0.0, agreement_pca=0.0), limits)
    assert all(check.ok for check in checks.values())
    assert not any(name.startswith("agreement") for name in checks)


def test_without_labels_or_new_rows_there_is_nothing_to_judge():
    nothing = {"agreement_features": None, "agreement_pca": None, "smallest_norm": None, "largest_norm": None}
    assert failing(replace(GOOD, **nothing)) == []


def test_selected_photos_are_judged_by_the_neighbours_among_all():
    vectors = np.array([[0, 0], [0, 1], [9, 9], [9, 8], [9, 7]], np.float32)
    labels, sequences = list("aabba"), [""] * 5
    assert neighbour_agreement(vectors, labels, sequences, [False] * 4 + [True]) == (0.0, 1)
    assert neighbour_agreement(vectors, labels, sequences, [False] * 5) == (None, 0)


def rotations(clear: float) -> tuple[np.ndarray, list[str], list[str]]:
    """Ten labels of two rotations each: photos of one rotation are near copies, `clear` says how alike labels are."""
    rng = np.random.default_rng(4)
    vectors, labels, sequences = [], [], []
    for label in range(10):
        kind = rng.standard_normal(16) * clear
        for turn in ("r0", "r1"):
            first = kind + rng.standard_normal(16)
            vectors += [first + 0.01 * rng.standard_normal(16) for _ in range(12)]
            labels += [str(label)] * 12
            sequences += [turn] * 12
    return np.array(vectors, np.float32), labels, sequences


def test_useless_features_pass_for_perfect_only_while_rotations_are_not_kept_apart():
    """The trap: 0.993 with random weights against 1.000 with ImageNet's; kept apart, 0.35 against 0.83."""
    useless, labels, sequences = rotations(clear=0.0)
    useful, _, _ = rotations(clear=4.0)
    mixed = [""] * len(labels)
    assert neighbour_agreement(useless, labels, mixed)[0] == neighbour_agreement(useful, labels, mixed)[0] == 1.0
    assert neighbour_agreement(useless, labels, sequences)[0] < 0.5
    assert neighbour_agreement(useful, labels, sequences)[0] > 0.9
