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
@given(st.permutations(range(60)), st.lists(st.integers(1, 59), max_size=5))
def test_sums_are_the_same_to_the_last_bit_in_any_order_and_partitioning(order, cuts):
    merged = LabelSums(5)
    for part in np.split(np.array(order), sorted(set(cuts))):
        merged.merge(sums_of(part.tolist()))
    assert merged.to_bytes() == sums_of(list(range(60))).to_bytes()


@settings(max_examples=40, deadline=None)
@given(st.sets(st.integers(0, 59), min_size=1), st.sets(st.integers(0, 59)))
def test_after_additions_changes_and_removals_they_equal_those_taken_anew(before, after):
    kept = sums_of(sorted(before))
    kept.merge(sums_of(sorted(after - before)))
    kept.subtract(sums_of(sorted(before - after)))
    assert kept.to_bytes() == sums_of(sorted(after)).to_bytes()
    assert kept.labels == sums_of(sorted(after)).labels, "a label without photos is gone"


def test_the_mean_of_each_label_is_right_and_the_labels_are_sorted():
    sums = sums_of([5, 1, 2, 9])
    assert (sums.labels, sums.counts) == (["Label 1", "Label 2"], {"Label 1": 3, "Label 2": 1})
    np.testing.assert_allclose(sums.means()[0], POOL[[1, 5, 9]].mean(axis=0), atol=1e-4)


def test_more_photos_of_a_label_than_there_are_cannot_be_taken_out_and_nothing_changes():
    sums = sums_of([0, 1])
    before = sums.to_bytes()
    with pytest.raises(ValueError, match="cannot subtract 2 photos of 'Label 1' from 1"):
        sums.subtract(sums_of([1, 5]))
    assert sums.to_bytes() == before


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
