"""What larger batches bring our engine, and a thread that decodes the next pictures while the model runs.

Our own code over pixels as `images` stores them, in memory, in one process per core and without Spark. Every process
takes the settings in turns of a few photos, all of them at the same time, so that whatever the machine does meets every
setting. The features have to be the same to the bit.
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Barrier

import numpy as np
import pyarrow as pa
from fruits.images import decoding
from fruits.model.embedding import DIMS, LiteRtEmbedder, embed_all
from fruits.model.preprocessing import INPUT_PX, fill

from bench.peers.contract import Clock, Task, parse

BATCHES = (1, 2, 4, 8)
TURN = 64
"""Photos of one process and one setting in a turn: a sixth of a second."""

Embed = Callable[[pa.Array], np.ndarray]
Turn = dict[str, tuple[float, float]]
"""By setting: seconds a photo on the wall, and of the processor, both of one process."""


class Ahead:
    """`fruits.model.embedding.embed_all` with a thread that fills one buffer while the model runs on the other."""

    def __init__(self, model: LiteRtEmbedder) -> None:
        self._model = model
        self._spare = np.zeros((model.batch_size, INPUT_PX, INPUT_PX, 3), np.float32)
        self._thread = ThreadPoolExecutor(1)

    def __call__(self, pixels: pa.Array) -> np.ndarray:
        """(n, 1280) float32."""
        features = np.empty((len(pixels), DIMS), np.float32)
        size = self._model.batch_size
        filling = self._thread.submit(self._fill, pixels, 0)
        for start in range(0, len(pixels), size):
            count = filling.result()
            # The model takes its input from the buffer that is full; the other one is filled meanwhile.
            self._model.buffer, self._spare = self._spare, self._model.buffer
            filling = self._thread.submit(self._fill, pixels, start + size)
            features[start : start + count] = self._model.embed()[:count]
        filling.result()
        return features

    def _fill(self, pixels: pa.Array, start: int) -> int:
        some = pixels[start : start + self._model.batch_size]
        for slot in range(len(some)):
            fill(some[slot].as_py(), self._spare[slot])
        return len(some)


def settings(flatbuffer: bytes) -> dict[str, Embed]:
    """Return the compared settings: `4` is a batch of four, `4_ahead` the same with a thread that decodes."""
    embedders: dict[str, Embed] = {}
    for size in BATCHES:
        model = LiteRtEmbedder(flatbuffer, size)
        embedders[str(size)] = lambda pixels, model=model: embed_all(model, pixels)
        embedders[f"{size}_ahead"] = Ahead(model)
    return embedders


def work(number: int, task: Task, barrier: Barrier, results: Queue[list[Turn]]) -> None:
    """One process: its share of the photos through every setting; queues the seconds a photo of each turn."""
    turns: list[Turn] = []
    try:
        photos = sorted(task.images.rglob("*.jpg"))
        mine = photos[number :: task.workers]
        pixels = pa.array([decoding.clean(photo.read_bytes()).pixels for photo in mine], pa.binary())
        compared = settings(task.model_bytes)
        agree(compared, pixels[:TURN])
        for turn in range(turns_of(len(photos), task.workers)):
            turns.append(run_turn(compared, pixels[turn * TURN : (turn + 1) * TURN], turn, barrier))
    except BaseException:
        barrier.abort()  # the others wait for this one
        raise
    finally:
        results.put(turns)


def agree(compared: dict[str, Embed], pixels: pa.Array) -> None:
    """Sees to it that no setting does less."""
    expected = compared["1"](pixels).tobytes()
    for name, embed in compared.items():
        if embed(pixels).tobytes() != expected:
            raise SystemExit(f"setting {name} gives other features than batches of one")


def run_turn(compared: dict[str, Embed], pixels: pa.Array, turn: int, barrier: Barrier) -> Turn:
    """One after the other, each turn beginning with another setting; a setting ends with the last process."""
    names = list(compared)
    first = turn % len(names)
    took = {}
    for name in names[first:] + names[:first]:
        barrier.wait()
        started, worked = time.perf_counter(), time.process_time()
        compared[name](pixels)
        worked = time.process_time() - worked
        barrier.wait()
        took[name] = (time.perf_counter() - started) / len(pixels), worked / len(pixels)
    return took


def turns_of(photos: int, workers: int) -> int:
    """Return the turns for which every process has photos."""
    return max(1, -(-(photos // workers) // TURN))


def main() -> None:
    """Start the processes; report images per second of all by setting, the median over the turns."""
    task = parse(__doc__)
    clock = Clock()
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(task.workers), context.Queue()
    processes = [context.Process(target=work, args=(n, task, barrier, results)) for n in range(task.workers)]
    for process in processes:
        process.start()
    turns = [turn for _ in processes for turn in results.get()]
    for process in processes:
        process.join()
    if any(process.exitcode for process in processes):
        raise SystemExit("a worker process failed: see above")
    wall, core = (
        {name: float(np.median([turn[name][which] for turn in turns])) for name in turns[0]} for which in range(2)
    )
    clock.report(
        img_s={name: round(task.workers / took, 1) for name, took in wall.items()},
        core_ms={name: round(took * 1000, 3) for name, took in core.items()},
    )


if __name__ == "__main__":
    main()
