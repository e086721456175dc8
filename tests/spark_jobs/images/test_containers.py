from __future__ import annotations

import io
import random
import struct
import zlib

import numpy as np
import pytest
from fruits.images import containers
from fruits.images.orientation import read_orientation
from fruits.images.rejects import ImageRejected, RejectCode
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from tests.spark_jobs import hostile, pictures
from tests.spark_jobs.pictures import CANARY, encoded, fruit

WALKERS = {"JPEG": containers.walk_jpeg, "PNG": containers.walk_png, "WEBP": containers.walk_webp}


def pixels(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGBA"))


@pytest.mark.parametrize("data", pictures.with_metadata().values(), ids=pictures.with_metadata().keys())
def test_the_picture_is_the_same_without_what_is_left_out(data):
    walk = next(WALKERS[kind] for kind in WALKERS if kind.encode() in data[:12] or data[0] == 0xFF)
    container = walk(data)
    assert container.had_metadata
    assert len(container.picture) < len(data)
    assert CANARY not in container.picture
    np.testing.assert_array_equal(pixels(container.picture), pixels(data))


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("JPEG", {}),
        ("JPEG", {"progressive": True}),
        ("JPEG", {"restart_marker_blocks": 1, "quality": 95}),
        ("PNG", {}),
        ("WEBP", {}),
        ("WEBP", {"lossless": True}),
    ],
)
def test_a_photo_with_nothing_to_leave_out_is_handed_on_byte_for_byte(kind, options):
    data = encoded(Image.effect_noise((300, 200), 90).convert("RGB"), kind, **options)
    assert WALKERS[kind](data).picture == data


def test_scans_are_those_of_the_first_picture_alone():
    progressive = encoded(fruit(1), progressive=True)
    scans = containers.walk_jpeg(progressive).scans
    assert scans == progressive.count(b"\xff\xda") > 5
    assert containers.walk_jpeg(progressive + progressive).scans == scans
    assert containers.walk_jpeg(progressive + progressive).picture == progressive
    assert containers.walk_jpeg(hostile.with_segments((0xE1, progressive), times=9)).scans == 1


@pytest.mark.parametrize("windows", [0, 1, 2, 4])
def test_an_end_is_found_wherever_it_is(windows):
    """Also where the bytes that are looked at at once end between a marker's two."""
    data = encoded(fruit(1))
    for length in range(-windows - 4, 5):
        scan = data[:-2] + b"\x01" * (windows * containers._NEAR_BYTES - _scanned(data) + length)
        assert containers.walk_jpeg(scan + b"\xff\xd9" + b"\xff\xda" * 9).picture == scan + b"\xff\xd9"


def _scanned(data: bytes) -> int:
    """Bytes between a JPEG's scan header and its end."""
    start = data.index(b"\xff\xda") + 2
    return len(data) - 2 - start - int.from_bytes(data[start : start + 2])


def test_a_transparent_webp_keeps_its_alpha():
    image = fruit(1).convert("RGBA")
    image.putalpha(Image.effect_noise(image.size, 90))
    data = encoded(image, "WEBP", exif=b"Exif\0\0" + CANARY)
    np.testing.assert_array_equal(pixels(containers.walk_webp(data).picture), pixels(data))


def test_a_png_of_a_still_and_one_frame_beside_it_is_an_animation():
    data = hostile.png((b"acTL", struct.pack(">II", 1, 0)))
    assert containers.walk_png(data).frames == 2
    assert containers.walk_png(hostile.apng_of_one_frame()).frames == 1
    header = (b"acTL", struct.pack(">II", 3, 0))
    assert containers.walk_png(hostile.png(header)).frames == 4
    for none in ([header, header], [(b"acTL", bytes(8))], [(b"acTL", b"\xff" * 8)]):
        assert containers.walk_png(hostile.png(*none)).frames == 1


def tiff(order: str, kind: int = 3, value: bytes = b"", count: int = 1, at: int = 8) -> bytes:
    """An EXIF block that says 6, as a type of number and in an order of bytes."""
    value = value or struct.pack(order + {3: "Hxx", 4: "I", 8: "hxx", 9: "i"}[kind], 6)
    head = b"II*\0" if order == "<" else b"MM\0*"
    other = struct.pack(order + "HHI", 0x010F, 2, 4) + b"abc\0"
    return head + struct.pack(order + "IH", at, 2) + other + struct.pack(order + "HHI", 0x0112, kind, count) + value


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("kind", [3, 4, 8, 9])
@pytest.mark.parametrize("before", [b"", b"Exif\0\0", b"Exif\0\0Exif\0\0"])
def test_an_orientation_is_read_in_either_order_of_bytes(order, kind, before):
    assert read_orientation(before + tiff(order, kind)) == 6


@pytest.mark.parametrize(
    "broken",
    [
        b"",
        b"II",
        b"II*\0",
        b"XX*\0" + tiff("<")[4:],
        tiff("<", at=9999),
        tiff("<")[:-6],
        tiff("<", count=0),
        tiff("<", count=9),
        tiff("<", value=b"\x09\0\0\0"),
        tiff("<", value=b"\0\0\0\0"),
        tiff("<", kind=2, value=b"6\0\0\0"),
        b"II*\0" + b"\xff" * 99,
        random.Random(1).randbytes(999),
    ],
)
def test_a_broken_exif_says_nothing(broken):
    assert read_orientation(broken) == 1


def test_an_orientation_is_also_read_where_other_programs_put_it():
    xmp = b'<x:xmpmeta><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
    image = fruit(3, (40, 20))
    text, packed, hexed = PngInfo(), PngInfo(), PngInfo()
    text.add_itxt("XML:com.adobe.xmp", xmp.decode())
    packed.add_itxt("XML:com.adobe.xmp", xmp.decode(), zip=True)
    hexed.add_text("Raw profile type exif", f"\nexif\n  40\n{(b'Exif' + bytes(2) + tiff('>')).hex()}\n", zip=True)
    for kind, options in (
        ("JPEG", {"xmp": xmp}),
        ("WEBP", {"xmp": xmp}),
        ("PNG", {"pnginfo": text}),
        ("PNG", {"pnginfo": packed}),
        ("PNG", {"pnginfo": hexed}),
    ):
        assert WALKERS[kind](encoded(image, kind, **options)).orientation == 6


@pytest.mark.parametrize("digits", [b"zz", b"\xff\xff", b"abc", b""])
def test_broken_text_around_a_png_says_nothing(digits):
    for body in (b"\n\n\n" + digits, digits):
        for kind in (b"tEXt", b"zTXt", b"iTXt"):
            container = containers.walk_png(hostile.png((kind, b"Raw profile type exif\0" + body)))
            assert (container.orientation, container.had_metadata) == (1, True)


def test_a_text_that_inflates_is_not_inflated():
    blob = b"Raw profile type exif\0\0" + zlib.compress(bytes(100 << 20))
    assert containers.walk_png(hostile.png((b"zTXt", blob))).orientation == 1


@pytest.mark.parametrize("name", [b"vp1g", b"_x_9", b"1234"])
def test_a_png_with_a_private_chunk_that_pillow_takes_is_taken_without_it(name):
    data = hostile.png((name, b"private"))
    assert Image.open(io.BytesIO(data)).getpixel((0, 0)) == (0, 0, 0)
    assert containers.walk_png(data).picture == hostile.png()


def test_a_thumbnail_of_jfif_does_not_count_as_tables():
    thumbnail = b"JFIF\0\1\1\0\0\1\0\1" + bytes([147, 148]) + bytes(3 * 147 * 148)
    data = hostile.with_segments((0xE0, thumbnail))
    np.testing.assert_array_equal(pixels(containers.walk_jpeg(data).picture), pixels(data))


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"\xff\xd8\xff", RejectCode.CORRUPT),
        (b"\xff\xd8\xff\xe1\xff\xff", RejectCode.TRUNCATED),
        (hostile.with_segments((0xD8, b"")), RejectCode.CORRUPT),
        (hostile.behind_the_soi(b"\xff\xdb\0\0"), RejectCode.CORRUPT),
        (hostile.behind_the_soi(b"\0" * (containers.MAX_FILL + 1)), RejectCode.CORRUPT),
    ],
)
def test_what_a_jpeg_lacks_is_said(data, code):
    with pytest.raises(ImageRejected) as rejected:
        containers.walk_jpeg(data)
    assert rejected.value.code is code
