"""scikit-learn's PCA in one process, on all cores through BLAS: `svd_solver="covariance_eigh"`.

The features are read into one float64 matrix: in float32 its covariance would lose half of the digits.
"""

import numpy as np
import pyarrow.parquet as pq
from sklearn.decomposition import PCA

from bench.pca.contract import Task
from bench.peers.contract import DIMS, FEATURES, Clock, parse


def main() -> None:
    """Read, fit and save."""
    task = parse(Task, __doc__)
    clock = Clock()
    column = pq.read_table(task.features, columns=[FEATURES])[FEATURES]
    matrix = np.concatenate([chunk.flatten().to_numpy().reshape(-1, DIMS) for chunk in column.chunks])
    fitted = PCA(n_components=task.k, svd_solver="covariance_eigh").fit(matrix.astype(np.float64))
    task.save(fitted.explained_variance_ratio_, fitted.components_)
    clock.report()


if __name__ == "__main__":
    main()
