from __future__ import annotations

import hashlib

import pytest
from fruits.base import keys


def test_an_image_is_named_by_the_sha256_of_its_whole_key():
    key = "raw/Training/Pêche 1/r0_10_100.jpg"
    assert keys.image_id(key) == hashlib.sha256(key.encode()).hexdigest()


@pytest.mark.parametrize(
    ("key", "prefix", "label"),
    [
        ("raw/Training/Apple Golden 1/r0_10_100.jpg", "raw/", "Apple Golden 1"),
        ("raw/Apple/x.jpg", "raw/", "Apple"),
        ("raw/Apple/x.jpg", "raw", "Apple"),
        ("raw/x.jpg", "raw/", None),
        ("raw/x.jpg", "raw", None),
        ("x.jpg", "", None),
        ("Apple/x.jpg", "", "Apple"),
        ("raw//x.jpg", "raw/", None),
        ("raw/Apple//x.jpg", "raw/", "Apple"),
        ("raw/a=b%2Fc+d/x.jpg", "raw/", "a=b%2Fc+d"),
        ("raw/Apple/", "raw/", "Apple"),
    ],
)
def test_the_label_is_the_last_folder_under_the_prefix(key, prefix, label):
    assert keys.label(key, prefix) == label


@pytest.mark.parametrize(
    ("key", "sequence"), [("a/r0_10_100.jpg", "r0"), ("a/r_10_100.jpg", "r"), ("a/10_100.jpg", ""), ("a/red_1.jpg", "")]
)
def test_the_rotation_sequence_is_read_off_the_file_name(key, sequence):
    assert keys.sequence(key) == sequence
