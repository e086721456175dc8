"""Tables to single Parquet files, written by one executor task: the driver holds none of it."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image
from pyspark.sql import DataFrame

from fruits import objects, schemas
from fruits.batches import Mapper

THUMBNAIL_PX = 48
_ROW_GROUP_ROWS = 10_000


def write_parquet(frame: DataFrame, uri: str, schema: pa.Schema) -> int:
    """Write a frame as one Parquet file, sorted by image_id.

    Args:
        frame: Rows with the columns of `schema`.
        uri: Where to; a file of that name is replaced when all is written.
        schema: The file's Arrow schema.

    Returns:
        The number of rows.
    """
    s3 = objects.where_is_s3() if objects.place(uri).bucket else None
    one = frame.select(*schema.names).coalesce(1).sortWithinPartitions("image_id")
    written = one.mapInArrow(_write(uri, s3, schema), schemas.spark(schemas.WRITTEN)).collect()
    return sum(row.rows for row in written)


def _write(uri: str, s3: objects.S3Location | None, schema: pa.Schema) -> Mapper:
    def write(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        rows = 0
        with objects.writer(uri, s3) as out, pq.ParquetWriter(out, schema, compression="zstd") as parquet:
            pending: list[pa.RecordBatch] = []
            for batch in batches:
                pending.append(batch.select(schema.names).cast(schema))
                rows += batch.num_rows
                if sum(part.num_rows for part in pending) >= _ROW_GROUP_ROWS:
                    parquet.write_table(pa.Table.from_batches(pending))
                    pending = []
            if pending:
                parquet.write_table(pa.Table.from_batches(pending))
        yield pa.record_batch([pa.array([rows], pa.int64())], schema=schemas.WRITTEN)

    return write


def thumbnails(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Map sampled rows (image_id, label, pca, pixels) to `schemas.SAMPLE`: first two components, small picture."""
    for batch in batches:
        components = batch.column("pca").to_pylist()
        yield pa.record_batch(
            [
                batch.column("image_id"),
                batch.column("label"),
                pa.array([row[0] for row in components], pa.float32()),
                # With k = 1 there is no second component: the scatter is a line.
                pa.array([row[1] if len(row) > 1 else 0.0 for row in components], pa.float32()),
                pa.array([_thumbnail(pixels.as_py()) for pixels in batch.column("pixels")], pa.binary()),
            ],
            schema=schemas.SAMPLE,
        )


def _thumbnail(encoded: bytes) -> bytes:
    with Image.open(io.BytesIO(encoded)) as picture:
        small = picture.convert("RGB")
    small.thumbnail((THUMBNAIL_PX, THUMBNAIL_PX))
    out = io.BytesIO()
    small.save(out, "WEBP", quality=80)
    return out.getvalue()
