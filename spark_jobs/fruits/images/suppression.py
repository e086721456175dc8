"""The suppression list: digests of erased photos, which no later run loads again, under any key."""

from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from fruits.base import objects
from fruits.base.errors import InputError

CODE = "suppressed"
"""Marks a photo with erased content between fetching and committing: it becomes neither image nor reject."""

_COLUMNS = ("key_sha256", "content_sha256")


@dataclass(frozen=True)
class SuppressionList:
    """Digests of what must not be loaded: SHA-256 of keys, which are image ids, and of the photos' bytes."""

    image_ids: frozenset[str]
    contents: frozenset[str]


def read(folder: str | None) -> SuppressionList:
    """Read all parts of the list: the Parquet files of a folder; no folder, or an empty folder, is an empty list.

    Raises:
        InputError: A part is not such a file; nothing may be loaded while the list cannot be read.
    """
    digests: dict[str, set[str]] = {name: set() for name in _COLUMNS}
    for uri in objects.list_objects(folder) if folder else []:
        try:
            part = pq.read_table(pa.BufferReader(objects.read_bytes(uri)), columns=list(_COLUMNS))
        except (pa.ArrowInvalid, KeyError) as error:
            raise InputError(f"{uri} is no part of a suppression list: {error}") from error
        if set(part.column_names) != set(_COLUMNS):
            raise InputError(f"{uri} is no part of a suppression list: it lacks {' or '.join(_COLUMNS)}")
        for name in _COLUMNS:
            digests[name].update(part.column(name).drop_null().to_pylist())
    return SuppressionList(frozenset(digests["key_sha256"]), frozenset(digests["content_sha256"]))
