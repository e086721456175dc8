"""Write the features of our table as a peer writes its own (key, features), for the check that all agree."""

import argparse

from pyspark.sql import SparkSession


def main() -> None:
    """Join `features` with the keys of `images` and write Parquet."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--database", required=True)
    parser.add_argument("--out", required=True)
    arguments = parser.parse_args()
    spark = SparkSession.builder.getOrCreate()
    images = spark.table(f"{arguments.database}.images").selectExpr("image_id", "source_key AS key")
    features = spark.table(f"{arguments.database}.features").select("image_id", "features")
    images.join(features, "image_id", "inner").select("key", "features").write.parquet(arguments.out)
    spark.stop()


if __name__ == "__main__":
    main()
