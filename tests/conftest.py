"""Marks what starts a server, by the fixtures that start one, so that `make test-unit` can leave it out."""

from __future__ import annotations

import pytest

SERVER_FIXTURES = frozenset({"endpoint", "aws", "demo", "world"})


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if SERVER_FIXTURES & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.server)
