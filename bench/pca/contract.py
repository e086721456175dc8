"""What a PCA peer is told, and what it answers."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np


@dataclass(frozen=True)
class Task:
    """One fit."""

    features: Path  # Parquet file of (key, features)
    k: int  # components
    out: Path  # `.npz` that gets `explained_variance_ratio` (k,) and `components` (k, 1280)
    workers: int  # cores to use

    def save(self, ratios: np.ndarray, components: np.ndarray) -> None:
        """Write the fitted model."""
        np.savez(self.out, explained_variance_ratio=ratios, components=components)
