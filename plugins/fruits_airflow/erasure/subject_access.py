"""All that is kept about one photo, for the person it is about (GDPR, Article 15).

Looks at what is stored rather than at what tables show: data files of old snapshots, every version of the object, run
folders and logs. Of a Parquet file only the ids are read, and the rest of a row group only where the id is in it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fruits_airflow.erasure.photo_names import PhotoNames, search
from fruits_airflow.erasure.redaction import keys_in_listings
from fruits_airflow.erasure.stored_content import (
    RangeFile,
    StoredObject,
    list_objects,
    open_object,
    text_pieces,
)
from fruits_airflow.storage.inflate import InflateError
from fruits_airflow.storage.lake import Lake
from fruits_airflow.storage.object_versions import (
    PhotoVersion,
    hide_keys_in_errors,
    image_id_of,
    image_ids_of,
    list_versions,
)

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

_PARQUET_FOLDERS = ("tables/", "runs/", "suppression/")
_TEXT_FOLDERS = ("runs/", "logs/", "state/", "erasures/", "access/")
_LINE_CHARS = 4096
_SUFFIXES = {
    b"\xff\xd8\xff": ".jpg",
    b"\x89PNG\r\n": ".png",
    b"GIF8": ".gif",
    b"BM": ".bmp",
    b"II*\0": ".tif",
    b"MM\0*": ".tif",
}
_ID_COLUMNS: dict[str, Callable[[str], str]] = {
    "image_id": lambda value: value,
    "key": image_id_of,
    "key_sha256": lambda value: value,
}


@dataclass
class Found:
    """What is kept about one photo.

    Attributes:
        image_ids: of the photo; several where its key has a composed and a decomposed form.
        keys: under which it lies or lay.
        versions: of the object: facts, and the name of the file with its bytes.
        rows: by place (table or file), without pictures.
        texts: lines that name it, by object.
        files: pictures by file name.
    """

    image_ids: frozenset[str]
    keys: set[str] = field(default_factory=set)
    versions: list[dict[str, Any]] = field(default_factory=list)
    rows: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    texts: dict[str, list[str]] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)

    def write(self, folder: Path) -> None:
        """Writes `export.json` and the pictures into a new folder that only its owner can enter.

        Raises:
            FileExistsError: the folder is there: an old export must not look like part of this one.
        """
        folder.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir(mode=0o700)
        for name, content in self.files.items():
            (folder / name).write_bytes(content)
        told = {
            "image_ids": sorted(self.image_ids),
            "exported_at": datetime.now(UTC).isoformat(timespec="seconds"),
            "keys": sorted(self.keys),
            "object_versions": self.versions,
            "rows": self.rows,
            "lines_of_logs_and_records": self.texts,
        }
        (folder / "export.json").write_text(
            json.dumps(told, indent=1, default=str, ensure_ascii=False) + "\n", errors="backslashreplace"
        )


def find_photo(client: S3Client, raw_bucket: str, lake_bucket: str, image_ids: frozenset[str]) -> Found:
    """Collects all that both buckets keep about a photo.

    Args:
        client: S3 client.
        raw_bucket: bucket of the photos.
        lake_bucket: bucket of everything made of them.
        image_ids: hex SHA-256 of the object's key; of all its Unicode forms where the key is known.
    """
    lake = Lake(client, lake_bucket)
    versions = list(list_versions(client, raw_bucket))
    known = {version.key for version in versions} | set(keys_in_listings(lake))
    keys = {key for key in known if image_ids_of(key) & image_ids}
    found = Found(image_ids | {image_id_of(key) for key in keys}, keys)
    for version in versions:
        if version.key in keys:
            _add_version(client, raw_bucket, version, found)
    for prefix in _PARQUET_FOLDERS:
        for stored in list_objects(lake, prefix):
            if stored.key.endswith(".parquet"):
                _add_rows(lake, stored, found)
    told = (row.get("source_key") for rows in found.rows.values() for row in rows)
    found.keys |= {str(key) for key in told if key}  # where neither bucket nor listing has it any more
    names = PhotoNames(found.image_ids, found.keys)
    for prefix in _TEXT_FOLDERS:
        for stored in list_objects(lake, prefix):
            if not stored.key.endswith((".parquet", ".html", ".npz", ".pdf")):
                _add_lines(lake, stored, names, found)
    return found


def _add_version(client: S3Client, bucket: str, version: PhotoVersion, found: Found) -> None:
    facts: dict[str, Any] = {"version_id": version.version_id, "delete_marker": version.is_marker}
    if not version.is_marker:
        with hide_keys_in_errors():
            reply = client.get_object(Bucket=bucket, Key=version.key, VersionId=version.version_id)
            content = reply["Body"].read()
        name = f"photo-{len(found.versions) + 1}{_suffix(content)}"
        found.files[name] = content
        facts |= {"file": name, "size_bytes": version.size_bytes, "uploaded_at": reply["LastModified"]}
        facts |= {"content_type": reply.get("ContentType"), "user_metadata": reply.get("Metadata", {})}
    found.versions.append(facts)


def _suffix(content: bytes) -> str:
    """Return a suffix by the content: the one of the key is the uploader's word, and may be `.html` or `.exe`."""
    if content.startswith(b"RIFF") and content[8:12] == b"WEBP":
        return ".webp"
    return next((suffix for magic, suffix in _SUFFIXES.items() if content.startswith(magic)), ".bin")


def _add_rows(lake: Lake, stored: StoredObject, found: Found) -> None:
    place = _place(stored.key)
    for row in _rows_of(RangeFile(lake.client, lake.bucket, *stored), found.image_ids):
        kept: dict[str, Any] = {}
        for name, value in row.items():
            if isinstance(value, bytes):
                stem, suffix = f"{place.replace('/', '-')}-{name}", _suffix(value)
                file = f"{stem}{suffix}"
                if found.files.setdefault(file, value) != value:
                    file = f"{stem}-{len(found.files)}{suffix}"
                    found.files[file] = value
                kept[name] = f"see {file}"
            else:
                kept[name] = value
        rows = found.rows.setdefault(place, [])
        if kept not in rows:  # a row that was carried from one data file into the next
            rows.append(kept)


def _rows_of(file: RangeFile, image_ids: frozenset[str]) -> Iterator[Mapping[str, Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    source = pq.ParquetFile(pa.PythonFile(file, mode="r"))
    column = next((name for name in _ID_COLUMNS if name in source.schema_arrow.names), None)
    if column is None:
        return
    for group in range(source.num_row_groups):
        ids = source.read_row_group(group, columns=[column]).column(column).to_pylist()
        hits = [
            i for i, value in enumerate(ids) if value is not None and _ID_COLUMNS[column](value) in image_ids
        ]
        if hits:
            yield from source.read_row_group(group).take(hits).to_pylist()


def _add_lines(lake: Lake, stored: StoredObject, names: PhotoNames, found: Found) -> None:
    lines: list[str] = []
    try:
        for text, spans in search(text_pieces(open_object(lake, stored)), names):
            for start, end in spans:
                rest, _, _ = text[end : end + _LINE_CHARS].partition("\n")
                line = text[max(0, start - _LINE_CHARS) : start].rpartition("\n")[2] + text[start:end] + rest
                if line not in lines[-1:]:
                    lines.append(line)
    except InflateError:
        lines.append("(the rest cannot be unpacked; it is kept, and not searched)")
    if lines:
        found.texts[stored.key] = lines


def _place(key: str) -> str:
    """`tables/fruits.db/images/data/x.parquet` is table `fruits.images.decoding`; another file is named by its key."""
    parts = key.split("/")
    if parts[0] == "tables" and len(parts) > 3:
        return f"{parts[1].removesuffix('.db')}.{parts[2]}"
    return key
