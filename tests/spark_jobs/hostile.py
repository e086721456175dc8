"""Every class of input that a bucket may hold, with what becomes of it: an image, or a reject with its code.

Bytes are made on demand (some are large once decoded, none is large on disk). Classes that are about the object and
not about its bytes (its key, its size, what happens to it after the listing) are in `test_hostile.py`.
"""

from __future__ import annotations

import random
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from fruits.images import MAX_BYTES, MAX_SCANS, RejectCode
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from tests.spark_jobs import pictures
from tests.spark_jobs.pictures import encoded, fruit

Made = Callable[[], bytes]
LOADED = None
PNG = b"\x89PNG\r\n\x1a\n"
AT_THE_LIMIT = (10_000, 5_000)


@dataclass(frozen=True)
class Hostile:
    """One class: its bytes, and the codes it may get; `LOADED` (None) for an image."""

    data: Made
    expected: frozenset[RejectCode | None]
    size: tuple[int, int] | None = None


def chunk(kind: bytes, body: bytes) -> bytes:
    """One chunk of a PNG, with its checksum."""
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(
    *chunks: tuple[bytes, bytes], size: tuple[int, int] = (8, 8), colour: int = 2, bits: int = 8
) -> bytes:
    """A PNG of one colour with extra chunks between header and pixels."""
    width, height = size
    row = b"\0" + bytes(width * {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour] * bits // 8)
    packer = zlib.compressobj(1)
    pixels = b"".join(packer.compress(row) for _ in range(height)) + packer.flush()
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    extra = b"".join(chunk(*pair) for pair in chunks)
    return PNG + chunk(b"IHDR", header) + extra + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def inflating(kind: bytes, megabytes: int = 300) -> bytes:
    """A PNG with a text or profile chunk that inflates a thousandfold."""
    packer = zlib.compressobj(9)
    blob = b"".join(packer.compress(bytes(1 << 20)) for _ in range(megabytes)) + packer.flush()
    before = {b"zTXt": b"Comment\0\0", b"iCCP": b"icc\0\0", b"iTXt": b"Comment\0\1\0\0\0"}[kind]
    return png((kind, before + blob))


def png_inflating_beyond_its_size() -> bytes:
    """Eight by eight pixels by its header, 300 MB by its data."""
    packer = zlib.compressobj(9)
    blob = b"".join(packer.compress(bytes(1 << 20)) for _ in range(300)) + packer.flush()
    header = struct.pack(">IIBBBBB", 8, 8, 8, 2, 0, 0, 0)
    return PNG + chunk(b"IHDR", header) + chunk(b"IDAT", blob) + chunk(b"IEND", b"")


def webp(*chunks: tuple[bytes, bytes]) -> bytes:
    """A WebP container of these chunks."""
    body = b"".join(
        kind + struct.pack("<I", len(data)) + data + b"\0" * (len(data) % 2) for kind, data in chunks
    )
    return b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WEBP" + body


def vp8l(width: int, height: int) -> bytes:
    """The header of a lossless picture, and noise."""
    return b"\x2f" + struct.pack("<I", (width - 1) | (height - 1) << 14) + random.Random(1).randbytes(40)


def vp8x(width: int, height: int, flags: int = 0) -> bytes:
    """The header of an extended picture."""
    return bytes([flags, 0, 0, 0]) + (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")


def webp_lying(inner: tuple[int, int], canvas: tuple[int, int]) -> bytes:
    """A small canvas in front of a large picture."""
    picture = encoded(Image.new("RGB", inner), "WEBP", lossless=True)[20:]
    return webp((b"VP8X", vp8x(*canvas)), (b"VP8L", picture))


def jpeg_claiming(width: int, height: int, components: int = 3) -> bytes:
    """A small JPEG whose frame header claims another size."""
    image = Image.new("CMYK" if components == 4 else "RGB", (16, 16))
    data = bytearray(encoded(image))
    at = data.index(b"\xff\xc0") + 5
    data[at : at + 4] = struct.pack(">HH", height, width)
    return bytes(data)


def jpeg_of_many_scans(size: tuple[int, int], more: int) -> bytes:
    """A progressive JPEG whose last scan is repeated: each costs a pass over the whole picture."""
    data = encoded(Image.new("RGB", size, "red"), progressive=True, subsampling=0)
    at = data.rindex(b"\xff\xda")
    return data[:at] + data[at:-2] * (1 + more) + data[-2:]


def jpeg_with(marker: int, change: Callable[[bytearray, int], None]) -> bytes:
    """A JPEG with something changed behind a marker."""
    data = bytearray(encoded(fruit(5)))
    change(data, data.index(bytes([0xFF, marker])))
    return bytes(data)


def frames(kind: str, count: int) -> bytes:
    """An animation of `count` frames."""
    images = [Image.new("RGB", (40, 40), (i % 256, 0, 0)) for i in range(count)]
    return encoded(images[0], kind, save_all=True, append_images=images[1:])


def turned(orientation: int, kind: str) -> bytes:
    """A photo that says how the camera was held; 40 x 20, upright 20 x 40 from 5 on."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encoded(fruit(3, (40, 20)), kind, exif=exif)


def cut(kind: str, share: float) -> bytes:
    """The first part of a photo of 300 x 300."""
    data = encoded(fruit(5, (300, 300)), kind)
    return data[: int(len(data) * share)]


def flipped(kind: str, seed: int) -> bytes:
    """A photo with a tenth of its bytes behind the header replaced by noise."""
    data = bytearray(encoded(fruit(5), kind))
    rng = random.Random(seed)
    for _ in range(len(data) // 10):
        data[rng.randrange(30, len(data))] = rng.randrange(256)
    return bytes(data)


def photo(kind: str, mode: str = "RGB", size: tuple[int, int] = (100, 100), **options: object) -> bytes:
    """A sound photo of another kind."""
    image = fruit(2, size)
    return encoded(image.quantize(16) if mode == "P" else image.convert(mode), kind, **options)


def sixteen_bits(colour: int, size: tuple[int, int] = (64, 64)) -> bytes:
    """A PNG of 16 bits a channel."""
    return png(size=size, colour=colour, bits=16)


def flat(mode: str, kind: str, size: tuple[int, int], **options: object) -> bytes:
    """One colour, any size."""
    return encoded(Image.new(mode, size), kind, **options)


def with_text() -> bytes:
    """A PNG with a comment of half a megabyte."""
    text = PngInfo()
    text.add_text("Comment", "x" * 500_000, zip=True)
    return encoded(fruit(1), "PNG", pnginfo=text)


def many_segments() -> bytes:
    """A JPEG with 20,000 comments before its picture."""
    data = encoded(fruit(1))
    return data[:2] + b"\xff\xfe\x00\x04ab" * 20_000 + data[2:]


_SOUND: dict[str, tuple[Made, tuple[int, int] | None]] = {
    **{
        f"{kind} held as {orientation}": (
            partial(turned, orientation, kind),
            (20, 40) if orientation > 4 else (40, 20),
        )
        for kind in ("JPEG", "PNG", "WEBP")
        for orientation in range(1, 9)
    },
    "cmyk jpeg": (partial(photo, "JPEG", "CMYK"), (100, 100)),
    "grey jpeg": (partial(photo, "JPEG", "L"), (100, 100)),
    "progressive jpeg": (partial(photo, "JPEG", progressive=True), (100, 100)),
    "jpeg with restart markers": (partial(photo, "JPEG", restart_marker_blocks=1), (100, 100)),
    "multi-picture jpeg": (
        lambda: encoded(fruit(8), "MPO", save_all=True, append_images=[fruit(9)]),
        (100, 100),
    ),
    "jpeg with noise behind its end": (lambda: photo("JPEG") + random.Random(1).randbytes(9999), (100, 100)),
    "jpeg of many segments": (many_segments, (100, 100)),
    "16-bit grey png": (partial(sixteen_bits, 0), (64, 64)),
    "16-bit colour png": (partial(sixteen_bits, 2), (64, 64)),
    "16-bit transparent png": (partial(sixteen_bits, 6), (64, 64)),
    "1-bit png": (partial(photo, "PNG", "1"), (100, 100)),
    "palette png": (partial(photo, "PNG", "P"), (100, 100)),
    "palette png with transparency": (partial(photo, "PNG", "P", transparency=3), (100, 100)),
    "palette png with a table of transparency": (
        partial(photo, "PNG", "P", transparency=bytes(range(16))),
        (100, 100),
    ),
    "grey png with alpha": (partial(photo, "PNG", "LA"), (100, 100)),
    "transparent png": (partial(photo, "PNG", "RGBA"), (100, 100)),
    "transparent webp": (partial(photo, "WEBP", "RGBA"), (100, 100)),
    "lossless webp": (partial(photo, "WEBP", lossless=True), (100, 100)),
    "one pixel of jpeg": (partial(photo, "JPEG", size=(1, 1)), (1, 1)),
    "one pixel of png": (partial(photo, "PNG", size=(1, 1)), (1, 1)),
    "one pixel of webp": (partial(photo, "WEBP", size=(1, 1)), (1, 1)),
    "a line of the longest side": (partial(flat, "RGB", "PNG", (16_383, 1)), (16_383, 1)),
    "jpeg at the limit": (partial(flat, "RGB", "JPEG", AT_THE_LIMIT), (625, 313)),
    "progressive jpeg at the limit": (
        partial(flat, "RGB", "JPEG", AT_THE_LIMIT, progressive=True, subsampling=0),
        (625, 313),
    ),
    "progressive cmyk jpeg at the limit": (
        partial(flat, "CMYK", "JPEG", AT_THE_LIMIT, progressive=True),
        (625, 313),
    ),
    "png at the limit": (partial(flat, "RGB", "PNG", AT_THE_LIMIT, compress_level=1), (625, 313)),
    "palette png with transparency at the limit": (
        partial(flat, "P", "PNG", AT_THE_LIMIT, transparency=0, compress_level=1),
        (625, 313),
    ),
    "grey png with alpha at the limit": (
        partial(flat, "LA", "PNG", AT_THE_LIMIT, compress_level=1),
        (625, 313),
    ),
    "16-bit grey png at the limit": (partial(sixteen_bits, 0, AT_THE_LIMIT), (625, 313)),
    "16-bit transparent png at the limit": (partial(sixteen_bits, 6, AT_THE_LIMIT), (625, 313)),
    "webp at its limit": (partial(flat, "RGBA", "WEBP", (4096, 4096), lossless=True, method=0), (256, 256)),
    "broken icc in jpeg": (partial(photo, "JPEG", icc_profile=b"no profile"), (100, 100)),
    "broken icc in png": (lambda: png((b"iCCP", b"icc\0\0not deflated")), (8, 8)),
    "broken icc in webp": (partial(photo, "WEBP", icc_profile=b"no profile"), (100, 100)),
    "broken exif in jpeg": (partial(photo, "JPEG", exif=b"Exif\0\0II*\0" + b"\xff" * 18), (100, 100)),
    "broken exif in png": (partial(photo, "PNG", exif=b"Exif\0\0MM\0*|"), (100, 100)),
    "broken exif in webp": (partial(photo, "WEBP", exif=b"Exif\0\0II+\0\x16\xc6\xe9"), (100, 100)),
    "png with a long comment": (with_text, (100, 100)),
    "png inflating beyond its size": (png_inflating_beyond_its_size, (8, 8)),
}

_C = RejectCode
_REJECTED: dict[str, tuple[Made, RejectCode]] = {
    **{name: (partial(bytes, data), code) for name, (data, code) in pictures.broken().items()},
    "text": (lambda: b"not a picture\n" * 100, _C.NOT_AN_IMAGE),
    "zip": (lambda: b"PK\x03\x04" + bytes(300), _C.NOT_AN_IMAGE),
    "gzip": (lambda: zlib.compress(bytes(999), wbits=31), _C.NOT_AN_IMAGE),
    "program": (lambda: b"\x7fELF" + bytes(300), _C.NOT_AN_IMAGE),
    "zeros": (lambda: bytes(5000), _C.NOT_AN_IMAGE),
    "sound": (lambda: b"RIFF\x24\0\0\0WAVEfmt " + bytes(40), _C.NOT_AN_IMAGE),
    "video": (lambda: b"\0\0\0\x20ftypisom" + bytes(300), _C.FORMAT_NOT_ALLOWED),
    "avif": (lambda: b"\0\0\0\x20ftypavif" + bytes(300), _C.FORMAT_NOT_ALLOWED),
    "jpeg 2000": (lambda: b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(300), _C.FORMAT_NOT_ALLOWED),
    "jpeg xl": (lambda: b"\xff\x0a" + bytes(300), _C.FORMAT_NOT_ALLOWED),
    "icon": (partial(photo, "ICO"), _C.FORMAT_NOT_ALLOWED),
    "photoshop": (lambda: b"8BPS\0\1" + bytes(300), _C.FORMAT_NOT_ALLOWED),
    "bigtiff": (lambda: b"II+\0\x08\0\0\0" + bytes(300), _C.FORMAT_NOT_ALLOWED),
    "svg bomb": (
        lambda: b'<?xml version="1.0"?><!DOCTYPE svg [<!ENTITY a "aaaa">]><svg>&a;</svg>',
        _C.NOT_AN_IMAGE,
    ),
    "eps of gigapixels": (
        lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 99999 99999\n",
        _C.FORMAT_NOT_ALLOWED,
    ),
    "gif bomb": (lambda: b"GIF89a" + struct.pack("<HH", 65535, 65535) + bytes(99), _C.FORMAT_NOT_ALLOWED),
    "bmp bomb": (
        lambda: b"BM" + bytes(12) + struct.pack("<III", 40, 60_000, 60_000) + bytes(99),
        _C.FORMAT_NOT_ALLOWED,
    ),
    "gif of many frames": (partial(frames, "GIF", 1000), _C.FORMAT_NOT_ALLOWED),
    "png of many frames": (partial(frames, "PNG", 1000), _C.ANIMATED),
    "webp of many frames": (partial(frames, "WEBP", 1000), _C.ANIMATED),
    "jpeg bomb": (partial(jpeg_claiming, 65_500, 65_500), _C.TOO_MANY_PIXELS),
    "cmyk jpeg bomb": (partial(jpeg_claiming, 65_500, 65_500, 4), _C.TOO_MANY_PIXELS),
    "jpeg just over the limit": (partial(flat, "RGB", "JPEG", (10_000, 5_001)), _C.TOO_MANY_PIXELS),
    "png truly over the limit": (partial(flat, "L", "PNG", (10_000, 5_001)), _C.TOO_MANY_PIXELS),
    "lossless webp bomb": (lambda: webp((b"VP8L", vp8l(16_383, 16_383))), _C.TOO_MANY_PIXELS),
    "webp truly over its limit": (
        partial(flat, "RGB", "WEBP", (6000, 6000), lossless=True, method=0, quality=0),
        _C.TOO_MANY_PIXELS,
    ),
    "extended webp bomb": (
        lambda: webp((b"VP8X", vp8x(16_383, 16_383)), (b"VP8L", vp8l(16_383, 16_383))),
        _C.TOO_MANY_PIXELS,
    ),
    "lossy webp bomb": (
        lambda: webp((b"VP8 ", b"\x30\0\0\x9d\x01\x2a" + struct.pack("<HH", 16_383, 16_383) + bytes(40))),
        _C.TOO_MANY_PIXELS,
    ),
    "webp of an impossible canvas": (
        lambda: webp((b"VP8X", vp8x(1 << 24, 1 << 24)), (b"VP8L", vp8l(9, 9))),
        _C.TOO_MANY_PIXELS,
    ),
    "webp of a lying canvas": (partial(webp_lying, (16_000, 16_000), (100, 100)), _C.CORRUPT),
    "animated webp bomb": (
        lambda: webp((b"VP8X", vp8x(4000, 4000, 2)), (b"ANIM", bytes(6))),
        _C.ANIMATED,
    ),
    "webp without a picture": (lambda: webp((b"EXIF", bytes(40))), _C.CORRUPT),
    "webp of nothing": (lambda: b"RIFF\x04\0\0\0WEBP", _C.CORRUPT),
    "png whose comment inflates": (partial(inflating, b"zTXt"), _C.CORRUPT),
    "png whose international comment inflates": (partial(inflating, b"iTXt"), _C.CORRUPT),
    "png whose profile inflates": (partial(inflating, b"iCCP"), _C.CORRUPT),
    "png without pixels": (lambda: PNG + chunk(b"IHDR", bytes(13)) + chunk(b"IEND", b""), _C.CORRUPT),
    "png of no width": (partial(pictures.png_claiming, 0, 9), _C.CORRUPT),
    "png of a negative width": (partial(pictures.png_claiming, 0xFFFFFFFF, 1), _C.TOO_MANY_PIXELS),
    "png with a chunk of four gigabytes": (lambda: PNG + b"\xff\xff\xff\xffIHDR" + bytes(99), _C.TRUNCATED),
    "a very high column": (partial(pictures.png_claiming, 1, 65_500), _C.SIDE_TOO_LONG),
    "jpeg of no height": (partial(jpeg_claiming, 16, 0), _C.CORRUPT),
    "a very long jpeg": (partial(flat, "RGB", "JPEG", (65_500, 1)), _C.SIDE_TOO_LONG),
    "jpeg of one scan too many": (partial(jpeg_of_many_scans, (64, 64), MAX_SCANS), _C.TOO_MANY_SCANS),
    "large jpeg of many scans": (partial(jpeg_of_many_scans, AT_THE_LIMIT, 40), _C.TOO_MANY_SCANS),
    "jpeg of 12 bits": (
        partial(jpeg_with, 0xC0, lambda data, at: data.__setitem__(at + 4, 12)),
        _C.CORRUPT,
    ),
    "jpeg of a lossless frame": (
        partial(jpeg_with, 0xC0, lambda data, at: data.__setitem__(at + 1, 0xC3)),
        _C.CORRUPT,
    ),
    "jpeg without a picture": (lambda: b"\xff\xd8\xff\xd9", _C.CORRUPT),
    "jpeg of endless starts": (lambda: b"\xff\xd8\xff" * 20_000, _C.CORRUPT),
    "one byte too many": (lambda: b"\xff\xd8\xff" + bytes(MAX_BYTES - 2), _C.TOO_MANY_BYTES),
}

_BROKEN = frozenset({_C.TRUNCATED, _C.CORRUPT})
CLASSES: dict[str, Hostile] = {
    **{name: Hostile(data, frozenset({LOADED}), size) for name, (data, size) in _SOUND.items()},
    **{name: Hostile(data, frozenset({code})) for name, (data, code) in _REJECTED.items()},
    **{
        f"{kind} cut at {share:.0%}": Hostile(partial(cut, kind, share), _BROKEN)
        for kind in ("JPEG", "PNG", "WEBP")
        for share in (0.02, 0.1, 0.3, 0.5, 0.7, 0.9, 0.98)
    },
    # A decoder may make something of noise in a JPEG's scan or in lossy WebP; never anything but image or reject.
    **{
        f"{kind} with noise in it": Hostile(
            partial(flipped, kind, 1), _BROKEN if kind == "PNG" else _BROKEN | {LOADED}
        )
        for kind in ("JPEG", "PNG", "WEBP")
    },
}


def mutation(source: bytes, seed: int) -> bytes:
    """One seeded mutation of a file: bits flipped, bytes replaced, pieces cut, doubled, zeroed or moved."""
    rng = np.random.default_rng(seed)
    data = bytearray(source)
    for _ in range(int(rng.integers(1, 6))):
        if not data:
            break
        at, length = int(rng.integers(len(data))), int(rng.integers(1, 64))
        # Headers decide more than pixels: every second mutation hits the first hundred bytes.
        at = at % 100 if rng.random() < 0.5 else at
        match int(rng.integers(6)):
            case 0:
                data[min(at, len(data) - 1)] ^= 1 << int(rng.integers(8))
            case 1:
                data[at : at + length] = rng.bytes(len(data[at : at + length]))
            case 2:
                del data[at : at + length]
            case 3:
                data[at:at] = data[at : at + length]
            case 4:
                data[at : at + 4] = bytes(4) if rng.random() < 0.5 else b"\xff" * 4
            case 5:
                data = data[:at] if rng.random() < 0.3 else data
    return bytes(data)


def originals() -> list[bytes]:
    """What is mutated: a sound photo of each kind and colour, small."""
    image = fruit(11, (60, 40))
    exif = Image.Exif()
    exif[0x0112] = 6
    return [
        encoded(image, "JPEG", exif=exif),
        encoded(image, "JPEG", progressive=True),
        encoded(image.convert("CMYK"), "JPEG"),
        encoded(image, "PNG", exif=exif, icc_profile=b"profile"),
        encoded(image.quantize(16), "PNG", transparency=1),
        encoded(image, "WEBP", exif=exif),
        encoded(image.convert("RGBA"), "WEBP", lossless=True),
        encoded(image, "GIF"),
        encoded(image, "BMP"),
        png(size=(30, 20), colour=6, bits=16),
    ]
