"""A folder and a model for the tests that run contestants."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("bench")


@pytest.fixture(scope="module")
def model(work: Path) -> Any:
    """A `bench.ours.Model`; other tests of this folder run in an environment that cannot import it."""
    from bench import ours

    return ours.model(work)
