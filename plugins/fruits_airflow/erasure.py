"""What is to be erased: from what a person asked for to digests, and what is left as a trace of it.

From `plan` on, digests stand for photos: an erasure keeps no key. `erasures/<erasure_id>/request.json` is what the
Spark steps read; the receipt takes its place when all is done. The suppression list stays: neither a rerun nor the
same photo under another key brings an erased one back.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fruits_airflow.errors import ConfigError
from fruits_airflow.lake import Lake
from fruits_airflow.photo_versions import PhotoVersion, content_digests, image_id_of, list_versions

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

ERASURE_DAG = "erase_images"

_IMAGE_ID = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Wish:
    """What a person asked to erase: any of the three."""

    image_ids: frozenset[str] = frozenset()
    keys: frozenset[str] = frozenset()
    prefix: str | None = None

    @classmethod
    def of(cls, params: Mapping[str, Any]) -> Wish:
        """Reads the parameters of the DAG.

        Raises:
            ConfigError: nothing is named, an id is none, or a prefix would take the whole bucket.
        """
        ids, keys, prefix = params.get("image_ids") or [], params.get("keys") or [], params.get("prefix")
        if not ids and not keys and prefix is None:
            raise ConfigError("image_ids, keys, prefix: none is given; name the photos to erase")
        for one in ids:
            if not _IMAGE_ID.fullmatch(one):
                raise ConfigError(
                    f"image_ids: {one!r} is no image id; it has 64 hex digits. For a key, use keys"
                )
        if prefix is not None and not prefix.strip("/"):
            raise ConfigError(
                f"prefix: {prefix!r} would erase everything; name a folder, or delete the stack's buckets"
            )
        return cls(frozenset(ids), frozenset(keys), prefix)

    @property
    def named_ids(self) -> frozenset[str]:
        """The ids that follow from the wish alone."""
        return self.image_ids | {image_id_of(key) for key in self.keys}

    def covers(self, key: str) -> bool:
        """Whether the photo at `key` is meant."""
        return (self.prefix is not None and key.startswith(self.prefix)) or image_id_of(key) in self.named_ids


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


def resolve(client: S3Client, raw_bucket: str, wish: Wish, known_keys: Iterable[str] = ()) -> Request:
    """Finds what a wish means: the keys, their contents, and the same contents under other keys.

    Args:
        client: S3 client in the raw bucket's region.
        raw_bucket: bucket of the photos.
        wish: what was asked for.
        known_keys: keys that old listings hold, whose objects may be gone.

    Raises:
        ConfigError: nothing lies, or ever lay, below the prefix.
    """
    versions = list(list_versions(client, raw_bucket))
    meant = [version for version in versions if wish.covers(version.key)]
    keys = {version.key for version in meant} | {key for key in known_keys if wish.covers(key)}
    if wish.prefix is not None and not keys and not wish.named_ids:
        raise ConfigError(
            f"prefix: nothing lies below {wish.prefix!r}, and no listing knows it; check the spelling"
        )
    contents = frozenset(content_digests(client, raw_bucket, meant).values())
    ids = wish.named_ids | {image_id_of(key) for key in keys}
    copies = copies_of(client, raw_bucket, versions, meant, contents)
    return Request(ids | {image_id_of(copy.key) for copy in copies}, contents)


def copies_of(
    client: S3Client,
    raw_bucket: str,
    versions: Sequence[PhotoVersion],
    meant: Sequence[PhotoVersion],
    contents: frozenset[str],
) -> list[PhotoVersion]:
    """Versions of other keys with the same bytes; only those of equal size are read."""
    sizes = {version.size_bytes for version in meant if not version.is_marker}
    keys = {version.key for version in meant}
    alike = [v for v in versions if v.key not in keys and not v.is_marker and v.size_bytes in sizes]
    return [
        version
        for version, digest in content_digests(client, raw_bucket, alike).items()
        if digest in contents
    ]


def erasure_key(erasure_id: str, name: str = "") -> str:
    """Key of something that an erasure keeps: `erasures/<erasure_id>/<name>`."""
    return f"erasures/{erasure_id}/{name}" if name else f"erasures/{erasure_id}"


def read_request(lake: Lake, erasure_id: str) -> Request | None:
    """The request that an earlier attempt wrote, or None."""
    found = lake.read_json(erasure_key(erasure_id, "request.json"))
    if found is None:
        return None
    return Request(frozenset(found["image_ids"]), frozenset(found["content_sha256"]))


def record_request(lake: Lake, erasure_id: str, request: Request) -> Request:
    """Writes the suppression list, then the request; returns the request with what an earlier attempt had found.

    The list comes first: from that moment nothing of the request is loaded again, whatever happens after. It is also
    what an earlier attempt is known from: the receipt takes the request's place, and the photos are gone by then.
    """
    whole = request | _suppressed(lake, erasure_id)
    lake.write(suppression_key(erasure_id), suppression_list(whole), "application/vnd.apache.parquet")
    lake.write_json(erasure_key(erasure_id, "request.json"), whole.as_json())
    return whole


def suppression_key(erasure_id: str) -> str:
    """Key of an erasure's part of the suppression list; a loader reads all of `suppression/`."""
    return f"suppression/{erasure_id}.parquet"


def _suppressed(lake: Lake, erasure_id: str) -> Request:
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
