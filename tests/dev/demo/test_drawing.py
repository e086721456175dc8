"""The picture set that the project draws itself."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from PIL import ExifTags, Image, ImageStat

from dev.demo.drawing import SUBJECTS, draw_fruits, draw_jpeg


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*.*"))}


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("drawn") / "made on the way"
    assert draw_fruits(folder, per_label=3) == 3 * len(SUBJECTS)
    return folder


def test_every_label_has_its_folder_and_its_number_of_pictures(drawn: Path) -> None:
    assert len(SUBJECTS) >= 12
    assert set(contents(drawn)) == {f"{label}/{n}.jpg" for label in SUBJECTS for n in range(3)}


def test_a_second_run_gives_the_same_bytes(drawn: Path, tmp_path: Path) -> None:
    draw_fruits(tmp_path, per_label=3)
    assert contents(tmp_path) == contents(drawn)


def test_a_picture_does_not_depend_on_how_many_are_drawn(drawn: Path, tmp_path: Path) -> None:
    draw_fruits(tmp_path, per_label=1)
    assert contents(tmp_path).items() <= contents(drawn).items()


def test_another_seed_draws_other_pictures() -> None:
    assert draw_jpeg("Pear", 1, seed=0) != draw_jpeg("Pear", 1, seed=1)


def test_no_two_pictures_are_the_same(drawn: Path) -> None:
    assert len(set(contents(drawn).values())) == 3 * len(SUBJECTS)


def test_pictures_are_small_rgb_jpegs_with_something_in_them(drawn: Path) -> None:
    for name, data in contents(drawn).items():
        with Image.open(io.BytesIO(data)) as picture:
            assert (picture.format, picture.mode) == ("JPEG", "RGB"), name
            assert all(80 <= side <= 250 for side in picture.size), name
            assert max(ImageStat.Stat(picture).stddev) > 10, name


@pytest.mark.parametrize(("n", "located", "orientation"), [(0, True, 6), (1, False, None), (5, True, 1)])
def test_only_every_fifth_picture_says_where_it_was_taken(n: int, located: bool, orientation: int | None) -> None:
    with Image.open(io.BytesIO(draw_jpeg("Banana", n))) as picture:
        exif = picture.getexif()
        assert bool(exif.get_ifd(ExifTags.IFD.GPSInfo)) is located
        assert exif.get(ExifTags.Base.Orientation) == orientation
        assert ("exif" in picture.info) is located


def test_the_located_picture_gives_latitude_and_longitude_as_a_phone_does() -> None:
    with Image.open(io.BytesIO(draw_jpeg("Lemon", 0))) as picture:
        gps = picture.getexif().get_ifd(ExifTags.IFD.GPSInfo)
    assert gps[ExifTags.GPS.GPSLatitudeRef] == "N"
    assert next(float(part) for part in gps[ExifTags.GPS.GPSLatitude]) == 44
    assert len(gps[ExifTags.GPS.GPSLongitude]) == 3


def test_none_asked_for_makes_only_the_folders(tmp_path: Path) -> None:
    assert draw_fruits(tmp_path, per_label=0) == 0
    assert contents(tmp_path) == {}
