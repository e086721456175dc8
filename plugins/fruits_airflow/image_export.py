"""All that is kept about one photo, for the person it is about (GDPR, Article 15).

Looks at what is stored rather than at what tables show: data files of old snapshots, every version of the object, run
folders and logs. Of a Parquet file only the ids are read, and the rest of a row group only where the id is in it.
"""

from __future__ import annotations

import gzip
import io
import json
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fruits_airflow.erasing_exports import keys_in_listings, spellings
from fruits_airflow.lake import Lake
from fruits_airflow.photo_versions import image_id_of, list_versions

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

_PARQUET_FOLDERS = ("tables/", "runs/", "suppression/")
_TEXT_FOLDERS = ("runs/", "logs/", "erasures/", "access/")
_ID_COLUMNS: dict[str, Callable[[str], str]] = {
    "image_id": lambda value: value,
    "key": image_id_of,
    "key_sha256": lambda value: value,
}


class RangeFile(io.RawIOBase):
    """An object of S3 as a file that can be read at any place: one ranged GET for each read.

    Args:
        client: S3 client.
        bucket: its bucket.
        key: its key.
        size_bytes: its size, as a listing shows it.
    """

    def __init__(self, client: S3Client, bucket: str, key: str, size_bytes: int) -> None:
        super().__init__()
        self._client, self._bucket, self._key, self._size, self._at = client, bucket, key, size_bytes, 0

    def readable(self) -> bool:
        """Always."""
        return True

    def seekable(self) -> bool:
        """Always."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Moves to a place; returns it."""
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        return self._at

    def tell(self) -> int:
        """The place."""
        return self._at

    def read(self, size: int = -1) -> bytes:
        """Reads on from the place."""
        end = self._size if size < 0 else min(self._size, self._at + size)
        if self._at >= end:
            return b""
        ranged = f"bytes={self._at}-{end - 1}"
        content = self._client.get_object(Bucket=self._bucket, Key=self._key, Range=ranged)["Body"].read()
        self._at += len(content)
        return content


@dataclass
class Found:
    """What is kept about one photo.

    Attributes:
        image_id: of the photo.
        keys: under which it lies or lay.
        versions: of the object: facts, and the name of the file with its bytes.
        rows: by place (table or file), without pictures.
        texts: lines that name it, by object.
        files: pictures by file name.
    """

    image_id: str
    keys: set[str] = field(default_factory=set)
    versions: list[dict[str, Any]] = field(default_factory=list)
    rows: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    texts: dict[str, list[str]] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)

    def write(self, folder: Path) -> None:
        """Writes `export.json` and the pictures into a new folder.

        Raises:
            FileExistsError: the folder is there: an old export must not look like part of this one.
        """
        folder.mkdir(parents=True)
        for name, content in self.files.items():
            (folder / name).write_bytes(content)
        told = {
            "image_id": self.image_id,
            "exported_at": datetime.now(UTC).isoformat(timespec="seconds"),
            "keys": sorted(self.keys),
            "object_versions": self.versions,
            "rows": self.rows,
            "lines_of_logs_and_records": self.texts,
        }
        (folder / "export.json").write_text(
            json.dumps(told, indent=1, default=str, ensure_ascii=False) + "\n"
        )


def find_photo(client: S3Client, raw_bucket: str, lake_bucket: str, image_id: str) -> Found:
    """Collects all that both buckets keep about a photo.

    Args:
        client: S3 client.
        raw_bucket: bucket of the photos.
        lake_bucket: bucket of everything made of them.
        image_id: hex SHA-256 of the object's key.
    """
    lake, found = Lake(client, lake_bucket), Found(image_id)
    _add_versions(client, raw_bucket, found)
    found.keys |= {key for key in keys_in_listings(lake) if image_id_of(key) == image_id}
    for prefix in _PARQUET_FOLDERS:
        for key, size in _objects(lake, prefix):
            if key.endswith(".parquet"):
                _add_rows(lake, key, size, found)
    told = (row.get("source_key") for rows in found.rows.values() for row in rows)
    found.keys |= {str(key) for key in told if key}  # where neither bucket nor listing has it any more
    needles = [word.decode() for word in spellings(frozenset({image_id}), found.keys)]
    for prefix in _TEXT_FOLDERS:
        for key, _ in _objects(lake, prefix):
            if not key.endswith((".parquet", ".html", ".npz", ".pdf")):
                _add_lines(lake, key, needles, found)
    return found


def _add_versions(client: S3Client, bucket: str, found: Found) -> None:
    for version in list_versions(client, bucket):
        if image_id_of(version.key) != found.image_id:
            continue
        found.keys.add(version.key)
        facts: dict[str, Any] = {"version_id": version.version_id, "delete_marker": version.is_marker}
        if not version.is_marker:
            reply = client.get_object(Bucket=bucket, Key=version.key, VersionId=version.version_id)
            name = f"photo-{len(found.versions) + 1}{Path(version.key).suffix.lower()[:6]}"
            found.files[name] = reply["Body"].read()
            facts |= {"file": name, "size_bytes": version.size_bytes, "uploaded_at": reply["LastModified"]}
            facts |= {"content_type": reply.get("ContentType"), "user_metadata": reply.get("Metadata", {})}
        found.versions.append(facts)


def _add_rows(lake: Lake, key: str, size_bytes: int, found: Found) -> None:
    place = _place(key)
    for row in _rows_of(RangeFile(lake.client, lake.bucket, key, size_bytes), found.image_id):
        kept: dict[str, Any] = {}
        for name, value in row.items():
            if isinstance(value, bytes):
                file = f"{place.replace('/', '-')}-{name}.webp"
                if found.files.setdefault(file, value) != value:
                    file = f"{place.replace('/', '-')}-{name}-{len(found.files)}.webp"
                    found.files[file] = value
                kept[name] = f"see {file}"
            else:
                kept[name] = value
        rows = found.rows.setdefault(place, [])
        if kept not in rows:  # a row that was carried from one data file into the next
            rows.append(kept)


def _rows_of(file: RangeFile, image_id: str) -> Iterator[Mapping[str, Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    source = pq.ParquetFile(pa.PythonFile(file, mode="r"))
    column = next((name for name in _ID_COLUMNS if name in source.schema_arrow.names), None)
    if column is None:
        return
    for group in range(source.num_row_groups):
        ids = source.read_row_group(group, columns=[column]).column(column).to_pylist()
        hits = [
            i for i, value in enumerate(ids) if value is not None and _ID_COLUMNS[column](value) == image_id
        ]
        if hits:
            yield from source.read_row_group(group).take(hits).to_pylist()


def _add_lines(lake: Lake, key: str, needles: list[str], found: Found) -> None:
    stored = lake.read(key) or b""
    try:
        text = gzip.decompress(stored) if stored.startswith(b"\x1f\x8b") else stored
    except (OSError, EOFError, zlib.error):
        found.texts[key] = ["(cannot be unpacked; kept, and not searched)"]
        return
    lines = [line for line in text.decode("utf-8", "replace").splitlines() if any(n in line for n in needles)]
    if lines:
        found.texts[key] = lines


def _place(key: str) -> str:
    """`tables/fruits.db/images/data/x.parquet` is table `fruits.images`; another file is named by its key."""
    parts = key.split("/")
    if parts[0] == "tables" and len(parts) > 3:
        return f"{parts[1].removesuffix('.db')}.{parts[2]}"
    return key


def _objects(lake: Lake, prefix: str) -> Iterator[tuple[str, int]]:
    pages = lake.client.get_paginator("list_objects_v2").paginate(Bucket=lake.bucket, Prefix=prefix)
    for page in pages:
        yield from ((found["Key"], found["Size"]) for found in page.get("Contents", []))
