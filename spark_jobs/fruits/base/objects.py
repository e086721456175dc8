"""Objects by URI, in S3 and in plain folders alike: read, write, and fetch many at once.

S3 is read by obstore (one GET an object, no HEAD before it). A few keys obstore cannot carry unchanged: it refuses
``a//b``, ``.``, ``..`` and control characters, and strips a slash at either end without a word; these go through
boto3. The driver finds out once where S3 is (`where_is_s3`) and hands that to the executors, whose environment may
name no region; credentials are never handed on, each process finds its own.
"""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import unquote, urlsplit

import obstore
import pyarrow as pa
from obstore.store import S3Store

from fruits.base.errors import InputError, ObjectAccessError

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_MULTIPART_FROM = 8 * 1024 * 1024


@dataclass(frozen=True)
class S3Location:
    """Where S3 answers: what an executor needs besides its own credentials."""

    endpoint: str
    region: str


@dataclass(frozen=True)
class Place:
    """A bucket, or the local file system, with a key or path in it.

    Attributes:
        bucket: Bucket name; None for the local file system.
        key: Object key, or absolute path.
    """

    bucket: str | None
    key: str


def place(uri: str) -> Place:
    """Read ``s3://bucket/key``, ``file:///path`` or a plain path.

    Raises:
        InputError: The URI has another scheme, or no bucket.
    """
    if not re.match(r"^[A-Za-z][A-Za-z0-9+.-]+://|^file:", uri):
        return Place(None, str(Path(uri).absolute()))
    if uri.startswith("file:"):
        return Place(None, unquote(urlsplit(uri).path))
    scheme, rest = uri.split("://", 1)
    bucket, _, key = rest.partition("/")
    if scheme not in ("s3", "s3a") or not bucket:
        raise InputError(f"cannot use {uri!r}: give s3://bucket/key, file:///path or a path")
    return Place(bucket, key)


def join(uri: str, name: str) -> str:
    """Append a name to a folder's URI or path."""
    return f"{uri.rstrip('/')}/{name}"


@lru_cache(maxsize=1)
def where_is_s3() -> S3Location:
    """Find S3's endpoint and region as boto3 does: environment, then configuration, then instance metadata.

    boto3 knows the endpoint of every partition (``eusc-de-east-1`` is under another domain), obstore only one.
    """
    import boto3  # type: ignore[import-untyped]
    from botocore.utils import IMDSRegionProvider

    session = boto3.Session()
    region = os.environ.get("AWS_REGION") or session.region_name
    if region is None:
        with contextlib.suppress(Exception):
            region = IMDSRegionProvider(session._session).provide()
    if region is None:
        raise InputError("no AWS region is set: export AWS_REGION, for example eu-west-1")
    return S3Location(str(session.client("s3", region_name=region).meta.endpoint_url), region)


@lru_cache(maxsize=8)
def store(bucket: str, s3: S3Location) -> S3Store:
    """Open a bucket; kept per process, because a store holds its connections and its credentials."""
    return S3Store(
        bucket,
        endpoint=s3.endpoint,
        region=s3.region,
        client_options={
            "allow_http": s3.endpoint.startswith("http://"),
            "connect_timeout": "10s",
            "timeout": "120s",
        },
    )


@lru_cache(maxsize=1)
def boto3_client(s3: S3Location) -> Any:
    """Open a boto3 S3 client for the few keys that obstore cannot carry; kept per process."""
    import boto3
    from botocore.config import Config

    return boto3.client(
        "s3",
        endpoint_url=s3.endpoint,
        region_name=s3.region,
        config=Config(s3={"addressing_style": "path"}, retries={"mode": "standard", "max_attempts": 5}),
    )


def carried_by_obstore(key: str) -> bool:
    """Tell whether obstore asks for exactly this key."""
    return not _CONTROL.search(key) and not any(part in ("", ".", "..") for part in key.split("/"))


def read_bytes(uri: str) -> bytes:
    """Read one whole object.

    Raises:
        FileNotFoundError: There is no such object.
        ObjectAccessError: It could not be read for another reason.
    """
    where = place(uri)
    if where.bucket is None:
        return Path(where.key).read_bytes()
    with _access("read", uri):
        return obstore.get(store(where.bucket, where_is_s3()), where.key).bytes().to_bytes()


def listed(folder: str) -> list[str]:
    """Name the objects in a folder, sorted; none when there is no such folder.

    Raises:
        ObjectAccessError: The bucket could not be listed.
    """
    where = place(folder)
    if where.bucket is None:
        path = Path(where.key)
        return sorted(str(entry) for entry in path.iterdir() if entry.is_file()) if path.is_dir() else []
    with _access("list", folder):
        pages = obstore.list(store(where.bucket, where_is_s3()), f"{where.key.strip('/')}/")
        return sorted(f"s3://{where.bucket}/{found['path']}" for page in pages for found in page)


def write_bytes(uri: str, data: bytes) -> None:
    """Write one whole object, visible only when complete; an object of that name is replaced."""
    with tempfile.SpooledTemporaryFile() as file:
        file.write(data)
        file.seek(0)
        _put(uri, file)


@contextlib.contextmanager
def writer(uri: str, s3: S3Location | None) -> Iterator[BinaryIO]:
    """Write one object of any size through a local temporary file; nothing appears when the body raises.

    Args:
        uri: Where to.
        s3: `where_is_s3` of the driver, None to look here.
    """
    with tempfile.TemporaryFile() as file:
        yield file
        file.seek(0)
        _put(uri, file, s3)


@contextlib.contextmanager
def open_arrow(uri: str, s3: S3Location | None) -> Iterator[pa.NativeFile]:
    """Open an object for random access by pyarrow; only the ranges asked for are read.

    Raises:
        FileNotFoundError: There is no such object.
        ObjectAccessError: It could not be opened for another reason.
    """
    where = place(uri)
    if where.bucket is None:
        with pa.OSFile(where.key) as file:
            yield file
        return
    with _access("read", uri):
        reader = obstore.open_reader(store(where.bucket, s3 or where_is_s3()), where.key)
    yield pa.PythonFile(_Readable(reader), mode="r")


class _Readable:
    """obstore's reader as the file object that pyarrow wants: `bytes` out, and a `closed` that it can ask."""

    def __init__(self, reader: Any) -> None:
        self._reader = reader
        self.closed = False

    def read(self, size: int | None = None) -> bytes:
        """Read up to `size` bytes, all that is left by default."""
        return bytes(self._reader.read(size) if size is not None and size >= 0 else self._reader.readall())

    def seek(self, offset: int, whence: int = 0) -> int:
        """Move, counted from the start (0), from here (1) or from the end (2)."""
        return int(self._reader.seek(offset, whence))

    def tell(self) -> int:
        """Tell the position in bytes."""
        return int(self._reader.tell())

    def close(self) -> None:
        """Let go of the object."""
        self.closed = True


def _put(uri: str, file: Any, s3: S3Location | None = None) -> None:
    where = place(uri)
    if where.bucket is None:
        path = Path(where.key)
        path.parent.mkdir(parents=True, exist_ok=True)
        # Not hidden by a dot: Iceberg takes hidden files for nobody's, and would not remove what a killed job leaves.
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f"{path.name}.", delete=False) as out:
            try:
                while chunk := file.read(1 << 20):
                    out.write(chunk)
                out.close()
                # A temporary file is readable by its owner only; what a job leaves is for others too.
                Path(out.name).chmod(0o644)
                Path(out.name).replace(path)
            except BaseException:
                Path(out.name).unlink(missing_ok=True)
                raise
        return
    with _access("write", uri):
        obstore.put(store(where.bucket, s3 or where_is_s3()), where.key, file, chunk_size=_MULTIPART_FROM)


@contextlib.contextmanager
def _access(verb: str, uri: str) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise FileNotFoundError(f"there is no {uri}") from error
    except Exception as error:
        raise ObjectAccessError(f"could not {verb} {uri}: {str(error).splitlines()[0][:300]}") from error


def local_etag(path: Path) -> str:
    """Tell one state of a local file from another, without reading it: its time of change and its size."""
    stat = path.stat()
    return f"{stat.st_mtime_ns:x}-{stat.st_size:x}"
