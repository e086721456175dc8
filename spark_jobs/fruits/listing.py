"""The run's listing: what was in the input when the run began.

Executors read it by row group. A listing of one row group the driver reads itself: that is bounded, and spares a night
with little to do the start of a Python worker.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from pyspark.sql import SparkSession

from fruits import objects, schemas
from fruits.batches import Mapper
from fruits.errors import InputError, ListingError
from fruits.fetching import local_etag
from fruits.keys import image_id
from fruits.tables import Large

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
            f"there is no listing at {uri}: let `plan` (or tools/run_local.py) write it"
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
    keys = rows.column("key")
    ids = pa.array([image_id(key) for key in keys.to_pylist()], pa.string())
    return pa.record_batch(
        [
            ids,
            keys.cast(pa.string()),
            rows.column("etag").cast(pa.string()),
            rows.column("size_bytes").cast(pa.int64()),
        ],
        schema=schemas.LISTED,
    )


def write_of_folder(folder: Path, uri: str) -> tuple[int, int]:
    """List a plain folder as `plan` lists a bucket: every file, sorted by key, keys relative to the folder.

    Args:
        folder: The folder of photos; links are not followed into other folders.
        uri: Where to write ``listing.parquet``.

    Returns:
        The number of files and their bytes.

    Raises:
        InputError: The folder does not exist, is not a folder or holds no file, or a file's name is not UTF-8.
    """
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder: give one that holds photos")
    rows = sorted((_key(path, folder), path) for path in _files(folder))
    if not rows:
        raise InputError(f"{folder} holds no file: put photos into it, in one folder per label")
    sizes = [path.stat().st_size for _, path in rows]
    table = pa.table(
        {
            "key": pa.array([key for key, _ in rows], pa.string()),
            "etag": pa.array([local_etag(path) for _, path in rows], pa.string()),
            "size_bytes": pa.array(sizes, pa.int64()),
        }
    )
    with objects.writer(uri, None) as out:
        pq.write_table(table, out, row_group_size=ROW_GROUP_ROWS)
    return len(rows), sum(sizes)


def _files(folder: Path) -> Iterator[Path]:
    for parent, _, names in os.walk(folder):
        yield from (path for name in names if (path := Path(parent, name)).is_file())


def _key(path: Path, folder: Path) -> str:
    key = path.relative_to(folder).as_posix()
    try:
        key.encode()
    except UnicodeEncodeError as error:
        raise InputError(f"the name of {os.fsencode(path)!r} is not UTF-8: rename the file") from error
    return key
