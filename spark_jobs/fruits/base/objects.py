"""Objects by URI, in S3 and in plain folders alike.

obstore reads S3 with a single GET for each object. It cannot request every key unchanged: it refuses ``a//b``, ``.``,
``..`` and control characters, and strips a slash at either end; boto3 reads these. The driver finds the S3 endpoint
once (`find_s3`) and passes it to the executors, whose environment may name no region. Credentials are never passed on.
"""

import contextlib
import os
import re
import shutil
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
    """The endpoint and region of S3: all that an executor needs besides its own credentials."""

    endpoint: str
    region: str


@dataclass(frozen=True)
class ObjectPath:
    """A key in a bucket, or an absolute path in the local file system, whose bucket is None."""

    bucket: str | None
    key: str


def parse_uri(uri: str) -> ObjectPath:
    """Parse ``s3://bucket/key``, ``file:///path`` or a plain path.

    Raises:
        InputError: The URI has another scheme, or no bucket.
    """
    if not re.match(r"^[A-Za-z][A-Za-z0-9+.-]+://|^file:", uri):
        return ObjectPath(None, str(Path(uri).absolute()))
    if uri.startswith("file:"):
        return ObjectPath(None, unquote(urlsplit(uri).path))
    scheme, rest = uri.split("://", 1)
    bucket, _, key = rest.partition("/")
    if scheme not in ("s3", "s3a") or not bucket:
        raise InputError(f"cannot use {uri!r}: give s3://bucket/key, file:///path or a path")
    return ObjectPath(bucket, key)


def join(uri: str, name: str) -> str:
    """Append a name to a folder's URI or path."""
    return f"{uri.rstrip('/')}/{name}"


@lru_cache(maxsize=1)
def find_s3() -> S3Location:
    """Find the S3 endpoint and region as boto3 does: environment, then configuration, then instance metadata.

    boto3 knows the endpoint of every partition (``eusc-de-east-1`` is under another domain); obstore knows only one.

    Raises:
        InputError: No region is set.
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


def find_s3_for(*uris: str) -> S3Location | None:
    """Find S3 if any of the URIs is in it; None otherwise."""
    return find_s3() if any(parse_uri(uri).bucket for uri in uris) else None


@lru_cache(maxsize=8)
def open_store(bucket: str, s3: S3Location) -> S3Store:
    """Open a bucket, once per process, because a store holds its connections and credentials."""
    return S3Store(
        bucket,
        endpoint=s3.endpoint,
        region=s3.region,
        client_options={"allow_http": s3.endpoint.startswith("http://"), "connect_timeout": "10s", "timeout": "120s"},
    )


@lru_cache(maxsize=1)
def open_boto3_client(s3: S3Location) -> Any:
    """Open a boto3 S3 client, once per process, for the few keys that obstore cannot request."""
    import boto3
    from botocore.config import Config

    return boto3.client(
        "s3",
        endpoint_url=s3.endpoint,
        region_name=s3.region,
        config=Config(s3={"addressing_style": "path"}, retries={"mode": "standard", "max_attempts": 5}),
    )


def is_plain_key(key: str) -> bool:
    """Return whether obstore requests exactly this key."""
    return not _CONTROL.search(key) and not any(part in ("", ".", "..") for part in key.split("/"))


def read_bytes(uri: str) -> bytes:
    """Read a whole object.

    Raises:
        FileNotFoundError: There is no such object.
        ObjectAccessError: The object cannot be read for another reason.
    """
    path = parse_uri(uri)
    if path.bucket is None:
        return Path(path.key).read_bytes()
    with _access("read", uri):
        return obstore.get(open_store(path.bucket, find_s3()), path.key).bytes().to_bytes()


def exists(uri: str) -> bool:
    """Return whether there is such an object.

    Raises:
        ObjectAccessError: S3 does not say.
    """
    path = parse_uri(uri)
    if path.bucket is None:
        return Path(path.key).exists()
    try:
        with _access("find", uri):
            obstore.head(open_store(path.bucket, find_s3()), path.key)
    except FileNotFoundError:
        return False
    return True


def list_objects(folder: str) -> list[str]:
    """List the URIs of the objects in a folder, sorted; empty when there is no such folder.

    Raises:
        ObjectAccessError: The bucket cannot be listed.
    """
    path = parse_uri(folder)
    if path.bucket is None:
        local = Path(path.key)
        return sorted(str(entry) for entry in local.iterdir() if entry.is_file()) if local.is_dir() else []
    with _access("list", folder):
        pages = obstore.list(open_store(path.bucket, find_s3()), f"{path.key.strip('/')}/")
        return sorted(f"s3://{path.bucket}/{entry['path']}" for page in pages for entry in page)


def write_bytes(uri: str, data: bytes) -> None:
    """Write a whole object, visible only when complete; it replaces an object of that name."""
    with writer(uri, None) as out:
        out.write(data)


@contextlib.contextmanager
def writer(uri: str, s3: S3Location | None) -> Iterator[BinaryIO]:
    """Write an object of any size through a local temporary file; nothing appears when the body raises.

    `s3` is the driver's `find_s3`; None finds S3 in this process.
    """
    with tempfile.TemporaryFile() as file:
        yield file
        file.seek(0)
        _put(uri, file, s3)


@contextlib.contextmanager
def open_arrow(uri: str, s3: S3Location | None) -> Iterator[pa.NativeFile]:
    """Open an object for random access by pyarrow, which reads only the ranges that it needs.

    Raises:
        FileNotFoundError: There is no such object.
        ObjectAccessError: The object cannot be opened for another reason.
    """
    path = parse_uri(uri)
    if path.bucket is None:
        with pa.OSFile(path.key) as file:
            yield file
        return
    with _access("read", uri):
        reader = obstore.open_reader(open_store(path.bucket, s3 or find_s3()), path.key)
    yield pa.PythonFile(_Readable(reader), mode="r")


class _Readable:
    """Adapter from obstore's reader to the file object that pyarrow expects: `bytes` results and a `closed` flag."""

    def __init__(self, reader: Any) -> None:
        self._reader = reader
        self.closed = False

    def read(self, size: int | None = None) -> bytes:
        return bytes(self._reader.read(size) if size is not None and size >= 0 else self._reader.readall())

    def seek(self, offset: int, whence: int = 0) -> int:
        return int(self._reader.seek(offset, whence))

    def tell(self) -> int:
        return int(self._reader.tell())

    def close(self) -> None:
        self.closed = True


def _put(uri: str, file: Any, s3: S3Location | None) -> None:
    path = parse_uri(uri)
    if path.bucket is not None:
        with _access("write", uri):
            store = open_store(path.bucket, s3 or find_s3())
            obstore.put(store, path.key, file, chunk_size=_MULTIPART_FROM)
        return
    target = Path(path.key)
    target.parent.mkdir(parents=True, exist_ok=True)
    # The name does not begin with a dot: Iceberg ignores hidden files and would keep what a killed job leaves.
    with tempfile.NamedTemporaryFile(dir=target.parent, prefix=f"{target.name}.", delete=False) as out:
        try:
            shutil.copyfileobj(file, out, 1 << 20)
            out.close()
            # Only its owner can read a temporary file; other users must be able to read a job's results.
            Path(out.name).chmod(0o644)
            Path(out.name).replace(target)
        except BaseException:
            Path(out.name).unlink(missing_ok=True)
            raise


@contextlib.contextmanager
def _access(verb: str, uri: str) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise FileNotFoundError(f"there is no {uri}") from error
    except Exception as error:
        raise ObjectAccessError(f"could not {verb} {uri}: {str(error).splitlines()[0][:300]}") from error


def local_etag(path: Path) -> str:
    """Identify the state of a local file by its modification time and size, without reading it."""
    stat = path.stat()
    return f"{stat.st_mtime_ns:x}-{stat.st_size:x}"
