"""Listed objects to loaded rows: fetch, clean, and a row out for each row in."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from operator import itemgetter
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from fruits.base import keys, schemas
from fruits.base.batches import Mapper, block_pandas_import
from fruits.images import suppression
from fruits.images.fetching import ListedObject, Source, fetch
from fruits.images.rejects import ImageRejected
from fruits.images.sandbox import Decoder

EXAMPLE = ["source_key", "error_code", "detail"]
MAX_EXAMPLES = 20
_BATCH_ROWS = 256
_BATCH_BYTES = 16 * 1024 * 1024


@dataclass(frozen=True)
class Outcome:
    """Results of loading new objects."""

    loaded: int
    suppressed: int  # their content was erased: neither image nor reject
    rejects_by_code: dict[str, int]
    metadata_stripped: int  # images that had metadata
    examples: list[dict[str, str]]  # up to MAX_EXAMPLES rejects, by key

    @property
    def rejected(self) -> int:
        """The number of rejects."""
        return sum(self.rejects_by_code.values())

    @classmethod
    def total(cls, texts: Iterable[str]) -> "Outcome":
        """Add up the outcomes of tasks, in JSON as `file_mapper` returns them."""
        tasks = [cls(**json.loads(text)) for text in texts]
        examples = sorted((row for task in tasks for row in task.examples), key=itemgetter("source_key"))
        return cls(
            sum(task.loaded for task in tasks),
            sum(task.suppressed for task in tasks),
            dict(sum((Counter(task.rejects_by_code) for task in tasks), Counter())),
            sum(task.metadata_stripped for task in tasks),
            examples[:MAX_EXAMPLES],
        )


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


def file_mapper(mapper: Mapper, to_images: Mapper, to_rejects: Mapper) -> Mapper:
    """Make the mapper that writes the rows of a `load_mapper` to data files of both tables (`writing.file_writer`).

    It maps to `schemas.LOAD_FILE`: a row for each file, and one with the task's `Outcome`.
    """

    def write(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        codes: Counter[Any] = Counter()
        rejected = [pa.RecordBatch.from_pylist([], schemas.LOAD_RESULT)]  # their rows have no pixels
        stripped = 0

        def loaded() -> Iterator[pa.RecordBatch]:
            nonlocal stripped
            for batch in mapper(batches):
                code = batch["error_code"]
                codes.update(code.to_pylist())
                stripped += pc.sum(batch["had_metadata"]).as_py() or 0
                rejected.append(batch.filter(pc.not_equal(code, suppression.CODE)))  # NULL is not selected
                yield batch.filter(pc.is_null(code))

        for table, files in (("images", to_images(loaded())), ("rejects", to_rejects(rejected))):
            rows = [row | {"table": table} for batch in files for row in batch.to_pylist()]
            yield pa.RecordBatch.from_pylist(rows, schemas.LOAD_FILE)
        examples = pa.Table.from_batches(rejected).select(EXAMPLE).sort_by("source_key").slice(0, MAX_EXAMPLES)
        by_code = {code: count for code, count in codes.items() if code not in (None, suppression.CODE)}
        outcome = Outcome(codes[None], codes[suppression.CODE], by_code, stripped, examples.to_pylist())
        yield pa.RecordBatch.from_pylist([{"outcome": json.dumps(asdict(outcome))}], schemas.LOAD_FILE)

    return write
