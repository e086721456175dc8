"""Collect all that is kept about a photo, for the person it is about (GDPR, Article 15).

The search reads what is stored rather than what tables show: data files of old snapshots, every version of the object,
run folders and logs. Of a Parquet file it reads the ids only, and the rest of a row group where it holds the id.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fruits_airflow.config.aws_types import S3Client
from fruits_airflow.erasure.photo_names import PhotoNames, search
from fruits_airflow.erasure.redaction import TEXT_PREFIXES, keys_in_listings
from fruits_airflow.erasure.stored_content import RangeFile, bounded_memory, open_object, parquet_errors, text_pieces
from fruits_airflow.storage.inflate import InflateError
from fruits_airflow.storage.lake import Lake, StoredObject
from fruits_airflow.storage.object_versions import (
    PhotoVersion,
    hide_keys_in_errors,
    image_id_of,
    image_ids_of,
    list_versions,
)

_PARQUET_FOLDERS = ("tables/", "runs/", "suppression/")
_LINE_CHARS = 4096
_NOT_SEARCHED = "(the rest cannot be read; it is kept, and not searched)"
_SUFFIXES = {
    b"\xff\xd8\xff": ".jpg",
    b"\x89PNG\r\n": ".png",
    b"GIF8": ".gif",
    b"BM": ".bmp",
    b"II*\0": ".tif",
    b"MM\0*": ".tif",
}
_ID_COLUMNS: dict[str, Callable[[str], str]] = {"image_id": str, "key": image_id_of, "key_sha256": str}


@dataclass
class PhotoExport:
    """What is kept about a photo, which has several ids where its key has a composed and a decomposed form.

    `versions` has the facts of each version of the object, with the name of the file that holds its bytes.
    """

    image_ids: frozenset[str]
    keys: set[str] = field(default_factory=set)  # past and present
    versions: list[dict[str, Any]] = field(default_factory=list)
    rows: dict[str, list[dict[str, Any]]] = field(default_factory=dict)  # by place (table or file), without pictures
    texts: dict[str, list[str]] = field(default_factory=dict)  # lines that name the photo, by object
    files: dict[str, bytes] = field(default_factory=dict)  # pictures by file name

    def write(self, folder: Path) -> None:
        """Write `export.json` and the pictures into a new folder that only its owner can enter.

        Raises:
            FileExistsError: The folder exists: an old export must not look like part of this one.
        """
        folder.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir(mode=0o700)
        for name, content in self.files.items():
            (folder / name).write_bytes(content)
        export = {
            "image_ids": sorted(self.image_ids),
            "exported_at": datetime.now(UTC).isoformat(timespec="seconds"),
            "keys": sorted(self.keys),
            "object_versions": self.versions,
            "rows": self.rows,
            "lines_of_logs_and_records": self.texts,
        }
        text = json.dumps(export, indent=1, default=str, ensure_ascii=False)
        (folder / "export.json").write_text(text + "\n", errors="backslashreplace")


@bounded_memory()
def find_photo(client: S3Client, raw_bucket: str, lake_bucket: str, image_ids: frozenset[str]) -> PhotoExport:
    """Collect all that both buckets keep about a photo, by the ids of all Unicode forms of its key that are known."""
    lake = Lake(client, lake_bucket)
    versions = list(list_versions(client, raw_bucket))
    known = {version.key for version in versions} | set(keys_in_listings(lake))
    keys = {key for key in known if image_ids_of(key) & image_ids}
    export = PhotoExport(image_ids | {image_id_of(key) for key in keys}, keys)
    for version in versions:
        if version.key in keys:
            _add_version(client, raw_bucket, version, export)
    for prefix in _PARQUET_FOLDERS:
        for stored in lake.objects(prefix):
            if stored.key.endswith(".parquet"):
                _add_rows(lake, stored, export)
    source_keys = (row.get("source_key") for rows in export.rows.values() for row in rows)
    export.keys |= {str(key) for key in source_keys if key}  # that neither bucket nor listing has any more
    names = PhotoNames(export.image_ids, export.keys)
    for prefix in TEXT_PREFIXES:
        for stored in lake.objects(prefix):
            if not stored.key.endswith((".parquet", ".html", ".npz", ".pdf")):
                _add_lines(lake, stored, names, export)
    return export


def _add_version(client: S3Client, bucket: str, version: PhotoVersion, export: PhotoExport) -> None:
    facts: dict[str, Any] = {"version_id": version.version_id, "delete_marker": version.is_marker}
    if not version.is_marker:
        with hide_keys_in_errors():
            reply = client.get_object(Bucket=bucket, Key=version.key, VersionId=version.version_id)
            content = reply["Body"].read()
        name = f"photo-{len(export.versions) + 1}{_suffix(content)}"
        export.files[name] = content
        facts |= {"file": name, "size_bytes": version.size_bytes, "uploaded_at": reply["LastModified"]}
        facts |= {"content_type": reply.get("ContentType"), "user_metadata": reply.get("Metadata", {})}
    export.versions.append(facts)


def _suffix(content: bytes) -> str:
    """Return a suffix by the content: the one of the key is up to the uploader, and may be `.html` or `.exe`."""
    if content.startswith(b"RIFF") and content[8:12] == b"WEBP":
        return ".webp"
    return next((suffix for magic, suffix in _SUFFIXES.items() if content.startswith(magic)), ".bin")


def _add_rows(lake: Lake, stored: StoredObject, export: PhotoExport) -> None:
    place = _place(stored.key)
    try:
        for row in _rows_of(RangeFile(lake.client, lake.bucket, *stored), export.image_ids):
            shown = {name: _shown(value, f"{place}-{name}", export) for name, value in row.items()}
            rows = export.rows.setdefault(place, [])
            if shown not in rows:  # a row that was carried from one data file into the next
                rows.append(shown)
    except InflateError:
        export.texts[stored.key] = [_NOT_SEARCHED]


def _shown(value: object, stem: str, export: PhotoExport) -> object:
    """Return a cell; of a picture, which becomes a file, the file's name."""
    if not isinstance(value, bytes):
        return value
    stem, suffix = re.sub(r"[^A-Za-z0-9._]", "-", stem)[-200:], _suffix(value)  # a node names tables and columns
    name = f"{stem}{suffix}"
    if export.files.setdefault(name, value) != value:
        name = f"{stem}-{len(export.files)}{suffix}"
        export.files[name] = value
    return f"see {name}"


def _rows_of(file: RangeFile, image_ids: frozenset[str]) -> Iterator[Mapping[str, Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    with parquet_errors():
        source = pq.ParquetFile(pa.PythonFile(file, mode="r"))
        column = next((name for name in _ID_COLUMNS if name in source.schema_arrow.names), None)
        if column is None:
            return
        id_of = _ID_COLUMNS[column]
        for group in range(source.num_row_groups):
            cells = source.read_row_group(group, columns=[column]).column(column).to_pylist()
            hits = [i for i, cell in enumerate(cells) if isinstance(cell, str) and id_of(cell) in image_ids]
            if hits:
                yield from source.read_row_group(group).take(hits).to_pylist()


def _add_lines(lake: Lake, stored: StoredObject, names: PhotoNames, export: PhotoExport) -> None:
    lines: list[str] = []
    try:
        for text, spans in search(text_pieces(open_object(lake, stored)), names):
            for start, end in spans:
                rest, _, _ = text[end : end + _LINE_CHARS].partition("\n")
                line = text[max(0, start - _LINE_CHARS) : start].rpartition("\n")[2] + text[start:end] + rest
                if line not in lines[-1:]:
                    lines.append(line)
    except InflateError:
        lines.append(_NOT_SEARCHED)
    if lines:
        export.texts[stored.key] = lines


def _place(key: str) -> str:
    """Return the table of a data file, such as `fruits.images`, or the key of another file."""
    parts = key.split("/")
    if parts[0] == "tables" and len(parts) > 3:
        return f"{parts[1].removesuffix('.db')}.{parts[2]}"
    return key
