"""One account and one Airflow without a scheduler for all faults, emptied before each; what came of it is kept."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.faults import invariants
from tests.faults.results import keep, stamp
from tests.faults.world import Aws, Deployment, Pipeline, closing_all

SEED = int(os.environ.get("SEED") or 1)

Check = Callable[..., list[str]]


@pytest.fixture(scope="session")
def seed() -> int:
    """Of every generator that draws what strikes; `make faults SEED=`."""
    return SEED


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("faults")


@pytest.fixture(scope="session")
def account(folder: Path) -> Iterator[Aws]:
    aws = Aws(folder)
    with closing_all(aws):
        yield aws


@pytest.fixture(scope="session")
def shared_deployment(account: Aws) -> Deployment:
    deployment = Deployment(account)
    deployment.create()
    return deployment


@pytest.fixture(scope="session")
def shared_pipeline(shared_deployment: Deployment, folder: Path) -> Iterator[Pipeline]:
    pipeline = Pipeline(shared_deployment, folder / "airflow")
    with closing_all(pipeline):
        yield pipeline


@pytest.fixture(scope="session")
def undisturbed(shared_deployment: Deployment, shared_pipeline: Pipeline) -> str:
    """Digest of the tables after a first night without a fault."""
    shared_deployment.empty()
    run = shared_pipeline.run()
    assert run.state == "success", shared_pipeline.tail()
    assert invariants.check(shared_deployment, run, invariants.scripted_tables) == []
    return invariants.digest(invariants.scripted_tables(shared_deployment))


@pytest.fixture
def deployment(shared_deployment: Deployment, undisturbed: str) -> Iterator[Deployment]:
    """The deployment as on its first day; nothing armed before or after."""
    shared_deployment.empty()
    yield shared_deployment
    shared_deployment.aws.disarm()


@pytest.fixture
def pipeline(shared_pipeline: Pipeline, deployment: Deployment) -> Pipeline:
    return shared_pipeline


@pytest.fixture
def record(request: pytest.FixtureRequest) -> Iterator[Callable[..., list[str]]]:
    """Notes which fault a test injects, for results.json and docs/reliability.md.

    What it found is added to the list that this gives. A test that ends otherwise than by passing did not hold.
    """
    mine: list[dict[str, Any]] = []
    version, began = stamp(), time.monotonic()

    def note(fault: str, moment: str, runner: str, what: str) -> list[str]:
        facts = {"fault": fault, "moment": moment, "runner": runner, "held": False, "broken": []}
        mine.append({**facts, "what": what, "test": request.node.nodeid, **version})
        broken: list[str] = mine[-1]["broken"]
        return broken

    yield note
    passed = getattr(request.node, "passed", False)
    for entry in mine:
        entry["held"] = passed and not entry["broken"]
        entry["seconds"] = round(time.monotonic() - began, 1)
        if not passed and not entry["broken"]:
            entry["broken"].append("the test failed: see its output")
    keep(mine)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    outcome: Any = yield
    if call.when == "call":
        item.passed = outcome.get_result().passed  # type: ignore[attr-defined]  # read by `record`
