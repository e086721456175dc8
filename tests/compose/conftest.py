from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def env_example() -> dict[str, str]:
    lines = (REPOSITORY / ".env.example").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if re.match(r"[A-Z_]+=", line))


@pytest.fixture(scope="session")
def compose(env_example) -> dict[str, Any]:
    """docker-compose.yaml with its variables filled in, as `docker compose` does from .env."""

    def value(match: re.Match[str]) -> str:
        name, operator, default = match.groups()
        if name in env_example:
            return env_example[name]
        assert operator == ":-", f"${{{name}}} has no default, and .env.example does not set it"
        return default

    text = (REPOSITORY / "docker-compose.yaml").read_text()
    document: dict[str, Any] = yaml.safe_load(re.sub(r"\$\{([A-Z_]+)(:-|:\?)?([^}]*)\}", value, text))
    return document


@pytest.fixture(scope="session")
def services(compose) -> dict[str, Any]:
    services: dict[str, Any] = compose["services"]
    return services
