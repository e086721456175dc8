"""What an erasure is to erase: the request of a person, what it resolves to, and the trace that is left of it.

From `plan` on, digests stand for photos. The Spark steps read `erasures/<erasure_id>/request.json`, which the receipt
replaces at the end. Until then `keys.json`, which no node may read, holds the keys, so that the receipt can be refused
while a log still spells one. The suppression list stays: neither a rerun nor the same photo under another key brings an
erased photo back.
"""

from __future__ import annotations

import io
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from fruits_airflow.config.aws_types import S3Client
from fruits_airflow.config.errors import ConfigError, ErasureRefused
from fruits_airflow.storage.lake import Lake, erasure_key
from fruits_airflow.storage.object_versions import content_digests, image_id_of, image_ids_of, is_folder, list_versions


def parameter_schemas() -> dict[str, dict[str, Any]]:
    """Return the JSON schema and the default of each parameter of the DAG, by name."""
    texts = {"type": ["null", "array"], "default": None, "maxItems": 10_000}
    return {
        "image_ids": {
            **texts,
            "items": {"type": "string", "pattern": "^[0-9a-f]{64}$"},
            "description": "Ids of images (hex SHA-256 of the object's key); the way that leaves no key in Airflow",
        },
        "keys": {
            **texts,
            "items": {"type": "string", "minLength": 1, "maxLength": 1024},
            "description": "Keys of objects in the raw bucket; Airflow keeps them with the run",
        },
        "prefix": {
            "type": ["null", "string"],
            "default": None,
            "minLength": 1,
            "maxLength": 1024,
            "description": "A folder of the raw bucket: everything that lies, or ever lay, below it",
        },
        "expected_photos": {
            "type": ["null", "integer"],
            "default": None,
            "minimum": 0,
            "description": "How many photos will be erased, from the plan of a run without this parameter; any other "
            "number stops the run before anything is erased",
        },
        "allow_missing": {
            "type": "boolean",
            "default": False,
            "description": "Go on although a part of the request matches no photo, since it may be gone already",
        },
    }


@dataclass(frozen=True)
class ErasureRequest:
    """What a person asks to erase, by any of the first three."""

    image_ids: frozenset[str] = frozenset()  # ids of photos
    keys: frozenset[str] = frozenset()  # keys of photos
    prefix: str | None = None  # folder of photos
    expected_photos: int | None = None  # None asks for the plan alone
    allow_missing: bool = False  # whether a part may match nothing: it may be gone already

    @classmethod
    def of(cls, params: Mapping[str, Any]) -> ErasureRequest:
        """Read the parameters of the DAG, which follow `parameter_schemas`.

        Raises:
            ConfigError: Nothing is named, or the prefix would take the whole bucket.
        """
        ids, keys, prefix = params.get("image_ids") or [], params.get("keys") or [], params.get("prefix")
        if not ids and not keys and prefix is None:
            raise ConfigError("image_ids, keys, prefix: all are empty; name the photos to erase")
        if prefix is not None and not prefix.strip("/"):
            raise ConfigError(
                f"prefix: {prefix!r} would erase everything; name a folder, or delete the stack's buckets"
            )
        expected, allow_missing = params.get("expected_photos"), bool(params.get("allow_missing"))
        return cls(frozenset(ids), frozenset(keys), prefix, expected, allow_missing)

    @cached_property
    def named_ids(self) -> frozenset[str]:
        """The ids that follow from the request alone; of a key, those of all its Unicode forms."""
        return self.image_ids.union(*map(image_ids_of, self.keys))

    def covers(self, key: str) -> bool:
        """Whether the request names the photo at `key`, in any Unicode form."""
        return self._is_below_prefix(key) or not image_ids_of(key).isdisjoint(self.named_ids)

    def missing_of(self, keys: Iterable[str]) -> Iterator[str]:
        """Yield the parts of the request that match none of the keys; a key is named by its image id."""
        ids = frozenset[str]().union(*map(image_ids_of, keys))
        yield from (f"image id {image_id}" for image_id in sorted(self.image_ids - ids))
        yield from (
            f"the key with the image id {image_id_of(key)}"
            for key in sorted(self.keys)
            if ids.isdisjoint(image_ids_of(key))
        )
        if self.prefix is not None and not any(map(self._is_below_prefix, keys)):
            yield "the prefix"

    def _is_below_prefix(self, key: str) -> bool:
        return self.prefix is not None and _composed(key).startswith(_composed(self.prefix))


def _composed(text: str) -> str:
    return unicodedata.normalize("NFC", text)


@dataclass(frozen=True)
class ErasureTargets:
    """The photos to erase, by digests alone."""

    image_ids: frozenset[str] = frozenset()  # hex SHA-256 of their keys
    content_sha256: frozenset[str] = frozenset()  # hex SHA-256 of their bytes, in every version

    def as_json(self) -> dict[str, Any]:
        """Return the targets as the Spark job `erase_images` reads them."""
        return {"image_ids": sorted(self.image_ids), "content_sha256": sorted(self.content_sha256)}


@dataclass(frozen=True)
class Resolution:
    """What a request resolves to."""

    targets: ErasureTargets  # the digests
    named: frozenset[str]  # keys that the request names, including those in old listings whose objects are gone
    copies: frozenset[str]  # keys of other photos with the same bytes
    missing: tuple[str, ...]  # parts of the request that match nothing

    @property
    def keys(self) -> frozenset[str]:
        """Keys of all photos to erase."""
        return self.named | self.copies

    def summary(self) -> Iterator[str]:
        """Yield lines that say how many photos would go from which folder, and why."""
        for reason, keys in (("named by the request", self.named), ("equal in content to one of them", self.copies)):
            folders = Counter(key.rpartition("/")[0] for key in keys)
            yield f"{len(keys)} photos in {len(folders)} folders are {reason}"
            yield from (f"  {count:>7} in {folder}/" for folder, count in sorted(folders.items()))


def resolve(client: S3Client, raw_bucket: str, request: ErasureRequest, known_keys: Iterable[str] = ()) -> Resolution:
    """Find the keys that a request names, their contents, and the same contents under other keys.

    Look among the `known_keys` of old listings too, whose objects may be gone. Empty objects that stand for folders are
    not photos and stay.
    """
    versions = [version for version in list_versions(client, raw_bucket) if version.is_photo]
    matches = [version for version in versions if request.covers(version.key)]
    named = {version.key for version in matches}
    contents = frozenset(content_digests(client, raw_bucket, matches).values())
    sizes = {version.size_bytes for version in matches if version.size_bytes}
    candidates = [v for v in versions if v.key not in named and v.size_bytes in sizes]
    digests = content_digests(client, raw_bucket, candidates)
    copies = frozenset(version.key for version, digest in digests.items() if digest in contents)
    named |= {key for key in known_keys if not is_folder(key) and request.covers(key)}
    ids = request.named_ids.union(map(image_id_of, named | copies))
    return Resolution(ErasureTargets(ids, contents), frozenset(named), copies, tuple(request.missing_of(named)))


def require_confirmed(
    request: ErasureRequest, resolution: Resolution, earlier: ErasureTargets, max_photos: int
) -> None:
    """Refuse to erase anything but what a person has confirmed by its number.

    What an `earlier` attempt of the same erasure has suppressed was confirmed then.

    Raises:
        ErasureRefused: A part of the request matches nothing, there are more photos than `max_photos`, or their
            number is not `expected_photos`.
    """
    photos = len(resolution.keys)
    if earlier.image_ids and earlier.image_ids.issuperset(map(image_id_of, resolution.keys)):
        return
    if resolution.missing and not request.allow_missing:
        shown = "; ".join(resolution.missing[:5])
        raise ErasureRefused(
            f"{len(resolution.missing)} parts of the request match nothing in the raw bucket or in a listing: {shown}; "
            "check the spelling, or set allow_missing if they may be gone already; nothing is erased"
        )
    if photos > max_photos:
        raise ErasureRefused(
            f"{photos} photos would be erased, and max_erased_photos is {max_photos}; name fewer, or raise the "
            "setting; nothing is erased"
        )
    if earlier.image_ids or request.expected_photos != photos:
        raise ErasureRefused(
            f"{photos} photos would be erased, {len(resolution.copies)} of them because their content equals a named "
            f"photo, and expected_photos is {request.expected_photos}; the log of the task plan lists the folders; if "
            f"that is right, trigger a new erasure with expected_photos={photos}; nothing is erased"
        )


def read_targets(lake: Lake, erasure_id: str) -> ErasureTargets | None:
    """Return the targets that `plan` wrote; None before it, and after the receipt."""
    stored = lake.read_json(erasure_key(erasure_id, "request.json"))
    if stored is None:
        return None
    return ErasureTargets(frozenset(stored["image_ids"]), frozenset(stored["content_sha256"]))


def record_targets(lake: Lake, erasure_id: str, targets: ErasureTargets, keys: Iterable[str] = ()) -> ErasureTargets:
    """Write the suppression list, the keys and the targets; return the targets, joined with an earlier attempt's.

    The list comes first: from then on nothing of the request is loaded again, whatever happens after. It also keeps
    what an earlier attempt had found: after the receipt neither the targets nor the photos are there.
    """
    earlier = read_suppressed(lake, erasure_id)
    joined = ErasureTargets(targets.image_ids | earlier.image_ids, targets.content_sha256 | earlier.content_sha256)
    lake.write(suppression_key(erasure_id), _suppression_list(joined), "application/vnd.apache.parquet")
    record_keys(lake, erasure_id, keys)
    lake.write_json(erasure_key(erasure_id, "request.json"), joined.as_json())
    return joined


def record_keys(lake: Lake, erasure_id: str, keys: Iterable[str]) -> frozenset[str]:
    """Keep keys of the photos until the receipt is written; return them with those that were kept before."""
    name = erasure_key(erasure_id, "keys.json")
    before = frozenset((lake.read_json(name) or {}).get("keys", []))
    if not before.issuperset(keys := frozenset(keys)):
        lake.write_json(name, {"keys": sorted(before | keys)})
    return before | keys


def suppression_key(erasure_id: str) -> str:
    """Return the key of an erasure's part of the suppression list; a loader reads all of `suppression/`."""
    return f"suppression/{erasure_id}.parquet"


def read_suppressed(lake: Lake, erasure_id: str) -> ErasureTargets:
    """Return what an earlier attempt of this erasure has suppressed."""
    import pyarrow.parquet as pq

    stored = lake.read(suppression_key(erasure_id))
    if stored is None:
        return ErasureTargets()
    table = pq.read_table(io.BytesIO(stored))
    return ErasureTargets(
        *(frozenset(table.column(name).drop_null().to_pylist()) for name in ("key_sha256", "content_sha256"))
    )


def _suppression_list(targets: ErasureTargets) -> bytes:
    """Return Parquet with a row for each hex digest: in the column of its kind, with the other column NULL."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    ids, contents = sorted(targets.image_ids), sorted(targets.content_sha256)
    table = pa.table(
        {
            "key_sha256": pa.array([*ids, *[None] * len(contents)], pa.string()),
            "content_sha256": pa.array([*[None] * len(ids), *contents], pa.string()),
        }
    )
    out = io.BytesIO()
    pq.write_table(table, out)
    return out.getvalue()
