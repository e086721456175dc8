"""Which labelled photos a classifier learns from and which are held out to judge it.

Photos of a rotation series are nearly equal, so that a random split flatters: a series is learned from or held out as
a whole. The digest of its group decides, so that a photo stays on its side from run to run.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fruits.base import keys

_FOLDS = 10
_NEAR_EQUAL = 0.9
"""Cosine, from the mean of the label, from which photos are nearly equal. Of 464 held-out photos of Fruits-360 none is
so like a photo of another series (at most 0.85), but half of the neighbours in a series are (0.87)."""


@dataclass(frozen=True)
class LabelledPhoto:
    """A photo to learn from or to judge by; its label is normalized, `content` is the SHA-256 of its bytes."""

    image_id: str
    label: str
    source_key: str
    content: str


@dataclass(frozen=True)
class Split:
    """The two sides of labelled photos, each sorted by image id; every label has photos to learn from."""

    learned: list[LabelledPhoto]
    held_out: list[LabelledPhoto]
    folds: npt.NDArray[np.int64]  # of each held-out photo: all photos of a group are in the same one
    contradictory: int  # photos on neither side, because their content has two labels


def split(photos: Sequence[LabelledPhoto], share: float) -> Split:
    """Split photos, holding out about a share of their groups; the order of the photos does not matter.

    A label's photos whose names have several rotation series (`keys.sequence`) are a group for each series. Otherwise
    the photos of equal content are a group. A label of which every group would be held out keeps one to learn from.
    """
    labels_of: dict[str, set[str]] = {}
    series_of: dict[str, set[str]] = {}
    for photo in photos:
        labels_of.setdefault(photo.content, set()).add(photo.label)
        series_of.setdefault(photo.label, set()).add(keys.sequence(photo.source_key))
    groups: dict[str, dict[str, list[LabelledPhoto]]] = {}
    for photo in photos:
        if len(labels_of[photo.content]) == 1:
            has_series = len(series_of[photo.label]) > 1
            group = f"{photo.label}\0{keys.sequence(photo.source_key)}" if has_series else photo.content
            digest = hashlib.sha256(group.encode("utf-8", "surrogateescape")).hexdigest()
            groups.setdefault(photo.label, {}).setdefault(digest, []).append(photo)
    learned: list[LabelledPhoto] = []
    held_out: dict[str, list[LabelledPhoto]] = {}
    for of_label in groups.values():
        last = max(of_label)
        for digest, members in of_label.items():
            if digest != last and int(digest[:8], 16) < share * 2**32:
                held_out[digest] = members
            else:
                learned += members
    fold_of = {photo: place % _FOLDS for place, digest in enumerate(sorted(held_out)) for photo in held_out[digest]}
    judges = sorted(fold_of, key=lambda photo: photo.image_id)
    learned.sort(key=lambda photo: photo.image_id)
    folds = np.array([fold_of[photo] for photo in judges], np.int64)
    return Split(learned, judges, folds, len(photos) - len(learned) - len(judges))


def near_equal(held_out: npt.NDArray[np.float32], learned: npt.NDArray[np.float32]) -> npt.NDArray[np.bool_]:
    """Flag the held-out vectors of a label, (n, k), that are nearly equal to one of the (m, k) learned from."""
    mean = learned.mean(axis=0)
    norm = [
        rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-9)
        for rows in (held_out - mean, learned - mean)
    ]
    flags: npt.NDArray[np.bool_] = (norm[0] @ norm[1].T >= _NEAR_EQUAL).any(axis=1)
    return flags
