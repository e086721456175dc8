"""Spark's own `predict_batch_udf`, one partition per worker, the model kept by Spark between batches.

Keras only, with the fair set-up of `engines.py`; the weights are broadcast. The decoded pixels travel as binary: an
array column would cross Arrow as 150,528 floats per photo.
"""

from collections.abc import Callable

import numpy as np
from pyspark.ml.functions import predict_batch_udf
from pyspark.sql.types import ArrayType, FloatType

from bench.peers.contract import FEATURES, KEY, Clock, Task, parse
from bench.peers.engines import BATCH, keras_engine, keras_model, quiet_tensorflow
from bench.peers.pixels import model_inputs
from bench.peers.spark import photos, session


def main() -> None:
    """Read, predict and write."""
    task = parse(Task, __doc__)
    spark = session("predict_batch_udf", task.workers)
    clock = Clock()
    spark.conf.set("spark.sql.execution.arrow.maxRecordsPerBatch", "256")
    quiet_tensorflow(threads=1)
    weights = spark.sparkContext.broadcast(keras_model(task.weights).get_weights())

    def make_predict() -> Callable[[np.ndarray], np.ndarray]:
        engine = keras_engine(lambda model: model.set_weights(weights.value))
        return lambda photos: engine(model_inputs(list(photos)))

    featurize = predict_batch_udf(make_predict, return_type=ArrayType(FloatType()), batch_size=BATCH)
    rows = photos(spark, task).repartition(task.workers).select(KEY, featurize("content").alias(FEATURES))
    rows.write.mode("overwrite").parquet(task.out.as_uri())
    clock.report()
    spark.stop()


if __name__ == "__main__":
    main()
