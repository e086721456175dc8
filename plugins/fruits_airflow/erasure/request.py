"""What is to be erased: from what a person asked for to digests, and what is left as a trace of it.

From `plan` on, digests stand for photos. `erasures/<erasure_id>/request.json` is what the Spark steps read; the
receipt takes its place when all is done. Until then `keys.json`, which no node may read, holds the keys, so that the
receipt can be refused while a log still spells one. The suppression list stays: neither a rerun nor the same photo
under another key brings an erased one back.
"""

from __future__ import annotations

import io
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from fruits_airflow.config.errors import ConfigError, ErasureRefused
from fruits_airflow.storage.lake import Lake, erasure_key
from fruits_airflow.storage.object_versions import (
    PhotoVersion,
    content_digests,
    image_id_of,
    image_ids_of,
    is_folder,
    list_versions,
)

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client


_IMAGE_ID = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Wish:
    """What a person asked to erase: any of the first three.

    Attributes:
        expected_photos: how many photos the person expects to be erased; None asks for the plan alone.
        allow_missing: what matches nothing is no error: it may be gone already.
    """

    image_ids: frozenset[str] = frozenset()
    keys: frozenset[str] = frozenset()
    prefix: str | None = None
    expected_photos: int | None = None
    allow_missing: bool = False

    @classmethod
    def of(cls, params: Mapping[str, Any]) -> Wish:
        """Reads the parameters of the DAG.

        Raises:
            ConfigError: nothing is named, an id is none, or a prefix would take the whole bucket.
        """
        ids, keys, prefix = params.get("image_ids") or [], params.get("keys") or [], params.get("prefix")
        if not ids and not keys and prefix is None:
            raise ConfigError("image_ids, keys, prefix: none is given; name the photos to erase")
        for position, image_id in enumerate(ids):
            if not _IMAGE_ID.fullmatch(image_id):  # not spelled out: it may be a key
                raise ConfigError(
                    f"image_ids: number {position + 1} is no image id; it has 64 hex digits. For a key, use keys"
                )
        if prefix is not None and not prefix.strip("/"):
            raise ConfigError(
                f"prefix: {prefix!r} would erase everything; name a folder, or delete the stack's buckets"
            )
        return cls(
            frozenset(ids),
            frozenset(keys),
            prefix,
            params.get("expected_photos"),
            bool(params.get("allow_missing")),
        )

    @cached_property
    def named_ids(self) -> frozenset[str]:
        """The ids that follow from the wish alone; a key's in each of its Unicode forms."""
        return self.image_ids.union(*map(image_ids_of, self.keys))

    def covers(self, key: str) -> bool:
        """Whether the photo at `key` is meant; compares keys canonically."""
        below = self.prefix is not None and _composed(key).startswith(_composed(self.prefix))
        return below or not image_ids_of(key).isdisjoint(self.named_ids)

    def missing_of(self, keys: Iterable[str]) -> Iterator[str]:
        """Say of which parts of the wish no key is; names keys by their image id."""
        ids = frozenset[str]().union(*map(image_ids_of, keys))
        yield from (f"image id {image_id}" for image_id in sorted(self.image_ids - ids))
        yield from (
            f"the key with the image id {image_id_of(key)}"
            for key in sorted(self.keys)
            if ids.isdisjoint(image_ids_of(key))
        )
        if self.prefix is not None and not any(_composed(k).startswith(_composed(self.prefix)) for k in keys):
            yield "the prefix"


def _composed(text: str) -> str:
    return unicodedata.normalize("NFC", text)


@dataclass(frozen=True)
class Request:
    """The photos to erase, by digests alone.

    Attributes:
        image_ids: hex SHA-256 of their keys.
        content_sha256: hex SHA-256 of their bytes, in every version.
    """

    image_ids: frozenset[str]
    content_sha256: frozenset[str]

    def __or__(self, other: Request) -> Request:
        return Request(self.image_ids | other.image_ids, self.content_sha256 | other.content_sha256)

    def as_json(self) -> dict[str, Any]:
        """As the Spark job `erase_images` reads it."""
        return {"image_ids": sorted(self.image_ids), "content_sha256": sorted(self.content_sha256)}


@dataclass(frozen=True)
class Targets:
    """What a wish comes to.

    Attributes:
        request: the digests.
        named: keys of the photos that the wish names, gone ones in old listings included.
        copies: keys of other photos with the same bytes.
        missing: parts of the wish that match nothing.
    """

    request: Request
    named: frozenset[str]
    copies: frozenset[str]
    missing: tuple[str, ...]

    @property
    def keys(self) -> frozenset[str]:
        """Keys of all photos to erase."""
        return self.named | self.copies

    def summary(self) -> Iterator[str]:
        """Say folder by folder how many photos would go, and why."""
        for reason, keys in (
            ("named by the request", self.named),
            ("equal in content to one of them", self.copies),
        ):
            folders = Counter(key.rpartition("/")[0] for key in keys)
            yield f"{len(keys)} photos in {len(folders)} folders are {reason}"
            yield from (f"  {count:>7} in {folder}/" for folder, count in sorted(folders.items()))


def resolve(client: S3Client, raw_bucket: str, wish: Wish, known_keys: Iterable[str] = ()) -> Targets:
    """Finds what a wish means: the keys, their contents, and the same contents under other keys.

    Empty objects that stand for folders are no photos and stay.

    Args:
        client: S3 client in the raw bucket's region.
        raw_bucket: bucket of the photos.
        wish: what was asked for.
        known_keys: keys that old listings hold, whose objects may be gone.
    """
    versions = [version for version in list_versions(client, raw_bucket) if version.is_photo]
    meant = [version for version in versions if wish.covers(version.key)]
    named = {version.key for version in meant}
    named |= {key for key in known_keys if not is_folder(key) and wish.covers(key)}
    contents = frozenset(content_digests(client, raw_bucket, meant).values())
    copies = frozenset(copy.key for copy in copies_of(client, raw_bucket, versions, meant, contents))
    ids = wish.named_ids.union(map(image_id_of, named | copies))
    return Targets(Request(ids, contents), frozenset(named), copies, tuple(wish.missing_of(named)))


def require_confirmed(wish: Wish, targets: Targets, earlier: Request, max_photos: int) -> None:
    """Refuse an erasure of anything but what a person has confirmed by its number.

    Args:
        wish: what was asked for.
        targets: what it comes to.
        earlier: what an earlier attempt of the same erasure has suppressed, which was confirmed then.
        max_photos: the most photos that one erasure may erase.

    Raises:
        ErasureRefused: a part of the wish matches nothing, there are more photos than `max_photos`, or there are not
            `expected_photos`.
    """
    photos = len(targets.keys)
    if earlier.image_ids and earlier.image_ids.issuperset(map(image_id_of, targets.keys)):
        return
    if targets.missing and not wish.allow_missing:
        shown = "; ".join(targets.missing[:5])
        raise ErasureRefused(
            f"{len(targets.missing)} parts of the request match nothing in the raw bucket or in a listing: {shown}; "
            "check the spelling, or set allow_missing if they may be gone already; nothing is erased"
        )
    if photos > max_photos:
        raise ErasureRefused(
            f"{photos} photos would be erased, and max_erased_photos is {max_photos}; name fewer, or raise the "
            "setting; nothing is erased"
        )
    if earlier.image_ids or wish.expected_photos != photos:
        raise ErasureRefused(
            f"{photos} photos would be erased, {len(targets.copies)} of them because their content equals a named one, "
            f"and expected_photos is {wish.expected_photos}; the log of the task plan lists the folders; if that is "
            f"right, trigger a new erasure with expected_photos={photos}; nothing is erased"
        )


def copies_of(
    client: S3Client,
    raw_bucket: str,
    versions: Sequence[PhotoVersion],
    meant: Sequence[PhotoVersion],
    contents: frozenset[str],
) -> list[PhotoVersion]:
    """Versions of other keys with the same bytes; only those of equal size are read."""
    sizes = {version.size_bytes for version in meant if version.size_bytes}
    keys = {version.key for version in meant}
    alike = [v for v in versions if v.key not in keys and v.size_bytes in sizes]
    return [
        version
        for version, digest in content_digests(client, raw_bucket, alike).items()
        if digest in contents
    ]


def read_request(lake: Lake, erasure_id: str) -> Request | None:
    """The request that an earlier attempt wrote, or None."""
    found = lake.read_json(erasure_key(erasure_id, "request.json"))
    if found is None:
        return None
    return Request(frozenset(found["image_ids"]), frozenset(found["content_sha256"]))


def record_request(lake: Lake, erasure_id: str, request: Request, keys: Iterable[str] = ()) -> Request:
    """Writes the suppression list, keys and the request; returns the request with what an earlier attempt had found.

    The list comes first: from that moment nothing of the request is loaded again, whatever happens after. It is also
    what an earlier attempt is known from: the receipt takes the request's place, and the photos are gone by then.
    """
    whole = request | suppressed(lake, erasure_id)
    lake.write(suppression_key(erasure_id), suppression_list(whole), "application/vnd.apache.parquet")
    record_keys(lake, erasure_id, keys)
    lake.write_json(erasure_key(erasure_id, "request.json"), whole.as_json())
    return whole


def record_keys(lake: Lake, erasure_id: str, keys: Iterable[str]) -> frozenset[str]:
    """Keep keys of the photos until the receipt is written; return them with those that were kept before."""
    name = erasure_key(erasure_id, "keys.json")
    before = frozenset((lake.read_json(name) or {}).get("keys", []))
    if not before.issuperset(keys := frozenset(keys)):
        lake.write_json(name, {"keys": sorted(before | keys)})
    return before | keys


def suppression_key(erasure_id: str) -> str:
    """Key of an erasure's part of the suppression list; a loader reads all of `suppression/`."""
    return f"suppression/{erasure_id}.parquet"


def suppressed(lake: Lake, erasure_id: str) -> Request:
    """Return what an earlier attempt of this erasure has suppressed."""
    import pyarrow.parquet as pq

    stored = lake.read(suppression_key(erasure_id))
    if stored is None:
        return Request(frozenset(), frozenset())
    table = pq.read_table(io.BytesIO(stored))
    ids, contents = (
        frozenset(table.column(name).drop_null().to_pylist()) for name in ("key_sha256", "content_sha256")
    )
    return Request(ids, contents)


def suppression_list(request: Request) -> bytes:
    """Parquet with `key_sha256` and `content_sha256`, hex strings: a row for each digest, the other column NULL."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    ids, contents = sorted(request.image_ids), sorted(request.content_sha256)
    table = pa.table(
        {
            "key_sha256": pa.array([*ids, *[None] * len(contents)], pa.string()),
            "content_sha256": pa.array([*[None] * len(ids), *contents], pa.string()),
        }
    )
    out = io.BytesIO()
    pq.write_table(table, out)
    return out.getvalue()
