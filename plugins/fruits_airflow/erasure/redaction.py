"""Taking photos out of what runs have left in the lake beside the tables.

Listings, exports and samples lose their rows; reports are rendered anew without the thumbnail; examples of rejects
and lines of logs lose the key, however it is spelled. What a run published of all photos together (its PCA basis) holds
no photo.
"""

from __future__ import annotations

import gzip
import io
import json
import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from tempfile import SpooledTemporaryFile
from typing import IO, Any

from fruits_airflow.erasure.photo_names import PhotoNames, search
from fruits_airflow.erasure.stored_content import (
    MAX_INFLATED_BYTES,
    StoredObject,
    list_objects,
    open_object,
    text_pieces,
)
from fruits_airflow.records.digests import record_digest
from fruits_airflow.records.models import RecordError, read_record, read_stages
from fruits_airflow.records.sample import SampleError, decode_sample
from fruits_airflow.report import render
from fruits_airflow.runs.residency import EVIDENCE
from fruits_airflow.storage.inflate import GZIP_MAGIC, InflateError, inflate
from fruits_airflow.storage.lake import Lake, run_key
from fruits_airflow.storage.object_versions import image_id_of

log = logging.getLogger(__name__)

ERASED = "[erased]"
ERASURES = "erasures/"
TEXT_PREFIXES = ("runs/", "logs/", "state/", "access/", ERASURES)
_TEXTS = (".json", ".txt", ".log", ".csv", ".md", "stderr", "stdout", "controller", "syslog")
_PRESENTATIONS = (".pdf", ".pptx", ".png", ".zip")
_JSON_BYTES = 16 << 20
_IN_MEMORY_BYTES = 8 << 20
_PARQUET = "application/vnd.apache.parquet"


@dataclass
class Erased:
    """How much was taken out, by kind."""

    rows: int = 0
    reports: int = 0
    texts: int = 0
    objects: list[str] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """For the receipt."""
        return {"rows": self.rows, "reports": self.reports, "texts": self.texts, "objects": len(self.objects)}


def keys_in_listings(lake: Lake) -> Iterator[str]:
    """Every key that the listing of a run holds; a key once for each run."""
    import pyarrow.parquet as pq

    for stored in list_objects(lake, "runs/"):
        if stored.key.endswith("/listing.parquet"):
            for batch in pq.ParquetFile(open_object(lake, stored)).iter_batches(columns=["key"]):
                yield from batch.column("key").to_pylist()


def erase_from_runs(
    lake: Lake, image_ids: frozenset[str], keys: Iterable[str], own_folder: str = ""
) -> Erased:
    """Takes photos out of every run's folder and every log.

    Of a run the sample and then the listing go last: while they are there, another attempt still learns what shows
    the photo, and which keys to look for.

    Args:
        lake: the lake bucket.
        image_ids: of the photos.
        keys: as many of their keys as are known, to find them in texts.
        own_folder: prefix of what this erasure keeps for itself until its receipt is written.
    """
    erased, names = Erased(), _names(image_ids, keys)
    for prefix in TEXT_PREFIXES:
        for stored in list_objects(lake, prefix):
            if not _is_of_run(stored.key) and not _is_kept(stored.key, own_folder):
                _erase_from_text(lake, stored, image_ids, names[prefix], erased)
    for run_id, objects in _runs(lake).items():
        _erase_from_run(lake, run_id, objects, image_ids, names["runs/"], erased)
    return erased


def still_named(
    lake: Lake, image_ids: frozenset[str], keys: Iterable[str], own_folder: str = ""
) -> Iterator[str]:
    """Yield the keys of the objects, beside the tables, that still name one of the photos or cannot be searched."""
    names = _names(image_ids, keys)
    for prefix in TEXT_PREFIXES:
        for stored in list_objects(lake, prefix):
            if not _is_kept(stored.key, own_folder) and _is_named(open_object(lake, stored), names[prefix]):
                yield stored.key


def _names(image_ids: frozenset[str], keys: Iterable[str]) -> dict[str, PhotoNames]:
    """Return what to look for below each prefix: receipts and requests keep the ids on purpose."""
    keys = list(keys)
    return {prefix: PhotoNames(() if prefix == ERASURES else image_ids, keys) for prefix in TEXT_PREFIXES}


def _is_of_run(key: str) -> bool:
    """Whether `_erase_from_run` takes care of the object."""
    return key.startswith("runs/") and key.endswith((".parquet", "/report.html", *_PRESENTATIONS))


def _is_kept(key: str, own_folder: str) -> bool:
    return bool(own_folder) and key.startswith(own_folder)


def _is_named(file: io.BufferedReader | io.BytesIO, names: PhotoNames) -> bool:
    """Whether a file names one of the photos, or cannot be searched, so that it may."""
    try:
        return any(spans for _, spans in search(text_pieces(file), names))
    except InflateError:
        return True


def _erase_from_run(
    lake: Lake,
    run_id: str,
    objects: list[StoredObject],
    image_ids: frozenset[str],
    names: PhotoNames,
    erased: Erased,
) -> None:
    sample, shown = lake.read(run_key(run_id, "sample.parquet")), False
    if sample is not None:
        try:
            kept, gone = _without(io.BytesIO(sample), image_ids, names)
            sample, shown = (kept.read(), True) if gone else (sample, False)
        except InflateError:  # it may have shown the photo, and is removed below
            sample, shown = None, True
    report = run_key(run_id, "report.html")
    told = any(key.startswith(f"{run_key(run_id)}/") for key in erased.objects)  # what the page is made from
    for stored in objects:
        if stored.key == report and (shown or told or _is_named(open_object(lake, stored), names)):
            _render_anew(lake, run_id, sample, erased)
            erased.reports += 1
    last = (run_key(run_id, "sample.parquet"), run_key(run_id, "listing.parquet"))
    for stored in sorted(objects, key=lambda stored: last.index(stored.key) if stored.key in last else -1):
        if stored.key.endswith(".parquet"):
            try:
                kept, gone = _without(open_object(lake, stored), image_ids, names)
            except InflateError as error:
                log.warning("%s (%s) is removed: it may name an erased photo", stored.key, error)
                _replace(lake, stored.key, None, _PARQUET, erased)
                continue
            if gone:
                _replace(lake, stored.key, kept, _PARQUET, erased)
                erased.rows += gone
        elif shown and stored.key.endswith(_PRESENTATIONS):
            log.warning("%s may show an erased photo and is removed; make it anew", stored.key)
            _replace(lake, stored.key, None, "", erased)


def _render_anew(lake: Lake, run_id: str, sample: bytes | None, erased: Erased) -> None:
    """Writes report.html from what is left; a page that cannot be rendered is removed, since it may show the photo."""
    page = None
    try:
        if (record := read_record(lake, run_id)) is not None:
            table = decode_sample(sample) if sample else None
            evidence = lake.read_json(run_key(run_id, EVIDENCE))
            page = render(record, read_stages(lake, run_id), table, evidence).encode()
    except (
        RecordError,
        SampleError,
        ArithmeticError,
        AttributeError,
        LookupError,
        TypeError,
        ValueError,
    ) as error:
        log.warning(
            "The report of %s cannot be rendered anew (%s) and is removed", run_id, type(error).__name__
        )
    _replace(lake, run_key(run_id, "report.html"), page, "text/html; charset=utf-8", erased)


def _replace(
    lake: Lake, key: str, content: bytes | IO[bytes] | None, content_type: str, erased: Erased
) -> None:
    """Write what is left of an object, or remove it where nothing is: the only place that changes a run's files."""
    record_digest(lake, key, content)
    if content is None:
        lake.remove(key)
    else:
        lake.client.put_object(Bucket=lake.bucket, Key=key, Body=content, ContentType=content_type)
    erased.objects.append(key)


def _erase_from_text(
    lake: Lake, stored: StoredObject, image_ids: frozenset[str], names: PhotoNames, erased: Erased
) -> None:
    key, is_json, had_examples = stored.key, stored.key.endswith(".json"), False
    source: io.BufferedReader | io.BytesIO = open_object(lake, stored)
    if is_json and stored.size_bytes <= _JSON_BYTES:
        content = lake.read(key) or b""
        cleaned = _without_examples(content, image_ids)
        source, had_examples = io.BytesIO(cleaned), cleaned != content
    try:
        if not had_examples and not _is_named(source, names):
            return
        source.seek(0)
        if not _is_text(key):
            raise InflateError("it is no text")
        left = _redacted(source, names)
    except InflateError as error:
        log.warning("%s is removed (%s): it may name an erased photo", key, error)
        _replace(lake, key, None, "", erased)
        return
    _replace(lake, key, left, "application/json" if is_json else "text/plain", erased)
    erased.texts += 1


def _redacted(source: io.BufferedReader | io.BytesIO, names: PhotoNames) -> IO[bytes]:
    """Return a text without the names of photos, packed as the source is."""
    left = SpooledTemporaryFile(_IN_MEMORY_BYTES)  # noqa: SIM115 - returned open
    is_gzip = source.read(len(GZIP_MAGIC)) == GZIP_MAGIC
    source.seek(0)
    sink: IO[bytes] = gzip.GzipFile(fileobj=left, mode="wb") if is_gzip else left  # type: ignore[assignment]
    for text, spans in search(inflate(source, MAX_INFLATED_BYTES), names):
        at = 0
        for start, end in spans:
            sink.write((text[at:start] + ERASED).encode("utf-8", "surrogateescape"))
            at = end
        sink.write(text[at:].encode("utf-8", "surrogateescape"))
    if is_gzip:
        sink.close()
    left.seek(0)
    return left


def _without_examples(text: bytes, image_ids: frozenset[str]) -> bytes:
    """A stage's metrics without the examples of rejects that are meant; other JSON as it is."""
    try:
        content = json.loads(text)
    except ValueError:
        return text
    examples = content.get("reject_examples") if isinstance(content, dict) else None
    if not isinstance(examples, list):
        return text
    kept = [
        example
        for example in examples
        if not isinstance(example, dict) or image_id_of(str(example.get("source_key"))) not in image_ids
    ]
    if len(kept) == len(examples):
        return text
    return json.dumps({**content, "reject_examples": kept}, indent=1, sort_keys=True).encode()


def _without(
    source: io.BufferedReader | io.BytesIO, image_ids: frozenset[str], names: PhotoNames
) -> tuple[IO[bytes], int]:
    """Return a Parquet file without the rows of these photos, and how many rows went.

    Raises:
        InflateError: The file cannot be read.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    left, gone = SpooledTemporaryFile(_IN_MEMORY_BYTES), 0  # noqa: SIM115 - returned open
    try:
        file = pq.ParquetFile(source)
        columns = [
            column.name for column in file.schema_arrow if pa.types.is_string(column.type)
        ]  # by these rows are found
        found = [
            _named_rows(file.read_row_group(group, columns=columns), image_ids, names)
            for group in range(file.num_row_groups if columns else 0)
        ]
        gone = sum(map(sum, found))
        if gone:
            with pq.ParquetWriter(left, file.schema_arrow, compression="zstd") as writer:
                for group, rows in enumerate(found):
                    mask = pa.array([not is_named for is_named in rows], pa.bool_())
                    writer.write_table(file.read_row_group(group).filter(mask))
    except (pa.ArrowInvalid, OSError) as error:
        raise InflateError(f"the Parquet file is corrupt: {error}") from error
    left.seek(0)
    return left, gone


def _named_rows(table: Any, image_ids: frozenset[str], names: PhotoNames) -> list[bool]:
    """Return for each row whether it is one of these photos', or names one in another cell."""
    named = [False] * table.num_rows
    for name in table.column_names:
        cells = table.column(name).to_pylist()
        if name == "image_id":
            hits = [cell in image_ids for cell in cells]
        elif name == "key":
            hits = [cell is not None and image_id_of(cell) in image_ids for cell in cells]
        elif names.spans("\n".join(filter(None, cells))):
            hits = [bool(cell and names.spans(cell)) for cell in cells]
        else:
            continue
        named = [before or hit for before, hit in zip(named, hits, strict=True)]
    return named


def _is_text(key: str) -> bool:
    name = key.rsplit("/", 1)[-1].removesuffix(".gz")
    return name.endswith(_TEXTS) or key.startswith(("logs/", "access/"))


def _runs(lake: Lake) -> dict[str, list[StoredObject]]:
    runs: dict[str, list[StoredObject]] = {}
    for stored in list_objects(lake, "runs/"):
        run_id, slash, _ = stored.key.removeprefix("runs/").partition("/")
        if slash and run_id:
            runs.setdefault(run_id, []).append(stored)
    return runs
