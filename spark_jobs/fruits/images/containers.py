"""A photo's file without what its pixels do not need, so that a decoder's parser sees next to nothing else.

Most of what makes a small file expensive, or breaks a decoder around sound pixels, is not pixels: 300,000 segments of
EXIF cost Pillow more than 30 s, a stale checksum of a colour profile costs it the photo. Each walker below goes over
a container once, in bounded steps, keeps the parts that pixels are made of byte for byte (with their checksums: what
is wrong in them stays wrong), and says what it saw of the rest. Measured: 0.03 of 0.83 ms for a photo of Fruits-360;
a 12-megapixel JPEG is loaded in 50 ms where it took 52 when its scans were counted over the whole file.

Two things that are no pixels do reach the decoder: application segments and comments between a JPEG's scans, which
`MAX_PARTS_OF_SCANS` bounds, and what a JFIF or Adobe segment holds beside the colours, such as a thumbnail. Neither
gets any further: what is stored is written from the pixels alone.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from fruits.images.orientation import turn
from fruits.images.rejects import ImageRejected, RejectCode

MAX_PARTS = 100_000
"""Segments or chunks of one file: 64 MB of XMP are a thousand segments, of a PNG's IDAT some 8,000 chunks."""

MAX_PARTS_OF_SCANS = 4096
"""Markers behind the first scan of a JPEG: 64 scans with tables of their own have a few hundred."""

MAX_FILL = 64 * 1024
"""Bytes between the segments of a JPEG's header that belong to none."""

_ENDLESS = b"\xff" * 1024
"""Fill bytes in a scan that no encoder writes: at each 64 kB Pillow's decoder begins anew, and 60 MB take over 30 s."""

MAX_TABLES = 64 * 1024
"""Bytes of a JPEG's frames and tables before its first scan: four quantisation and eight Huffman tables have 3 kB."""

_INFLATED = 64 * 1024
"""As much as is inflated of a text chunk to read an orientation."""


@dataclass(frozen=True)
class Container:
    """What a photo's file holds.

    Attributes:
        picture: A file of the same format with the first picture's pixels, what they are decoded by, and little else.
        orientation: How EXIF or XMP says that the camera was held, 1 to 8.
        had_metadata: Whether EXIF, an ICC profile, XMP, IPTC, comments or other application data were left out.
        frames: Pictures of an animation; 1 for a still.
        scans: Passes over the picture that its pixels take.
        progressive: Whether a JPEG's coefficients are all held in memory until its last scan.
        ended: Whether a JPEG has an end-of-image marker of its own; without one, `picture` has none either, and
            whether all pixels are there is known only when they are decoded.
        zeros: Without one, how many zeros `picture` ends with: pixels, or the padding of a block on disk.
    """

    picture: bytes
    orientation: int
    had_metadata: bool
    frames: int = 1
    scans: int = 1
    progressive: bool = False
    ended: bool = True
    zeros: int = 0


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


def jpeg(data: bytes) -> Container:
    """Walk a JPEG (ITU-T T.81, annex B): the header's tables, then all scans up to the first end of image.

    What lies behind that end (a phone's film, gain map or further pictures) and inside application segments (a
    thumbnail) is neither looked at nor counted.

    Raises:
        ImageRejected: It has no scan, a segment that its end cuts, arithmetic coding (which no camera writes; a few
            bytes of it can stand for seconds of decoding), or more of something than any photo has.
    """
    kept: list[bytes | memoryview] = [data[:2]]
    exif = xmp = None
    had_metadata = False
    tables = fill = interval = 0
    progressive = False
    frame = b""
    at = 2
    for _ in range(MAX_PARTS):
        found = _MARKER.search(data, at, at + MAX_FILL + 2 - fill)
        if found is None:
            raise _broken("JPEG", "no scan of a picture in it")
        fill += found.start() - at
        at, marker = found.end(), data[found.end() - 1]
        if marker == _SOS:
            break
        if marker in _BARE:
            continue
        if marker not in _KEPT and marker not in _LEFT_OUT:
            raise _broken("JPEG", f"marker {marker:02x} before the first scan")
        end = at + int.from_bytes(data[at : at + 2])
        if end > len(data):
            raise _cut("JPEG", f"in segment {marker:02x}")
        if end < at + 2 and marker in _KEPT:
            raise _broken("JPEG", f"segment {marker:02x} of no length")
        body = slice(at + 2, end)
        at = max(at + 2, end)
        if marker in _KEPT or _tells_colours(marker, data, body):
            progressive |= marker == _PROGRESSIVE
            if marker in _FRAMES:
                frame = data[body]
            elif marker == _DRI:
                interval = int.from_bytes(data[body][:2])
            if marker in _ARITHMETIC:
                raise ImageRejected(RejectCode.FORMAT_NOT_ALLOWED, "JPEG of arithmetic coding")
            tables += end - found.start() if marker in _KEPT else 0
            kept.append(data[found.end() - 2 : end])
            if tables > MAX_TABLES:
                raise _broken("JPEG", f"tables of more than {MAX_TABLES} bytes before the first scan")
        elif marker == _APP1 and data.startswith(_EXIF, body.start):
            exif, had_metadata = exif or data[body], True
        elif marker == _APP1 and data.startswith(_XMP, body.start):
            xmp, had_metadata = xmp or data[body], True
        else:
            had_metadata |= not _is_plain(marker, data[body.start : min(body.start + 5, end)])
    else:
        raise _broken("JPEG", f"more than {MAX_PARTS} segments")
    start = at - 2
    scans, end = _scans(data, start)
    ended, zeros = data.endswith(END, start, end), 0
    if not ended:
        end, zeros = _without_padding(data, start)
        _require_every_scan(data[:end], start, frame, interval)
    if data.find(_ENDLESS, start, end) >= 0:
        raise _broken("JPEG", f"more than {len(_ENDLESS)} fill bytes in a scan")
    kept.append(memoryview(data)[start:end])
    # A scan of fewer components than the frame has is one of several, also where the others are missing.
    progressive |= scans > 1 or data[at + 2 : at + 3] != frame[5:6]
    return Container(
        b"".join(kept),
        turn(exif, xmp),
        had_metadata,
        scans=scans,
        progressive=progressive,
        ended=ended,
        zeros=zeros,
    )


def _tells_colours(marker: int, data: bytes, body: slice) -> bool:
    """Whether a decoder takes the colour space from this segment: one that is too short for it says nothing."""
    if marker == _APP0:
        return body.stop - body.start >= 14 and data.startswith(b"JFIF\0", body.start)
    return marker == _APP14 and body.stop - body.start >= 12 and data.startswith(b"Adobe", body.start)


def _is_plain(marker: int, start: bytes) -> bool:
    """Whether a segment is the format's own and no application's."""
    return start in (b"JFIF\0", b"JFXX\0") if marker == _APP0 else marker == _APP14 and start == b"Adobe"


def _scans(data: bytes, at: int) -> tuple[int, int]:
    """Count the scans from the first one on; also where the picture ends: behind its end of image, or of the data."""
    scans = 0
    for _ in range(MAX_PARTS_OF_SCANS):
        found = _marker_in_scans(data, at)
        if found is None:
            return scans, len(data)
        if data[found + 1] == _EOI:
            return scans, found + 2
        scans += data[found + 1] == _SOS
        at = found + 2 + max(2, int.from_bytes(data[found + 2 : found + 4]))
    raise _broken("JPEG", f"more than {MAX_PARTS_OF_SCANS} markers behind the first scan")


def _without_padding(data: bytes, at: int) -> tuple[int, int]:
    """Where a JPEG without end of image ends, less the erased flash that pads it; and how many zeros it ends with."""
    pixels = max(at, len(data.rstrip(b"\x00\xff")))
    while data.startswith(b"\xff\x00", pixels):  # a byte of pixels, stuffed
        pixels += 2
    zeros = len(data) - pixels - len(data[pixels:].lstrip(b"\x00"))
    return pixels + zeros, zeros


def _require_every_scan(data: bytes, at: int, frame: bytes, interval: int) -> None:
    """Check that a JPEG without end of image has all coefficients of all components, and all restart intervals.

    Whether its last interval is whole is left to the decoder.

    Args:
        data: The file up to the end of its last scan.
        at: Where the first scan begins.
        frame: The body of the frame header (ITU-T T.81, B.2.2).
        interval: MCUs in a restart interval; 0 for none.

    Raises:
        ImageRejected: A part of the picture never arrived.
    """
    height, width, count = struct.unpack_from(">HHB", frame, 1)
    factors = {frame[6 + 3 * i]: divmod(frame[7 + 3 * i], 16) for i in range(count)}
    widest, highest = (max(factor[axis] for factor in factors.values()) for axis in (0, 1))
    # The bits of each coefficient that have not arrived: 0 when all have.
    lacking = {component: bytearray(b"\xff" * 64) for component in factors}
    header: int | None = at
    while header is not None:
        after = header + 2 + max(2, int.from_bytes(data[header + 2 : header + 4]))
        body = data[header + 4 : after]
        following = _marker_in_scans(data, after)
        if data[header + 1] == _DRI:
            interval = int.from_bytes(body[:2])
        elif data[header + 1] == _SOS:
            components = body[1 : 1 + 2 * body[0] : 2]
            first, last, bits = body[1 + 2 * body[0] : 4 + 2 * body[0]]
            for component in components:
                lacking[component][first : last + 1] = bytes([bits & 15]) * (last + 1 - first)
            if interval:
                across, down = 8 * widest, 8 * highest
                if len(components) == 1:
                    across, down = (
                        8 * most // own
                        for most, own in zip((widest, highest), factors[components[0]], strict=True)
                    )
                intervals = -(-(-(-width // across) * -(-height // down)) // interval)
                stop = len(data) if following is None else following
                if (
                    sum(data.count(bytes((0xFF, marker)), after, stop) for marker in range(0xD0, 0xD8))
                    < intervals - 1
                ):
                    raise _cut("JPEG", "before its last restart interval")
        header = following
    if any(any(bits) for bits in lacking.values()):
        raise _cut("JPEG", "before its last scan")


def _marker_in_scans(data: bytes, at: int) -> int | None:
    """Where the next marker is that is no part of the compressed pixels.

    Beyond the first bytes by arrays, because a hostile scan may hold millions of ``ff``: 64 MB of them take 0.5 s, and
    a regular expression 1.4 s; of a photo both take some 1 ms a megabyte.
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
"""More than the standard's letters: the private chunks that some programs write, and Pillow takes."""
_PNG_TEXTS = frozenset({b"tEXt", b"zTXt", b"iTXt"})
_PNG_PLAIN = frozenset(b"acTL bKGD cHRM cICP cLLI fcTL fdAT gAMA hIST mDCV pHYs sBIT sPLT sRGB tIME".split())
"""About the pixels and nobody: left out, and no metadata."""
_PNG_ONCE = frozenset({b"IHDR", b"PLTE", b"tRNS"})
"""Kept once, and before the pixels, as the standard has them."""
_MAX_FRAMES = 0x80000000


def png(data: bytes) -> Container:
    """Walk a PNG (third edition, section 5): header, palette, transparency and pixels are kept.

    Checksums of what is left out are not looked at. A still with an APNG header is a still.

    Raises:
        ImageRejected: No pixels in it, something that is no chunk before them, or more chunks than any photo has.
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
            # Only the first of each name is read, sound or not: 99,000 that inflate take 8 s.
            if name == b"XML:com.adobe.xmp" and xmp is None:
                xmp = _png_text(kind, rest)
            elif name == b"Raw profile type exif" and exif is None:
                exif = _from_hex(_png_text(kind, rest))
        elif kind == b"acTL" and not pixels_seen:
            animations.append(int.from_bytes(data[body][:4]))
        elif kind == b"fcTL":
            frame_before_pixels |= not pixels_seen
        elif kind not in _PNG_ONCE and kind not in _PNG_PLAIN:
            had_metadata = True
        seen.add(kind)
    if b"IDAT" not in seen:
        raise _cut("PNG", "before its pixels") if b"IEND" not in seen else _broken("PNG", "no pixels in it")
    # Two headers of an animation, or one of more frames than there can be, are none.
    frames = animations[0] if len(animations) == 1 and animations[0] <= _MAX_FRAMES else 0
    frames += frames > 0 and not frame_before_pixels
    return Container(_spans(data, kept), turn(exif, xmp), had_metadata, frames=max(1, frames))


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Each chunk's kind, start and end (with its checksum); the last one's end may lie behind the data's."""
    at = 8
    pixels = False
    for _ in range(MAX_PARTS):
        if at + 8 > len(data):
            return
        length, kind = struct.unpack_from(">I4s", data, at)
        if not _PNG_KIND.fullmatch(kind):
            if pixels:
                return
            raise _broken("PNG", f"no chunk before its pixels: {kind!r}")
        end = at + 12 + length
        if end > len(data) and kind != b"IDAT" and not pixels:
            raise _cut("PNG", f"in chunk {kind.decode()}")
        yield kind, at, end
        pixels |= kind == b"IDAT"
        if kind == b"IEND":
            return
        at = end
    raise _broken("PNG", f"more than {MAX_PARTS} chunks")


def _png_text(kind: bytes, rest: bytes) -> bytes:
    """The start of a text chunk's text, from what follows its keyword."""
    packed = kind == b"zTXt"
    if kind == b"iTXt":
        packed = rest[:1] == b"\1"
        rest = rest[2:].split(b"\0", 2)[-1]
    elif packed:
        rest = rest[1:]
    if packed:
        try:
            rest = zlib.decompressobj().decompress(rest, _INFLATED)
        except zlib.error:
            rest = b""
    return rest


def _from_hex(text: bytes) -> bytes:
    """What ImageMagick wrote as an empty line, a name, a length and lines of hexadecimal digits."""
    digits = b"".join(text.split(b"\n")[3:])
    try:
        return bytes.fromhex(digits[: len(digits) // 2 * 2].decode("ascii"))
    except ValueError:
        return b""


def _spans(data: bytes, spans: list[tuple[int, int]]) -> bytes:
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


def webp(data: bytes) -> Container:
    """Walk a WebP (RFC 9649): canvas, alpha and the first picture are kept, whatever the lengths around them say.

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
            alpha = alpha or _even(data[start:end])
        elif kind in _WEBP_PICTURES:
            picture = picture or _even(data[start:end])
        elif kind == b"EXIF":
            exif, had_metadata = exif or data[start + 8 : end], True
        elif kind == b"XMP ":
            xmp, had_metadata = xmp or data[start + 8 : min(end, start + _INFLATED)], True
        elif kind == b"ICCP":
            had_metadata = True
    chunks = canvas + alpha + picture
    still = b"RIFF" + struct.pack("<I", 4 + len(chunks)) + b"WEBP" + chunks
    return Container(still, turn(exif, xmp), had_metadata, frames=frames)


def _webp_chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Each chunk's kind, start and end without its padding; the end may lie behind the data's."""
    at = 12
    for _ in range(MAX_PARTS):
        if at + 8 > len(data):
            return
        kind, length = struct.unpack_from("<4sI", data, at)
        yield kind, at, at + 8 + length
        at += 8 + length + length % 2
    raise _broken("WEBP", f"more than {MAX_PARTS} chunks")


def _even(chunk: bytes) -> bytes:
    return chunk + b"\0" * (len(chunk) % 2)


def _broken(kind: str, why: str) -> ImageRejected:
    return ImageRejected(RejectCode.CORRUPT, f"{kind}: {why}")


def _cut(kind: str, where: str) -> ImageRejected:
    return ImageRejected(RejectCode.TRUNCATED, f"{kind}: it ends {where}")
