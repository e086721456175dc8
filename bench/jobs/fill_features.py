"""Append a Parquet file of made-up features to our `features` table, for the measurement of the PCA alone."""

import argparse

from fruits.lake import tables
from pyspark.sql import SparkSession
from pyspark.sql import functions as F  # noqa: N812 - Spark's own convention


def main() -> None:
    """Create the tables and append."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--database", required=True)
    parser.add_argument("--features", required=True)
    parser.add_argument("--model-id", required=True)
    arguments = parser.parse_args()
    spark = SparkSession.builder.getOrCreate()
    tables.ensure(spark, arguments.database)
    rows = spark.read.parquet(arguments.features).select(
        F.col("key").alias("image_id"),
        F.lit(arguments.model_id).alias("model_id"),
        "features",
        F.col("key").alias("content_sha256"),
        F.lit("bench").alias("run_id"),
    )
    rows.writeTo(f"{arguments.database}.features").append()
    spark.stop()


if __name__ == "__main__":
    main()
