"""List the objects below a prefix of a bucket, in the order of their keys, many folders at once.

S3 returns pages of 1,000 keys one after another, so a million keys take minutes. Folders are independent and are listed
in parallel; a folder listed before its turn waits in a file, not in memory.
"""

import json
import tempfile
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from typing import IO, Any

from fruits_airflow.config.aws_types import S3Client
from fruits_airflow.config.errors import ListingIncomplete
from fruits_airflow.storage.listing import ListedObject

WORKERS = 10
"""Folders listed at once: the size of the connection pool of boto3."""

AHEAD = 64
"""Folders listed ahead of the reader; each may hold an open file and `IN_MEMORY` bytes."""

ENOUGH = 2 * WORKERS
"""Number of folders from which deeper levels are not split."""

LEVELS = 4
IN_MEMORY = 256 * 1024


@dataclass(frozen=True)
class _Folder:
    """A prefix to list; `is_flat` if it holds more than a page of objects, and so is listed page by page."""

    key: str
    is_flat: bool = False


def list_objects(client: S3Client, bucket: str, prefix: str, owner: str | None = None) -> Iterator[ListedObject]:
    """List the objects below `prefix`, in the order of their keys, without markers of empty folders.

    S3 denies the request when the bucket does not belong to the account `owner`.

    Raises:
        ListingIncomplete: A page contradicts itself, so that keys may be missing.
    """
    request = {"Bucket": bucket} | ({"ExpectedBucketOwner": owner} if owner else {})
    pool = ThreadPoolExecutor(WORKERS, thread_name_prefix="list")
    try:
        parts: list[_Folder | ListedObject] = [_Folder(prefix)]
        for _ in range(LEVELS):
            unsplit = [part for part in parts if isinstance(part, _Folder) and not part.is_flat]
            if not unsplit or len(unsplit) >= ENOUGH:
                break
            levels = pool.map(lambda part: _list_level(client, request, part.key), unsplit)
            contents = dict(zip(unsplit, levels, strict=True))
            parts = [
                inner
                for part in parts
                for inner in (contents.get(part, [part]) if isinstance(part, _Folder) else [part])
            ]
        yield from _in_order(pool, client, request, parts)
    finally:
        pool.shutdown(cancel_futures=True)


def _list_level(client: S3Client, request: dict[str, str], prefix: str) -> list[_Folder | ListedObject]:
    """Return the objects and folders of a level in order; the folder itself if it has more than a page of objects."""
    parts: list[_Folder | ListedObject] = []
    for page in _pages(client, **request, Prefix=prefix, Delimiter="/"):
        objects = _objects(page)
        if objects and page["IsTruncated"]:
            return [_Folder(prefix, is_flat=True)]
        parts += objects
        parts += [_Folder(folder["Prefix"]) for folder in page.get("CommonPrefixes", [])]
    return sorted(parts, key=lambda part: part.key)


def _in_order(
    pool: ThreadPoolExecutor, client: S3Client, request: dict[str, str], parts: list[_Folder | ListedObject]
) -> Iterator[ListedObject]:
    waiting: deque[tuple[_Folder | ListedObject, Future[IO[str]] | None]] = deque()
    rest = iter(parts)
    running = 0
    while True:
        while running < AHEAD and (part := next(rest, None)) is not None:
            future = pool.submit(_spool, client, request, part.key) if isinstance(part, _Folder) else None
            running += future is not None
            waiting.append((part, future))
        if not waiting:
            return
        part, future = waiting.popleft()
        if isinstance(part, ListedObject):
            yield part
        if future is None:
            continue
        with future.result() as spool:
            running -= 1
            for line in spool:
                yield from (ListedObject(*row) for row in json.loads(line))


def _spool(client: S3Client, request: dict[str, str], prefix: str) -> IO[str]:
    """List a folder into a file, one line per page; a small folder stays in memory."""
    spool = tempfile.SpooledTemporaryFile(IN_MEMORY, "w+", encoding="utf-8", newline="\n")  # noqa: SIM115
    try:
        for page in _pages(client, **request, Prefix=prefix):
            spool.write(json.dumps(_objects(page)) + "\n")
        spool.seek(0)
    except BaseException:
        spool.close()
        raise
    return spool


def _pages(client: S3Client, **request: str) -> Iterator[Any]:
    page: Any = client.list_objects_v2(**request)  # type: ignore[arg-type]
    _require_complete(page, request)
    yield page
    while page["IsTruncated"]:
        page = client.list_objects_v2(ContinuationToken=page["NextContinuationToken"], **request)  # type: ignore[arg-type]
        _require_complete(page, request)
        yield page


def _require_complete(page: Any, request: dict[str, str]) -> None:
    """Refuse a truncated page: the keys that it lacks would count as removed photos."""
    entries = len(page.get("Contents", [])) + len(page.get("CommonPrefixes", []))
    is_truncated = page.get("IsTruncated")
    if (
        is_truncated not in (True, False)
        or is_truncated != bool(page.get("NextContinuationToken"))
        or page.get("KeyCount", entries) != entries
    ):
        raise ListingIncomplete(
            f"s3://{request['Bucket']}/{request['Prefix']}: a page of the listing has {entries} entries and says "
            f"KeyCount {page.get('KeyCount')}, IsTruncated {is_truncated}; nothing was removed: clear plan to list "
            "again, and look for a proxy that changes answers of S3"
        )


def _objects(page: Any) -> list[ListedObject]:
    return [
        ListedObject(item["Key"], item["ETag"].strip('"'), item["Size"], _seconds(item.get("LastModified")))
        for item in page.get("Contents", [])
        if not (item["Size"] == 0 and item["Key"].endswith("/"))
    ]


def _seconds(time: datetime | None) -> int:
    return int(time.timestamp()) if time else 0
