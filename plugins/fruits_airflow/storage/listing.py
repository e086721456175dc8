"""Listings of the input prefix: filter, sample, store as Parquet and compare with an earlier run's.

All functions stream. storage/bucket_listing.py reads a listing from S3.
"""

import hashlib
import heapq
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from fruits_airflow.config.errors import ConfigError
from fruits_airflow.storage.object_versions import image_id_of

ROW_GROUP = 50_000

# Hidden folders, and the files that macOS, Windows, Android and NAS systems keep beside photos.
# `fruits.base.keys` has the same pattern for plain folders; a test keeps both equal.
_LEFTOVER = re.compile(
    r"(?:^|/)(?:(?:\.(?!\.?/)[^/]+|__MACOSX|@eaDir|[@#]Recycle|\$RECYCLE\.BIN|System Volume Information|lost\+found)/"
    r"|(?:\.(?:_[^/]*|DS_Store|directory|gitkeep|localized|nomedia|(?:trashed|pending)-[^/]*)"
    r"|(?:eh)?Thumbs\.db|desktop\.ini|Icon\r)$)",
    re.IGNORECASE,
)
_WITH_NAME = re.compile(r"^(\._|\.trashed-|\.pending-)(?!.*/$).*", re.IGNORECASE)


class ListedObject(NamedTuple):
    """An object in the answer of ListObjectsV2."""

    key: str  # the object's key
    etag: str  # its ETag, without quotes
    size_bytes: int  # its size
    uploaded_s: int = 0  # time of its last modification, in seconds since 1970; 0 if unknown


@dataclass(frozen=True)
class ListingSummary:
    """Totals of a listing; `digest` is SHA-256 over keys, ETags and sizes."""

    images: int
    size_bytes: int
    digest: str


@dataclass(frozen=True)
class Changes:
    """Differences from an earlier listing."""

    new: int  # added and changed objects
    unchanged: int
    removed: int
    oldest_new_s: int = 0  # when the first of the new objects was uploaded, in seconds since 1970; 0 if unknown


def is_leftover(key: str) -> bool:
    """Tell whether a file manager left this object behind; `key` is relative to the input prefix."""
    return _LEFTOVER.search(key) is not None


class PhotoFilter:
    """Keep the photos of a listing, and count the leftovers of file managers by kind, such as `._*`.

    The keys of leftovers are not kept: logs must not name a photo.
    """

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self.leftovers: Counter[str] = Counter()

    def photos(self, objects: Iterable[ListedObject]) -> Iterator[ListedObject]:
        """Yield the objects that are not leftovers."""
        for item in objects:
            if match := _LEFTOVER.search(item.key.removeprefix(self._prefix)):
                self.leftovers[_WITH_NAME.sub(r"\1*", match.group().lstrip("/"))] += 1
            else:
                yield item


def choose(objects: Iterable[ListedObject], limit: int) -> list[ListedObject]:
    """Choose at most `limit` objects evenly over all folders, sorted by key.

    The keys with the lowest hashes are chosen: the first keys would share a label, and the choice must be repeatable.
    """
    lowest = heapq.nsmallest(limit, objects, key=lambda o: hashlib.sha256(o.key.encode()).digest())
    return sorted(lowest)


def write_listing(objects: Iterable[ListedObject], path: Path) -> ListingSummary:
    """Write `listing.parquet`: key string, etag string, size_bytes and uploaded_s int64; sorted by key.

    Raises:
        ConfigError: The keys are not sorted, as in a directory bucket, so that listings cannot be compared.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    kinds = (pa.string(), pa.string(), pa.int64(), pa.int64())
    schema = pa.schema(list(zip(ListedObject._fields, kinds, strict=True)))
    digest, count, size, previous = hashlib.sha256(), 0, 0, ""
    rows: list[ListedObject] = []

    def flush(writer: Any) -> None:
        columns = {name: [row[i] for row in rows] for i, name in enumerate(ListedObject._fields)}
        writer.write_table(pa.Table.from_pydict(columns, schema=schema), row_group_size=ROW_GROUP)
        rows.clear()

    with pq.ParquetWriter(path, schema) as writer:
        for item in objects:
            if count and item.key <= previous:
                raise ConfigError(
                    f"listing: object {count + 1} (image id {image_id_of(item.key)}) is out of order; use a general "
                    "purpose bucket"
                )
            previous = item.key
            digest.update(f"{item.key}\0{item.etag}\0{item.size_bytes}\n".encode())
            count, size = count + 1, size + item.size_bytes
            rows.append(item)
            if len(rows) == ROW_GROUP:
                flush(writer)
        if rows or not count:
            flush(writer)
    return ListingSummary(count, size, digest.hexdigest())


def read_listing(path: Path) -> Iterator[ListedObject]:
    """Read a file of `write_listing`, row group by row group."""
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        # Listings of earlier releases have no times.
        names = [name for name in ListedObject._fields if name in file.schema_arrow.names]
        for batch in file.iter_batches(batch_size=ROW_GROUP, columns=names):
            yield from map(ListedObject, *(column.to_pylist() for column in batch.columns))


def compare(
    before: Iterable[ListedObject],
    now: Iterable[ListedObject],
    on_removal: Callable[[ListedObject], None] = lambda _: None,
) -> Changes:
    """Count the changes between two listings sorted by key; call `on_removal` for each removed object."""
    new = unchanged = removed = 0
    oldest_new_s: int | None = None
    old_items = iter(before)
    old = next(old_items, None)
    for item in now:
        while old is not None and old.key < item.key:
            on_removal(old)
            removed, old = removed + 1, next(old_items, None)
        is_new = old is None or (old.key, old.etag) != (item.key, item.etag)
        if old is not None and old.key == item.key:
            old = next(old_items, None)
        if is_new:
            new += 1
            oldest_new_s = item.uploaded_s if oldest_new_s is None else min(oldest_new_s, item.uploaded_s)
        else:
            unchanged += 1
    while old is not None:
        on_removal(old)
        removed, old = removed + 1, next(old_items, None)
    return Changes(new, unchanged, removed, oldest_new_s or 0)
