"""The limit: a plain loop in as many processes as there are cores, no framework at all.

Each process takes the next photos from a shared counter, so that none waits for the slowest, and writes one Parquet
file. Reading, decoding, resize, inference and writing are in it, as for everybody.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from multiprocessing.sharedctypes import Synchronized

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from bench.peers.contract import DIMS, FEATURES, KEY, Clock, Task, parse
from bench.peers.engines import engine_of
from bench.peers.pixels import model_inputs

CHUNK = 16
"""Photos taken from the counter at a time."""


def result_table(keys: list[str], rows: np.ndarray) -> pa.Table:
    """A peer's result: keys and (n, 1280) float32 features."""
    return pa.table({KEY: pa.array(keys, pa.string()), FEATURES: vectors(rows)})


def vectors(rows: np.ndarray) -> pa.FixedSizeListArray:
    """(n, 1280) float32 as one Arrow array, not copied."""
    return pa.FixedSizeListArray.from_arrays(pa.array(np.ascontiguousarray(rows).reshape(-1)), DIMS)


def chunks(counter: Synchronized[int], count: int) -> Iterator[range]:
    """Ranges of photo numbers that no other process has taken."""
    while True:
        with counter.get_lock():
            start = counter.value
            counter.value = start + CHUNK
        if start >= count:
            return
        yield range(start, min(start + CHUNK, count))


def work(number: int, task: Task, counter: Synchronized[int]) -> None:
    """One process: its own model, its own result file."""
    photos = sorted(task.images.rglob("*.jpg"))
    engine = engine_of(task)
    keys: list[str] = []
    rows: list[np.ndarray] = []
    for chunk in chunks(counter, len(photos)):
        for index in chunk:
            keys.append(photos[index].relative_to(task.images).as_posix())
            rows.append(engine(model_inputs([photos[index].read_bytes()])))
    stacked = np.concatenate(rows) if rows else np.empty((0, DIMS), np.float32)
    pq.write_table(result_table(keys, stacked), task.out / f"{number}.parquet")


def main() -> None:
    """Starts the processes and waits for them."""
    task = parse(__doc__)
    clock = Clock()
    task.out.mkdir(parents=True, exist_ok=True)
    context = multiprocessing.get_context("spawn")
    counter = context.Value("q", 0)
    processes = [context.Process(target=work, args=(n, task, counter)) for n in range(task.workers)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    if any(process.exitcode for process in processes):
        raise SystemExit("a worker process failed: see above")
    clock.report()


if __name__ == "__main__":
    main()
