"""The run's listing: what was in the input when the run began.

Executors read it by row group. A listing of one row group the driver reads itself: that is bounded, and spares a night
with little to do the start of a Python worker.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import pyarrow as pa
import pyarrow.parquet as pq
from pyspark.sql import SparkSession

from fruits.base import keys, objects, schemas
from fruits.base.batches import Mapper
from fruits.base.errors import InputError, ListingError
from fruits.base.objects import local_etag
from fruits.lake.tables import Large

ROW_GROUP_ROWS = 50_000
_BATCH_ROWS = 10_000
_COLUMNS = ["key", "etag", "size_bytes"]


def read(spark: SparkSession, uri: str) -> pa.Table | Large:
    """Read a listing of one row group; one of several executors read for themselves, a group at a time.

    Args:
        spark: The session.
        uri: ``listing.parquet`` with columns key, etag, size_bytes.

    Returns:
        One row an object: image_id, source_key, etag, size_bytes (`schemas.LISTED`).

    Raises:
        ListingError: There is no listing, or not one with these columns.
    """
    s3 = objects.where_is_s3() if objects.place(uri).bucket else None
    try:
        with objects.open_arrow(uri, s3) as file:
            footer = pq.ParquetFile(file)
            row_groups, names = footer.num_row_groups, footer.schema_arrow.names
            number = footer.metadata.num_rows
            if row_groups <= 1 and set(_COLUMNS) <= set(names):
                rows = [_listed(batch) for batch in footer.read(_COLUMNS).to_batches()]
                return pa.Table.from_batches(rows, schemas.LISTED)
    except FileNotFoundError as error:
        raise ListingError(
            f"there is no listing at {uri}: let `plan` (or dev/run_local.py) write it"
        ) from error
    except pa.ArrowInvalid as error:
        raise ListingError(f"{uri} is not a Parquet file: {error}") from error
    if missing := set(_COLUMNS) - set(names):
        raise ListingError(f"{uri} lacks the columns {sorted(missing)}")
    slices = max(1, min(row_groups, 4 * spark.sparkContext.defaultParallelism))
    groups = spark.range(0, row_groups, 1, numPartitions=slices)
    return Large(groups.mapInArrow(_row_groups(uri, s3), schemas.spark(schemas.LISTED)), number)


def _row_groups(uri: str, s3: objects.S3Location | None) -> Mapper:
    def read_groups(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        with objects.open_arrow(uri, s3) as file:
            parquet = pq.ParquetFile(file)
            for batch in batches:
                for group in batch.column("id").to_pylist():
                    for rows in parquet.iter_batches(_BATCH_ROWS, row_groups=[group], columns=_COLUMNS):
                        yield _listed(rows)

    return read_groups


def _listed(rows: pa.RecordBatch) -> pa.RecordBatch:
    names = rows.column("key")
    ids = pa.array([keys.image_id(key) for key in names.to_pylist()], pa.string())
    return pa.record_batch(
        [
            ids,
            names.cast(pa.string()),
            rows.column("etag").cast(pa.string()),
            rows.column("size_bytes").cast(pa.int64()),
        ],
        schema=schemas.LISTED,
    )


@dataclass(frozen=True)
class Folder:
    """The files below a folder, by what they are.

    Attributes:
        photos: Files to load, sorted by key; what is no picture becomes a reject.
        leftovers: Files that file managers leave behind (`keys.is_leftover`), which are not loaded.
        links: Links to other folders, which are not followed.
    """

    photos: list[Path]
    leftovers: list[Path]
    links: list[Path]

    def describe_rest(self, root: Path) -> list[str]:
        """Describe what is not loaded, one line for each kind that there is."""
        return [
            f"{len(paths)} {kind}, for example {paths[0].relative_to(root).as_posix()!r}"
            for kind, paths in (
                ("leftovers of file managers are not loaded", self.leftovers),
                ("links to folders are not followed", self.links),
            )
            if paths
        ]


def walk(folder: Path) -> Folder:
    """Walk a folder to its end, or fail: a photo that cannot be seen must not pass for one that is gone.

    Raises:
        InputError: The folder does not exist or is not a folder, a folder below it cannot be read, a link leads to
            nothing, or a file's name is not UTF-8.
    """
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder: give one that holds photos")
    result = Folder([], [], [])

    def fail(error: OSError) -> NoReturn:
        raise InputError(
            f"{error.filename} cannot be read ({error.strerror}); nothing was loaded or removed: let the user that "
            "runs this read it, or move it out of the folder of photos"
        ) from error

    for parent, folders, names in os.walk(folder, onerror=fail):
        result.links.extend(path for name in folders if (path := Path(parent, name)).is_symlink())
        for path in (Path(parent, name) for name in names):
            try:
                mode = path.stat().st_mode
            except OSError as error:
                fail(error)
            if keys.is_leftover(_key(path, folder)):
                result.leftovers.append(path)
            elif stat.S_ISREG(mode):
                result.photos.append(path)
    result.photos.sort(key=lambda path: _key(path, folder))
    for paths in (result.leftovers, result.links):
        paths.sort()
    return result


def write_of_folder(folder: Path, uri: str, report: Callable[[str], object] = print) -> tuple[int, int]:
    """List a plain folder as `plan` lists a bucket: every photo, sorted by key, keys relative to the folder.

    Args:
        folder: The folder of photos; links are not followed into other folders.
        uri: Where to write ``listing.parquet``.
        report: Takes a line for each kind of file that is not loaded.

    Returns:
        The number of photos and their bytes.

    Raises:
        InputError: As `walk` does, or the folder holds no photo.
    """
    content = walk(folder)
    rest = content.describe_rest(folder)
    if not content.photos:
        raise InputError(
            "; ".join([f"{folder} holds no photo: put photos into it, in one folder per label", *rest])
        )
    sizes = [path.stat().st_size for path in content.photos]
    table = pa.table(
        {
            "key": pa.array([_key(path, folder) for path in content.photos], pa.string()),
            "etag": pa.array([local_etag(path) for path in content.photos], pa.string()),
            "size_bytes": pa.array(sizes, pa.int64()),
        }
    )
    with objects.writer(uri, None) as out:
        pq.write_table(table, out, row_group_size=ROW_GROUP_ROWS)
    for line in rest:
        report(line)
    return len(sizes), sum(sizes)


def _key(path: Path, folder: Path) -> str:
    key = path.relative_to(folder).as_posix()
    try:
        key.encode()
    except UnicodeEncodeError as error:
        raise InputError(f"the name of {os.fsencode(path)!r} is not UTF-8: rename the file") from error
    return key
