"""The usual way to load photos: `binaryFile`, then a pandas_udf that does what our load job does to each photo.

Decoded, metadata dropped, encoded anew as lossless WebP (the same encoder settings), hashed, written as Parquet with
zstd. It checks nothing, rejects nothing and knows nothing of what is loaded already: that is ours alone.
"""

import hashlib
import io
from collections.abc import Iterator

import pandas as pd
from PIL import Image
from pyspark.sql import functions

from bench.peers.contract import KEY, Clock, Task, parse
from bench.peers.spark import photos, session

ROW = "pixels binary, width_px int, height_px int, content_sha256 string"


def load(data: bytes) -> tuple[bytes, int, int, str]:
    """One photo to clean pixels, their size, and the digest of the original."""
    with Image.open(io.BytesIO(data)) as photo:
        rgb = photo.convert("RGB")
    out = io.BytesIO()
    bare = Image.frombytes("RGB", rgb.size, rgb.tobytes())
    bare.save(out, "WEBP", lossless=True, method=0, quality=0, exact=True)
    return out.getvalue(), rgb.width, rgb.height, hashlib.sha256(data).hexdigest()


def main() -> None:
    """Read, load and write."""
    task = parse(Task, __doc__)
    spark = session("binaryFile load", task.workers)
    clock = Clock()
    spark.conf.set("spark.sql.execution.arrow.maxRecordsPerBatch", "256")

    @functions.pandas_udf(ROW)  # type: ignore[call-overload]
    def loaded(batches: Iterator[pd.Series]) -> Iterator[pd.DataFrame]:
        names = [column.split()[0] for column in ROW.split(", ")]
        for contents in batches:
            yield pd.DataFrame([load(data) for data in contents], columns=names)

    rows = photos(spark, task).select(KEY, "modificationTime", "length", loaded("content").alias("image"))
    rows.select(KEY, "modificationTime", "length", "image.*").write.option("compression", "zstd").parquet(
        task.out.as_uri()
    )
    clock.report()
    spark.stop()


if __name__ == "__main__":
    main()
