"""Features that look like MobileNetV2's: not negative, at most 6, a spectrum that falls over hundreds of directions."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from bench.peers.contract import DIMS, FEATURES, KEY

RANK = 300
SEED = 1280
BLOCK = 10_000


def block(number: int, rows: int) -> np.ndarray:
    """Return the `number`-th block of features: (rows, 1280) float32 in [0, 6], the same on every call."""
    mixing = np.random.default_rng(SEED).standard_normal((RANK, DIMS)).astype(np.float32)
    scale = (np.arange(1, RANK + 1, dtype=np.float32) ** -0.7)[:, None]
    draw = np.random.default_rng([SEED, number])
    rows_in = draw.standard_normal((rows, RANK)).astype(np.float32)
    noise = draw.standard_normal((rows, DIMS)).astype(np.float32)
    return np.clip(0.3 + rows_in @ (mixing * scale) * 0.4 + 0.2 * noise, 0, 6).astype(np.float32)


def write(count: int, path: Path) -> Path:
    """Write `count` features as Parquet (key, features list<float>), once."""
    if path.is_file():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    schema = pa.schema([(KEY, pa.string()), (FEATURES, pa.list_(pa.float32()))])
    with pq.ParquetWriter(partial, schema, compression="zstd") as writer:
        for start in range(0, count, BLOCK):
            rows = min(BLOCK, count - start)
            flat = pa.array(block(start // BLOCK, rows).reshape(-1))
            offsets = pa.array(np.arange(0, (rows + 1) * DIMS, DIMS, dtype=np.int32))
            keys = pa.array([f"{start + i:09d}" for i in range(rows)])
            vectors = pa.ListArray.from_arrays(offsets, flat)
            writer.write_table(pa.Table.from_arrays([keys, vectors], schema=schema), row_group_size=5_000)
    partial.rename(path)
    return path
