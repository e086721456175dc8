"""One photo's bytes to clean pixels, or to the reason why not.

Pixels are stored as lossless WebP. Measured on 450 photos of Fruits-360 (100 x 100, JPEG of 4.8 kB) and, in
brackets, on 256 x 256: WebP method 0 takes 11.3 kB (46 kB), 0.4-0.6 ms (2.0 ms) to write and 0.19 ms (0.88 ms) to
read; PNG at level 1 takes 14.9 kB (63 kB), 0.83 ms (3.2 ms) and 0.33 ms (1.5 ms). Lossless, because the features
must not depend on a second generation of JPEG artefacts.

A photo whose shorter side is at least twice ``STORED_PX`` is stored reduced by a power of two, so that its
shorter side stays at or above ``STORED_PX``; JPEG does this while decoding (``draft``), which is what makes a
12-megapixel photo cheap (27 ms instead of some 100). Nothing is ever enlarged here. Measured on grainy 12-megapixel
photos (``docs/scale/pixels_trial.py``), the features of what is stored have a cosine of at least 0.995 with those of
the full photo (largest difference of one feature 0.5, mean of the largest 0.3), at 141 kB a photo; keeping twice the
pixels on each side would give 0.996 at 576 kB. Photos below 448 px, such as Fruits-360, are stored as they are, and
their features are equal.
"""

from __future__ import annotations

import hashlib
import io
import re
from dataclasses import dataclass

import numpy as np
from PIL import Image

from fruits import containers
from fruits.containers import Container
from fruits.rejects import ImageRejected, RejectCode

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

MAX_PROGRESSIVE_BYTES = 24 * 1024 * 1024
"""The same for a progressive JPEG, whose coefficients are held and gone over again in each scan: dense ones of 50
megapixels take 1.3 s and 360 MB at 24 MB (1.3 s and 450 MB in CMYK at 20 MB), 2.2 s at 51 MB."""

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
_SVG = re.compile(
    rb"^(?:\xef\xbb\xbf)?\s*(?:<\?xml[^>]*>\s*)?(?:<!--.*?-->\s*)?(?:<!DOCTYPE svg[^>]*>\s*)?<svg[\s>/]",
    re.DOTALL,
)
_SVG_LOOKED_AT = 16 * 1024
_ENCODER_OUT_OF_MEMORY = re.compile(r"encoding error [12]\b")
"""libwebp's VP8_ENC_ERROR_OUT_OF_MEMORY and VP8_ENC_ERROR_BITSTREAM_OUT_OF_MEMORY, as Pillow's ValueError says them."""
_WALKERS = {"JPEG": containers.jpeg, "PNG": containers.png, "WEBP": containers.webp}
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What undoes each EXIF orientation; 1 stays as it is."""


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
        MemoryError: The worker has none left; no photo is rejected for that, its task is tried again.
        ValueError: The pixels could not be written for another reason.
    """
    if not data:
        raise ImageRejected(RejectCode.EMPTY, "the object has no bytes")
    if len(data) > MAX_BYTES:
        raise ImageRejected(RejectCode.TOO_MANY_BYTES, f"{len(data)} bytes, the limit is {MAX_BYTES}")
    kind = _format(data)
    try:
        container = _WALKERS[kind](data)
        image = _open(container, kind, max_pixels)
        image.draft(None, (STORED_PX, STORED_PX))
        image.load()
        rgb = _upright(_small_rgb(image), container.orientation)
    except (ImageRejected, MemoryError):
        raise
    except Exception as error:  # Pillow raises OSError, SyntaxError, struct.error... on hostile bytes
        if isinstance(error, OSError) and "out of memory" in str(error):  # what its decoders say instead
            raise MemoryError(f"{kind}: {error}") from error
        raise _undecodable(kind, error) from error
    # Outside: that our own pixels cannot be written is never the photo's fault.
    return CleanImage(
        _encoded(rgb), rgb.width, rgb.height, hashlib.sha256(data).hexdigest(), container.had_metadata
    )


def _format(data: bytes) -> str:
    """Name the format by its first bytes; anything not on the allow-list never reaches a decoder."""
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WEBP"
    name = next((name for signature, name in _SIGNATURES if data.startswith(signature)), None)
    if name in _ALLOWED:
        return name
    if name is None and data[4:8] == b"ftyp":
        name = "HEIF or video"
    if name is None and _SVG.match(data[:_SVG_LOOKED_AT]):
        name = "SVG"
    if name is None:
        raise ImageRejected(RejectCode.NOT_AN_IMAGE, "no image format has these first bytes")
    raise ImageRejected(RejectCode.FORMAT_NOT_ALLOWED, f"{name}; allowed are {', '.join(_ALLOWED)}")


def _open(container: Container, kind: str, max_pixels: int) -> Image.Image:
    picture, scans = container.picture, container.scans
    if scans > MAX_SCANS:
        raise ImageRejected(RejectCode.TOO_MANY_SCANS, f"{scans} scans, the limit is {MAX_SCANS}")
    if container.progressive and len(picture) > MAX_PROGRESSIVE_BYTES:
        raise ImageRejected(
            RejectCode.TOO_MANY_BYTES,
            f"{len(picture)} bytes of a progressive JPEG, the limit is {MAX_PROGRESSIVE_BYTES}",
        )
    if kind == "WEBP":
        # Its decoder takes memory for the whole picture, and decodes it, as soon as it is opened.
        _check_webp(picture, max_pixels)
    if container.frames > 1:
        raise ImageRejected(RejectCode.ANIMATED, f"{kind} of more than one frame")
    # Our own limit below is the one that counts; Pillow's is a global that other code may move.
    try:
        image = Image.open(io.BytesIO(picture), formats=(kind,))
    except Image.DecompressionBombError as error:
        raise ImageRejected(RejectCode.TOO_MANY_PIXELS, f"over the limit of {max_pixels} pixels") from error
    width, height = image.size
    _check_size(width, height, max_pixels)
    if scans * width * height > MAX_SCANNED_PIXELS:
        raise ImageRejected(RejectCode.TOO_MANY_SCANS, f"{scans} scans of {width} x {height} px")
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
    """Check a WebP's size by its header alone (RFC 9649, sections 2.5 to 2.7)."""
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


def _upright(rgb: Image.Image, orientation: int) -> Image.Image:
    return rgb.transpose(_TURNS[orientation]) if orientation in _TURNS else rgb


def _encoded(rgb: Image.Image) -> bytes:
    out = io.BytesIO()
    try:
        rgb.save(out, "WEBP", lossless=True, method=0, quality=0, exact=True)
    except ValueError as error:
        if _ENCODER_OUT_OF_MEMORY.search(str(error)):
            raise MemoryError(f"WEBP: {error}") from error
        raise
    return out.getvalue()


def _undecodable(kind: str, error: Exception) -> ImageRejected:
    message = str(error)
    if " at 0x" in message:  # an address differs from run to run; the row must not
        message = "no picture can be read from it"
    code = RejectCode.TRUNCATED if "truncated" in message.lower() else RejectCode.CORRUPT
    return ImageRejected(code, f"{kind}: {type(error).__name__}: {message[:160]}")
