from __future__ import annotations

import hashlib
import io
import struct
import time
import zlib
from typing import Any

import numpy as np
import pytest
from fruits.images import decoding
from fruits.images.decoding import MAX_BYTES, STORED_PX, clean
from fruits.images.rejects import ImageRejected, RejectCode
from PIL import Image, ImageFile, WebPImagePlugin

from tests.spark_jobs import pictures
from tests.spark_jobs.pictures import CANARY, encoded, fruit

COLOURS = [(250, 0, 0), (0, 250, 0), (0, 0, 250), (250, 250, 0)]


def opened(data: bytes, **limits: int) -> Image.Image:
    image = Image.open(io.BytesIO(clean(data, **limits).pixels))
    image.load()
    return image


def quartered(size=(64, 48)) -> Image.Image:
    """Four colours, upright: red and green above, blue and yellow below."""
    image = Image.new("RGB", size)
    width, height = size
    for i, colour in enumerate(COLOURS):
        left, top = (i % 2) * width // 2, (i // 2) * height // 2
        image.paste(colour, (left, top, left + width // 2, top + height // 2))
    return image


@pytest.mark.parametrize(("data", "code"), pictures.broken().values(), ids=pictures.broken().keys())
def test_what_is_not_a_photo_is_rejected_with_its_code(data, code):
    started = time.monotonic()
    with pytest.raises(ImageRejected) as rejected:
        clean(data)
    assert rejected.value.code == code
    assert rejected.value.detail
    assert time.monotonic() - started < 2


def test_a_reject_says_the_same_each_time():
    for data, _ in pictures.broken().values():
        details = set()
        for _ in range(2):
            with pytest.raises(ImageRejected) as rejected:
                clean(data)
            details.add(rejected.value.detail)
        assert len(details) == 1
        assert "0x" not in details.pop(), "an address in memory"


def test_an_object_over_the_byte_limit_is_rejected():
    with pytest.raises(ImageRejected) as rejected:
        clean(b"\xff\xd8\xff" + bytes(MAX_BYTES))
    assert rejected.value.code is RejectCode.TOO_MANY_BYTES


def verdict(data: bytes) -> RejectCode | None:
    try:
        clean(data)
    except ImageRejected as rejected:
        return rejected.code
    return None


JPEGS: dict[str, dict[str, Any]] = {
    "baseline": {},
    "every colour sample": {"subsampling": 0, "quality": 95},
    "progressive": {"progressive": True},
    "restart intervals": {"restart_marker_blocks": 3},
    "progressive of restart intervals": {"restart_marker_rows": 1, "progressive": True},
    "optimized": {"optimize": True},
    "grey": {"mode": "L", "restart_marker_blocks": 4},
    "cmyk": {"mode": "CMYK"},
}
PADDINGS = {
    "nothing": b"",
    "half an end": b"\xff",
    "zeros": bytes(600),
    "erased flash": b"\xff" * 600,
    "half an end and zeros": b"\xff" + bytes(600),
}


def jpeg_of(kind: str, size: tuple[int, int] = (150, 130)) -> bytes:
    """A photo on white ground, as in Fruits-360: optimized, its last pixels are zeros."""
    options = dict(JPEGS[kind])
    image = Image.new("RGB", size, "white")
    image.paste(fruit(3, (size[0] // 2, size[1] // 2)), (5, 5))
    return encoded(image.convert(options.pop("mode", "RGB")), **options)


@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("kind", JPEGS)
def test_a_jpeg_whose_end_of_image_is_missing_is_loaded_pixel_for_pixel(kind, padding):
    for photo in (jpeg_of(kind), encoded(fruit(3), **{n: v for n, v in JPEGS[kind].items() if n != "mode"})):
        if kind != "optimized" or not padding.endswith("zeros"):  # its zeros may be pixels that never arrived
            assert clean(photo[:-2] + PADDINGS[padding]).pixels == clean(photo).pixels


def test_zeros_at_the_end_are_pixels_only_where_the_picture_takes_all_of_them():
    image = Image.new("RGB", (200, 400), "white")
    image.paste(fruit(3, (50, 50)), (5, 5))
    photo = encoded(image, optimize=True, subsampling=0)  # what is white takes a bit a block, which is 0
    zeros = len(photo[:-2]) - len(photo[:-2].rstrip(b"\0"))
    assert zeros > 50
    assert clean(photo[:-2]).pixels == clean(photo).pixels
    for lost in (zeros // 2, zeros + 300):
        assert verdict(photo[: -2 - lost]) is RejectCode.TRUNCATED
    assert verdict(photo[: -2 - zeros - 300] + bytes(zeros + 300)) is RejectCode.TRUNCATED


@pytest.mark.parametrize("fill", [b"", b"\0", b"\xff"])
@pytest.mark.parametrize("kind", JPEGS)
def test_a_jpeg_whose_tail_never_arrived_is_refused(kind, fill):
    photo = encoded(fruit(3, (150, 130)).convert(JPEGS[kind].get("mode", "RGB")), **JPEGS[kind] | {"mode": None})
    whole = clean(photo).pixels
    for cut in (*range(700, len(photo) - 3, len(photo) // 25), *range(len(photo) - 20, len(photo) - 2)):
        data = photo[:cut] + fill * (len(photo) - cut)
        if verdict(data) not in (RejectCode.TRUNCATED, RejectCode.CORRUPT):
            # A few bits of the last block, which show nowhere.
            assert clean(data).pixels == whole
            assert len(photo) - cut < 6


def test_a_progressive_jpeg_cut_between_two_scans_is_refused():
    photo = encoded(fruit(3, (150, 130)), progressive=True)
    starts = [at for at in range(len(photo)) if photo.startswith(b"\xff\xda", at)]
    assert len(starts) > 5
    for start in starts[1:]:
        tables = photo.rindex(b"\xff\xc4", 0, start)
        for cut in (start, tables):
            with pytest.raises(ImageRejected, match="before its last scan"):
                clean(photo[:cut])


def test_a_jpeg_cut_between_two_restart_intervals_is_refused():
    photo = encoded(fruit(3, (150, 130)), restart_marker_rows=1)
    cuts = [at for at in range(len(photo)) if photo[at] == 0xFF and photo[at + 1] in range(0xD0, 0xD8)]
    assert len(cuts) == 8
    for cut in cuts:
        for tail in (b"", photo[cut : cut + 2]):
            with pytest.raises(ImageRejected, match=r"before its last (restart interval|pixels)"):
                clean(photo[:cut] + tail)


def test_a_jpeg_cut_anywhere_is_rejected_as_such_or_loaded_whole():
    jpeg = encoded(fruit(1))
    allowed = {None, RejectCode.EMPTY, RejectCode.TRUNCATED, RejectCode.CORRUPT, RejectCode.NOT_AN_IMAGE}
    assert {verdict(jpeg[:length]) for length in range(0, len(jpeg), 37)} <= allowed


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_flipped_bits_never_raise_anything_else_than_a_reject(kind):
    rng = np.random.default_rng(1)
    data = encoded(fruit(2), kind)
    for _ in range(60):
        bits = bytearray(data)
        for at in rng.integers(0, len(bits), 8):
            bits[at] ^= 1 << rng.integers(8)
        assert verdict(bytes(bits)) in {None, *RejectCode}


def test_the_pixel_limit_is_a_setting_and_a_picture_at_the_limit_is_loaded():
    data = encoded(fruit(1, (100, 90)))
    assert clean(data, max_pixels=9000).width_px == 100
    with pytest.raises(ImageRejected) as rejected:
        clean(data, max_pixels=8999)
    assert rejected.value.code is RejectCode.TOO_MANY_PIXELS


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_a_small_picture_is_stored_pixel_for_pixel(kind):
    data = encoded(fruit(3), kind)
    original = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    np.testing.assert_array_equal(np.asarray(opened(data)), original)


def test_the_content_digest_is_that_of_the_original_bytes():
    data = encoded(fruit(3))
    assert clean(data).content_sha256 == hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_exif_orientation_is_turned_upright(orientation):
    upright = quartered()
    turn = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,  # a camera that must be shown turned by 270 degrees holds it turned by 90
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }.get(orientation)
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = opened(encoded(upright if turn is None else upright.transpose(turn), "PNG", exif=exif))
    assert stored.size == upright.size
    assert pictures.corners(stored) == COLOURS


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_an_unknown_orientation_leaves_the_picture_as_it_is(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    assert pictures.corners(opened(encoded(quartered(), "PNG", exif=exif))) == COLOURS


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("broken", [b"II*\0" + b"\xff" * 18, b"II+\0\x16\xc6\xe9", b"no EXIF at all", b"MM\0*|"])
def test_broken_exif_around_sound_pixels_is_loaded(kind, broken):
    image = clean(encoded(fruit(4), kind, exif=b"Exif\0\0" + broken))
    assert image.width_px == 100
    assert image.had_metadata


@pytest.mark.parametrize(("data"), pictures.with_metadata().values(), ids=pictures.with_metadata().keys())
def test_no_metadata_survives_and_that_it_was_there_is_counted(data):
    assert CANARY in data or b"eXIf" in data or b"iCCP" in data
    image = clean(data)
    assert image.had_metadata
    assert CANARY not in image.pixels
    assert not {"exif", "icc_profile", "xmp"} & Image.open(io.BytesIO(image.pixels)).info.keys()
    assert b"EXIF" not in image.pixels
    assert b"XMP " not in image.pixels
    assert b"ICCP" not in image.pixels


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_a_photo_without_metadata_is_not_counted(kind):
    assert not clean(encoded(fruit(5), kind)).had_metadata


def test_cmyk_grey_and_palette_pictures_become_rgb_of_the_same_colours():
    for image, kind in (
        (quartered().convert("CMYK"), "JPEG"),
        (quartered().quantize(8), "PNG"),
        (quartered().convert("RGBA"), "PNG"),
        (quartered().convert("RGBA"), "WEBP"),
    ):
        stored = opened(encoded(image, kind, **({"lossless": True} if kind == "WEBP" else {})))
        assert stored.mode == "RGB"
        np.testing.assert_allclose(pictures.corners(stored), COLOURS, atol=12)
    grey = opened(encoded(Image.new("L", (10, 10), 90), "PNG"))
    assert grey.mode == "RGB"
    assert grey.getpixel((5, 5)) == (90, 90, 90)


def test_sixteen_bits_are_scaled_and_not_clipped():
    ramp = np.linspace(0, 65535, 64, dtype=np.uint16)[None].repeat(8, axis=0)
    stored = np.asarray(opened(encoded(Image.fromarray(ramp), "PNG")))[0, :, 0]
    np.testing.assert_allclose(stored, ramp[0] >> 8, atol=1)


def test_transparent_pixels_are_laid_over_white():
    clear = Image.new("RGBA", (20, 20), (0, 0, 0, 0))
    assert opened(encoded(clear, "PNG")).getpixel((3, 3)) == (255, 255, 255)
    palette = Image.new("P", (20, 20), 0)
    assert opened(encoded(palette, "PNG", transparency=0)).getpixel((3, 3)) == (255, 255, 255)
    red = Image.new("RGB", (20, 20), (200, 30, 30))
    assert opened(encoded(red, "PNG", transparency=(200, 30, 30))).getpixel((3, 3)) == (255, 255, 255)


GREY, RGB, PALETTE, GREY_ALPHA, RGBA = 0, 2, 3, 4, 6
CHANNELS = {GREY: 1, RGB: 3, PALETTE: 1, GREY_ALPHA: 2, RGBA: 4}


def png_of(samples: np.ndarray, bits: int, colour: int, *chunks: tuple[bytes, bytes]) -> bytes:
    """A PNG of these samples, (height, width, channels), in any depth that the standard has."""
    height, width, _ = samples.shape
    if bits == 16:
        rows = samples.astype(">u2").reshape(height, -1).view(np.uint8)
    elif bits == 8:
        rows = samples.astype(np.uint8).reshape(height, -1)
    else:
        parts = np.unpackbits(samples.astype(np.uint8).reshape(height, -1, 1), axis=2)[:, :, 8 - bits :]
        rows = np.packbits(parts.reshape(height, -1), axis=1)
    body = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    parts = ((b"IHDR", header), *chunks, (b"IDAT", body), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in parts
    )


@pytest.mark.parametrize(
    ("colour", "bits"),
    [
        *((GREY, bits) for bits in (1, 2, 4, 8, 16)),
        *((PALETTE, bits) for bits in (1, 2, 4, 8)),
        *((colour, bits) for colour in (RGB, GREY_ALPHA, RGBA) for bits in (8, 16)),
    ],
)
@pytest.mark.parametrize("transparent", [False, True])
@pytest.mark.parametrize("strip_pixels", [decoding.STRIP_PIXELS, 500])
def test_every_depth_and_colour_type_of_png_is_white_where_it_is_transparent(
    colour, bits, transparent, strip_pixels, monkeypatch
):
    monkeypatch.setattr(decoding, "STRIP_PIXELS", strip_pixels)
    rng = np.random.default_rng(bits)
    most = 2**bits - 1
    samples = rng.integers(0, most, (40, 50, CHANNELS[colour]), endpoint=True)
    samples[5:20, 5:20] = samples[0, 0]  # the key colour
    if bits == 16:
        samples[30:35, 5:20] = samples[0, 0] ^ 1  # equal to it in 8 bits, and another colour
    values = samples * 255 // most if bits < 16 else samples >> 8
    palette = rng.integers(0, 255, (2**bits, 3), endpoint=True) if colour == PALETTE else np.zeros((0, 3))
    chunks = [(b"PLTE", palette.astype(np.uint8).tobytes())] if colour == PALETTE else []
    visible = np.ones((40, 50, 1))
    if colour in (GREY_ALPHA, RGBA):
        alpha = np.where((rng.random((40, 50)) < 0.5) & transparent, 0, most)
        samples[:, :, -1] = alpha
        visible, values = alpha[:, :, None] > 0, values[:, :, :-1]
    elif transparent:
        key = samples[0, 0]
        visible = (samples != key).any(axis=2, keepdims=True)
        alphas = np.full(2**bits if bits < 16 else 1, 255)
        alphas[key[0] if colour == PALETTE else 0] = 0
        as_key = b"".join(struct.pack(">H", value) for value in key)
        chunks.append((b"tRNS", alphas.astype(np.uint8).tobytes() if colour == PALETTE else as_key))
    expected = palette[samples[:, :, 0]] if colour == PALETTE else np.broadcast_to(values, (40, 50, 3))
    expected = np.where(visible, expected, 255)
    stored = np.asarray(opened(png_of(samples, bits, colour, *chunks)))
    np.testing.assert_array_equal(stored, expected)


@pytest.mark.parametrize(
    ("brand", "name"), [(b"heic", "HEIC"), (b"mif1", "HEIC"), (b"avif", "AVIF"), (b"mp42", "video")]
)
def test_what_a_phone_may_take_instead_of_jpeg_is_refused_with_what_to_do(brand, name):
    with pytest.raises(ImageRejected) as rejected:
        clean(b"\0\0\0\x20ftyp" + brand + bytes(40))
    assert rejected.value.code is RejectCode.FORMAT_NOT_ALLOWED
    assert rejected.value.detail.startswith(name)
    assert ("JPEG, or convert it" in rejected.value.detail) == (name != "video")


@pytest.mark.parametrize(
    ("size", "kind", "stored"),
    [
        ((1, 1), "PNG", (1, 1)),
        ((100, 100), "JPEG", (100, 100)),
        ((447, 600), "JPEG", (447, 600)),
        ((448, 600), "JPEG", (224, 300)),
        ((448, 600), "PNG", (224, 300)),
        ((4000, 3000), "JPEG", (500, 375)),
        ((4000, 3000), "PNG", (500, 375)),
        ((8000, 6000), "JPEG", (500, 375)),
    ],
)
def test_large_photos_are_stored_reduced_and_small_ones_never_enlarged(size, kind, stored):
    image = clean(encoded(Image.new("RGB", size, "red"), kind))
    assert (image.width_px, image.height_px) == stored
    assert min(size) < STORED_PX or min(stored) >= STORED_PX


def test_a_twelve_megapixel_jpeg_is_decoded_near_the_size_that_is_kept(monkeypatch):
    sizes = []
    rgb = decoding._to_rgb
    monkeypatch.setattr(decoding, "_to_rgb", lambda image: sizes.append(image.size) or rgb(image))
    clean(encoded(fruit(6, (4000, 3000))))
    assert sizes == [(500, 375)]


@pytest.mark.parametrize(
    ("mode", "kind"), [("RGB", "PNG"), ("RGBA", "PNG"), ("P", "PNG"), ("L", "PNG"), ("CMYK", "JPEG"), ("I;16", "PNG")]
)
@pytest.mark.parametrize("size", [(1000, 937), (230, 999)])
def test_a_picture_converted_in_strips_is_the_same_as_converted_whole(mode, kind, size, monkeypatch):
    image = fruit(7, size)
    if mode == "P":
        image = image.quantize(32)
    elif mode == "I;16":
        image = Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257)
    data = encoded(image.convert(mode) if mode not in ("P", "I;16") else image, kind)
    whole = clean(data).pixels
    strips = []
    rgb = decoding._to_rgb
    monkeypatch.setattr(decoding, "_to_rgb", lambda image: strips.append(image.size) or rgb(image))
    monkeypatch.setattr(decoding, "STRIP_PIXELS", 20_000)
    assert clean(data).pixels == whole
    assert len(strips) > 2


def test_the_first_picture_of_a_phones_multi_picture_jpeg_is_taken():
    data = encoded(fruit(8), "MPO", save_all=True, append_images=[fruit(9, (50, 50))])
    assert clean(data).width_px == 100
    assert clean(data).had_metadata


def test_a_worker_without_memory_is_no_fault_of_the_photo(monkeypatch):
    def nothing_left(*_, **__):
        raise MemoryError

    monkeypatch.setitem(decoding._READERS, "JPEG", nothing_left)
    with pytest.raises(MemoryError):
        clean(encoded(fruit(1)))


def test_a_decoder_without_memory_is_no_fault_of_the_photo(monkeypatch):
    def nothing_left(*_):
        raise ImageFile._get_oserror(-9, encoder=False)  # what Pillow makes of its decoders' "no memory"

    monkeypatch.setattr(ImageFile.ImageFile, "load", nothing_left)
    with pytest.raises(MemoryError, match="out of memory"):
        clean(encoded(fruit(1), "PNG"))


@pytest.mark.parametrize(
    ("message", "kind"),
    [
        ("encoding error 1", MemoryError),
        ("encoding error 2: out of memory", MemoryError),
        ("encoding error 5", ValueError),
    ],
)
def test_what_cannot_be_written_is_no_fault_of_the_photo(monkeypatch, message, kind):
    data = encoded(fruit(1))

    def nothing_left(*_):
        raise ValueError(message)

    monkeypatch.setattr(WebPImagePlugin._webp, "WebPEncode", nothing_left)
    with pytest.raises(kind, match=message):
        clean(data)
