"""The deployment that is attacked: the real stack on an AWS emulator, and a real Airflow without a scheduler."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.faults.conftest import account, folder, shared_deployment, shared_pipeline
from tests.faults.world import Deployment, Pipeline, Run

__all__ = ["account", "folder", "shared_deployment", "shared_pipeline"]  # fixtures


@pytest.fixture
def deployment(shared_deployment: Deployment) -> Deployment:
    return shared_deployment


@pytest.fixture
def pipeline(shared_pipeline: Pipeline) -> Pipeline:
    return shared_pipeline


@pytest.fixture(scope="session")
def night(shared_deployment: Deployment, shared_pipeline: Pipeline) -> Run:
    """A run that nobody has attacked."""
    run = shared_pipeline.run()
    assert run.state == "success", shared_pipeline.tail()
    return run


@pytest.fixture
def evidence(record_property: Callable[[str, object], None]) -> Callable[[str], None]:
    """Notes what was seen, for build/attacks/results.json; it reaches it by pytest's JUnit file."""
    return lambda seen: record_property("evidence", seen)
