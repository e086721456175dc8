"""Redact photos from what runs leave in the lake beside the tables.

Listings, exports and samples lose the rows of the photos. Reports are rendered again without the thumbnails. Examples
of rejects, and lines of logs, lose the keys in every spelling. Scratch copies in `staging/` go whole: under another
name, cropped or packed, nothing tells whose photo they show. What a run publishes of all photos together, its PCA
model, holds no photo.
"""

import gzip
import io
import json
import logging
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from tempfile import SpooledTemporaryFile
from typing import IO, Any

from fruits_airflow.config.errors import FruitsError
from fruits_airflow.erasure.photo_names import PhotoNames, search
from fruits_airflow.erasure.stored_content import (
    MAX_INFLATED_BYTES,
    open_object,
    parquet_cells,
    parquet_errors,
    text_columns,
    text_pieces,
)
from fruits_airflow.records.digests import EVIDENCE, REPORT, record_digest
from fruits_airflow.records.models import read_record, read_stages
from fruits_airflow.records.sample import SAMPLE, decode_sample
from fruits_airflow.report import render
from fruits_airflow.storage.inflate import GZIP_MAGIC, InflateError, inflate
from fruits_airflow.storage.lake import Lake, StoredObject, run_key
from fruits_airflow.storage.object_versions import image_id_of

log = logging.getLogger(__name__)

ERASED = "[erased]"
LISTING = "listing.parquet"
ERASURES = "erasures/"
STAGING = "staging/"
TEXT_PREFIXES = ("runs/", "logs/", "state/", "access/", ERASURES)
_TEXTS = (".json", ".txt", ".log", ".csv", ".md", "stderr", "stdout", "controller", "syslog")
_PRESENTATIONS = (".pdf", ".pptx", ".png", ".zip")
_JSON_BYTES = 16 << 20
_IN_MEMORY_BYTES = 8 << 20
_PARQUET = "application/vnd.apache.parquet"

_File = io.BufferedReader | io.BytesIO


@dataclass
class RedactionCounts:
    """What a redaction changes: rows of Parquet files, reports, texts, scratch; and the key of each changed object."""

    rows: int = 0
    reports: int = 0
    texts: int = 0
    scratch: int = 0
    objects: list[str] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """Return the counts for the receipt."""
        return {**vars(self), "objects": len(self.objects)}


def keys_in_listings(lake: Lake) -> Iterator[str]:
    """Yield every key in the listing of a run; a key once for each run.

    A listing that cannot be read is logged and skipped: any node can write it, and `Redaction` removes it.
    """
    for stored in lake.objects("runs/"):
        if stored.key.endswith(f"/{LISTING}"):
            try:
                cells = parquet_cells(open_object(lake, stored), "key")
                yield from (cell for cell in cells if isinstance(cell, str))
            except InflateError as error:
                log.warning("%s is skipped: %s", lake.uri(stored.key), error)


class Redaction:
    """The redaction of photos from every run's folder and every log, by their ids and, in texts, by their known keys.

    What this erasure keeps below `own_folder`, until its receipt is written, is not redacted.
    """

    def __init__(
        self, lake: Lake, image_ids: frozenset[str], keys: Iterable[str], own_folder: str | None = None
    ) -> None:
        self._lake, self._image_ids = lake, image_ids
        self._own_folder = (own_folder,) if own_folder else ()
        keys = list(keys)
        self._names = dict.fromkeys(TEXT_PREFIXES, PhotoNames(image_ids, keys))
        self._names[ERASURES] = PhotoNames((), keys)  # receipts and requests keep the ids on purpose
        self._counts = RedactionCounts()

    def named_objects(self) -> Iterator[str]:
        """Yield the keys of the objects that name one of the photos, or cannot be searched, as those in `staging/`."""
        yield from self._lake.keys(STAGING)
        for stored, names in self._objects():
            if _is_named(open_object(self._lake, stored), names):
                yield stored.key

    def erase(self) -> RedactionCounts:
        """Redact the photos; return what changed.

        Of a run the sample and then the listing go last. While they exist, another attempt learns from them what shows
        the photo and which keys to look for.
        """
        for key in self._lake.keys(STAGING):
            self._replace(key, None)
            self._counts.scratch += 1
        runs = defaultdict[str, list[StoredObject]](list)
        for stored, names in self._objects():
            folder, _, name = stored.key.removeprefix("runs/").partition("/")
            is_in_run = stored.key.startswith("runs/") and folder
            if is_in_run and (name == REPORT or name.endswith((".parquet", *_PRESENTATIONS))):
                runs[folder].append(stored)
            else:
                self._erase_from_text(stored, names)
        for run_id, objects in runs.items():
            self._erase_from_run(run_id, objects)
        return self._counts

    def _objects(self) -> Iterator[tuple[StoredObject, PhotoNames]]:
        for prefix, names in self._names.items():
            for stored in self._lake.objects(prefix):
                if not stored.key.startswith(self._own_folder):
                    yield stored, names

    def _erase_from_run(self, run_id: str, objects: list[StoredObject]) -> None:
        folder, names = f"{run_key(run_id)}/", self._names["runs/"]
        sample, is_shown = self._sample_without_photos(run_id)
        is_changed = any(key.startswith(folder) for key in self._counts.objects)  # what the page is rendered from

        def may_show(stored: StoredObject) -> bool:
            return is_shown or _is_named(open_object(self._lake, stored), names)

        for stored in objects:
            if stored.key == folder + REPORT and (is_changed or may_show(stored)):
                self._render_report(run_id, sample)
        last = (folder + SAMPLE, folder + LISTING)
        for stored in sorted(objects, key=lambda stored: last.index(stored.key) if stored.key in last else -1):
            if stored.key.endswith(".parquet"):
                self._erase_rows(stored)
            elif stored.key.endswith(_PRESENTATIONS) and may_show(stored):
                log.warning("%s may show an erased photo and is removed; make it anew", stored.key)
                self._replace(stored.key, None)

    def _sample_without_photos(self, run_id: str) -> tuple[bytes | None, bool]:
        """Return the sample of a run without the photos, and whether it shows or may show one of them."""
        sample = self._lake.read(run_key(run_id, SAMPLE))
        if sample is None:
            return None, False
        try:
            rest, erased_rows = _without_rows(io.BytesIO(sample), self._image_ids, self._names["runs/"])
        except InflateError:
            return None, True
        return (rest.read(), True) if erased_rows else (sample, False)

    def _render_report(self, run_id: str, sample: bytes | None) -> None:
        """Render the report again, or remove it when that is impossible, since it may show a photo."""
        page = None
        try:
            if (record := read_record(self._lake, run_id)) is not None:
                table = decode_sample(sample) if sample else None
                evidence = self._lake.read_json(run_key(run_id, EVIDENCE))
                page = render(record, read_stages(self._lake, run_id), table, evidence).encode()
        except (FruitsError, ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            reason = type(error).__name__
            log.warning("The report of %s cannot be rendered again (%s) and is removed", run_id, reason)
        self._replace(run_key(run_id, REPORT), page, "text/html; charset=utf-8")
        self._counts.reports += 1

    def _erase_rows(self, stored: StoredObject) -> None:
        file = open_object(self._lake, stored)
        try:
            rest, erased_rows = _without_rows(file, self._image_ids, self._names["runs/"])
        except InflateError as error:
            log.warning("%s (%s) is removed: it may name an erased photo", stored.key, error)
            self._replace(stored.key, None)
            return
        if erased_rows:
            self._replace(stored.key, rest, _PARQUET)
            self._counts.rows += erased_rows

    def _erase_from_text(self, stored: StoredObject, names: PhotoNames) -> None:
        key, is_json, had_examples = stored.key, stored.key.endswith(".json"), False
        source: _File = open_object(self._lake, stored)
        if is_json and stored.size_bytes <= _JSON_BYTES:
            content = self._lake.read(key) or b""
            cleaned = _without_examples(content, self._image_ids)
            source, had_examples = io.BytesIO(cleaned), cleaned != content
        try:
            if not had_examples and not _is_named(source, names):
                return
            source.seek(0)
            if not _is_text(key):
                raise InflateError("it is no text")
            rest = _without_names(source, names)
        except InflateError as error:
            log.warning("%s is removed (%s): it may name an erased photo", key, error)
            self._replace(key, None)
            return
        self._replace(key, rest, "application/json" if is_json else "text/plain")
        self._counts.texts += 1

    def _replace(self, key: str, content: bytes | IO[bytes] | None, content_type: str = "") -> None:
        """Write the rest of an object, or remove it when there is none: the only place that changes a run's files."""
        record_digest(self._lake, key, content)
        if content is None:
            self._lake.remove(key)
        else:
            self._lake.client.put_object(Bucket=self._lake.bucket, Key=key, Body=content, ContentType=content_type)
        self._counts.objects.append(key)


def _is_text(key: str) -> bool:
    name = key.rsplit("/", 1)[-1].removesuffix(".gz")
    return name.endswith(_TEXTS) or key.startswith(("logs/", "access/"))


def _is_named(file: _File, names: PhotoNames) -> bool:
    """Whether a file names one of the photos, or cannot be searched, so that it may."""
    try:
        return any(spans for _, spans in search(text_pieces(file), names))
    except (InflateError, MemoryError):
        return True


def _without_names(source: _File, names: PhotoNames) -> IO[bytes]:
    """Return a text without the names of photos, packed as the source is."""
    rest = SpooledTemporaryFile(_IN_MEMORY_BYTES)  # noqa: SIM115 - returned open
    is_gzip = source.read(len(GZIP_MAGIC)) == GZIP_MAGIC
    source.seek(0)
    sink: IO[bytes] = gzip.GzipFile(fileobj=rest, mode="wb") if is_gzip else rest  # type: ignore[assignment]
    for text, spans in search(inflate(source, MAX_INFLATED_BYTES), names):
        at = 0
        for start, end in spans:
            sink.write((text[at:start] + ERASED).encode("utf-8", "surrogateescape"))
            at = end
        sink.write(text[at:].encode("utf-8", "surrogateescape"))
    if is_gzip:
        sink.close()
    rest.seek(0)
    return rest


def _without_examples(text: bytes, image_ids: frozenset[str]) -> bytes:
    """Return a stage's metrics without the examples that are these photos, rejected or named; other JSON unchanged."""
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        return text
    if not isinstance(content, dict):
        return text
    changed = False
    for owner, name in ((content, "reject_examples"), (content.get("classifier"), "examples")):
        if isinstance(owner, dict) and isinstance(examples := owner.get(name), list):
            owner[name] = [example for example in examples if _image_id_of(example) not in image_ids]
            changed |= len(owner[name]) < len(examples)
    return json.dumps(content, indent=1, sort_keys=True).encode() if changed else text


def _image_id_of(example: Any) -> str | None:
    """Return the image id of a rejected photo, which has its key, or of a named one, which begins with the id."""
    if isinstance(example, dict):
        return image_id_of(str(example.get("source_key")))
    return str(example[0]) if isinstance(example, list) and example else None


def _without_rows(source: _File, image_ids: frozenset[str], names: PhotoNames) -> tuple[IO[bytes], int]:
    """Return a Parquet file without the rows of these photos, and the number of removed rows.

    Raises:
        InflateError: The file cannot be read.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    rest = SpooledTemporaryFile(_IN_MEMORY_BYTES)  # noqa: SIM115 - returned open
    with parquet_errors():
        file = pq.ParquetFile(source)
        columns = text_columns(file.schema_arrow)
        named_rows = [
            _named_rows(file.read_row_group(group, columns=columns), image_ids, names)
            for group in range(file.num_row_groups if columns else 0)
        ]
        erased_rows = sum(map(sum, named_rows))
        if erased_rows:
            with pq.ParquetWriter(rest, file.schema_arrow, compression="zstd") as writer:
                for group, rows in enumerate(named_rows):
                    mask = pa.array([not is_named for is_named in rows], pa.bool_())
                    writer.write_table(file.read_row_group(group).filter(mask))
    rest.seek(0)
    return rest, erased_rows


def _named_rows(table: Any, image_ids: frozenset[str], names: PhotoNames) -> list[bool]:
    """Return for each row whether it belongs to one of these photos, or names one in another cell."""
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
