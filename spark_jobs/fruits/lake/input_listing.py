"""The run's listing: the objects in the input when the run started.

Executors read it by row group. The driver reads a listing of a single row group itself: its size is bounded, and a run
with little to do need not start a Python worker.
"""

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
from fruits.lake.tables import SparkRows

ROW_GROUP_ROWS = 50_000
_BATCH_ROWS = 10_000
_COLUMNS = ["key", "etag", "size_bytes"]


def read(spark: SparkSession, uri: str) -> pa.Table | SparkRows:
    """Read a listing (`schemas.LISTING`): the driver a single row group, executors several, group by group.

    Raises:
        ListingError: There is no listing, or it does not have these columns.
    """
    s3 = objects.find_s3_for(uri)
    try:
        with objects.open_arrow(uri, s3) as file:
            footer = pq.ParquetFile(file)
            row_groups, row_count = footer.num_row_groups, footer.metadata.num_rows
            missing = set(_COLUMNS) - set(footer.schema_arrow.names)
            if row_groups <= 1 and not missing:
                rows = [_with_image_ids(batch) for batch in footer.read(_COLUMNS).to_batches()]
                return pa.Table.from_batches(rows, schemas.LISTING)
    except FileNotFoundError as error:
        raise ListingError(f"there is no listing at {uri}: let `plan` (or dev/run_local.py) write it") from error
    except pa.ArrowInvalid as error:
        raise ListingError(f"{uri} is not a Parquet file: {error}") from error
    if missing:
        raise ListingError(f"{uri} lacks the columns {sorted(missing)}")
    slices = max(1, min(row_groups, 4 * spark.sparkContext.defaultParallelism))
    groups = spark.range(0, row_groups, 1, numPartitions=slices)
    frame = groups.mapInArrow(_row_group_reader(uri, s3), schemas.to_spark(schemas.LISTING))
    return SparkRows(frame, row_count)


def _row_group_reader(uri: str, s3: objects.S3Location | None) -> Mapper:
    def read_groups(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        with objects.open_arrow(uri, s3) as file:
            parquet = pq.ParquetFile(file)
            for batch in batches:
                for group in batch.column("id").to_pylist():
                    for rows in parquet.iter_batches(_BATCH_ROWS, row_groups=[group], columns=_COLUMNS):
                        yield _with_image_ids(rows)

    return read_groups


def _with_image_ids(rows: pa.RecordBatch) -> pa.RecordBatch:
    ids = pa.array([keys.image_id(key) for key in rows.column("key").to_pylist()], pa.string())
    columns = [ids, *(rows.column(name) for name in _COLUMNS)]
    types = schemas.LISTING.types
    return pa.record_batch(
        [column.cast(kind) for column, kind in zip(columns, types, strict=True)], schema=schemas.LISTING
    )


@dataclass(frozen=True)
class FolderContent:
    """The files below a folder, by kind."""

    photos: list[Path]  # sorted by key; files that are not pictures become rejects
    leftovers: list[Path]  # of file managers (`keys.is_leftover`); not loaded
    others: list[Path]  # links to folders, pipes, sockets and devices; not followed or opened

    def describe_skipped(self, root: Path) -> list[str]:
        """Describe the files that are not loaded, in a line for each kind."""
        return [
            f"{len(paths)} {kind}, for example {min(paths).relative_to(root).as_posix()!r}"
            for kind, paths in (
                ("leftovers of file managers are not loaded", self.leftovers),
                ("links to folders, pipes or devices are not followed", self.others),
            )
            if paths
        ]


def walk(folder: Path) -> FolderContent:
    """Walk a whole folder, or fail: a photo that cannot be seen must not count as deleted.

    Raises:
        InputError: The folder does not exist or is not a folder, a folder below it cannot be read or lies too deep, a
            link is broken, or a file's name is not UTF-8. What file managers leave behind need not be readable.
    """
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder: give a folder that holds photos")
    result = FolderContent([], [], [])

    def fail(error: OSError | RecursionError) -> NoReturn:
        raise InputError(
            f"{getattr(error, 'filename', folder)} cannot be read ({getattr(error, 'strerror', error)}); nothing was "
            "loaded or removed: let the user that runs this read it, or move it out of the folder of photos"
        ) from error

    def skip_leftover(error: OSError) -> None:
        path = Path(error.filename)
        result.leftovers.append(path) if keys.is_leftover(f"{_key(path, folder)}/") else fail(error)

    try:
        for parent, folders, names in os.walk(folder, onerror=skip_leftover):
            result.others.extend(path for name in folders if (path := Path(parent, name)).is_symlink())
            for path in (Path(parent, name) for name in names):
                if keys.is_leftover(_key(path, folder)):
                    result.leftovers.append(path)
                else:
                    (result.photos if stat.S_ISREG(path.stat().st_mode) else result.others).append(path)
    except (OSError, RecursionError) as error:
        fail(error)
    result.photos.sort(key=lambda path: _key(path, folder))
    return result


def write_folder_listing(folder: Path, uri: str, report: Callable[[str], object] = print) -> tuple[int, int]:
    """List a plain folder as `plan` lists a bucket: every photo, sorted by key, keys relative to the folder.

    `report` takes a line for each kind of file that is not loaded.

    Returns:
        The number of photos and their bytes.

    Raises:
        InputError: As for `walk`, or the folder holds no photo.
    """
    content = walk(folder)
    skipped = content.describe_skipped(folder)
    if not content.photos:
        raise InputError("; ".join([f"{folder} holds no photo: put photos into it, in one folder per label", *skipped]))
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
    for line in skipped:
        report(line)
    return len(sizes), sum(sizes)


def _key(path: Path, folder: Path) -> str:
    key = path.relative_to(folder).as_posix()
    try:
        key.encode()
    except UnicodeEncodeError as error:
        raise InputError(f"the name of {os.fsencode(path)!r} is not UTF-8: rename the file") from error
    return key
