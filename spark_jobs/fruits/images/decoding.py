"""One photo's bytes to clean pixels, or to the reason why not.

Pixels are stored as lossless WebP. Measured on 450 photos of Fruits-360 (100 x 100, JPEG of 4.8 kB) and, in
brackets, on 256 x 256: WebP method 0 takes 11.3 kB (46 kB), 0.4-0.6 ms (2.0 ms) to write and 0.19 ms (0.88 ms) to
read; PNG at level 1 takes 14.9 kB (63 kB), 0.83 ms (3.2 ms) and 0.33 ms (1.5 ms). Lossless, because the features
must not depend on a second generation of JPEG artefacts.

A photo whose shorter side is at least twice ``STORED_PX`` is stored reduced by a power of two, so that its
shorter side stays at or above ``STORED_PX``; JPEG does this while decoding (``draft``), which is what makes a
12-megapixel photo cheap (27 ms instead of some 100). Nothing is ever enlarged here. Measured on grainy 12-megapixel
photos (``bench/scale/pixels_trial.py``), the features of what is stored have a cosine of at least 0.995 with those of
the full photo (largest difference of one feature 0.5, mean of the largest 0.3), at 141 kB a photo; keeping twice the
pixels on each side would give 0.996 at 576 kB. Photos below 448 px, such as Fruits-360, are stored as they are, and
their features are equal.
"""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image, ImageFile, JpegImagePlugin, PngImagePlugin, WebPImagePlugin

from fruits.images import containers
from fruits.images.containers import Container
from fruits.images.rejects import ImageRejected, RejectCode

STORED_PX = 224
"""The shorter side that a stored photo keeps at least: what the model looks at."""

MAX_BYTES = 96 * 1024 * 1024
"""Larger objects are rejected unread, unless ``--max-bytes`` says otherwise: a phone's JPEG of 50 megapixels has some
20 MB, of 200 megapixels some 60 MB."""

MAX_PIXELS = 210_000_000
"""More pixels are rejected undecoded, unless ``--max-pixels`` says otherwise: phones have 200 megapixels. A JPEG of
one scan is reduced by eight while it is decoded: 200 megapixels in 60 MB take 0.7 s and 155 MB."""

MAX_WHOLE_PIXELS = 52_000_000
"""The same for what is decoded whole, which is PNG and JPEG of several scans: 50 megapixels take 200 MB in Pillow."""

MAX_WEBP_PIXELS = 4096 * 4096
"""The same for WebP, whose decoder holds four whole pictures: 16 bytes a pixel, 270 MB here, 790 MB at 50 MP."""

MAX_SIDE_PX = 16_383
"""The longest side that WebP can hold (14 bits), so the longest of what is stored."""

MAX_SCANS = 64
"""A progressive JPEG has about ten scans; each one costs a pass over the whole picture."""

MAX_SCANNED_PIXELS = 1_000_000_000
"""Scans times pixels: 20 scans of 50 megapixels, which take 0.6 s when there is next to nothing in them."""

MAX_PROGRESSIVE_BYTES = 24 * 1024 * 1024
"""The same for a progressive JPEG, whose coefficients are held and gone over again in each scan: dense ones of 50
megapixels take 1.3 s and 360 MB at 24 MB (1.3 s and 450 MB in CMYK at 20 MB), 2.2 s at 51 MB."""

STRIP_PIXELS = 4_000_000
"""What is converted to RGB at once: a conversion of the whole picture would hold it three or four times."""

_PROBE = bytes(number * 73 % 251 for number in range(1, 251))
"""Bytes that stand for no pixels: where they change the picture, its own pixels end too early."""

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
_ADVICE = "let the phone take or send it as JPEG, or convert it, and upload it again"
_BRANDS = {
    **dict.fromkeys(
        (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"), f"HEIC ({_ADVICE})"
    ),
    **dict.fromkeys((b"avif", b"avis"), f"AVIF ({_ADVICE})"),
}
"""Major brands of ISO media files (ISO/IEC 23008-12 and the AVIF specification) that are photos; see ADR 18."""
_SVG = re.compile(
    rb"^(?:\xef\xbb\xbf)?\s*(?:<\?xml[^>]*>\s*)?(?:<!--.*?-->\s*)?(?:<!DOCTYPE svg[^>]*>\s*)?<svg[\s>/]",
    re.DOTALL,
)
_SVG_LOOKED_AT = 16 * 1024
_ENCODER_OUT_OF_MEMORY = re.compile(r"encoding error [12]\b")
"""libwebp's VP8_ENC_ERROR_OUT_OF_MEMORY and VP8_ENC_ERROR_BITSTREAM_OUT_OF_MEMORY, as Pillow's ValueError says them."""
_WALKERS = {"JPEG": containers.jpeg, "PNG": containers.png, "WEBP": containers.webp}
# Not by `Image.open`: it refuses large pictures by a limit of its own, a global that other code may move.
_READERS: dict[str, Callable[[io.BytesIO], ImageFile.ImageFile]] = {
    "JPEG": JpegImagePlugin.JpegImageFile,
    "PNG": PngImagePlugin.PngImageFile,
    "WEBP": WebPImagePlugin.WebPImageFile,
}
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


def clean(data: bytes, max_pixels: int = MAX_PIXELS, max_bytes: int = MAX_BYTES) -> CleanImage:
    """Decode a photo, turn it upright, drop all metadata and encode its pixels losslessly.

    Transparent pixels are laid over white; of a phone's multi-picture JPEG (MPO) the first picture is taken; ICC
    profiles are dropped without conversion, as Keras' own loader does.

    Args:
        data: The object's bytes.
        max_pixels: Width times height above which a picture is rejected before it is decoded.
        max_bytes: Bytes above which an object is rejected.

    Raises:
        ImageRejected: The bytes are not a picture that can be loaded; the code says why.
        MemoryError: The worker has none left; no photo is rejected for that, its task is tried again.
        ValueError: The pixels could not be written for another reason.
    """
    if not data:
        raise ImageRejected(RejectCode.EMPTY, "the object has no bytes")
    if len(data) > max_bytes:
        raise ImageRejected(RejectCode.TOO_MANY_BYTES, f"{len(data)} bytes, the limit is {max_bytes}")
    kind = _format(data)
    try:
        container = _WALKERS[kind](data)
        decoded = _decoded if container.ended else _decoded_without_end
        rgb = decoded(container, kind, max_pixels)
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
        name = _BRANDS.get(data[8:12], "video or another ISO media file")
    if name is None and _SVG.match(data[:_SVG_LOOKED_AT]):
        name = "SVG"
    if name is None:
        raise ImageRejected(RejectCode.NOT_AN_IMAGE, "no image format has these first bytes")
    raise ImageRejected(RejectCode.FORMAT_NOT_ALLOWED, f"{name}; allowed are {', '.join(_ALLOWED)}")


def _decoded(container: Container, kind: str, max_pixels: int) -> Image.Image:
    """Decode a container's picture as it is stored: RGB, reduced, upright."""
    image = _open(container, kind, max_pixels)
    image.draft(None, (STORED_PX, STORED_PX))
    low_bytes = _prepare_key_colour(image, container.picture)
    image.load()
    return _upright(_small_rgb(image, low_bytes), container.orientation)


def _decoded_without_end(container: Container, kind: str, max_pixels: int) -> Image.Image:
    """Decode a JPEG that has no end of image, if all its pixels are there.

    libjpeg fills what is missing with grey and says nothing. So a second end is tried, of bytes that are no pixels:
    where all pixels are there, both give the same picture. Zeros at the end may be the last pixels, which take all of
    them, or stand for pixels that never arrived, of which some are usually left over.

    Raises:
        ImageRejected: Pixels are missing at the end.
    """

    def complete(picture: bytes) -> Image.Image | None:
        ends = (containers.END, _PROBE + containers.END)
        first, second = (
            _decoded(replace(container, picture=picture + end), kind, max_pixels) for end in ends
        )
        return first if first == second else None

    picture, few = container.picture, 2
    spare = max(0, container.zeros - few)
    rgb = complete(picture[: len(picture) - spare])
    if rgb is None and spare and complete(picture[:-few]) is None:
        rgb = complete(picture)
    if rgb is None:
        raise ImageRejected(RejectCode.TRUNCATED, f"{kind}: it ends before its last pixels")
    return rgb


def _open(container: Container, kind: str, max_pixels: int) -> ImageFile.ImageFile:
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
    image = _READERS[kind](io.BytesIO(picture))
    width, height = image.size
    whole = kind != "JPEG" or container.progressive
    _check_size(width, height, min(max_pixels, MAX_WHOLE_PIXELS) if whole else max_pixels)
    if scans * width * height > MAX_SCANNED_PIXELS:
        raise ImageRejected(RejectCode.TOO_MANY_SCANS, f"{scans} scans of {width} x {height} px")
    return image


def _check_size(width: int, height: int, max_pixels: int) -> None:
    if width * height > max_pixels:
        raise ImageRejected(
            RejectCode.TOO_MANY_PIXELS, f"{width} x {height} px, the limit is {max_pixels} pixels"
        )
    if -(-max(width, height) // _factor(width, height)) > MAX_SIDE_PX:
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


def _factor(width: int, height: int) -> int:
    """The power of two by which a picture is stored reduced."""
    factor = 1
    while min(width, height) // (factor * 2) >= STORED_PX:
        factor *= 2
    return factor


def _prepare_key_colour(image: ImageFile.ImageFile, picture: bytes) -> Image.Image | None:
    """Make a PNG's key colour (`tRNS`) comparable with the samples that Pillow decodes it to.

    Pillow scales grey of 2 and 4 bits to 8 bits, and keeps the high bytes alone of RGB in 16 bits; the key colour it
    leaves as it is in the file.

    Returns:
        The low bytes of RGB in 16 bits, where there is a key colour to compare them with; else None.
    """
    if image.format != "PNG" or "transparency" not in image.info:
        return None
    samples = image.tile[0].args
    if samples in ("1", "L;2", "L;4"):
        image.info["transparency"] *= 255 // (2 ** int(samples[-1]) - 1)
    if samples != "RGB;16B":
        return None
    low_bytes = PngImagePlugin.PngImageFile(io.BytesIO(picture))
    # Read as if the low byte came first, the low bytes are the ones that are kept.
    low_bytes.tile = [tile._replace(args="RGB;16L") for tile in low_bytes.tile]
    low_bytes.load()
    return low_bytes


def _small_rgb(image: Image.Image, low_bytes: Image.Image | None = None) -> Image.Image:
    """Convert to RGB and reduce, strip by strip: the same pixels as from the whole, in a fraction of the memory."""
    width, height = image.size
    factor = _factor(width, height)
    rows = max(1, STRIP_PIXELS // (width * factor)) * factor
    if rows >= height:
        return _reduced(_whitened(image, low_bytes) if low_bytes else _rgb(image), factor)
    small = Image.new("RGB", (-(-width // factor), -(-height // factor)))
    for top in range(0, height, rows):
        box = (0, top, width, min(top + rows, height))
        strip = image.crop(box)
        rgb = _whitened(strip, low_bytes.crop(box)) if low_bytes else _rgb(strip)
        small.paste(_reduced(rgb, factor), (0, top // factor))
    return small


def _whitened(image: Image.Image, low_bytes: Image.Image) -> Image.Image:
    """Lay RGB of 16 bits, given by its high and its low bytes, over white where it has its key colour."""
    rgb = np.array(image)
    samples = rgb.astype(np.uint16) << 8 | np.asarray(low_bytes)
    rgb[(samples == np.array(image.info["transparency"])).all(axis=2)] = 255
    return Image.fromarray(rgb)


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):
        # Pillow's own conversion clips 16 bits to 255 instead of scaling them.
        samples = np.asarray(image).astype(np.uint32)
        grey = (samples >> 8).astype(np.uint8)
        if "transparency" in image.info:
            grey[samples == image.info["transparency"]] = 255
        return Image.fromarray(grey).convert("RGB")
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
