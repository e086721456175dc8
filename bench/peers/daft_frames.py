"""Daft: files by glob, bytes by `download`, a class UDF in one process per worker, `write_parquet`.

Daft imports every optional package that it finds, TensorFlow too, when it makes its first literal. With LiteRT we hide
TensorFlow from it, since a user of LiteRT would not have it; with Keras the clock starts after that import.
"""

import os
import sys

import daft
from daft import DataType, Series, col
from daft.functions import download

from bench.peers.contract import DIMS, FEATURES, KEY, Clock, Task, parse, vectors
from bench.peers.engines import BATCH, engine_of
from bench.peers.pixels import model_inputs

VECTOR = DataType.fixed_size_list(DataType.float32(), DIMS)


class Featurize:
    """A UDF that keeps its model; Daft makes one per process, on first use."""

    def __init__(self, task: Task) -> None:
        self._engine = engine_of(task)

    @daft.method.batch(return_dtype=VECTOR, batch_size=BATCH)
    def features(self, contents: Series) -> Series:
        """Photos to feature vectors."""
        rows = self._engine(model_inputs(contents.to_pylist()))
        return Series.from_arrow(vectors(rows))


def main() -> None:
    """Read, map and write."""
    os.environ.setdefault("DAFT_ANALYTICS_ENABLED", "0")
    os.environ.setdefault("DAFT_PROGRESS_BAR", "0")
    task = parse(Task, __doc__)
    if task.engine == "litert":
        sys.modules["tensorflow"] = None  # type: ignore[assignment]
    daft.set_runner_native()
    daft.lit(0)
    clock = Clock()
    featurize = daft.cls(Featurize, max_concurrency=task.workers, use_process=True)(task)
    prefix = len(task.images.as_uri()) + 1
    rows = (
        daft.from_glob_path(f"{task.images}/**/*.jpg")
        .with_column("content", download(col("path")))
        .select(col("path").substr(prefix).alias(KEY), featurize.features(col("content")).alias(FEATURES))
    )
    rows.write_parquet(str(task.out))
    clock.report()


if __name__ == "__main__":
    main()
