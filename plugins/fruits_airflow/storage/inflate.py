"""Inflation of gzip in bounded pieces: 4 MB of gzip can hold gigabytes, which shows only when it is inflated."""

import io
import zlib
from collections.abc import Iterator
from typing import Protocol

from fruits_airflow.config.errors import FruitsError

GZIP_MAGIC = b"\x1f\x8b"
PIECE_BYTES = 64 * 1024
_READ_BYTES = 1024  # zlib discards the output of the call that finds an error, so that a call is kept small
_GZIP_WBITS = 31


class InflateError(FruitsError):
    """Content is truncated, corrupt, or inflates to more than its reader accepts."""


class Readable(Protocol):
    """A stream of bytes, such as the body of an S3 object."""

    def read(self, amt: int, /) -> bytes:
        """Return at most `amt` bytes, none at the end."""


def inflate(content: bytes | Readable, max_bytes: int) -> Iterator[bytes]:
    """Yield the inflated content in pieces of at most PIECE_BYTES; content that is not gzip is yielded as it is.

    Several gzip members after one another count as one.

    Raises:
        InflateError: The gzip is truncated or corrupt, or the content is larger than `max_bytes`. What could be read
            before has been yielded.
    """
    total = 0
    for piece in _pieces(io.BytesIO(content) if isinstance(content, bytes) else content):
        total += len(piece)
        if total > max_bytes:
            if fits := piece[: max_bytes - total]:
                yield fits
            raise InflateError(f"the content is larger than {max_bytes:,} bytes, so the rest of it is not read")
        yield piece


def _pieces(stream: Readable) -> Iterator[bytes]:
    pending = _read_magic(stream)
    if not pending.startswith(GZIP_MAGIC):
        while pending:
            yield pending
            pending = stream.read(PIECE_BYTES)
        return
    member = zlib.decompressobj(_GZIP_WBITS)
    try:
        while pending or (pending := stream.read(_READ_BYTES)):
            if piece := member.decompress(pending, PIECE_BYTES):
                yield piece
            pending = member.unconsumed_tail
            if member.eof:
                pending = member.unused_data.lstrip(b"\0") or stream.read(_READ_BYTES).lstrip(b"\0")
                if not pending:
                    return
                member = zlib.decompressobj(_GZIP_WBITS)
        # A full piece leaves output inside zlib although all input is consumed.
        while piece := member.decompress(b"", PIECE_BYTES):
            yield piece
    except zlib.error as error:
        raise InflateError(f"the gzip is corrupt: {error}") from error
    if not member.eof:
        raise InflateError("the gzip is truncated: its end is missing")


def _read_magic(stream: Readable) -> bytes:
    start = stream.read(_READ_BYTES)
    while start and len(start) < len(GZIP_MAGIC) and (more := stream.read(1)):
        start += more
    return start
