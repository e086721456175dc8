from __future__ import annotations

import numpy as np
import pytest
from fruits.base.errors import FeaturesOutOfRangeError
from fruits.classifier.label_sums import LabelSums, normalize
from hypothesis import given, settings
from hypothesis import strategies as st

RNG = np.random.default_rng(6)
POOL = RNG.uniform(0, 6, (60, 5)).astype(np.float32)
LABELS = [f"Label {number % 4}" for number in range(60)]


def sums_of(rows: list[int]) -> LabelSums:
    sums = LabelSums(5)
    sums.add([LABELS[row] for row in rows], POOL[rows])
    return sums


@settings(max_examples=40, deadline=None)
@given(st.permutations(range(60)), st.integers(1, 59))
def test_sums_are_the_same_to_the_last_bit_in_any_order_and_batches(order, cut):
    sums = LabelSums(5)
    for part in (order[:cut], order[cut:]):
        sums.add([LABELS[row] for row in part], POOL[part])
    assert sums.to_bytes() == sums_of(list(range(60))).to_bytes()


def test_other_labels_of_the_same_photos_are_other_sums():
    sums = LabelSums(5)
    sums.add(["Label 0"] * 4, POOL[:4])
    assert sums.to_bytes() != sums_of([0, 1, 2, 3]).to_bytes()


def test_the_mean_of_each_label_is_right_and_the_labels_are_sorted():
    sums = sums_of([5, 1, 2, 9])
    assert (sums.labels, sums.counts) == (["Label 1", "Label 2"], {"Label 1": 3, "Label 2": 1})
    np.testing.assert_allclose(sums.means()[0], POOL[[1, 5, 9]].mean(axis=0), atol=1e-4)


@pytest.mark.parametrize("value", [np.nan, np.inf, 9.0])
def test_a_feature_that_is_no_number_in_range_is_refused(value):
    with pytest.raises(FeaturesOutOfRangeError):
        LabelSums(2).add(["Kiwi"], np.array([[1.0, value]], np.float32))


@pytest.mark.parametrize(
    ("label", "normal"),
    [("Kiwi ", "Kiwi"), ("\u00a0Kiwi\n", "Kiwi"), ("Cafe\u0301", "Caf\u00e9"), ("  ", None), ("", None), (None, None)],
)
def test_labels_that_differ_in_unicode_form_or_blanks_are_the_same_label(label, normal):
    assert normalize(label) == normal
