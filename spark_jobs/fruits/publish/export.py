"""Tables to single Parquet files, and pixels to small pictures."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image
from pyspark.sql import SparkSession

from fruits.base import objects, schemas
from fruits.base.batches import Mapper, rebatched
from fruits.lake import data_files

THUMBNAIL_PX = 48
_ROW_GROUP_ROWS = 10_000
_ON_DRIVER_BYTES = 32 * 1024 * 1024


def write_parquet(
    spark: SparkSession, table: str, wanted: data_files.Wanted, uri: str, schema: pa.Schema, size_bytes: int
) -> int:
    """Write some rows of a table as one Parquet file, sorted by image_id.

    Args:
        spark: A session with the catalog configured.
        table: ``catalog.database.table``, with the columns of `schema`.
        wanted: Which rows.
        uri: Where to; a file of that name is replaced when all is written.
        schema: The file's Arrow schema.
        size_bytes: About how large the rows are. A few MB are written here: starting Python on an executor takes
            longer. More is written by one executor task, so that the driver holds none of it.

    Returns:
        The number of rows.
    """
    s3 = objects.where_is_s3() if objects.place(uri).bucket else None
    write = _write(uri, s3, schema)
    if size_bytes <= _ON_DRIVER_BYTES:
        rows = data_files.here(spark, table, schema.names, wanted).sort_by("image_id")
        written = pa.Table.from_batches(write(rows.to_batches()), schemas.WRITTEN)
    else:
        found = data_files.by_spark(spark, table, schema.names, wanted)
        one = found.coalesce(1).sortWithinPartitions("image_id")
        written = data_files.Mapped(one, write, schemas.WRITTEN).fetched()
    return sum(written["rows"].to_pylist())


def _write(uri: str, s3: objects.S3Location | None, schema: pa.Schema) -> Mapper:
    def write(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        rows = 0
        with objects.writer(uri, s3) as out, pq.ParquetWriter(out, schema, compression="zstd") as parquet:
            for batch in rebatched(batches, _ROW_GROUP_ROWS):
                parquet.write_batch(batch.select(schema.names).cast(schema))
                rows += batch.num_rows
        yield pa.record_batch([pa.array([rows], pa.int64())], schema=schemas.WRITTEN)

    return write


def thumbnails(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Map images (image_id, pixels) to `schemas.THUMBNAIL`."""
    for batch in batches:
        pictures = [_thumbnail(pixels.as_py()) for pixels in batch.column("pixels")]
        yield pa.record_batch(
            [batch.column("image_id").cast(pa.string()), pa.array(pictures, pa.binary())],
            schema=schemas.THUMBNAIL,
        )


def _thumbnail(encoded: bytes) -> bytes:
    with Image.open(io.BytesIO(encoded)) as picture:
        small = picture.convert("RGB")
    small.thumbnail((THUMBNAIL_PX, THUMBNAIL_PX))
    out = io.BytesIO()
    small.save(out, "WEBP", quality=80)
    return out.getvalue()
