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
from fruits.images.decoding import MAX_BYTES, MAX_SCANS
from fruits.images.rejects import RejectCode
from PIL import Image, ImageFile
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


def png(*chunks: tuple[bytes, bytes], size: tuple[int, int] = (8, 8), colour: int = 2, bits: int = 8) -> bytes:
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


def many_inflating(name: bytes) -> bytes:
    """A PNG of 99,000 texts of 64 kB each, in 10 MB: the end of each is missing, which is seen last."""
    text = (b"zTXt", name + b"\0\0" + zlib.compress(bytes(64 * 1024), 9)[:-5] + b"\xff" * 5)
    return png(*[text] * 99_000)


def png_inflating_beyond_its_size() -> bytes:
    """Eight by eight pixels by its header, 300 MB by its data."""
    packer = zlib.compressobj(9)
    blob = b"".join(packer.compress(bytes(1 << 20)) for _ in range(300)) + packer.flush()
    header = struct.pack(">IIBBBBB", 8, 8, 8, 2, 0, 0, 0)
    return PNG + chunk(b"IHDR", header) + chunk(b"IDAT", blob) + chunk(b"IEND", b"")


def png_in_pieces(length: int) -> bytes:
    """A PNG of 800 x 600 whose pixels come in chunks of a few bytes each."""
    rng = random.Random(1)
    pixels = zlib.compress(b"".join(b"\0" + rng.randbytes(2400) for _ in range(600)), 1)
    header = struct.pack(">IIBBBBB", 800, 600, 8, 2, 0, 0, 0)
    pieces = b"".join(chunk(b"IDAT", pixels[at : at + length]) for at in range(0, len(pixels), length))
    return PNG + chunk(b"IHDR", header) + pieces + chunk(b"IEND", b"")


def png_with_stale_palette() -> bytes:
    """A PNG whose palette is not what its checksum says: these are its colours."""
    data = bytearray(photo("PNG", "P"))
    data[data.index(b"PLTE") + 5] ^= 1
    return bytes(data)


def webp(*chunks: tuple[bytes, bytes]) -> bytes:
    """A WebP container of these chunks."""
    body = b"".join(kind + struct.pack("<I", len(data)) + data + b"\0" * (len(data) % 2) for kind, data in chunks)
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


def jpeg_of_rows(width: int, rows: int, quality: int = 60) -> bytes:
    """A noisy baseline JPEG of so many rows of 16 pixels, without the memory that its pixels would take."""
    noise = np.random.default_rng(1).normal(128, 25, (16, width, 3)).clip(0, 255).astype(np.uint8)
    data = encoded(Image.fromarray(noise), quality=quality, subsampling=2, restart_marker_rows=1)
    scan = data.index(b"\xff\xda") + 14
    header = bytearray(data[:scan])
    height = header.index(b"\xff\xc0") + 5
    header[height : height + 2] = struct.pack(">H", 16 * rows)
    # Each row is a restart interval of its own, so all may be the same bytes.
    return (
        bytes(header) + b"".join(data[scan:-2] + bytes((0xFF, 0xD0 + row % 8)) for row in range(rows))[:-2] + data[-2:]
    )


def jpeg_of_one_component(width: int, height: int) -> bytes:
    """A baseline JPEG whose only scan has one of three components: the decoder holds all and waits for the others."""
    data = jpeg_claiming(width, height)
    scan = data.index(b"\xff\xda")
    return data[:scan] + bytes.fromhex("ffda 0008 01 0100 003f 00") + data[scan + 14 :]


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


def noisy(mode: str, kind: str, levels: int, size: tuple[int, int] = AT_THE_LIMIT, **options: object) -> bytes:
    """Noise of so many levels a channel, any size: what a decoder works on hardest."""
    ImageFile.MAXBLOCK = 128 << 20  # what Pillow can write of a JPEG that is not baseline
    channels = len(Image.new(mode, (1, 1)).getbands())
    noise = np.random.default_rng(1).integers(0, levels, (500, 1000, channels), dtype=np.uint8)
    across, down = -(-size[0] // 1000), -(-size[1] // 500)
    pixels = np.tile(noise, (down, across, 1))[: size[1], : size[0]].squeeze()
    if mode == "I;16":
        return encoded(Image.fromarray(pixels.astype(np.uint16) * 257), kind, **options)
    image = Image.frombytes(mode, size, pixels.tobytes())
    if mode == "P":
        image.putpalette(bytes(range(256)) * 3)
    return encoded(image, kind, **options)


def with_text() -> bytes:
    """A PNG with a comment of half a megabyte."""
    text = PngInfo()
    text.add_text("Comment", "x" * 500_000, zip=True)
    return encoded(fruit(1), "PNG", pnginfo=text)


def with_segments(*segments: tuple[int, bytes], times: int = 1) -> bytes:
    """A JPEG with extra segments (marker and body) before its own."""
    data = encoded(fruit(1))
    extra = b"".join(b"\xff" + bytes([marker]) + struct.pack(">H", 2 + len(body)) + body for marker, body in segments)
    return data[:2] + extra * times + data[2:]


def behind_the_soi(junk: bytes) -> bytes:
    """A JPEG with bytes of no segment before its header."""
    data = encoded(fruit(1))
    return data[:2] + junk + data[2:]


def in_the_scan(junk: bytes) -> bytes:
    """A JPEG with bytes between its pixels and its end."""
    return encoded(fruit(1))[:-2] + junk + b"\xff\xd9"


def thumbnail() -> bytes:
    """A JPEG whose EXIF carries a JPEG of its own, whole from start to end of image."""
    return with_segments((0xE1, b"Exif\0\0II*\0" + bytes(8) + encoded(fruit(2, (40, 30)))))


def png_with_stale(kind: bytes) -> bytes:
    """A PNG held as 6, with one flipped bit in a chunk and the checksum from before."""
    exif = Image.Exif()
    exif[0x0112] = 6
    options = {"icc_profile": random.Random(1).randbytes(500), "exif": exif}
    data = bytearray(encoded(fruit(3, (40, 20)), "PNG", **options))
    at = data.index(kind)
    data[at + 3 + int.from_bytes(data[at - 4 : at])] ^= 1
    return bytes(data)


def webp_saying(at: bytes, length: int, offset: int = 4) -> bytes:
    """A WebP held as 6, one length of which lies."""
    data = bytearray(turned(6, "WEBP"))
    start = data.index(at) + offset
    data[start : start + 4] = struct.pack("<I", length)
    return bytes(data)


def apng_of_one_frame() -> bytes:
    """A still that says it is an animation."""
    frame = struct.pack(">IIIIIHHBB", 0, 8, 8, 0, 0, 1, 1, 0, 0)
    return png((b"acTL", struct.pack(">II", 1, 0)), (b"fcTL", frame))


def ycck() -> bytes:
    """A CMYK JPEG that Adobe's segment declares to be YCCK."""
    data = bytearray(photo("JPEG", "CMYK"))
    data[data.index(b"Adobe") + 11] = 2
    return bytes(data)


def _deflated_noise(megabytes: float) -> bytes:
    return zlib.compress(random.Random(1).randbytes(int(megabytes * 1_000_000)))


_SOUND: dict[str, tuple[Made, tuple[int, int] | None]] = {
    **{
        f"{kind} held as {orientation}": (partial(turned, orientation, kind), (20, 40) if orientation > 4 else (40, 20))
        for kind in ("JPEG", "PNG", "WEBP")
        for orientation in range(1, 9)
    },
    "cmyk jpeg": (partial(photo, "JPEG", "CMYK"), (100, 100)),
    "grey jpeg": (partial(photo, "JPEG", "L"), (100, 100)),
    "progressive jpeg": (partial(photo, "JPEG", progressive=True), (100, 100)),
    "jpeg with restart markers": (partial(photo, "JPEG", restart_marker_blocks=1), (100, 100)),
    "multi-picture jpeg": (lambda: encoded(fruit(8), "MPO", save_all=True, append_images=[fruit(9)]), (100, 100)),
    "jpeg with noise behind its end": (lambda: photo("JPEG") + random.Random(1).randbytes(9999), (100, 100)),
    "jpeg of many segments": (partial(with_segments, (0xFE, b"ab"), times=20_000), (100, 100)),
    "jpeg of many small segments of exif": (
        partial(with_segments, (0xE1, b"Exif\0\0" + bytes(10)), times=90_000),
        (100, 100),
    ),
    "jpeg of many full segments of exif": (
        partial(with_segments, (0xE1, b"Exif\0\0" + bytes(65_527)), times=400),
        (100, 100),
    ),
    "phone's photo with a film behind it": (
        lambda: flat("RGB", "JPEG", (4000, 3000)) + random.Random(1).randbytes(6 << 20),
        (500, 375),
    ),
    "phone's photo with eight more behind it": (
        lambda: photo("JPEG") + photo("JPEG", progressive=True) * 8,
        (100, 100),
    ),
    "jpeg with noise in its segments": (
        lambda: with_segments((0xEB, random.Random(1).randbytes(65_000)), times=80),
        (100, 100),
    ),
    "jpeg with a jpeg in its exif": (thumbnail, (100, 100)),
    "jpeg with fill between its segments": (partial(behind_the_soi, b"\xff" * 60_000), (100, 100)),
    "jpeg with comments behind its scan": (partial(in_the_scan, b"\xff\xfe\0\4\xff\xda" * 1000), (100, 100)),
    "jpeg with a short jfif before its own": (partial(with_segments, (0xE0, b"JFIF\0")), (100, 100)),
    "jpeg of many small segments of jfif": (
        partial(with_segments, (0xE0, b"JFIF\0\1\1\0\0\1\0\1\0\0"), times=90_000),
        (100, 100),
    ),
    "jpeg of many full segments of jfif": (
        partial(with_segments, (0xE0, b"JFIF\0\1\1\0\0\1\0\1\0\0" + bytes(65_519)), times=900),
        (100, 100),
    ),
    "jpeg of many small segments of adobe": (
        partial(with_segments, (0xEE, b"Adobe" + bytes(6) + b"\1"), times=90_000),
        (100, 100),
    ),
    "jpeg with a short adobe segment": (partial(with_segments, (0xEE, b"Adobe")), (100, 100)),
    "jpeg with a short photoshop segment": (
        partial(with_segments, (0xED, b"Photoshop 3.0\x008BIM\x03\xed")),
        (100, 100),
    ),
    "ycck jpeg": (ycck, (100, 100)),
    "16-bit grey png": (partial(sixteen_bits, 0), (64, 64)),
    "16-bit colour png": (partial(sixteen_bits, 2), (64, 64)),
    "16-bit transparent png": (partial(sixteen_bits, 6), (64, 64)),
    "1-bit png": (partial(photo, "PNG", "1"), (100, 100)),
    "palette png": (partial(photo, "PNG", "P"), (100, 100)),
    "palette png with transparency": (partial(photo, "PNG", "P", transparency=3), (100, 100)),
    "palette png with a table of transparency": (partial(photo, "PNG", "P", transparency=bytes(range(16))), (100, 100)),
    "grey png with alpha": (partial(photo, "PNG", "LA"), (100, 100)),
    "transparent png": (partial(photo, "PNG", "RGBA"), (100, 100)),
    "transparent webp": (partial(photo, "WEBP", "RGBA"), (100, 100)),
    "lossless webp": (partial(photo, "WEBP", lossless=True), (100, 100)),
    "one pixel of jpeg": (partial(photo, "JPEG", size=(1, 1)), (1, 1)),
    "one pixel of png": (partial(photo, "PNG", size=(1, 1)), (1, 1)),
    "one pixel of webp": (partial(photo, "WEBP", size=(1, 1)), (1, 1)),
    "a line of the longest side": (partial(flat, "RGB", "PNG", (16_383, 1)), (16_383, 1)),
    "jpeg at the limit": (partial(noisy, "RGB", "JPEG", 256, quality=70, subsampling=0), (625, 313)),
    "progressive jpeg at the limit": (
        partial(noisy, "RGB", "JPEG", 256, quality=30, progressive=True, subsampling=0),
        (625, 313),
    ),
    "progressive cmyk jpeg at the limit": (
        partial(noisy, "CMYK", "JPEG", 256, quality=5, progressive=True),
        (625, 313),
    ),
    "progressive jpeg of most scans at the limit": (partial(jpeg_of_many_scans, AT_THE_LIMIT, 10), (625, 313)),
    "jpeg of a phone of 50 megapixels": (partial(jpeg_of_rows, 8160, 384, 90), (510, 384)),
    "jpeg of a phone of 108 megapixels": (partial(jpeg_of_rows, 12_000, 562, 90), (375, 281)),
    "jpeg of a phone of 200 megapixels": (partial(jpeg_of_rows, 16_384, 768, 75), (512, 384)),
    "png of a phone of 50 megapixels": (partial(noisy, "RGB", "PNG", 4, (8160, 6144), compress_level=1), (510, 384)),
    "progressive jpeg of a phone of 50 megapixels": (
        partial(noisy, "RGB", "JPEG", 4, (8160, 6144), progressive=True),
        (510, 384),
    ),
    "png at the limit": (partial(noisy, "RGB", "PNG", 4, compress_level=1), (625, 313)),
    "palette png with transparency at the limit": (
        partial(noisy, "P", "PNG", 16, transparency=bytes(range(16)), compress_level=1),
        (625, 313),
    ),
    "grey png with alpha at the limit": (partial(noisy, "LA", "PNG", 8, compress_level=1), (625, 313)),
    "16-bit grey png at the limit": (partial(noisy, "I;16", "PNG", 16, compress_level=1), (625, 313)),
    "16-bit transparent png at the limit": (partial(sixteen_bits, 6, AT_THE_LIMIT), (625, 313)),
    "webp at its limit": (
        partial(noisy, "RGBA", "WEBP", 256, (4096, 4096), lossless=True, method=0, quality=0, exact=True),
        (256, 256),
    ),
    "png of many chunks of pixels": (partial(png_in_pieces, 15), (400, 300)),
    "png of many private chunks": (lambda: png(*[(b"prIv", b"")] * 90_000), (8, 8)),
    "broken icc in jpeg": (partial(photo, "JPEG", icc_profile=b"no profile"), (100, 100)),
    "broken icc in png": (lambda: png((b"iCCP", b"icc\0\0not deflated")), (8, 8)),
    "broken icc in webp": (partial(photo, "WEBP", icc_profile=b"no profile"), (100, 100)),
    "broken exif in jpeg": (partial(photo, "JPEG", exif=b"Exif\0\0II*\0" + b"\xff" * 18), (100, 100)),
    "broken exif in png": (partial(photo, "PNG", exif=b"Exif\0\0MM\0*|"), (100, 100)),
    "broken exif in webp": (partial(photo, "WEBP", exif=b"Exif\0\0II+\0\x16\xc6\xe9"), (100, 100)),
    **{f"png with a stale {kind}": (partial(png_with_stale, kind.encode()), (20, 40)) for kind in ("eXIf", "iCCP")},
    **{
        f"png with {what}": (partial(png, chunk_), (8, 8))
        for what, chunk_ in {
            "a profile of no known compression": (b"iCCP", b"icc\0\1" + zlib.compress(b"profile")),
            "an empty profile": (b"iCCP", b""),
            "a short pHYs": (b"pHYs", b"\0"),
            "a short gAMA": (b"gAMA", b"\0"),
            "a short cHRM": (b"cHRM", b"\0"),
            "an empty sRGB": (b"sRGB", b""),
            "a short acTL": (b"acTL", b"\0"),
        }.items()
    },
    "png with a large sound profile": (lambda: png((b"iCCP", b"icc\0\0" + _deflated_noise(1.5))), (8, 8)),
    "png with a large sound comment": (lambda: png((b"zTXt", b"Comment\0\0" + _deflated_noise(1.5))), (8, 8)),
    "png whose comment inflates": (partial(inflating, b"zTXt"), (8, 8)),
    "png whose international comment inflates": (partial(inflating, b"iTXt"), (8, 8)),
    "png whose profile inflates": (partial(inflating, b"iCCP"), (8, 8)),
    **{
        f"png of many {name} that inflate": (partial(many_inflating, name.encode()), (8, 8))
        for name in ("Comment", "XML:com.adobe.xmp", "Raw profile type exif")
    },
    "png that says it is animated, of one frame": (apng_of_one_frame, (8, 8)),
    "webp with a lying length of exif": (partial(webp_saying, b"EXIF", 0x0FFFFFFF), (20, 40)),
    "webp that says it is longer": (partial(webp_saying, b"RIFF", 0x7FFFFFFF), (20, 40)),
    "webp that says it is shorter": (partial(webp_saying, b"RIFF", 4), (20, 40)),
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
    "svg bomb": (lambda: b'<?xml version="1.0"?><!DOCTYPE svg [<!ENTITY a "aaaa">]><svg>&a;</svg>', _C.NOT_AN_IMAGE),
    "eps of gigapixels": (lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 99999 99999\n", _C.FORMAT_NOT_ALLOWED),
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
    "jpeg truly over the limit": (partial(jpeg_of_rows, 16_320, 805, 10), _C.TOO_MANY_PIXELS),
    "progressive jpeg over its limit": (
        partial(flat, "L", "JPEG", (10_000, 5_201), progressive=True),
        _C.TOO_MANY_PIXELS,
    ),
    "jpeg of one component of three": (partial(jpeg_of_one_component, 10_000, 5_201), _C.TOO_MANY_PIXELS),
    "png truly over the limit": (partial(flat, "L", "PNG", (10_000, 5_201)), _C.TOO_MANY_PIXELS),
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
    "animated webp bomb": (lambda: webp((b"VP8X", vp8x(4000, 4000, 2)), (b"ANIM", bytes(6))), _C.ANIMATED),
    "webp without a picture": (lambda: webp((b"EXIF", bytes(40))), _C.CORRUPT),
    "webp of nothing": (lambda: b"RIFF\x04\0\0\0WEBP", _C.CORRUPT),
    "png without pixels": (lambda: PNG + chunk(b"IHDR", bytes(13)) + chunk(b"IEND", b""), _C.CORRUPT),
    "png of no width": (partial(pictures.png_claiming, 0, 9), _C.CORRUPT),
    "png of a negative width": (partial(pictures.png_claiming, 0xFFFFFFFF, 1), _C.TOO_MANY_PIXELS),
    "png with a chunk of four gigabytes": (lambda: PNG + b"\xff\xff\xff\xffIHDR" + bytes(99), _C.TRUNCATED),
    "a very high column": (partial(pictures.png_claiming, 1, 65_500), _C.SIDE_TOO_LONG),
    "jpeg of no height": (partial(jpeg_claiming, 16, 0), _C.CORRUPT),
    "a very long jpeg": (partial(flat, "RGB", "JPEG", (65_500, 1)), _C.SIDE_TOO_LONG),
    "jpeg of one scan too many": (partial(jpeg_of_many_scans, (64, 64), MAX_SCANS), _C.TOO_MANY_SCANS),
    "large jpeg of many scans": (partial(jpeg_of_many_scans, AT_THE_LIMIT, 40), _C.TOO_MANY_SCANS),
    "jpeg of 12 bits": (partial(jpeg_with, 0xC0, lambda data, at: data.__setitem__(at + 4, 12)), _C.CORRUPT),
    "jpeg of a lossless frame": (partial(jpeg_with, 0xC0, lambda data, at: data.__setitem__(at + 1, 0xC3)), _C.CORRUPT),
    "jpeg of arithmetic coding": (
        partial(jpeg_with, 0xC0, lambda data, at: data.__setitem__(at + 1, 0xC9)),
        _C.FORMAT_NOT_ALLOWED,
    ),
    "dense progressive jpeg": (
        partial(noisy, "RGB", "JPEG", 256, quality=70, progressive=True, subsampling=0),
        _C.TOO_MANY_BYTES,
    ),
    "jpeg of too many segments of exif": (
        partial(with_segments, (0xE1, b"Exif\0\0" + bytes(10)), times=300_000),
        _C.CORRUPT,
    ),
    "jpeg of too many comments": (partial(with_segments, (0xFE, b""), times=3_000_000), _C.CORRUPT),
    "jpeg of endless fill": (partial(behind_the_soi, b"\xff" * 8_000_000), _C.CORRUPT),
    "jpeg of endless junk": (partial(behind_the_soi, b"\xff\0" * 8_000_000), _C.CORRUPT),
    "jpeg of endless fill in its scan": (partial(in_the_scan, b"\xff" * (24 << 20)), _C.CORRUPT),
    "jpeg of too many comments behind its scan": (partial(in_the_scan, b"\xff\xfe\0\2" * 2_000_000), _C.CORRUPT),
    "jpeg of too many tables": (partial(with_segments, (0xDB, (b"\0" + b"\1" * 64) * 1007), times=300), _C.CORRUPT),
    "png of too many private chunks": (lambda: png(*[(b"prIv", b"")] * 1_500_000), _C.CORRUPT),
    "png of one chunk a byte": (partial(png_in_pieces, 1), _C.CORRUPT),
    "png with a stale palette": (partial(png_with_stale_palette), _C.CORRUPT),
    "webp of too many chunks": (
        lambda: webp((b"VP8X", vp8x(100, 100)), *[(b"prIv", b"")] * 1_000_000) + photo("WEBP")[12:],
        _C.CORRUPT,
    ),
    "svg with a byte order mark": (lambda: b"\xef\xbb\xbf<svg xmlns='x'/>", _C.FORMAT_NOT_ALLOWED),
    "svg behind a long comment": (lambda: b"<!--" + b"a" * 9000 + b"--><svg/>", _C.FORMAT_NOT_ALLOWED),
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
        f"{kind} with noise in it": Hostile(partial(flipped, kind, 1), _BROKEN if kind == "PNG" else _BROKEN | {LOADED})
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
