"""Spark's own PCA, as its guide shows it: `array_to_vector`, `pyspark.ml.feature.PCA`.

The frame is cached first, since the fit passes over its rows twice, and the JVM has the memory to hold it.
"""

from pyspark import StorageLevel
from pyspark.ml.feature import PCA
from pyspark.ml.functions import array_to_vector

from bench.pca.contract import Task
from bench.peers.contract import FEATURES, Clock, parse
from bench.peers.spark import session


def main() -> None:
    """Read, fit and save."""
    task = parse(Task, __doc__)
    spark = session("mllib pca", task.workers, memory="6g")
    clock = Clock()
    rows = spark.read.parquet(task.features.as_uri()).select(array_to_vector(FEATURES).alias("vector"))
    rows = rows.persist(StorageLevel.MEMORY_AND_DISK)
    fitted = PCA(k=task.k, inputCol="vector", outputCol="pca").fit(rows)
    task.save(fitted.explainedVariance.toArray(), fitted.pc.toArray().T)
    clock.report()
    spark.stop()


if __name__ == "__main__":
    main()
