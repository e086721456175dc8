"""Read what the lake stores for a search, in bounded pieces: text, gzip, and the texts in Parquet files."""

import io
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fruits_airflow.config.aws_types import S3Client
from fruits_airflow.storage.inflate import InflateError, inflate
from fruits_airflow.storage.lake import Lake, StoredObject

MAX_INFLATED_BYTES = 8 << 30
MAX_MEMORY_BYTES = 2 << 30  # a row group of a million rows of an export takes some 500 MB
_BUFFER_BYTES = 1 << 20
_BATCH_ROWS = 4096


class RangeFile(io.RawIOBase):
    """An object of S3, of a listed size, as a file that can be read at any place: one ranged GET for each read."""

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

    def readinto(self, buffer: Any) -> int:
        """Read on into a buffer; return the number of bytes."""
        end = min(self._size, self._at + len(buffer))
        if self._at >= end:
            return 0
        span = f"bytes={self._at}-{end - 1}"
        content = self._client.get_object(Bucket=self._bucket, Key=self._key, Range=span)["Body"].read()
        self._at += len(content)
        buffer[: len(content)] = content
        return len(content)


def open_object(lake: Lake, stored: StoredObject) -> io.BufferedReader:
    """Open an object of the lake for reading in pieces, at any place."""
    return io.BufferedReader(RangeFile(lake.client, lake.bucket, stored.key, stored.size_bytes), _BUFFER_BYTES)


def text_pieces(file: io.BufferedReader | io.BytesIO) -> Iterator[bytes]:
    """Yield the content of a file as text: inflated, and of a Parquet file what its cells hold.

    Raises:
        InflateError: The file is truncated or corrupt, inflates to more than MAX_INFLATED_BYTES, or is an Avro file:
            these lie among the tables, where the Spark step rewrites them, and nowhere else.
    """
    magic = file.read(4)
    file.seek(0)
    if magic == b"Obj\x01":
        raise InflateError("it is an Avro file, which no run writes here")
    return _parquet_texts(file) if magic == b"PAR1" else inflate(file, MAX_INFLATED_BYTES)


@contextmanager
def bounded_memory() -> Iterator[None]:
    """Bound what this process may take more, as only the operating system can (ADR 16; macOS does not).

    A Parquet file of a kilobyte, which a node may write, can hold gigabytes in one cell: reading it then fails, and
    counts as unreadable, as a corrupt file does.
    """
    before = resource.getrlimit(resource.RLIMIT_AS)
    if (pages := Path("/proc/self/statm")).exists():
        taken = int(pages.read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (taken + MAX_MEMORY_BYTES, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


@contextmanager
def parquet_errors() -> Iterator[None]:
    """Raise an InflateError for a Parquet file that cannot be read: any node can write such a file.

    Raises:
        InflateError: The content is not Parquet, is truncated or corrupt, or holds what Python cannot represent.
    """
    import pyarrow as pa

    try:
        yield
    except (pa.ArrowException, ArithmeticError, LookupError, MemoryError, OSError, TypeError, ValueError) as error:
        raise InflateError(f"the Parquet file is corrupt or too large: {error}") from error


def text_columns(schema: Any) -> list[str]:
    """Return the names of the columns of an Arrow schema that hold text."""
    import pyarrow as pa

    is_text = (pa.types.is_string, pa.types.is_large_string)
    return [field.name for field in schema if any(check(field.type) for check in is_text)]


def parquet_cells(file: Any, column: str) -> Iterator[Any]:
    """Yield the cells of a column of a Parquet file; nothing for a file without the column.

    Raises:
        InflateError: The file cannot be read.
    """
    import pyarrow.parquet as pq

    with parquet_errors():
        source = pq.ParquetFile(file)
        if column in source.schema_arrow.names:
            for batch in source.iter_batches(_BATCH_ROWS, columns=[column]):
                yield from batch.column(column).to_pylist()


def _parquet_texts(file: Any) -> Iterator[bytes]:
    import pyarrow.parquet as pq

    with parquet_errors():
        source = pq.ParquetFile(file)
        columns = text_columns(source.schema_arrow)
        for batch in source.iter_batches(_BATCH_ROWS, columns=columns) if columns else ():
            for column in batch.columns:
                yield "\n".join(filter(None, column.to_pylist())).encode() + b"\n"
