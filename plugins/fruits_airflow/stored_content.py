"""Read what the lake stores for a search, in bounded pieces: text, gzip, and the texts in Parquet and Avro files."""

from __future__ import annotations

import io
import zlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from fruits_airflow.inflate import InflateError, inflate
from fruits_airflow.lake import Lake

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

MAX_INFLATED_BYTES = 8 << 30
_BUFFER_BYTES = 1 << 20
_BATCH_ROWS = 4096


class RangeFile(io.RawIOBase):
    """An object of S3 as a file that can be read at any place: one ranged GET for each read.

    Args:
        client: S3 client.
        bucket: Its bucket.
        key: Its key.
        size_bytes: Its size, as a listing shows it.
    """

    def __init__(self, client: S3Client, bucket: str, key: str, size_bytes: int) -> None:
        super().__init__()
        self._client, self._bucket, self._key, self._size, self._at = client, bucket, key, size_bytes, 0

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move to a place; return it."""
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        return self._at

    def tell(self) -> int:
        """Return the place."""
        return self._at

    def read(self, size: int = -1) -> bytes:
        """Read on from the place."""
        end = self._size if size < 0 else min(self._size, self._at + size)
        if self._at >= end:
            return b""
        ranged = f"bytes={self._at}-{end - 1}"
        content = self._client.get_object(Bucket=self._bucket, Key=self._key, Range=ranged)["Body"].read()
        self._at += len(content)
        return content

    def readinto(self, buffer: Any) -> int:
        """Read on into a buffer; return the number of bytes."""
        content = self.read(len(buffer))
        buffer[: len(content)] = content
        return len(content)


class StoredObject(NamedTuple):
    """An object as a listing of the lake shows it."""

    key: str
    size_bytes: int


def list_objects(lake: Lake, prefix: str) -> Iterator[StoredObject]:
    """List the lake's objects below a prefix."""
    pages = lake.client.get_paginator("list_objects_v2").paginate(Bucket=lake.bucket, Prefix=prefix)
    for page in pages:
        yield from (StoredObject(entry["Key"], entry["Size"]) for entry in page.get("Contents", []))


def open_object(lake: Lake, stored: StoredObject) -> io.BufferedReader:
    """Open an object of the lake for reading in pieces, at any place."""
    return io.BufferedReader(
        RangeFile(lake.client, lake.bucket, stored.key, stored.size_bytes), _BUFFER_BYTES
    )


def text_pieces(file: io.BufferedReader | io.BytesIO) -> Iterator[bytes]:
    """Yield the content of a file as text: inflated, and of Parquet and Avro files what their cells and blocks hold.

    Raises:
        InflateError: The file is truncated or corrupt, or inflates to more than MAX_INFLATED_BYTES.
    """
    magic = file.read(4)
    file.seek(0)
    if magic == b"PAR1":
        return _parquet_texts(file)
    return _avro_blocks(file) if magic == b"Obj\x01" else inflate(file, MAX_INFLATED_BYTES)


def _parquet_texts(file: Any) -> Iterator[bytes]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        for batch in pq.ParquetFile(file).iter_batches(_BATCH_ROWS):
            for column in batch.columns:
                if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
                    yield "\n".join(filter(None, column.to_pylist())).encode() + b"\n"
    except (pa.ArrowInvalid, OSError) as error:
        raise InflateError(f"the Parquet file is corrupt: {error}") from error


def _avro_blocks(file: Any) -> Iterator[bytes]:
    """Yield an Avro container's blocks: after the header, each is a count, a size, the data and the sync marker."""
    file.read(4)
    codec = b"null"
    while count := _avro_long(file):
        if count < 0:  # then the size of these entries comes first
            _avro_long(file)
        for _ in range(abs(count)):
            name, value = (file.read(max(0, _avro_long(file))) for _ in range(2))
            codec = value if name == b"avro.codec" else codec
            yield value
    sync = file.read(16)
    while file.read(1):
        file.seek(-1, io.SEEK_CUR)
        _avro_long(file)
        yield from _inflated_block(file.read(max(0, _avro_long(file))), codec)
        if file.read(16) != sync:
            raise InflateError("the Avro file is truncated or corrupt")


def _inflated_block(block: bytes, codec: bytes) -> Iterator[bytes]:
    if codec == b"null":
        yield block
        return
    if codec != b"deflate":
        raise InflateError(f"the Avro file is packed as {codec[:20]!r}; only null and deflate can be read")
    unpacker = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        while block and not unpacker.eof:
            yield unpacker.decompress(block, _BUFFER_BYTES)
            block = unpacker.unconsumed_tail
    except zlib.error as error:
        raise InflateError(f"the Avro file is corrupt: {error}") from error


def _avro_long(file: Any) -> int:
    value = shift = 0
    while (byte := file.read(1)) and shift < 64:
        value |= (byte[0] & 0x7F) << shift
        shift += 7
        if byte[0] < 0x80:
            return (value >> 1) ^ -(value & 1)
    raise InflateError("the Avro file is truncated")
