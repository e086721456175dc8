"""The parts of a photo's file that its pixels need, so that the parser of a decoder sees almost nothing else.

Most of what makes a small file expensive, or breaks a decoder around sound pixels, is not pixels: 300,000 segments of
EXIF cost Pillow more than 30 s, and a stale checksum of a colour profile makes it reject the photo. Each walker below
reads a container once, in bounded steps, keeps the parts that hold pixels byte for byte (with their checksums: an
error in them stays), and reports what it saw of the rest. Measured: 0.03 of 0.83 ms for a photo of Fruits-360; a
12-megapixel JPEG is loaded in 50 ms, and in 52 when its scans are counted over the whole file.

Two things that are not pixels reach the decoder: application segments and comments between a JPEG's scans, which
`MAX_PARTS_OF_SCANS` bounds, and what a JFIF or Adobe segment holds beside the colours, such as a thumbnail. They are
not stored: what is stored is written from the pixels alone.
"""

import re
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from fruits.images.orientation import read_orientation
from fruits.images.rejects import ImageRejected, RejectCode

MAX_PARTS = 100_000
"""Segments or chunks of a file: 64 MB of XMP are a thousand segments, of a PNG's IDAT some 8,000 chunks."""

MAX_PARTS_OF_SCANS = 4096
"""Markers behind the first scan of a JPEG: 64 scans with tables of their own have a few hundred."""

MAX_FILL = 64 * 1024
"""Bytes outside the segments of a JPEG's header."""

_ENDLESS = b"\xff" * 1024
"""Fill bytes in a scan that no encoder writes: Pillow's decoder restarts at each 64 kB, and 60 MB take over 30 s."""

MAX_TABLES = 64 * 1024
"""Bytes of a JPEG's frames and tables before its first scan: four quantisation and eight Huffman tables have 3 kB."""

_INFLATED = 64 * 1024
"""Bytes of a text chunk that are inflated to read an orientation."""


@dataclass(frozen=True)
class Container:
    """The content of a photo's file.

    `picture` is a file of the same format with the first picture's pixels, the tables to decode them, and little else.
    Where a JPEG has no end-of-image marker, it has none either, and only decoding shows whether all pixels are there.
    """

    picture: bytes
    orientation: int  # the orientation in EXIF or XMP, 1 to 8
    had_metadata: bool  # whether EXIF, an ICC profile, XMP, IPTC, comments or other application data were left out
    frames: int = 1  # pictures of an animation; 1 for a still
    scans: int = 1  # passes over the picture that its pixels take
    progressive: bool = False  # whether a JPEG's coefficients are all held in memory until its last scan
    ended: bool = True  # whether a JPEG has an end-of-image marker of its own
    zeros: int = 0  # without the marker, how many zeros end `picture`: pixels, or the padding of a block on disk


_MARKER = re.compile(rb"\xff[^\x00\xff]")
_EOI, _SOS, _DRI, _APP0, _APP1, _APP14, _COM = 0xD9, 0xDA, 0xDD, 0xE0, 0xE1, 0xEE, 0xFE
END = b"\xff\xd9"
_BARE = frozenset({0x01, *range(0xD0, 0xD8)})
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_PROGRESSIVE = 0xC2
_ARITHMETIC = frozenset(range(0xC9, 0xD0)) - {0xCC}
_TABLES = frozenset({0xC4, 0xC8, 0xCC, 0xDB, 0xDC, 0xDD, 0xDE, 0xDF})
_KEPT = _FRAMES | _TABLES
_LEFT_OUT = frozenset({*range(0xE0, 0xF0), _COM})
_EXIF, _XMP = b"Exif\0\0", b"http://ns.adobe.com/xap/1.0/\0"
_IN_SCANS = bytes([*sorted(_KEPT | _LEFT_OUT), _EOI, _SOS])
_NEAR = re.compile(rb"\xff[" + re.escape(_IN_SCANS) + rb"]")
_NEAR_BYTES, _MOST_BYTES = 8 * 1024, 512 * 1024
_FAR = np.isin(np.arange(256), list(_IN_SCANS))


@dataclass
class _JpegHeader:
    """What precedes the first scan of a JPEG, at `scan`."""

    kept: list[bytes | memoryview]
    exif: bytes | None = None
    xmp: bytes | None = None
    had_metadata: bool = False
    progressive: bool = False
    frame: bytes = b""
    restart_interval: int = 0
    scan: int = 0


def walk_jpeg(data: bytes) -> Container:
    """Walk a JPEG (ITU-T T.81, annex B): the header's tables, then all scans up to the first end of image.

    What lies behind that end (a phone's film, gain map or further pictures) and inside application segments (a
    thumbnail) is neither read nor counted.

    Raises:
        ImageRejected: It has no scan, a truncated segment, arithmetic coding (which no camera writes; a few bytes of
            it can stand for seconds of decoding), or more of something than any photo has.
    """
    header = _read_jpeg_header(data)
    start = header.scan
    scans, end = _count_scans(data, start)
    ended, zeros = data.endswith(END, start, end), 0
    if not ended:
        end, zeros = _trim_padding(data, start)
        _require_every_scan(data[:end], start, header.frame, header.restart_interval)
    if data.find(_ENDLESS, start, end) >= 0:
        raise _corrupt("JPEG", f"more than {len(_ENDLESS)} fill bytes in a scan")
    return Container(
        b"".join([*header.kept, memoryview(data)[start:end]]),
        read_orientation(header.exif, header.xmp),
        header.had_metadata,
        scans=scans,
        # A scan of fewer components than the frame has is not the only scan, even where the others are missing.
        progressive=header.progressive or scans > 1 or data[start + 4 : start + 5] != header.frame[5:6],
        ended=ended,
        zeros=zeros,
    )


def _read_jpeg_header(data: bytes) -> _JpegHeader:
    header = _JpegHeader([data[:2]])
    tables = 0
    for marker, start, end in _jpeg_segments(data):
        body = slice(start + 4, end)
        if marker == _SOS:
            header.scan = start
        elif marker in _KEPT or _has_colour_space(marker, data, body):
            header.progressive |= marker == _PROGRESSIVE
            if marker in _FRAMES:
                header.frame = data[body]
            elif marker == _DRI:
                header.restart_interval = int.from_bytes(data[body][:2])
            if marker in _ARITHMETIC:
                raise ImageRejected(RejectCode.FORMAT_NOT_ALLOWED, "JPEG of arithmetic coding")
            tables += end - start if marker in _KEPT else 0
            header.kept.append(data[start:end])
            if tables > MAX_TABLES:
                raise _corrupt("JPEG", f"tables of more than {MAX_TABLES} bytes before the first scan")
        elif marker == _APP1 and data.startswith(_EXIF, body.start):
            header.exif, header.had_metadata = header.exif or data[body], True
        elif marker == _APP1 and data.startswith(_XMP, body.start):
            header.xmp, header.had_metadata = header.xmp or data[body], True
        else:
            header.had_metadata |= not _is_of_format(marker, data[body.start : min(body.start + 5, end)])
    return header


def _jpeg_segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Yield the marker, start and end of each segment up to the first scan's, of which only the marker is read."""
    at, fill = 2, 0
    for _ in range(MAX_PARTS):
        match = _MARKER.search(data, at, at + MAX_FILL + 2 - fill)
        if match is None:
            raise _corrupt("JPEG", "no scan of a picture in it")
        start, fill = match.start(), fill + match.start() - at
        at, marker = start + 2, data[start + 1]
        if marker in _BARE:
            continue
        if marker == _SOS:
            yield marker, start, at
            return
        if marker not in _KEPT and marker not in _LEFT_OUT:
            raise _corrupt("JPEG", f"marker {marker:02x} before the first scan")
        end = at + int.from_bytes(data[at : at + 2])
        if end > len(data):
            raise _truncated("JPEG", f"in segment {marker:02x}")
        if end < at + 2 and marker in _KEPT:
            raise _corrupt("JPEG", f"segment {marker:02x} of no length")
        yield marker, start, end
        at = max(at + 2, end)
    raise _corrupt("JPEG", f"more than {MAX_PARTS} segments")


def _has_colour_space(marker: int, data: bytes, body: slice) -> bool:
    """Return whether a decoder takes the colour space from this segment, and the segment is long enough for it."""
    if marker == _APP0:
        return body.stop - body.start >= 14 and data.startswith(b"JFIF\0", body.start)
    return marker == _APP14 and body.stop - body.start >= 12 and data.startswith(b"Adobe", body.start)


def _is_of_format(marker: int, start: bytes) -> bool:
    """Return whether a segment belongs to the format and not to an application."""
    return start in (b"JFIF\0", b"JFXX\0") if marker == _APP0 else marker == _APP14 and start == b"Adobe"


def _count_scans(data: bytes, at: int) -> tuple[int, int]:
    """Return the number of scans, the first at `at`, and where the picture ends: after its end of image or the data."""
    scans = 0
    for _ in range(MAX_PARTS_OF_SCANS):
        start = _find_marker(data, at)
        if start is None:
            return scans, len(data)
        if data[start + 1] == _EOI:
            return scans, start + 2
        scans += data[start + 1] == _SOS
        at = _end_of_header(data, start)
    raise _corrupt("JPEG", f"more than {MAX_PARTS_OF_SCANS} markers behind the first scan")


def _end_of_header(data: bytes, start: int) -> int:
    return start + 2 + max(2, int.from_bytes(data[start + 2 : start + 4]))


def _trim_padding(data: bytes, at: int) -> tuple[int, int]:
    """Return where a JPEG without end of image ends, less the erased flash that pads it, and its zeros at the end."""
    pixels = max(at, len(data.rstrip(b"\x00\xff")))
    while data.startswith(b"\xff\x00", pixels):  # a byte of pixels, stuffed
        pixels += 2
    zeros = len(data) - pixels - len(data[pixels:].lstrip(b"\x00"))
    return pixels + zeros, zeros


def _require_every_scan(data: bytes, at: int, frame: bytes, interval: int) -> None:
    """Check that a JPEG without end of image has all coefficients of all components, and all restart intervals.

    The decoder checks whether the last interval is complete. The first scan begins at `at`, the data ends with the last
    one. `frame` is the body of the frame header (ITU-T T.81, B.2.2), `interval` MCUs in a restart interval, 0 for none.

    Raises:
        ImageRejected: A part of the picture is missing.
    """
    height, width, count = struct.unpack_from(">HHB", frame, 1)
    factors = {frame[6 + 3 * i]: divmod(frame[7 + 3 * i], 16) for i in range(count)}
    # The bits of each coefficient that have not arrived: 0 when all have.
    lacking = {component: bytearray(b"\xff" * 64) for component in factors}
    header: int | None = at
    while header is not None:
        after = _end_of_header(data, header)
        body = data[header + 4 : after]
        following = _find_marker(data, after)
        if data[header + 1] == _DRI:
            interval = int.from_bytes(body[:2])
        elif data[header + 1] == _SOS:
            components = body[1 : 1 + 2 * body[0] : 2]
            first, last, bits = body[1 + 2 * body[0] : 4 + 2 * body[0]]
            for component in components:
                lacking[component][first : last + 1] = bytes([bits & 15]) * (last + 1 - first)
            if interval:
                mcus = _mcus(width, height, factors, components)
                stop = len(data) if following is None else following
                restarts = sum(data.count(bytes((0xFF, marker)), after, stop) for marker in range(0xD0, 0xD8))
                if restarts < -(-mcus // interval) - 1:
                    raise _truncated("JPEG", "before its last restart interval")
        header = following
    if any(any(bits) for bits in lacking.values()):
        raise _truncated("JPEG", "before its last scan")


def _mcus(width: int, height: int, factors: dict[int, tuple[int, int]], components: bytes) -> int:
    """Return the number of MCUs of a scan (ITU-T T.81, A.2), of blocks where it has a single component."""
    across, down = (8 * max(factor[axis] for factor in factors.values()) for axis in (0, 1))
    if len(components) == 1:
        own_across, own_down = factors[components[0]]
        across, down = across // own_across, down // own_down
    return -(-width // across) * -(-height // down)


def _find_marker(data: bytes, at: int) -> int | None:
    """Return where the next marker is that does not belong to the compressed pixels.

    Beyond the first bytes by arrays, because a hostile scan may hold millions of ``ff``: 64 MB of them take 0.5 s, and
    a regular expression 1.4 s. For a photo both take some 1 ms a megabyte.
    """
    if near := _NEAR.search(data, at, at + _NEAR_BYTES):
        return near.start()
    at += _NEAR_BYTES - 1
    window = _NEAR_BYTES
    while at < len(data) - 1:
        part = np.frombuffer(data, np.uint8, min(window, len(data) - at), at)
        starts = np.flatnonzero(part[:-1] == 0xFF)
        hits = starts[_FAR[part[starts + 1]]]
        if len(hits):
            return at + int(hits[0])
        at += len(part) - 1
        window = min(2 * window, _MOST_BYTES)
    return None


_PNG_KIND = re.compile(rb"\w{4}")
"""More than the standard's letters: some programs write private chunks, and Pillow accepts them."""
_PNG_TEXTS = frozenset({b"tEXt", b"zTXt", b"iTXt"})
_PNG_PLAIN = frozenset(b"acTL bKGD cHRM cICP cLLI fcTL fdAT gAMA hIST mDCV pHYs sBIT sPLT sRGB tIME".split())
"""Chunks that describe the pixels and no person: left out, and not counted as metadata."""
_PNG_ONCE = frozenset({b"IHDR", b"PLTE", b"tRNS"})
"""Chunks kept once, before the pixels, as the standard requires."""
_MAX_FRAMES = 0x80000000


def walk_png(data: bytes) -> Container:
    """Walk a PNG (third edition, section 5): header, palette, transparency and pixels are kept.

    Checksums of what is left out are not read. A still with an APNG header is a still.

    Raises:
        ImageRejected: It has no pixels, bytes before them that are no chunk, or more chunks than any photo has.
    """
    kept = [(0, 8)]
    seen: set[bytes] = set()
    exif = xmp = None
    animations: list[int] = []
    had_metadata = frame_before_pixels = False
    for kind, start, end in _png_chunks(data):
        body = slice(start + 8, max(start + 8, end - 4))
        pixels_seen = b"IDAT" in seen
        if kind == b"IDAT" or kind == b"IEND" or (kind in _PNG_ONCE and kind not in seen and not pixels_seen):
            kept.append((start, end))
        elif kind == b"eXIf":
            exif, had_metadata = exif or data[body], True
        elif kind in _PNG_TEXTS:
            name, _, rest = data[body.start : min(body.stop, body.start + _INFLATED)].partition(b"\0")
            had_metadata |= bool(name)
            # Only the first of each name is read, valid or not: inflating 99,000 takes 8 s.
            if name == b"XML:com.adobe.xmp" and xmp is None:
                xmp = _read_text(kind, rest)
            elif name == b"Raw profile type exif" and exif is None:
                exif = _read_hex(_read_text(kind, rest))
        elif kind == b"acTL" and not pixels_seen:
            animations.append(int.from_bytes(data[body][:4]))
        elif kind == b"fcTL":
            frame_before_pixels |= not pixels_seen
        elif kind not in _PNG_ONCE and kind not in _PNG_PLAIN:
            had_metadata = True
        seen.add(kind)
    if b"IDAT" not in seen:
        raise (_truncated("PNG", "before its pixels") if b"IEND" not in seen else _corrupt("PNG", "no pixels in it"))
    # Two headers of an animation, or a header with more frames than the format allows, are ignored.
    frames = animations[0] if len(animations) == 1 and animations[0] <= _MAX_FRAMES else 0
    frames += frames > 0 and not frame_before_pixels
    return Container(_join_spans(data, kept), read_orientation(exif, xmp), had_metadata, frames=max(1, frames))


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yield each chunk's kind, start and end (with its checksum); the last end may lie behind the data's."""
    at = 8
    pixels = False
    for _ in range(MAX_PARTS):
        if at + 8 > len(data):
            return
        length, kind = struct.unpack_from(">I4s", data, at)
        if not _PNG_KIND.fullmatch(kind):
            if pixels:
                return
            raise _corrupt("PNG", f"no chunk before its pixels: {kind!r}")
        end = at + 12 + length
        if end > len(data) and kind != b"IDAT" and not pixels:
            raise _truncated("PNG", f"in chunk {kind.decode()}")
        yield kind, at, end
        pixels |= kind == b"IDAT"
        if kind == b"IEND":
            return
        at = end
    raise _corrupt("PNG", f"more than {MAX_PARTS} chunks")


def _read_text(kind: bytes, rest: bytes) -> bytes:
    """Return the start of a text chunk's text; `rest` follows its keyword."""
    compressed, text = kind == b"zTXt", rest[1:] if kind == b"zTXt" else rest
    if kind == b"iTXt":
        compressed, text = rest[:1] == b"\1", rest[2:].split(b"\0", 2)[-1]
    try:
        return zlib.decompressobj().decompress(text, _INFLATED) if compressed else text
    except zlib.error:
        return b""


def _read_hex(text: bytes) -> bytes:
    """Decode ImageMagick's form of a profile: an empty line, a name, a length and lines of hexadecimal digits."""
    digits = b"".join(text.split(b"\n")[3:])
    try:
        return bytes.fromhex(digits[: len(digits) // 2 * 2].decode("ascii"))
    except ValueError:
        return b""


def _join_spans(data: bytes, spans: list[tuple[int, int]]) -> bytes:
    """Join parts of the data; neighbours, such as a PNG's pixels, are copied as one."""
    joined = [spans[0]]
    for start, end in spans[1:]:
        if joined[-1][1] == start:
            joined[-1] = (joined[-1][0], end)
        else:
            joined.append((start, end))
    if len(joined) == 1:
        return data[slice(*joined[0])]
    view = memoryview(data)
    return b"".join(view[start:end] for start, end in joined)


_WEBP_PICTURES = (b"VP8 ", b"VP8L")
_ALPHA, _ANIMATION = 0x10, 0x02


def walk_webp(data: bytes) -> Container:
    """Walk a WebP (RFC 9649): canvas, alpha and the first picture are kept; the lengths around them are ignored.

    Raises:
        ImageRejected: It has more chunks than any photo has.
    """
    canvas = alpha = picture = b""
    exif = xmp = None
    had_metadata = False
    frames = 1
    for kind, start, end in _webp_chunks(data):
        if kind == b"VP8X" and start == 12:
            flags = data[20:21] or b"\0"
            frames = 2 if flags[0] & _ANIMATION else 1
            canvas = data[start:20] + bytes([flags[0] & _ALPHA]) + data[21:end]
        elif kind == b"ALPH" and canvas:
            alpha = alpha or _padded(data[start:end])
        elif kind in _WEBP_PICTURES:
            picture = picture or _padded(data[start:end])
        elif kind == b"EXIF":
            exif, had_metadata = exif or data[start + 8 : end], True
        elif kind == b"XMP ":
            xmp, had_metadata = xmp or data[start + 8 : min(end, start + _INFLATED)], True
        elif kind == b"ICCP":
            had_metadata = True
    chunks = canvas + alpha + picture
    still = b"RIFF" + struct.pack("<I", 4 + len(chunks)) + b"WEBP" + chunks
    return Container(still, read_orientation(exif, xmp), had_metadata, frames=frames)


def _webp_chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yield each chunk's kind, start and end without its padding; the end may lie behind the data's."""
    at = 12
    for _ in range(MAX_PARTS):
        if at + 8 > len(data):
            return
        kind, length = struct.unpack_from("<4sI", data, at)
        yield kind, at, at + 8 + length
        at += 8 + length + length % 2
    raise _corrupt("WEBP", f"more than {MAX_PARTS} chunks")


def _padded(chunk: bytes) -> bytes:
    return chunk + b"\0" * (len(chunk) % 2)


def _corrupt(kind: str, why: str) -> ImageRejected:
    return ImageRejected(RejectCode.CORRUPT, f"{kind}: {why}")


def _truncated(kind: str, where: str) -> ImageRejected:
    return ImageRejected(RejectCode.TRUNCATED, f"{kind}: it ends {where}")
