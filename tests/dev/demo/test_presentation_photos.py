"""The photos of the run that the slides show: some carry what a phone writes beside a picture."""

from __future__ import annotations

from pathlib import Path

from PIL import ExifTags, Image

from dev.demo.drawing import draw_jpeg
from dev.presentation.take_run import EXIF_EVERY, plant_metadata


def test_each_tenth_photo_gets_a_position_and_keeps_its_pixels(tmp_path: Path) -> None:
    images, copies = tmp_path / "images", tmp_path / "copies"
    (images / "Lemon").mkdir(parents=True)
    for n in range(2 * EXIF_EVERY):
        (images / "Lemon" / f"{n:02}.jpg").write_bytes(draw_jpeg("Lemon", 1))
    plant_metadata(images, copies)
    planted = []
    for path in sorted(images.rglob("*.jpg")):
        with Image.open(path) as photo, Image.open(copies / path.relative_to(images)) as copy:
            assert copy.tobytes() == photo.tobytes()
            if copy.getexif():
                assert copy.getexif()[ExifTags.Base.Orientation] == 1
                assert copy.getexif().get_ifd(ExifTags.IFD.GPSInfo)
                planted.append(path.name)
            else:
                assert (copies / path.relative_to(images)).read_bytes() == path.read_bytes()
    assert planted == ["00.jpg", "10.jpg"]


def test_what_is_no_jpeg_is_copied_as_it_is_and_an_earlier_copy_is_replaced(tmp_path: Path) -> None:
    images, copies = tmp_path / "images", tmp_path / "copies"
    images.mkdir()
    copies.mkdir()
    (images / "LICENSE").write_text("CC BY-SA 4.0")
    (copies / "left.jpg").touch()
    plant_metadata(images, copies)
    assert [path.name for path in copies.iterdir()] == ["LICENSE"]
    assert (copies / "LICENSE").read_text() == "CC BY-SA 4.0"
