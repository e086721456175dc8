"""Listed objects to loaded rows: fetch, clean, and one row out for each row in."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from typing import Any

import pyarrow as pa

from fruits.base import keys, schemas
from fruits.base.batches import Mapper, block_pandas_import
from fruits.images import suppression
from fruits.images.decoding import CleanImage, clean
from fruits.images.fetching import Listed, Source, fetch
from fruits.images.rejects import ImageRejected

_BATCH_ROWS = 256
_BATCH_BYTES = 16 * 1024 * 1024


def loader(source: Source, prefix: str, max_pixels: int, erased: frozenset[str] = frozenset()) -> Mapper:
    """Make the mapper that loads listed objects.

    Args:
        source: Where the keys are.
        prefix: The input prefix, for labels.
        max_pixels: Pixels above which a photo is rejected.
        erased: SHA-256 of contents that get the code `suppression.CODE` instead.

    Returns:
        A mapper from `schemas.LISTING` to `schemas.LOAD_RESULT` batches: as many rows out as in, in the same order.
    """

    def load(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        block_pandas_import()
        rows: list[dict[str, Any]] = []
        size = 0
        for listed, outcome in fetch(_listed(batches), source):
            row = _row(listed, outcome, prefix, max_pixels, source.max_bytes, erased)
            rows.append(row)
            size += len(row.get("pixels") or b"")
            if len(rows) >= _BATCH_ROWS or size >= _BATCH_BYTES:
                yield pa.RecordBatch.from_pylist(rows, schemas.LOAD_RESULT)
                rows, size = [], 0
        if rows:
            yield pa.RecordBatch.from_pylist(rows, schemas.LOAD_RESULT)

    return load


def _listed(batches: Iterable[pa.RecordBatch]) -> Iterator[Listed]:
    for batch in batches:
        columns = (batch.column(name).to_pylist() for name in ("source_key", "etag", "size_bytes"))
        yield from (Listed(*row) for row in zip(*columns, strict=True))


def _row(
    listed: Listed,
    outcome: bytes | ImageRejected,
    prefix: str,
    max_pixels: int,
    max_bytes: int,
    erased: frozenset[str],
) -> dict[str, Any]:
    row: dict[str, Any] = {
        "image_id": keys.image_id(listed.key),
        "source_key": listed.key,
        "etag": listed.etag,
        "label": keys.label(listed.key, prefix),
    }
    if erased and isinstance(outcome, bytes) and hashlib.sha256(outcome).hexdigest() in erased:
        return row | {"error_code": suppression.CODE, "detail": "erased"}
    image = outcome if isinstance(outcome, ImageRejected) else _cleaned(outcome, max_pixels, max_bytes)
    if isinstance(image, ImageRejected):
        return row | {"error_code": str(image.code), "detail": image.detail}
    return row | {
        "width_px": image.width_px,
        "height_px": image.height_px,
        "pixels": image.pixels,
        "content_sha256": image.content_sha256,
        "had_metadata": image.had_metadata,
    }


def _cleaned(data: bytes, max_pixels: int, max_bytes: int) -> CleanImage | ImageRejected:
    try:
        return clean(data, max_pixels, max_bytes)
    except ImageRejected as rejected:
        return rejected
