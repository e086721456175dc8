"""A fitted PCA model as Spark's own ``PCAModel``, for pipelines that are made of these; see docs/data_dictionary.md."""

from typing import Any

import numpy as np
import numpy.typing as npt
from pyspark.ml.feature import PCAModel
from pyspark.sql import SparkSession

from fruits.pca.principal_components import Pca


def to_spark(spark: SparkSession, pca: Pca) -> PCAModel:
    """Convert a fitted PCA model, for example of `fruits.pca.principal_components.load`, to a ``PCAModel``.

    Its ``transform`` does not subtract the mean: the result is ``pca.project(x)`` moved by the constant
    ``pca.components @ pca.mean``, with the same distances.

    Returns:
        A model with input column ``features`` and output column ``pca``, ready to ``transform`` or ``write``.
    """
    session: Any = spark
    linalg = session._jvm.org.apache.spark.ml.linalg
    # Spark keeps matrices by columns: our k rows of d values, one after the other, are its d rows of k values.
    values = _doubles(session, pca.components.ravel())
    java = session._jvm.org.apache.spark.ml.feature.PCAModel(
        f"pca_{pca.pca_id[:12]}",
        linalg.DenseMatrix(pca.components.shape[1], pca.k, values),
        linalg.DenseVector(_doubles(session, pca.explained_variance_ratio)),
    )
    model: Any = PCAModel(java)
    model._resetUid(java.uid())
    for name, value in (("k", pca.k), ("inputCol", "features"), ("outputCol", "pca")):
        java.set(java.getParam(name), value)
    model._transfer_params_from_java()
    spark_model: PCAModel = model
    return spark_model


def _doubles(session: Any, values: npt.NDArray[np.float64]) -> Any:
    """Pass an array to the JVM in one piece: setting its elements separately is a call each."""
    buffer = session._jvm.java.nio.ByteBuffer.wrap(values.astype(">f8").tobytes()).asDoubleBuffer()
    array = session.sparkContext._gateway.new_array(session._jvm.double, len(values))
    # py4j passes arrays by reference: the buffer fills this very one.
    buffer.get(array)
    return array
