"""The model artifacts that tests read: of the real weights where they are, else of random ones."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
SHARED = Path(os.environ.get("FRUITS_SHARED", ROOT / ".." / "shared")).resolve()
WEIGHTS = SHARED / "weights" / "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_224_no_top.h5"


def make(folder: Path) -> dict[str, Any]:
    """Return the model.json of the LiteRT artifact."""
    from dev import make_model  # not every environment that collects these tests has what it imports

    return make_model.make(str(WEIGHTS) if WEIGHTS.is_file() else "random", folder)


@pytest.fixture(scope="session")
def models() -> Path:
    """The folder of models, with both artifacts."""
    folder = ROOT / ".cache" / "models"
    make(folder)
    return folder


@pytest.fixture(scope="session")
def model(models: Path) -> dict[str, Any]:
    """The model.json of the LiteRT artifact, with its folder."""
    card = make(models)
    return card | {"folder": str(models / card["model_id"])}
