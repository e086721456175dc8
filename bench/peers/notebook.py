"""The usual notebook, as published by many: binaryFile, iterator pandas_udf, broadcast weights, Keras predict.

Kept as it is found: `repartition(20)`, the model built anew in every task and filled from the broadcast weights,
`model.predict` on whole Arrow batches, TensorFlow's own choice of threads. Only the resize is ours (bilinear, so that
all features are equal), and Spark runs on all the workers given.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
from pyspark.sql import functions
from pyspark.sql.types import ArrayType, FloatType

from bench.peers.contract import FEATURES, KEY, Clock, Task, parse
from bench.peers.engines import keras_model, quiet_tensorflow
from bench.peers.pixels import model_input
from bench.peers.spark import photos, session

PARTITIONS = 20


def main() -> None:
    """Run the notebook's cells, first to last."""
    task = parse(Task, __doc__)
    spark = session("usual notebook", task.workers)
    clock = Clock()
    # The notebooks set this: an image batch of the default 10,000 rows would not fit.
    spark.conf.set("spark.sql.execution.arrow.maxRecordsPerBatch", "1024")
    quiet_tensorflow(threads=None)
    weights = spark.sparkContext.broadcast(keras_model(task.weights).get_weights())

    def model_fn() -> Any:
        quiet_tensorflow(threads=None)
        model = keras_model(None)
        model.set_weights(weights.value)
        return model

    def featurize_series(model: Any, content: pd.Series) -> pd.Series:
        images = np.stack(content.map(model_input))
        return pd.Series([row.flatten() for row in model.predict(images, verbose=0)])

    @functions.pandas_udf(ArrayType(FloatType()))  # type: ignore[call-overload]
    def featurize(batches: Iterator[pd.Series]) -> Iterator[pd.Series]:
        model = model_fn()
        for content in batches:
            yield featurize_series(model, content)

    rows = photos(spark, task).repartition(PARTITIONS).select(KEY, featurize("content").alias(FEATURES))
    rows.write.mode("overwrite").parquet(task.out.as_uri())
    clock.report()
    spark.stop()


if __name__ == "__main__":
    main()
