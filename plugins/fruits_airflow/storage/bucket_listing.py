"""A bucket's objects below a prefix: listed once, page by page, many folders at once, in the order of their keys.

S3 gives 1,000 keys a page and each page only after the one before it: a million keys in a row take minutes. Folders
are independent of each other, so they are listed side by side; what comes early waits in a file, not in memory.
"""

from __future__ import annotations

import json
import tempfile
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from typing import IO, TYPE_CHECKING, Any

from fruits_airflow.config.errors import ListingIncomplete
from fruits_airflow.storage.listing import ListedObject

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

WORKERS = 10
"""Folders listed at once: as many as boto3 keeps connections."""

AHEAD = 64
"""Folders begun before the first of them has been read: each may hold an open file and `IN_MEMORY` bytes."""

ENOUGH = 2 * WORKERS
"""With as many folders in sight, no deeper level is looked into."""

LEVELS = 4
IN_MEMORY = 256 * 1024


@dataclass(frozen=True)
class _Folder:
    """A prefix still to be listed; `whole` once looking into it showed that it has to be listed page by page."""

    key: str
    whole: bool = False


def list_objects(
    client: S3Client, bucket: str, prefix: str, owner: str | None = None
) -> Iterator[ListedObject]:
    """Lists the objects below `prefix`, in the order of their keys; markers of empty folders are left out.

    Args:
        client: S3 client.
        bucket: The bucket.
        prefix: What the keys begin with.
        owner: The account that the bucket must belong to; S3 denies the request when it belongs to another.

    Raises:
        ListingIncomplete: A page contradicts itself, so that keys may be missing.
    """
    asked = {"Bucket": bucket} | ({"ExpectedBucketOwner": owner} if owner else {})
    pool = ThreadPoolExecutor(WORKERS, thread_name_prefix="list")
    try:
        parts: list[_Folder | ListedObject] = [_Folder(prefix)]
        for _ in range(LEVELS):
            unseen = [part for part in parts if isinstance(part, _Folder) and not part.whole]
            if not unseen or len(unseen) >= ENOUGH:
                break
            seen = dict(
                zip(unseen, pool.map(lambda part: _look_into(client, asked, part.key), unseen), strict=True)
            )
            parts = [
                inner
                for part in parts
                for inner in (seen.get(part, [part]) if isinstance(part, _Folder) else [part])
            ]
        yield from _in_order(pool, client, asked, parts)
    finally:
        pool.shutdown(cancel_futures=True)


def _look_into(client: S3Client, asked: dict[str, str], prefix: str) -> list[_Folder | ListedObject]:
    """One level: its objects and folders in order; the folder itself, if it holds more than a page of objects."""
    found: list[_Folder | ListedObject] = []
    for page in _pages(client, **asked, Prefix=prefix, Delimiter="/"):
        objects = _objects(page)
        if objects and page["IsTruncated"]:
            return [_Folder(prefix, whole=True)]
        found += objects
        found += [_Folder(folder["Prefix"]) for folder in page.get("CommonPrefixes", [])]
    return sorted(found, key=lambda part: part.key)


def _in_order(
    pool: ThreadPoolExecutor, client: S3Client, asked: dict[str, str], parts: list[_Folder | ListedObject]
) -> Iterator[ListedObject]:
    waiting: deque[tuple[_Folder | ListedObject, Future[IO[str]] | None]] = deque()
    rest = iter(parts)
    begun = 0
    while True:
        while begun < AHEAD and (part := next(rest, None)) is not None:
            future = pool.submit(_spooled, client, asked, part.key) if isinstance(part, _Folder) else None
            begun += future is not None
            waiting.append((part, future))
        if not waiting:
            return
        part, future = waiting.popleft()
        if isinstance(part, ListedObject):
            yield part
        if future is None:
            continue
        with future.result() as spool:
            begun -= 1
            for line in spool:
                yield from (ListedObject(*row) for row in json.loads(line))


def _spooled(client: S3Client, asked: dict[str, str], prefix: str) -> IO[str]:
    """Lists one folder to its end into a file, a line a page; only a small one stays in memory."""
    spool = tempfile.SpooledTemporaryFile(IN_MEMORY, "w+", encoding="utf-8", newline="\n")  # noqa: SIM115
    try:
        for page in _pages(client, **asked, Prefix=prefix):
            spool.write(json.dumps(_objects(page)) + "\n")
        spool.seek(0)
    except BaseException:
        spool.close()
        raise
    return spool


def _pages(client: S3Client, **asked: str) -> Iterator[Any]:
    page: Any = client.list_objects_v2(**asked)  # type: ignore[arg-type]
    _require_whole(page, asked)
    yield page
    while page["IsTruncated"]:
        page = client.list_objects_v2(ContinuationToken=page["NextContinuationToken"], **asked)  # type: ignore[arg-type]
        _require_whole(page, asked)
        yield page


def _require_whole(page: Any, asked: dict[str, str]) -> None:
    """Refuse a page that ends early: keys that it leaves out would pass for photos that are gone."""
    entries = len(page.get("Contents", [])) + len(page.get("CommonPrefixes", []))
    goes_on = page.get("IsTruncated")
    if (
        goes_on not in (True, False)
        or goes_on != bool(page.get("NextContinuationToken"))
        or page.get("KeyCount", entries) != entries
    ):
        raise ListingIncomplete(
            f"s3://{asked['Bucket']}/{asked['Prefix']}: a page of the listing has {entries} entries and says "
            f"KeyCount {page.get('KeyCount')}, IsTruncated {goes_on}; nothing was removed: clear plan to list again, "
            "and look for a proxy that changes answers of S3"
        )


def _objects(page: Any) -> list[ListedObject]:
    return [
        ListedObject(item["Key"], item["ETag"].strip('"'), item["Size"], _seconds(item.get("LastModified")))
        for item in page.get("Contents", [])
        if not (item["Size"] == 0 and item["Key"].endswith("/"))
    ]


def _seconds(time: datetime | None) -> int:
    return int(time.timestamp()) if time else 0
