"""The limit: a plain loop in as many processes as there are cores, no framework at all.

Each process takes the next photos from a shared counter, so that none waits for the slowest, and writes one Parquet
file. Reading, decoding, resize, inference and writing are in it, as for everybody. The model is run by our own code
(`fruits.model.embedding`), so that the difference to our job is what Spark takes, and nothing else.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from multiprocessing.sharedctypes import Synchronized

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from fruits.base.batches import block_pandas_import
from fruits.model.embedding import LiteRtEmbedder, embed_all

from bench.peers.contract import DIMS, Clock, Task, parse, result_table

CHUNK = 16
"""Photos taken from the counter at a time."""


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
    block_pandas_import()
    photos = sorted(task.images.rglob("*.jpg"))
    model = LiteRtEmbedder(task.model_bytes, batch_size=1)
    keys: list[str] = []
    rows: list[np.ndarray] = []
    for chunk in chunks(counter, len(photos)):
        for index in chunk:
            keys.append(photos[index].relative_to(task.images).as_posix())
            rows.append(embed_all(model, pa.array([photos[index].read_bytes()])))
    stacked = np.concatenate(rows) if rows else np.empty((0, DIMS), np.float32)
    pq.write_table(result_table(keys, stacked), task.out / f"{number}.parquet")


def main() -> None:
    """Start the processes and wait for them."""
    task = parse(Task, __doc__)
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
