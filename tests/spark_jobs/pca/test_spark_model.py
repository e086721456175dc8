"""The export as Spark's own PCAModel."""

from __future__ import annotations

import numpy as np
import pytest
from fruits.pca import principal_components, spark_model
from fruits.pca.gramian import Gramian
from pyspark.ml.feature import PCAModel
from pyspark.ml.linalg import Vectors

DIMS = 30


@pytest.mark.spark
def test_a_saved_pca_is_a_pca_model_that_transforms_saves_and_loads(spark, tmp_path):
    values = np.random.default_rng(1).uniform(0, 6, (50, DIMS)).astype(np.float32)
    sums = Gramian(DIMS)
    sums.add(values)
    (tmp_path / "pca_model.npz").write_bytes(principal_components.fit(sums, "m", k=4).to_bytes())
    fitted = principal_components.load(str(tmp_path / "pca_model.npz"))
    spark_model.to_spark(spark, fitted).write().save(str(tmp_path / "model"))
    model = PCAModel.load(str(tmp_path / "model"))

    np.testing.assert_array_equal(model.pc.toArray(), fitted.components.T)
    np.testing.assert_array_equal(model.explainedVariance.toArray(), fitted.explained_variance_ratio)
    frame = spark.createDataFrame([(Vectors.dense(row.tolist()),) for row in values[:5]], ["features"])
    theirs = np.array([row.pca.toArray() for row in model.transform(frame).collect()])
    # MLlib's model does not subtract the mean.
    np.testing.assert_allclose(theirs - fitted.components @ fitted.mean, fitted.project(values[:5]), atol=1e-4)
