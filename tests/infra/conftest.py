"""Offline checks of template, policies, scripts and locks, with tools of an environment of their own: .venv-lint."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ops.template import Resolver, read_template

REPOSITORY = Path(__file__).resolve().parents[2]
TOOLS = Path(sys.executable).parent
Run = Callable[..., "subprocess.CompletedProcess[str]"]


def call_tool(tool: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Runs one of the tools; gives its exit status and words."""
    command = [str(TOOLS / tool), *map(str, arguments)]
    return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)


@pytest.fixture
def run() -> Run:
    return call_tool


def resolved_stack(**parameters: str) -> dict[str, dict[str, Any]]:
    """Every resource of include/stack.yaml, in a private network unless `parameters` say otherwise."""
    return resolver(**{"CreateVpc": "private", **parameters}).resources()


def resolver(**parameters: str) -> Resolver:
    """include/stack.yaml with names of an account that does not exist."""
    template = read_template()
    names: dict[str, str] = {}

    def attribute(name: str, _wanted: str) -> str:
        kind = template["Resources"][name]["Type"]
        if kind == "AWS::S3::Bucket":
            return f"arn:aws:s3:::{name.lower()}"
        if kind == "AWS::KMS::Key":
            return "arn:aws:kms:eu-west-1:123456789012:key/11111111-2222-3333-4444-555555555555"
        return f"arn:aws:iam::123456789012:role/{name}"

    return Resolver(
        template=template,
        parameters={"DeploymentId": "test", "AlarmEmail": "a@example.org", **parameters},
        pseudo={"AWS::Partition": "aws", "AWS::Region": "eu-west-1", "AWS::AccountId": "123456789012"},
        reference=lambda name: names.get(name, name.lower()),
        attribute=attribute,
        zones=lambda: ["eu-west-1a"],
    )
