from __future__ import annotations

import hashlib
import random

import numpy as np
import pytest
from fruits.base import keys
from fruits.classifier.split import LabelledPhoto, near_equal, split


def photo(label: str, name: str, content: str | None = None) -> LabelledPhoto:
    key = f"Training/{label}/{name}"
    return LabelledPhoto(keys.image_id(key), label, key, content or hashlib.sha256(key.encode()).hexdigest())


def orchard(labels: int = 30, series: int = 4, each: int = 5) -> list[LabelledPhoto]:
    return [
        photo(f"Label {label}", f"r{turn}_{number}.jpg")
        for label in range(labels)
        for turn in range(series)
        for number in range(each)
    ]


def test_no_series_is_on_both_sides_and_every_label_is_learned():
    photos = orchard()
    sides = split(photos, 0.3)
    learned, held_out = (
        {(p.label, keys.sequence(p.source_key)) for p in side} for side in (sides.learned, sides.held_out)
    )
    assert not learned & held_out
    assert {label for label, _ in learned} == {p.label for p in photos}
    assert len(sides.learned) + len(sides.held_out) == len(photos)
    assert 0.2 < len(sides.held_out) / len(photos) < 0.4


def test_a_photo_stays_on_its_side_whatever_else_comes_and_in_any_order():
    photos = orchard()
    before = {p.image_id for p in split(photos, 0.3).held_out}
    more = [*photos, *(photo(f"More {label}", f"r{turn}_1.jpg") for label in range(5) for turn in range(3))]
    random.Random(1).shuffle(more)
    assert {p.image_id for p in split(more, 0.3).held_out if p.label.startswith("Label")} == before


@pytest.mark.parametrize("share", [0.5, 1.0])
def test_a_label_whose_series_would_all_be_held_out_keeps_one_to_learn_from(share):
    sides = split([*orchard(10, 1), *orchard(3, 2)], share)
    assert {p.label for p in sides.learned} == {f"Label {label}" for label in range(10)}


def test_ten_numbers_in_a_row_of_a_label_without_series_are_on_the_same_side():
    photos = [photo("Kiwi", f"IMG_{n:04}{edited}.jpg") for n in range(300) for edited in ("", " edited")]
    sides = split(photos, 0.3)
    tens = [{p.source_key.partition("IMG_")[2][:3] for p in side} for side in (sides.learned, sides.held_out)]
    assert not tens[0] & tens[1]
    assert 60 < len(sides.held_out) < 300


def test_a_label_with_one_series_is_learned_and_never_judged():
    sides = split(orchard(20, 1, 40), 0.9)
    assert (len(sides.learned), sides.held_out) == (800, [])


def test_a_photo_under_two_labels_is_on_neither_side_and_counted():
    same = "c" * 64
    photos = [*orchard(2), photo("Label 0", "r0_9.jpg", same), photo("Label 1", "r1_9.jpg", same)]
    sides = split(photos, 0.3)
    assert sides.contradictory == 2
    assert same not in {p.content for p in (*sides.learned, *sides.held_out)}


def test_a_fold_holds_whole_groups_and_there_are_several():
    sides = split(orchard(), 0.3)
    folds_of: dict[tuple[str, str], set[int]] = {}
    for judge, fold in zip(sides.held_out, sides.folds.tolist(), strict=True):
        folds_of.setdefault((judge.label, keys.sequence(judge.source_key)), set()).add(fold)
    assert all(len(folds) == 1 for folds in folds_of.values())
    assert len({*sides.folds.tolist()}) == 10


def test_a_photo_is_nearly_equal_when_it_differs_from_the_mean_of_its_label_as_a_learned_one_does():
    learned = np.array([[11, 10, 10], [9, 10, 10], [10, 11, 10], [10, 9, 10]], np.float32)
    held_out = np.array([[12, 10.2, 10], [11, 10.75, 10], [11, 11, 11], [10, 10, 11], [10, 10, 10]], np.float32)
    own, labels = ["Kiwi"] * 5, ["Kiwi"] * 4
    assert near_equal(held_out, own, learned, labels).tolist() == [True, True, False, False, False]
    others = [*labels[:2], "Pear", "Pear"]
    assert near_equal(held_out[2:], ["Kiwi", "Pear", "Pear"], learned, others).tolist() == [False, False, False]
