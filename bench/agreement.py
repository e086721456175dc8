"""Whether two contestants made the same: features photo by photo, two PCAs by their spectrum."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from bench.peers.contract import FEATURES, KEY

TOLERANCE = 1e-3
"""How far a peer's features may be from ours (values are in [0, 6])."""


class Disagreement(Exception):
    """A peer's result is not ours: somebody does less, or something else."""


def largest_difference(theirs_folder: Path, ours_folder: Path, expected: int) -> float:
    """Return the largest difference between a peer's features and ours, over the `expected` photos that both have.

    Raises:
        Disagreement: It is larger than the tolerance, or the photos are not the same.
    """
    theirs, reference = vectors(theirs_folder), vectors(ours_folder)
    common = theirs.keys() & reference.keys()
    if len(common) != expected:
        raise Disagreement(f"{theirs_folder.name}: {len(common)} photos in common with ours, not {expected}")
    worst = max(float(np.abs(theirs[key] - reference[key]).max()) for key in common)
    if not worst <= TOLERANCE:
        raise Disagreement(f"{theirs_folder.name}: features differ from ours by {worst:.2g}, allowed {TOLERANCE}")
    return worst


def vectors(folder: Path) -> dict[str, np.ndarray]:
    """Return the features by key, from a peer's result folder."""
    schema = pa.schema([(KEY, pa.string()), (FEATURES, pa.list_(pa.float32()))])
    by_key: dict[str, np.ndarray] = {}
    for file in sorted(folder.rglob("*.parquet")):
        table = pq.read_table(file, columns=[KEY, FEATURES]).cast(schema)
        rows = [np.asarray(row.values) for row in table[FEATURES]]
        by_key |= dict(zip(table[KEY].to_pylist(), rows, strict=True))
    return by_key


def spectrum_difference(ours_file: Path, theirs_file: Path) -> dict[str, float]:
    """Compare two PCAs: largest relative error of a variance ratio, sine of the subspaces' angle."""
    with np.load(ours_file) as mine, np.load(theirs_file) as other:
        ratios, theirs = mine["explained_variance_ratio"], other["explained_variance_ratio"]
        overlap = np.linalg.svd(mine["components"] @ other["components"].T, compute_uv=False)
    return {
        "max_relative_error": float(np.max(np.abs(ratios / theirs - 1))),
        "subspace_sine": float(np.sqrt(max(0.0, 1.0 - float(overlap.min()) ** 2))),
    }
