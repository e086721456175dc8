"""Which labelled photos a classifier learns from and which are held out to judge it.

Photos of a rotation series, or taken one after another, are nearly equal, so that a random split flatters: they are
learned from or held out as a whole. The digest of their group decides, so that a photo stays on its side.
"""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fruits.base import keys

Vectors = npt.NDArray[np.float32]

_FOLDS = 10
_NEAR_EQUAL = 0.7
"""Cosine, from the mean of the label, from which photos are nearly equal. 3 % of 1,117 photos of a shop are so like one
of another visit, and 42 % like one of the same visits; of Fruits-360, 5 % are like one of another series."""
_TEN_NUMBERS = re.compile(r"\d\D*$")


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

    Where the names of a label's photos have rotation series (`keys.sequence`), each is a group. Otherwise ten numbers
    in a row are, as a camera counts: the keys that differ from the last digit on. A label of which every group would
    be held out keeps one to learn from.
    """
    labels_of: dict[str, set[str]] = {}
    series_of: dict[str, set[str]] = {}
    for photo in photos:
        labels_of.setdefault(photo.content, set()).add(photo.label)
        series_of.setdefault(photo.label, set()).add(keys.sequence(photo.source_key))
    groups: dict[str, dict[str, list[LabelledPhoto]]] = {}
    for photo in photos:
        if len(labels_of[photo.content]) == 1:
            has_series = series_of[photo.label] != {""}
            group = keys.sequence(photo.source_key) if has_series else _TEN_NUMBERS.sub("", photo.source_key)
            group = f"{photo.label}\0{group}"
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


def near_equal(held_out: Vectors, own: Sequence[str], learned: Vectors, labels: Sequence[str]) -> npt.NDArray[np.bool_]:
    """Flag the held-out vectors, (n, k), that are nearly equal to one of the (m, k) of their label to learn from."""
    flags, owns, of_learned = np.zeros(len(own), bool), np.array(own), np.array(labels)
    for label in np.unique(owns):
        sides = [held_out[owns == label], learned[of_learned == label]]
        offsets = [side - sides[1].mean(axis=0) for side in sides]
        unit = [rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-9) for rows in offsets]
        flags[owns == label] = (unit[0] @ unit[1].T >= _NEAR_EQUAL).any(axis=1)
    return flags
