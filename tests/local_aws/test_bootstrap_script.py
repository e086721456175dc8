"""include/bootstrap.sh, run with a node's commands replaced by ones that tell what they were asked."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.local_aws.server import REPOSITORY

SCRIPT = REPOSITORY / "include" / "bootstrap.sh"


@pytest.fixture
def node(tmp_path: Path) -> Path:
    """A folder with a `sudo` that writes down its arguments."""
    sudo = tmp_path / "sudo"
    sudo.write_text(f'#!/bin/bash\nprintf "%s\\n" "$*" >> {tmp_path}/asked\n')
    sudo.chmod(0o755)
    return tmp_path


def run(node: Path, *args: str, primary: bool = True) -> subprocess.CompletedProcess[str]:
    info = node / "instance.json"
    info.write_text('{\n  "isMaster": %s,\n  "isRunningNameNode": true\n}' % ("true" if primary else "false"))
    script = SCRIPT.read_text().replace("/mnt/var/lib/info/instance.json", str(info))
    path = node / "bootstrap.sh"
    path.write_text(script)
    return subprocess.run(
        ["bash", str(path), *args],
        env=os.environ | {"PATH": f"{node}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )


def asked(node: Path) -> str:
    path = node / "asked"
    return path.read_text() if path.exists() else ""


def moment(seconds: float) -> str:
    return (datetime.now(UTC) + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")


def test_the_primary_node_arms_a_timer_that_shuts_it_down(node: Path) -> None:
    assert run(node, "--deadline", moment(3600)).returncode == 0
    match = re.fullmatch(
        r"systemd-run --unit=fruits-deadline --on-active=(\d+)s /usr/sbin/shutdown -h now\n", asked(node)
    )
    assert match
    assert 3590 <= int(match[1]) <= 3600


def test_other_nodes_arm_nothing(node: Path) -> None:
    assert run(node, "--deadline", moment(3600), primary=False).returncode == 0
    assert asked(node) == ""


def test_a_deadline_that_has_passed_shuts_down_at_once(node: Path) -> None:
    assert run(node, f"--deadline={moment(-5)}").returncode == 0
    assert asked(node) == "shutdown -h now\n"


@pytest.mark.parametrize(
    "args",
    [[], ["--deadline"], ["--deadline", "tomorrow"], ["--deadline", "2030-01-01T00:00:00"], ["--dead", "x"]],
)
def test_anything_else_fails_the_bootstrap(node: Path, args: list[str]) -> None:
    ended = run(node, *args)
    assert ended.returncode != 0
    assert "usage" in ended.stderr
    assert asked(node) == ""


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="shellcheck is not installed")
def test_shellcheck_finds_nothing() -> None:
    ended = subprocess.run(["shellcheck", str(SCRIPT)], capture_output=True, text=True, check=False)
    assert ended.stdout == ""
