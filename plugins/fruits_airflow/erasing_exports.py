"""Taking photos out of what runs have left in the lake beside the tables.

Listings, exports and samples lose their rows; reports are rendered anew without the thumbnail; examples of rejects
and lines of logs lose the key. What a run published of all photos together (its PCA basis) holds no photo.
"""

from __future__ import annotations

import gzip
import html
import io
import json
import logging
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from fruits_airflow.lake import Lake, run_key
from fruits_airflow.photo_versions import image_id_of
from fruits_airflow.records import read_stages
from fruits_airflow.report import render
from fruits_airflow.residency import EVIDENCE

log = logging.getLogger(__name__)

ERASED = "[erased]"
TEXT_PREFIXES = ("runs/", "logs/", "state/", "access/")
_TEXTS = (".json", ".txt", ".log", ".csv", ".md", "stderr", "stdout", "controller", "syslog")
_GZIP = b"\x1f\x8b"


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
    for key in _objects(lake, "runs/"):
        if key.endswith("/listing.parquet"):
            for batch in _batches(lake.read(key) or b"", ["key"]):
                yield from batch.column("key").to_pylist()


def erase_from_runs(lake: Lake, image_ids: frozenset[str], keys: Iterable[str]) -> Erased:
    """Takes photos out of every run's folder and every log.

    Of a run the sample and then the listing go last: while they are there, another attempt still learns what shows
    the photo, and which keys to look for.

    Args:
        lake: the lake bucket.
        image_ids: of the photos.
        keys: as many of their keys as are known, to find them in texts.
    """
    erased, needles = Erased(), spellings(image_ids, keys)
    for prefix in TEXT_PREFIXES:
        for key in _objects(lake, prefix):
            if _is_text(key):
                _erase_from_text(lake, key, image_ids, needles, erased)
    for run_id, names in _runs(lake).items():
        _erase_from_run(lake, run_id, names, image_ids, needles, erased)
    return erased


def _erase_from_run(
    lake: Lake, run_id: str, names: list[str], image_ids: frozenset[str], needles: list[bytes], erased: Erased
) -> None:
    sample = lake.read(run_key(run_id, "sample.parquet"))
    shown = sample is not None and _without(sample, image_ids)[1] > 0
    page = lake.read(run_key(run_id, "report.html"))
    told = any(key.startswith(f"{run_key(run_id)}/") for key in erased.objects)  # what the page is made from
    if page is not None and (shown or told or _is_named(page, needles)):
        _render_anew(lake, run_id, _without(sample, image_ids)[0] if sample else None)
        erased.reports += 1
        erased.objects.append(run_key(run_id, "report.html"))
    for name in sorted(names, key=lambda name: (name == "listing.parquet", name == "sample.parquet")):
        key = run_key(run_id, name)
        if name.endswith(".parquet"):
            kept, gone = _without(lake.read(key) or b"", image_ids)
            if gone:
                lake.write(key, kept, "application/vnd.apache.parquet")
                erased.rows += gone
                erased.objects.append(key)
        elif shown and name.endswith((".pdf", ".pptx", ".png", ".zip")):
            log.warning("%s may show an erased photo and is removed; make it anew", key)
            lake.remove(key)
            erased.objects.append(key)


def _is_named(page: bytes, needles: list[bytes]) -> bool:
    """Whether a page names a photo: a key with `&` or a quote stands there as HTML escapes it."""
    plain = html.unescape(page.decode("utf-8", "replace")).encode()
    return any(needle in plain for needle in needles)


def _render_anew(lake: Lake, run_id: str, sample: bytes | None) -> None:
    """Writes report.html from what is left; a page that cannot be rendered is removed, since it may show the photo."""
    import pyarrow.parquet as pq

    key, record = run_key(run_id, "report.html"), lake.read_json(run_key(run_id, "run.json"))
    if record is None:
        lake.remove(key)
        return
    table = pq.read_table(io.BytesIO(sample)) if sample else None
    page = render(record, read_stages(lake, run_id), table, lake.read_json(run_key(run_id, EVIDENCE)))
    lake.write(key, page.encode(), "text/html; charset=utf-8")


def _erase_from_text(
    lake: Lake, key: str, image_ids: frozenset[str], needles: list[bytes], erased: Erased
) -> None:
    stored = lake.read(key)
    if stored is None:
        return
    packed = stored.startswith(_GZIP)
    try:
        text = gzip.decompress(stored) if packed else stored
    except (OSError, EOFError, zlib.error) as error:
        log.warning("%s cannot be unpacked (%s) and is removed: it may name an erased photo", key, error)
        lake.remove(key)
        erased.objects.append(key)
        return
    cleaned = _without_examples(text, image_ids) if key.endswith(".json") else text
    for needle in needles:
        cleaned = cleaned.replace(needle, ERASED.encode())
    if cleaned != text:
        lake.write(
            key,
            gzip.compress(cleaned) if packed else cleaned,
            "application/json" if key.endswith(".json") else "text/plain",
        )
        erased.texts += 1
        erased.objects.append(key)


def _without_examples(text: bytes, image_ids: frozenset[str]) -> bytes:
    """A stage's metrics without the examples of rejects that are meant; other JSON as it is."""
    try:
        content = json.loads(text)
    except ValueError:
        return text
    examples = content.get("reject_examples") if isinstance(content, dict) else None
    if not examples:
        return text
    kept = [one for one in examples if image_id_of(str(one.get("source_key"))) not in image_ids]
    if len(kept) == len(examples):
        return text
    return json.dumps({**content, "reject_examples": kept}, indent=1, sort_keys=True).encode()


def _without(stored: bytes, image_ids: frozenset[str]) -> tuple[bytes, int]:
    """A Parquet file without the rows of these images, and how many went; by `image_id`, or by the digest of `key`."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not stored:
        return stored, 0
    source = pq.ParquetFile(io.BytesIO(stored))
    names = source.schema_arrow.names
    if "image_id" not in names and "key" not in names:
        return stored, 0
    out, gone = io.BytesIO(), 0
    with pq.ParquetWriter(out, source.schema_arrow, compression="zstd") as writer:
        for group in range(source.num_row_groups):
            table = source.read_row_group(group)
            column = table.column("image_id" if "image_id" in names else "key").to_pylist()
            meant = [(v if "image_id" in names else image_id_of(v)) in image_ids for v in column]
            gone += sum(meant)
            writer.write_table(table.filter(pa.array([not one for one in meant], pa.bool_())))
    return (out.getvalue() if gone else stored), gone


def _batches(stored: bytes, columns: list[str]) -> Iterator[Any]:
    import pyarrow.parquet as pq

    if stored:
        yield from pq.ParquetFile(io.BytesIO(stored)).iter_batches(columns=columns)


def spellings(image_ids: frozenset[str], keys: Iterable[str]) -> list[bytes]:
    """What names a photo in a text: its id, its key, and the key as JSON and as a URL spell it. The longest first."""
    words = set(image_ids)
    for key in keys:
        if image_id_of(key) in image_ids:
            words |= {key, quote(key), quote(key, safe=""), json.dumps(key)[1:-1]}
    return sorted((word.encode() for word in words), key=len, reverse=True)


def _is_text(key: str) -> bool:
    name = key.rsplit("/", 1)[-1].removesuffix(".gz")
    return name.endswith(_TEXTS) or key.startswith(("logs/", "access/"))


def _objects(lake: Lake, prefix: str) -> list[str]:
    pages = lake.client.get_paginator("list_objects_v2").paginate(Bucket=lake.bucket, Prefix=prefix)
    return [found["Key"] for page in pages for found in page.get("Contents", [])]


def _runs(lake: Lake) -> dict[str, list[str]]:
    runs: dict[str, list[str]] = {}
    for key in _objects(lake, "runs/"):
        _, run_id, name = key.split("/", 2)
        runs.setdefault(run_id, []).append(name)
    return runs
