"""Ray Data: `read_binary_files`, one actor per worker that keeps its model, `write_parquet`.

Ray gets one slot more than there are workers, so that reading is never starved by the actors; the cores are the same.
"""

import os

import pyarrow as pa
import ray

from bench.peers.contract import FEATURES, KEY, Clock, Task, parse, result_table
from bench.peers.engines import BATCH, engine_of
from bench.peers.pixels import model_inputs


class Featurize:
    """An actor: the model is loaded once and kept."""

    def __init__(self, task: Task) -> None:
        self._engine = engine_of(task)
        self._prefix = len(str(task.images)) + 1

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Photos (path, bytes) to (key, features)."""
        keys = [path[self._prefix :] for path in batch["path"].to_pylist()]
        return result_table(keys, self._engine(model_inputs(batch["bytes"].to_pylist())))


def main() -> None:
    """Read, map and write."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    task = parse(Task, __doc__)
    ray.init(
        num_cpus=task.workers + 1,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="ERROR",
        object_store_memory=1024**3,
    )
    ray.data.DataContext.get_current().enable_progress_bars = False
    clock = Clock()
    photos = ray.data.read_binary_files(str(task.images), include_paths=True, file_extensions=["jpg"])
    rows = photos.map_batches(
        Featurize,
        fn_constructor_args=(task,),
        batch_size=BATCH,
        batch_format="pyarrow",
        compute=ray.data.ActorPoolStrategy(size=task.workers),
        num_cpus=1,
    )
    rows.select_columns([KEY, FEATURES]).write_parquet(str(task.out))
    clock.report()
    ray.shutdown()


if __name__ == "__main__":
    main()
