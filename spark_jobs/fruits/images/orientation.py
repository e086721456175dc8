"""The orientation of a photo in its EXIF or XMP; broken metadata is ignored.

Pillow does not read it, because it parses every tag: an EXIF of 64 kB with thousands of overlapping tags costs it
seconds, and a broken EXIF raises an exception around sound pixels.
"""

import re
import struct

UPRIGHT = 1

_TAG = 0x0112
_VALUES = {3: "H", 4: "I", 8: "h", 9: "i"}
"""The TIFF types of this tag: the standard's SHORT, and the whole numbers that some writers use instead."""
_XMP = re.compile(rb"""tiff:Orientation(?:=["']|>)([1-8])""")
_XMP_BYTES = 64 * 1024


def read_orientation(exif: bytes | None, xmp: bytes | None = None) -> int:
    r"""Read the orientation.

    Args:
        exif: A TIFF block (EXIF 2.3, section 4.6.2), with or without ``Exif\0\0`` before it.
        xmp: An XMP packet, read only where EXIF has no orientation.

    Returns:
        1 to 8, as EXIF numbers them; 1 where neither has a valid value.

    >>> read_orientation(b"MM\0*" + bytes.fromhex("00000008 0001 0112 0003 00000001 0006 0000"))
    6
    >>> read_orientation(b"MM\0* and then noise", b'<x tiff:Orientation="8"/>')
    8
    """
    orientation = _from_exif(exif) if exif else None
    if orientation is None and xmp and (match := _XMP.search(xmp[:_XMP_BYTES])):
        orientation = int(match[1])
    return orientation if orientation and 1 <= orientation <= 8 else UPRIGHT


def _from_exif(exif: bytes) -> int | None:
    while exif[:6] == b"Exif\0\0":
        exif = exif[6:]
    order = {b"II": "<", b"MM": ">"}.get(exif[:2])
    if order is None or exif[2:4] not in (b"*\0", b"\0*"):
        return None
    try:
        (at,) = struct.unpack_from(order + "I", exif, 4)
        (count,) = struct.unpack_from(order + "H", exif, at)
        for entry in range(at + 2, at + 2 + 12 * count, 12):
            tag, kind, values = struct.unpack_from(order + "HHI", exif, entry)
            if tag == _TAG:
                form = order + _VALUES[kind]
                inline = 1 <= values <= 4 // struct.calcsize(form)
                return int(struct.unpack_from(form, exif, entry + 8)[0]) if inline else None
    except (struct.error, KeyError):  # a directory beyond the end; another type
        return None
    return None
