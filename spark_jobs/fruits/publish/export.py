"""Export tables to single Parquet files, and pixels to thumbnails."""

import io
from collections.abc import Iterable, Iterator

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from fruits.base import objects, schemas
from fruits.base.batches import Mapper, rebatch
from fruits.lake.data_files import MappedRows, Selection

THUMBNAIL_PX = 48
_ROW_GROUP_ROWS = 10_000
_DRIVER_BYTES = 32 * 1024 * 1024


def write_parquet(selection: Selection, uri: str, schema: pa.Schema, size_bytes: int) -> int:
    """Write rows as a single Parquet file, sorted by image_id, and return their number.

    A file at `uri` is replaced when all rows are written. The driver writes a few MB itself, because starting Python on
    an executor takes longer. A single executor task writes more, so that the driver does not hold the rows.
    """
    write = _file_writer(uri, objects.find_s3_for(uri), schema)
    if size_bytes <= _DRIVER_BYTES:
        rows = selection.read().sort_by("image_id")
        written = pa.Table.from_batches(write(rows.to_batches()), schemas.ROW_COUNT)
    else:
        partition = selection.frame().coalesce(1).sortWithinPartitions("image_id")
        written = MappedRows(partition, write, schemas.ROW_COUNT).fetch()
    return sum(written["rows"].to_pylist())


def _file_writer(uri: str, s3: objects.S3Location | None, schema: pa.Schema) -> Mapper:
    def write(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        rows = 0
        with objects.writer(uri, s3) as out, pq.ParquetWriter(out, schema, compression="zstd") as parquet:
            for batch in rebatch(batches, _ROW_GROUP_ROWS):
                parquet.write_batch(batch.select(schema.names).cast(schema))
                rows += batch.num_rows
        yield pa.record_batch([pa.array([rows], pa.int64())], schema=schemas.ROW_COUNT)

    return write


def thumbnails(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Map images (image_id, pixels) to `schemas.THUMBNAIL`."""
    for batch in batches:
        pictures = [_thumbnail(pixels.as_py()) for pixels in batch.column("pixels")]
        yield pa.record_batch(
            [batch.column("image_id").cast(pa.string()), pa.array(pictures, pa.binary())], schema=schemas.THUMBNAIL
        )


def _thumbnail(encoded: bytes) -> bytes:
    with Image.open(io.BytesIO(encoded)) as picture:
        small = picture.convert("RGB")
    small.thumbnail((THUMBNAIL_PX, THUMBNAIL_PX))
    out = io.BytesIO()
    small.save(out, "WEBP", quality=80)
    return out.getvalue()
