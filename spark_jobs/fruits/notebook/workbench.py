"""The photos of a notebook: list them, read them, and show them.

Places are folders of this machine, or `s3://` on a cluster. A cluster's nodes may lack matplotlib.
"""

import importlib
import io
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from fruits.base import keys, objects
from fruits.images import rejects, sandbox
from fruits.lake import input_listing


def optional(name: str) -> ModuleType | None:
    """Import a library that a cluster's nodes may lack; without it warn, with the remedy, and return None."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError:
        warnings.warn(f"no {name} here, so its cells show nothing: add it to requirements/node.in", stacklevel=2)
        return None


@dataclass
class Workbench:
    """The photos of a notebook, and the files of its run."""

    photos: str  # folder or `s3://bucket/prefix/` of the photos, in one folder for each label
    lake: str  # folder or `s3://bucket` for the files of the run
    listed: list[dict[str, Any]] = field(default_factory=list)  # rows of the listing: `key`, `etag`, `size_bytes`
    decoder: sandbox.Decoder = field(default_factory=sandbox.Decoder)
    run_id: str = field(default_factory=lambda: datetime.now(UTC).strftime("notebook__%Y-%m-%dT%H-%M-%S"))

    @property
    def run_folder(self) -> str:
        """The folder of the run's files."""
        return objects.join(self.lake, f"runs/{self.run_id}")

    @property
    def _listing(self) -> str:
        return objects.join(self.run_folder, "listing.parquet")

    def list_photos(self) -> None:
        """List the photos, and write the listing that `load_images` reads, as the task `plan` does at night."""
        place = objects.parse_uri(self.photos)
        if place.bucket is None:
            input_listing.write_folder_listing(Path(self.photos), self._listing)
            self.listed = pq.read_table(self._listing).to_pylist()
        else:
            pages = objects.open_boto3_client(objects.find_s3()).get_paginator("list_objects_v2")
            self.listed = [
                {"key": item["Key"], "etag": item["ETag"].strip('"'), "size_bytes": item["Size"]}
                for page in pages.paginate(Bucket=place.bucket, Prefix=place.key)
                for item in page.get("Contents", [])
                if not keys.is_leftover(item["Key"].removeprefix(place.key))
            ]
            self._write()

    def hold_out(self, key: str) -> bytes:
        """Take a photo off the listing, so that the PCA never sees it, and return its bytes."""
        self.listed = [row for row in self.listed if row["key"] != key]
        self._write()
        return self.read_photo(key)

    def _write(self) -> None:
        with objects.writer(self._listing, None) as out:
            pq.write_table(pa.Table.from_pylist(self.listed), out)

    def label_of(self, key: str) -> str:
        """Return the label of a photo: its last folder."""
        place = objects.parse_uri(self.photos)
        return keys.label(key, place.key if place.bucket else "") or "—"

    def read_photo(self, key: str) -> bytes:
        """Return the bytes of a listed object."""
        place = objects.parse_uri(self.photos)
        return objects.read_bytes(objects.join(self.photos if place.bucket is None else f"s3://{place.bucket}", key))

    def picture_of(self, key: str) -> Image.Image | None:
        """Return a listed object as a picture; None where it is no photo, which loading reports too."""
        try:
            return Image.open(io.BytesIO(self.decoder.clean(self.read_photo(key)).pixels))
        except rejects.ImageRejected:
            return None

    def first_photos(self) -> dict[str, str]:
        """Return the key of the first photo of each label."""
        first = {self.label_of(row["key"]): row["key"] for row in reversed(self.listed)}
        return {label: key for label, key in sorted(first.items()) if label != "—" and self.picture_of(key)}


def show(pictures: Sequence[tuple[str, Image.Image]], columns: int = 10) -> None:
    """Draw pictures in rows, each with its title."""
    plt = optional("matplotlib.pyplot")
    if plt is None or not pictures:
        return
    rows = -(-len(pictures) // columns)
    _, axes = plt.subplots(rows, columns, figsize=(1.25 * columns, 1.55 * rows), squeeze=False, layout="tight")
    for axis in axes.flat:
        axis.axis("off")
    for axis, (title, picture) in zip(axes.flat, pictures, strict=False):
        axis.imshow(picture)
        axis.set_title(title, fontsize=7, parse_math=False)
    plt.show()
