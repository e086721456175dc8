"""Listed objects to loaded rows: fetch, clean, and a row out for each row in."""

import hashlib
from collections.abc import Iterable, Iterator
from typing import Any

import pyarrow as pa

from fruits.base import keys, schemas
from fruits.base.batches import Mapper, block_pandas_import
from fruits.images import suppression
from fruits.images.fetching import ListedObject, Source, fetch
from fruits.images.rejects import ImageRejected
from fruits.images.sandbox import Decoder

_BATCH_ROWS = 256
_BATCH_BYTES = 16 * 1024 * 1024


def load_mapper(source: Source, prefix: str, max_pixels: int, erased: frozenset[str] = frozenset()) -> Mapper:
    """Make the mapper from `schemas.LISTING` to `schemas.LOAD_RESULT` batches, with the same rows in the same order.

    Labels are folders below the input `prefix`. Contents with a SHA-256 in `erased` get the code `suppression.CODE`.
    """

    def map_batches(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        block_pandas_import()
        rows: list[dict[str, Any]] = []
        size = 0
        with Decoder(max_pixels, source.max_bytes) as decoder:
            for listed, outcome in fetch(_listed_objects(batches), source):
                row = {
                    "image_id": keys.image_id(listed.key),
                    "source_key": listed.key,
                    "etag": listed.etag,
                    "label": keys.label(listed.key, prefix),
                } | _outcome_columns(outcome, decoder, erased)
                rows.append(row)
                size += len(row.get("pixels") or b"")
                if len(rows) >= _BATCH_ROWS or size >= _BATCH_BYTES:
                    yield pa.RecordBatch.from_pylist(rows, schemas.LOAD_RESULT)
                    rows, size = [], 0
        if rows:
            yield pa.RecordBatch.from_pylist(rows, schemas.LOAD_RESULT)

    return map_batches


def _listed_objects(batches: Iterable[pa.RecordBatch]) -> Iterator[ListedObject]:
    for batch in batches:
        columns = (batch.column(name).to_pylist() for name in ("source_key", "etag", "size_bytes"))
        yield from (ListedObject(*row) for row in zip(*columns, strict=True))


def _outcome_columns(outcome: bytes | ImageRejected, decoder: Decoder, erased: frozenset[str]) -> dict[str, Any]:
    try:
        if isinstance(outcome, ImageRejected):
            raise outcome
        if erased and hashlib.sha256(outcome).hexdigest() in erased:
            return {"error_code": suppression.CODE, "detail": "erased"}
        return vars(decoder.clean(outcome))
    except ImageRejected as rejected:
        return {"error_code": str(rejected.code), "detail": rejected.detail}
