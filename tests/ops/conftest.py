"""One server for the tests of this folder; each test deploys under an id of its own."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from tests.local_aws.server import REGION, Server

_numbers = itertools.count(1)


@dataclass
class Account:
    """The server as ops/ wants an account: clients by service."""

    server: Server
    region: str = REGION

    def client(self, service: str, attempts: int = 1) -> Any:
        return self.server.client(service, self.region)


@pytest.fixture(scope="session")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("aws"))
    server.make_account()
    yield server
    assert server.stop() == 0


@pytest.fixture
def account(aws: Server) -> Account:
    return Account(aws)


@pytest.fixture
def deployment_id() -> str:
    return f"test-{next(_numbers)}"


@pytest.fixture
def databases(deployment_id: str) -> dict[str, str]:
    """Names of an account's databases are its own: no two stacks of one account share one."""
    name = deployment_id.replace("-", "_")
    return {"NightlyDatabase": f"fruits_{name}", "DemoDatabase": f"demo_{name}", "NotebookDatabase": f"notebook_{name}"}
