"""A small Spark job that does what the product's do: an Iceberg table written, merged into and read, a Python worker.

Submitted by class_archive.py, which keeps the classes that it makes the driver load.
"""

from collections.abc import Iterable

import pyarrow as pa
from pyspark.sql import SparkSession

TABLE = "lake.training.images"


def same(batches: Iterable[pa.RecordBatch]) -> Iterable[pa.RecordBatch]:
    """Return the batches unchanged, from a Python worker."""
    yield from batches


spark = SparkSession.builder.getOrCreate()
spark.sql(
    f"CREATE TABLE {TABLE} (image_id string, day date, pixels binary) USING iceberg"
    " PARTITIONED BY (bucket(4, image_id))"
)
rows = spark.range(0, 100, 1, 2).selectExpr("string(id) AS image_id", "current_date() AS day", "binary('a') AS pixels")
rows.mapInArrow(same, rows.schema).writeTo(TABLE).append()
rows.createOrReplaceTempView("new")
spark.sql(
    f"MERGE INTO {TABLE} AS old USING new ON old.image_id = new.image_id"
    " WHEN MATCHED THEN UPDATE SET * WHEN NOT MATCHED THEN INSERT *"
)
spark.sql(f"DELETE FROM {TABLE} WHERE image_id = '5'")  # noqa: S608 - a name of our own
spark.table(TABLE).groupBy("day").count().collect()
spark.table(TABLE).toArrow()
spark.stop()
