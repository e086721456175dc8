"""One photo's bytes to clean pixels, or to the reason why not.

Pixels are stored as lossless WebP. Measured on 450 photos of Fruits-360 (100 x 100, JPEG of 4.8 kB) and, in
brackets, on 256 x 256: WebP method 0 takes 11.3 kB (46 kB), 0.4-0.6 ms (2.0 ms) to write and 0.19 ms (0.88 ms) to
read; PNG at level 1 takes 14.9 kB (63 kB), 0.83 ms (3.2 ms) and 0.33 ms (1.5 ms). Lossless, because the features
must not depend on a second generation of JPEG artefacts.

A photo whose shorter side is at least twice ``STORED_PX`` is stored reduced by a power of two, so that its
shorter side stays at or above ``STORED_PX``; JPEG does this while decoding (``draft``), which is what makes a
12-megapixel photo cheap (27 ms instead of some 100). Nothing is ever enlarged here. Measured on noisy 12-megapixel
photos, the features of what is stored have a cosine of at least 0.996 with those of the full photo (largest
difference of one feature 0.5, mean of the largest 0.3), at 133 kB a photo; keeping twice the pixels on each side
would give 0.998 at 530 kB. Photos below 448 px, such as Fruits-360, are stored as they are, and their features are
equal.
"""

from __future__ import annotations

import hashlib
import io
import re
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from PIL import Image

STORED_PX = 224
"""The shorter side that a stored photo keeps at least: what the model looks at."""

MAX_BYTES = 64 * 1024 * 1024
"""Larger objects are rejected unread: a phone's JPEG has at most some 30 MB."""

MAX_PIXELS = 50_000_000
"""More pixels are rejected undecoded: 48 megapixels are a phone's most, and 50 take 200 MB in Pillow."""

MAX_WEBP_PIXELS = 4096 * 4096
"""The same for WebP, whose decoder holds four whole pictures: 16 bytes a pixel, 270 MB here, 790 MB at 50 MP."""

MAX_SIDE_PX = 16_383
"""The longest side that WebP can hold (14 bits)."""

MAX_SCANS = 64
"""A progressive JPEG has about ten scans; each one costs a pass over the whole picture."""

MAX_SCANNED_PIXELS = 1_000_000_000
"""Scans times pixels: 20 scans of 50 megapixels, which take 0.6 s when there is next to nothing in them."""

STRIP_PIXELS = 4_000_000
"""What is converted to RGB at once: a conversion of the whole picture would hold it three or four times."""

_ALLOWED = ("JPEG", "PNG", "WEBP")
_SIGNATURES = (
    (b"\xff\xd8\xff", "JPEG"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"GIF8", "GIF"),
    (b"BM", "BMP"),
    (b"II*\x00", "TIFF"),
    (b"MM\x00*", "TIFF"),
    (b"II+\x00", "TIFF"),
    (b"MM\x00+", "TIFF"),
    (b"%PDF", "PDF"),
    (b"%!PS", "EPS"),
    (b"\xc5\xd0\xd3\xc6", "EPS"),
    (b"SIMPLE  =", "FITS"),
    (b"8BPS", "PSD"),
    (b"\x00\x00\x01\x00", "ICO"),
    (b"\xff\x0a", "JPEG XL"),
    (b"\x00\x00\x00\x0cJXL ", "JPEG XL"),
    (b"\x00\x00\x00\x0cjP  ", "JPEG 2000"),
)
_SVG = re.compile(rb"^\s*(<\?xml[^>]*>\s*)?(<!--.*?-->\s*)?(<!DOCTYPE svg[^>]*>\s*)?<svg[\s>]", re.DOTALL)
_WEBP_ANIMATION = 0x02
_EXIF_ORIENTATION = 0x0112
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What undoes each EXIF orientation; 1 and anything unknown stay as they are."""
_METADATA_KEYS = frozenset({"exif", "icc_profile", "xmp", "XML:com.adobe.xmp", "photoshop", "comment", "mp"})
_PLAIN_SEGMENTS = (("APP0", b"JFIF\x00"), ("APP0", b"JFXX\x00"), ("APP14", b"Adobe"))


class RejectCode(StrEnum):
    """Why an object is not an image: the values of ``rejects.error_code``."""

    EMPTY = "empty"
    TOO_MANY_BYTES = "too_many_bytes"
    NOT_AN_IMAGE = "not_an_image"
    FORMAT_NOT_ALLOWED = "format_not_allowed"
    TOO_MANY_PIXELS = "too_many_pixels"
    SIDE_TOO_LONG = "side_too_long"
    ANIMATED = "animated"
    TOO_MANY_SCANS = "too_many_scans"
    TRUNCATED = "truncated"
    CORRUPT = "corrupt"
    CHANGED = "changed_since_listing"
    GONE = "gone_since_listing"
    KEY_NOT_FETCHABLE = "key_not_fetchable"


RETRIED_CODES = (RejectCode.CHANGED, RejectCode.GONE)
"""Rejects that say something about the moment and not about the object: tried again whenever it is listed."""


class ImageRejected(Exception):
    """A photo that cannot be loaded, with its code and one sentence for the person who looks into it."""

    def __init__(self, code: RejectCode, detail: str) -> None:
        super().__init__(code, detail)
        self.code = code
        self.detail = detail


@dataclass(frozen=True)
class CleanImage:
    """Pixels without anything else.

    Attributes:
        pixels: Lossless WebP of an 8-bit RGB image, upright, without metadata.
        width_px: Width of ``pixels``.
        height_px: Height of ``pixels``.
        content_sha256: Hex SHA-256 of the original object's bytes.
        had_metadata: Whether EXIF, an ICC profile, XMP, IPTC, comments or other application data were dropped.
    """

    pixels: bytes
    width_px: int
    height_px: int
    content_sha256: str
    had_metadata: bool


def clean(data: bytes, max_pixels: int = MAX_PIXELS) -> CleanImage:
    """Decode a photo, turn it upright, drop all metadata and encode its pixels losslessly.

    Transparent pixels are laid over white; of a phone's multi-picture JPEG (MPO) the first picture is taken; ICC
    profiles are dropped without conversion, as Keras' own loader does.

    Args:
        data: The object's bytes.
        max_pixels: Width times height above which a picture is rejected before it is decoded.

    Raises:
        ImageRejected: The bytes are not a picture that can be loaded; the code says why.
    """
    if not data:
        raise ImageRejected(RejectCode.EMPTY, "the object has no bytes")
    if len(data) > MAX_BYTES:
        raise ImageRejected(RejectCode.TOO_MANY_BYTES, f"{len(data)} bytes, the limit is {MAX_BYTES}")
    kind = _format(data)
    try:
        image = _open(data, kind, max_pixels)
        image.draft(None, (STORED_PX, STORED_PX))
        image.load()
        had_metadata = _has_metadata(image)
        rgb = _upright(_small_rgb(image), image)
        encoded = _encoded(rgb)
    except ImageRejected:
        raise
    except Exception as error:  # Pillow raises OSError, SyntaxError, struct.error... on hostile bytes
        raise _undecodable(kind, error) from error
    return CleanImage(encoded, rgb.width, rgb.height, hashlib.sha256(data).hexdigest(), had_metadata)


def _format(data: bytes) -> str:
    """Name the format by its first bytes; anything not on the allow-list never reaches a decoder."""
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WEBP"
    name = next((name for signature, name in _SIGNATURES if data.startswith(signature)), None)
    if name in _ALLOWED:
        return name
    if name is None and data[4:8] == b"ftyp":
        name = "HEIF or video"
    if name is None and _SVG.match(data[:1024]):
        name = "SVG"
    if name is None:
        raise ImageRejected(RejectCode.NOT_AN_IMAGE, "no image format has these first bytes")
    raise ImageRejected(RejectCode.FORMAT_NOT_ALLOWED, f"{name}; allowed are {', '.join(_ALLOWED)}")


def _open(data: bytes, kind: str, max_pixels: int) -> Image.Image:
    scans = data.count(b"\xff\xda") if kind == "JPEG" else 1
    if scans > MAX_SCANS:
        raise ImageRejected(RejectCode.TOO_MANY_SCANS, f"{scans} scans, the limit is {MAX_SCANS}")
    if kind == "WEBP":
        # Its decoder takes memory for the whole picture, and decodes it, as soon as it is opened.
        _check_webp(data, max_pixels)
    # Our own limit below is the one that counts; Pillow's is a global that other code may move.
    try:
        image = Image.open(io.BytesIO(data), formats=(kind,))
    except Image.DecompressionBombError as error:
        raise ImageRejected(RejectCode.TOO_MANY_PIXELS, f"over the limit of {max_pixels} pixels") from error
    width, height = image.size
    _check_size(width, height, max_pixels)
    if scans * width * height > MAX_SCANNED_PIXELS:
        raise ImageRejected(RejectCode.TOO_MANY_SCANS, f"{scans} scans of {width} x {height} px")
    if kind != "JPEG" and getattr(image, "n_frames", 1) > 1:
        raise ImageRejected(RejectCode.ANIMATED, f"{kind} of more than one frame")
    return image


def _check_size(width: int, height: int, max_pixels: int) -> None:
    if width * height > max_pixels:
        raise ImageRejected(
            RejectCode.TOO_MANY_PIXELS, f"{width} x {height} px, the limit is {max_pixels} pixels"
        )
    if max(width, height) > MAX_SIDE_PX:
        raise ImageRejected(
            RejectCode.SIDE_TOO_LONG, f"{width} x {height} px, the longest side may have {MAX_SIDE_PX}"
        )


def _check_webp(data: bytes, max_pixels: int) -> None:
    """Check a WebP's size and frames by its header alone (RFC 9649, sections 2.5 to 2.7)."""
    first, body = data[12:16], data[20:30]
    if first == b"VP8X" and len(body) == 10:
        width, height = (int.from_bytes(body[at : at + 3], "little") + 1 for at in (4, 7))
    elif first == b"VP8L" and len(body) == 10:
        bits = int.from_bytes(body[1:5], "little")
        width, height = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    elif first == b"VP8 " and len(body) == 10:
        width, height = (int.from_bytes(body[at : at + 2], "little") & 0x3FFF for at in (6, 8))
    else:
        raise ImageRejected(RejectCode.CORRUPT, "WEBP: no picture can be read from it")
    _check_size(width, height, min(max_pixels, MAX_WEBP_PIXELS))
    if first == b"VP8X" and body[0] & _WEBP_ANIMATION:
        raise ImageRejected(RejectCode.ANIMATED, "WEBP of more than one frame")


def _small_rgb(image: Image.Image) -> Image.Image:
    """Convert to RGB and reduce, strip by strip: the same pixels as from the whole, in a fraction of the memory."""
    width, height = image.size
    factor = 1
    while min(width, height) // (factor * 2) >= STORED_PX:
        factor *= 2
    rows = max(1, STRIP_PIXELS // (width * factor)) * factor
    if rows >= height:
        return _reduced(_rgb(image), factor)
    small = Image.new("RGB", (-(-width // factor), -(-height // factor)))
    for top in range(0, height, rows):
        strip = image.crop((0, top, width, min(top + rows, height)))
        small.paste(_reduced(_rgb(strip), factor), (0, top // factor))
    return small


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):
        # Pillow's own conversion clips 16 bits to 255 instead of scaling them.
        return Image.fromarray((np.asarray(image).astype(np.uint32) >> 8).astype(np.uint8)).convert("RGB")
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    return image.convert("RGB")


def _reduced(image: Image.Image, factor: int) -> Image.Image:
    return image.reduce(factor) if factor > 1 else image


def _upright(rgb: Image.Image, original: Image.Image) -> Image.Image:
    try:
        orientation = original.getexif().get(_EXIF_ORIENTATION)
    except Exception:  # noqa: BLE001 - broken EXIF around sound pixels: the pixels are what counts
        return rgb
    return rgb.transpose(_TURNS[orientation]) if orientation in _TURNS else rgb


def _has_metadata(image: Image.Image) -> bool:
    if _METADATA_KEYS & image.info.keys() or getattr(image, "text", None):
        return True
    segments = getattr(image, "applist", [])
    return any(
        not any(name == plain and body.startswith(start) for plain, start in _PLAIN_SEGMENTS)
        for name, body in segments
    )


def _encoded(rgb: Image.Image) -> bytes:
    out = io.BytesIO()
    rgb.save(out, "WEBP", lossless=True, method=0, quality=0, exact=True)
    return out.getvalue()


def _undecodable(kind: str, error: Exception) -> ImageRejected:
    message = str(error)
    if " at 0x" in message:  # an address differs from run to run; the row must not
        message = "no picture can be read from it"
    code = RejectCode.TRUNCATED if "truncated" in message.lower() else RejectCode.CORRUPT
    return ImageRejected(code, f"{kind}: {type(error).__name__}: {message[:160]}")
