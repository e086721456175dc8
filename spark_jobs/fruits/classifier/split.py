"""Which labelled photos a classifier learns from and which are held out to judge it.

Photos of a rotation series are nearly equal, so that a random split flatters: a series is learned from or held out as
a whole. The digest of its group decides, so that a photo stays on its side from run to run.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from fruits.base import keys
from fruits.classifier.label_sums import normalize

FOLDS = 10
_NEAR_EQUAL = 0.95
"""Cosine between vectors of the PCA from which a held-out photo is nearly equal to one that was learned from."""


@dataclass(frozen=True)
class LabelledPhoto:
    """A photo to learn from or to judge by: `content` is the SHA-256 of its bytes."""

    image_id: str
    label: str
    source_key: str
    content: str


@dataclass(frozen=True)
class Split:
    """The two sides of labelled photos, each sorted by image id, and how many photos are on neither.

    Attributes:
        learned: The photos to learn from; every label has some.
        held_out: The photos to judge by.
        contradictory: Photos whose content has two labels.
        groups: The group of each held-out photo.
    """

    learned: list[LabelledPhoto]
    held_out: list[LabelledPhoto]
    contradictory: int
    groups: list[str]

    @cached_property
    def folds(self) -> npt.NDArray[np.int64]:
        """The fold of each held-out photo, 0 to `FOLDS` - 1: all photos of a group are in the same one."""
        order = {group: place for place, group in enumerate(sorted(set(self.groups), key=_digest))}
        return np.array([order[group] % FOLDS for group in self.groups], np.int64)


def split(photos: Sequence[LabelledPhoto], share: float) -> Split:
    """Split photos whose labels are normalized.

    A label's photos whose names have several rotation series (`keys.sequence`) are a group for each series. Otherwise
    the photos of equal content are a group. A label of which every group would be held out keeps one to learn from.

    Args:
        photos: The photos, in any order.
        share: The share of the groups that is held out.
    """
    labels_of: dict[str, set[str]] = {}
    series_of: dict[str, set[str]] = {}
    for photo in photos:
        labels_of.setdefault(photo.content, set()).add(photo.label)
        series_of.setdefault(photo.label, set()).add(keys.sequence(photo.source_key))
    groups: dict[str, dict[str, list[LabelledPhoto]]] = {}
    for photo in sorted(photos, key=lambda photo: photo.image_id):
        if len(labels_of[photo.content]) == 1:
            has_series = len(series_of[photo.label]) > 1
            group = f"{photo.label}\0{keys.sequence(photo.source_key)}" if has_series else photo.content
            groups.setdefault(photo.label, {}).setdefault(group, []).append(photo)
    learned: list[LabelledPhoto] = []
    held_out: list[tuple[LabelledPhoto, str]] = []
    for of_label in groups.values():
        last = max(of_label, key=_digest)
        for group, members in of_label.items():
            if group != last and int(_digest(group)[:8], 16) < share * 2**32:
                held_out += [(photo, group) for photo in members]
            else:
                learned += members
    learned.sort(key=lambda photo: photo.image_id)
    held_out.sort(key=lambda pair: pair[0].image_id)
    contradictory = len(photos) - len(learned) - len(held_out)
    return Split(learned, [photo for photo, _ in held_out], contradictory, [group for _, group in held_out])


def normalized(image_id: str, label: str | None, source_key: str, content: str) -> LabelledPhoto | None:
    """Return a photo with its label in the form in which labels are compared; None without one."""
    name = normalize(label)
    return LabelledPhoto(image_id, name, source_key, content) if name else None


def near_equal(
    held_out: npt.NDArray[np.float32], learned: npt.NDArray[np.float32], same_label: npt.NDArray[np.bool_]
) -> npt.NDArray[np.bool_]:
    """Flag held-out vectors, (n, k), that are nearly equal to one of the m that were learned from.

    Args:
        held_out: (n, k) float32.
        learned: (m, k) float32.
        same_label: (n, m): pairs of two labels do not flatter and are not compared.
    """
    first, second = (
        rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-9) for rows in (held_out, learned)
    )
    flags: npt.NDArray[np.bool_] = ((first @ second.T >= _NEAR_EQUAL) & same_label).any(axis=1)
    return flags


def _digest(group: str) -> str:
    return hashlib.sha256(group.encode("utf-8", "surrogateescape")).hexdigest()
