"""A photo's bytes to clean pixels, or to the reason of its rejection.

Pixels are stored as lossless WebP. Measured on 450 photos of Fruits-360 (100 x 100, JPEG of 4.8 kB) and, in
brackets, on 256 x 256: WebP method 0 takes 11.3 kB (46 kB), 0.4-0.6 ms (2.0 ms) to write and 0.19 ms (0.88 ms) to
read; PNG at level 1 takes 14.9 kB (63 kB), 0.83 ms (3.2 ms) and 0.33 ms (1.5 ms). Lossless, because the features
must not depend on a second generation of JPEG artefacts.

A photo whose shorter side is at least twice ``STORED_PX`` is stored reduced by a power of two, so that its
shorter side stays at or above ``STORED_PX``. JPEG reduces while decoding (``draft``), which makes a 12-megapixel photo
cheap (27 ms instead of some 100). Nothing is enlarged. Measured on grainy 12-megapixel photos
(``docs/scale/pixels_trial.py``): the features of a stored photo have a cosine of at least 0.995 with those of the full
photo, at 141 kB a photo. The largest difference of a feature is 0.5, the mean of the largest 0.3. Keeping twice the
pixels on each side gives 0.996 at 576 kB. Photos below 448 px, such as Fruits-360, keep their size, and
their features are equal.
"""

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
"""The smallest shorter side of a reduced photo: the input size of the model."""

MAX_BYTES = 96 * 1024 * 1024
"""Larger objects are rejected unread, unless ``--max-bytes`` says otherwise: a phone's JPEG of 50 megapixels has some
20 MB, of 200 megapixels some 60 MB."""

MAX_PIXELS = 210_000_000
"""More pixels are rejected undecoded, unless ``--max-pixels`` says otherwise: phones have 200 megapixels. A JPEG of
one scan is reduced by eight while it is decoded: 200 megapixels in 60 MB take 0.7 s and 155 MB."""

MAX_WHOLE_PIXELS = 52_000_000
"""The same limit for PNG and JPEG of several scans, which are decoded whole: 50 megapixels take 200 MB in Pillow."""

MAX_WEBP_PIXELS = 4096 * 4096
"""The same limit for WebP, whose decoder holds four whole pictures: 16 bytes a pixel, 270 MB here, 790 MB at 50 MP."""

MAX_SIDE_PX = 16_383
"""The longest side that WebP, and so a stored photo, can have (14 bits)."""

MAX_SCANS = 64
"""A progressive JPEG has about ten scans; each costs a pass over the whole picture."""

MAX_SCANNED_PIXELS = 1_000_000_000
"""Scans times pixels: 20 scans of 50 megapixels, which take 0.6 s when they are almost empty."""

MAX_PROGRESSIVE_BYTES = 24 * 1024 * 1024
"""The largest progressive JPEG, whose coefficients stay in memory and are processed again in each scan: dense ones of
50 megapixels take 1.3 s and 360 MB at 24 MB (1.3 s and 450 MB in CMYK at 20 MB), 2.2 s at 51 MB."""

STRIP_PIXELS = 4_000_000
"""Pixels that are converted to RGB at once: a conversion of the whole picture holds it three or four times."""

_PROBE = bytes(number * 73 % 251 for number in range(1, 251))
"""Bytes that encode no pixels: where they change the picture, its own pixels end too early."""

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
    **dict.fromkeys((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"), f"HEIC ({_ADVICE})"),
    **dict.fromkeys((b"avif", b"avis"), f"AVIF ({_ADVICE})"),
}
"""Major brands of ISO media files (ISO/IEC 23008-12 and the AVIF specification) that are photos; see ADR 18."""
_SVG = re.compile(
    rb"^(?:\xef\xbb\xbf)?\s*(?:<\?xml[^>]*>\s*)?(?:<!--.*?-->\s*)?(?:<!DOCTYPE svg[^>]*>\s*)?<svg[\s>/]", re.DOTALL
)
_SVG_BYTES = 16 * 1024
_ENCODER_OUT_OF_MEMORY = re.compile(r"encoding error [12]\b")
"""libwebp's VP8_ENC_ERROR_OUT_OF_MEMORY and VP8_ENC_ERROR_BITSTREAM_OUT_OF_MEMORY in Pillow's ValueError."""
_WALKERS = {"JPEG": containers.walk_jpeg, "PNG": containers.walk_png, "WEBP": containers.walk_webp}
# `Image.open` refuses large pictures by a limit of its own, a global that other code may change.
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
"""The transposition that undoes each EXIF orientation; 1 needs none."""


@dataclass(frozen=True)
class CleanImage:
    """The pixels of a photo, as columns of `schemas.LOAD_RESULT`."""

    pixels: bytes  # lossless WebP of an 8-bit RGB image, upright, without metadata
    width_px: int
    height_px: int
    content_sha256: str  # hex, of the original object's bytes
    had_metadata: bool  # whether EXIF, an ICC profile, XMP, IPTC, comments or other application data were dropped


def clean(data: bytes, max_pixels: int = MAX_PIXELS, max_bytes: int = MAX_BYTES) -> CleanImage:
    """Decode a photo, turn it upright, drop all metadata and encode its pixels losslessly.

    This decodes in the process of the caller. The jobs use `sandbox.Decoder`, which gives the same result.

    A picture of more than `max_pixels` (width times height) is rejected before it is decoded.

    Raises:
        ImageRejected: The bytes are not a picture that can be loaded; the code says why.
        MemoryError: The worker is out of memory; its task is retried, and no photo is rejected for that.
        ValueError: The pixels could not be written for another reason.
    """
    return encode(*decode(data, max_pixels, max_bytes), data)


def decode(data: bytes, max_pixels: int, max_bytes: int) -> tuple[Image.Image, bool]:
    """Decode a photo to upright RGB pixels, reduced as they are stored; return also whether it had metadata.

    Transparent pixels become white; of a phone's multi-picture JPEG (MPO) the first picture is taken; ICC profiles are
    dropped without conversion, as in Keras' own loader. Errors are those of `clean`.
    """
    if not data:
        raise ImageRejected(RejectCode.EMPTY, "the object has no bytes")
    if len(data) > max_bytes:
        raise ImageRejected(RejectCode.TOO_MANY_BYTES, f"{len(data)} bytes, the limit is {max_bytes}")
    kind = _detect_format(data)
    try:
        container = _WALKERS[kind](data)
        decode_picture = _decode if container.ended else _decode_without_end
        return decode_picture(container, kind, max_pixels), container.had_metadata
    except (ImageRejected, MemoryError):
        raise
    except Exception as error:  # Pillow raises OSError, SyntaxError, struct.error... on hostile bytes
        if isinstance(error, OSError) and "out of memory" in str(error):  # Pillow's decoders raise no MemoryError
            raise MemoryError(f"{kind}: {error}") from error
        raise _undecodable(kind, error) from error


def encode(rgb: Image.Image, had_metadata: bool, data: bytes) -> CleanImage:
    """Encode the decoded pixels of the object `data`; a failure is never the photo's fault. Errors as of `clean`."""
    return CleanImage(_encode(rgb), rgb.width, rgb.height, hashlib.sha256(data).hexdigest(), had_metadata)


def _detect_format(data: bytes) -> str:
    """Return the format by the first bytes; no format outside the allow-list reaches a decoder."""
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WEBP"
    name = next((name for signature, name in _SIGNATURES if data.startswith(signature)), None)
    if name in _ALLOWED:
        return name
    if name is None and data[4:8] == b"ftyp":
        name = _BRANDS.get(data[8:12], "video or another ISO media file")
    if name is None and _SVG.match(data[:_SVG_BYTES]):
        name = "SVG"
    if name is None:
        raise ImageRejected(RejectCode.NOT_AN_IMAGE, "no image format has these first bytes")
    raise ImageRejected(RejectCode.FORMAT_NOT_ALLOWED, f"{name}; allowed are {', '.join(_ALLOWED)}")


def _decode(container: Container, kind: str, max_pixels: int) -> Image.Image:
    """Decode a container's picture to the form that is stored: RGB, reduced, upright."""
    image = _open(container, kind, max_pixels)
    image.draft(None, (STORED_PX, STORED_PX))
    low_bytes = _prepare_key_colour(image, container.picture)
    image.load()
    rgb = _reduce_to_rgb(image, low_bytes)
    return rgb.transpose(_TURNS[container.orientation]) if container.orientation in _TURNS else rgb


def _decode_without_end(container: Container, kind: str, max_pixels: int) -> Image.Image:
    """Decode a JPEG that has no end of image, if all its pixels are there.

    libjpeg silently fills missing pixels with grey. So the picture is also decoded with a second end, of bytes that are
    no pixels: where all pixels are there, both pictures are equal. Zeros at the end may be the last pixels, which take
    all of them, or stand for pixels that never arrived, of which some are usually left over.

    Raises:
        ImageRejected: Pixels are missing at the end.
    """

    def decode_if_complete(picture: bytes) -> Image.Image | None:
        ends = (containers.END, _PROBE + containers.END)
        first, second = (_decode(replace(container, picture=picture + end), kind, max_pixels) for end in ends)
        return first if first == second else None

    picture, few = container.picture, 2
    spare = max(0, container.zeros - few)
    rgb = decode_if_complete(picture[: len(picture) - spare])
    if rgb is None and spare and decode_if_complete(picture[:-few]) is None:
        rgb = decode_if_complete(picture)
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
        # WebP's decoder allocates the whole picture and decodes it as soon as it is opened.
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
        raise ImageRejected(RejectCode.TOO_MANY_PIXELS, f"{width} x {height} px, the limit is {max_pixels} pixels")
    if -(-max(width, height) // _factor(width, height)) > MAX_SIDE_PX:
        raise ImageRejected(RejectCode.SIDE_TOO_LONG, f"{width} x {height} px, the longest side may have {MAX_SIDE_PX}")


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
    """Return the power of two by which a picture is reduced."""
    factor = 1
    while min(width, height) // (factor * 2) >= STORED_PX:
        factor *= 2
    return factor


def _prepare_key_colour(image: ImageFile.ImageFile, picture: bytes) -> Image.Image | None:
    """Make a PNG's key colour (`tRNS`) comparable with the samples that Pillow decodes.

    Pillow scales grey of 2 and 4 bits to 8 bits, and keeps only the high bytes of RGB in 16 bits. It leaves the key
    colour as in the file.

    Returns:
        The low bytes of RGB in 16 bits where it has a key colour; else None.
    """
    if image.format != "PNG" or "transparency" not in image.info:
        return None
    samples = image.tile[0].args
    if samples in ("1", "L;2", "L;4"):
        image.info["transparency"] *= 255 // (2 ** int(samples[-1]) - 1)
    if samples != "RGB;16B":
        return None
    low_bytes = PngImagePlugin.PngImageFile(io.BytesIO(picture))
    # Read with the low byte first, Pillow keeps the low bytes.
    low_bytes.tile = [tile._replace(args="RGB;16L") for tile in low_bytes.tile]
    low_bytes.load()
    return low_bytes


def _reduce_to_rgb(image: Image.Image, low_bytes: Image.Image | None) -> Image.Image:
    """Convert to RGB and reduce, strip by strip: the same pixels as from the whole, in a fraction of the memory."""
    width, height = image.size
    factor = _factor(width, height)
    rows = max(1, STRIP_PIXELS // (width * factor)) * factor

    def reduce(part: Image.Image, low: Image.Image | None) -> Image.Image:
        rgb = _whiten_key_colour(part, low) if low else _to_rgb(part)
        return rgb.reduce(factor) if factor > 1 else rgb

    if rows >= height:
        return reduce(image, low_bytes)
    reduced = Image.new("RGB", (-(-width // factor), -(-height // factor)))
    for top in range(0, height, rows):
        box = (0, top, width, min(top + rows, height))
        strip = reduce(image.crop(box), low_bytes.crop(box) if low_bytes else None)
        reduced.paste(strip, (0, top // factor))
    return reduced


def _whiten_key_colour(image: Image.Image, low_bytes: Image.Image) -> Image.Image:
    """Replace the key colour of RGB in 16 bits, as an image of high bytes and one of low bytes, by white."""
    rgb = np.array(image)
    samples = rgb.astype(np.uint16) << 8 | np.asarray(low_bytes)
    rgb[(samples == np.array(image.info["transparency"])).all(axis=2)] = 255
    return Image.fromarray(rgb)


def _to_rgb(image: Image.Image) -> Image.Image:
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


def _encode(rgb: Image.Image) -> bytes:
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
    if " at 0x" in message:  # an address, which differs from run to run
        message = "no picture can be read from it"
    code = RejectCode.TRUNCATED if "truncated" in message.lower() else RejectCode.CORRUPT
    return ImageRejected(code, f"{kind}: {type(error).__name__}: {message[:160]}")
