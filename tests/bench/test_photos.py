"""The photos that everybody is measured on."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path

import pytest

pytest.importorskip("numpy")

from PIL import Image

from bench import photos

pytestmark = pytest.mark.slow


@pytest.fixture
def few(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shared = tmp_path / "shared"
    folder = shared / "images" / "fruits360_sample" / "Training" / "Pear 1"
    folder.mkdir(parents=True)
    for n in range(3):
        Image.effect_noise((100, 100), 40 + n).convert("RGB").save(folder / f"r0_{n}_100.jpg")
    monkeypatch.setenv("FRUITS_SHARED", str(shared))
    return tmp_path / "work"


def digests(folder: Path) -> list[str]:
    return [hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.rglob("*.jpg"))]


def test_no_two_photos_have_the_same_bytes(few: Path) -> None:
    contents = digests(photos.PhotoSets(few).first(60))
    assert len(contents) == len(set(contents)) == 60


def test_a_smaller_set_is_the_beginning_of_a_larger_one(few: Path) -> None:
    sets = photos.PhotoSets(few)
    small = {p.relative_to(few / "first-5") for p in sets.first(5).rglob("*.jpg")}
    large = {p.relative_to(few / "first-9") for p in sets.first(9).rglob("*.jpg")}
    assert len(small) == 5
    assert small < large


def test_the_first_pass_keeps_the_photos_as_they_are(few: Path) -> None:
    originals = {hashlib.sha256(path.read_bytes()).hexdigest() for path in photos.sources(few)}
    assert set(digests(photos.PhotoSets(few).first(3))) == originals


def test_too_few_sources_are_an_error_and_no_endless_loop(few: Path) -> None:
    flat = io.BytesIO()
    Image.new("RGB", (100, 100), "red").save(flat, "JPEG", quality=photos.QUALITY)
    for path in photos.sources(few):
        path.write_bytes(flat.getvalue())
    with pytest.raises(photos.TooFewPhotos):
        photos.PhotoSets(few).first(50)
