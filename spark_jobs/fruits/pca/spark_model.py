"""A fitted PCA as Spark's own ``PCAModel``, for pipelines that are made of these."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from pyspark.ml.feature import PCAModel
from pyspark.sql import SparkSession

from fruits.pca.principal_components import Pca


def pca_model(spark: SparkSession, fitted: Pca) -> PCAModel:
    """Give a fitted PCA as Spark's own ``PCAModel``, for pipelines that are made of these.

    Its ``transform`` does not subtract the mean: what it gives is ``fitted.project(x)`` moved by the constant
    ``fitted.components @ fitted.mean``, with the same distances.

    Args:
        spark: A session.
        fitted: A PCA, for example of `fruits.pca.principal_components.load`.

    Returns:
        A model with input column ``features`` and output column ``pca``, ready to ``transform`` or ``write``.
    """
    session: Any = spark
    linalg = session._jvm.org.apache.spark.ml.linalg
    # Spark keeps matrices by columns: our k rows of d values, one after the other, are its d rows of k values.
    java = session._jvm.org.apache.spark.ml.feature.PCAModel(
        f"pca_{fitted.pca_id[:12]}",
        linalg.DenseMatrix(
            fitted.components.shape[1], fitted.k, _doubles(session, fitted.components.ravel())
        ),
        linalg.DenseVector(_doubles(session, fitted.explained_variance_ratio)),
    )
    model: Any = PCAModel(java)
    model._resetUid(java.uid())
    java.set(java.getParam("k"), fitted.k)
    java.set(java.getParam("inputCol"), "features")
    java.set(java.getParam("outputCol"), "pca")
    model._transfer_params_from_java()
    made: PCAModel = model
    return made


def _doubles(session: Any, values: npt.NDArray[np.float64]) -> Any:
    """Hand an array to the JVM in one piece: setting its elements one by one is a call each."""
    buffer = session._jvm.java.nio.ByteBuffer.wrap(values.astype(">f8").tobytes()).asDoubleBuffer()
    array = session.sparkContext._gateway.new_array(session._jvm.double, len(values))
    # py4j passes arrays by reference: the buffer fills this very one.
    buffer.get(array)
    return array
