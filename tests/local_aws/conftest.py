"""One server for all tests of this folder that do not end it."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest

from tests.local_aws.server import SPARK_PYTHON, Server

_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("aws"))
    server.make_account()
    yield server
    assert server.stop() == 0


@pytest.fixture(scope="session")
def waiting(aws: Server) -> str:
    """Return a cluster that waits for steps; tests end their steps and leave it waiting."""
    cluster_id = aws.run_job_flow(Name="shared")
    aws.reach(cluster_id, "WAITING")
    return cluster_id


@pytest.fixture
def bucket(aws: Server) -> str:
    """Create a bucket for the test alone."""
    return aws.make_bucket(f"bucket-{next(_numbers)}")


@pytest.fixture(scope="session")
def spark_python() -> str:
    if not SPARK_PYTHON.exists():
        pytest.skip("no .venv-spark: run make setup")
    return str(SPARK_PYTHON)
