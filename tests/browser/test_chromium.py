"""dev/chromium.sh: where the browser of these tests comes from."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.browser.conftest import REPOSITORY


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """A folder with the script, and a PATH with next to nothing on it."""
    (tmp_path / "dev").mkdir()
    shutil.copy(REPOSITORY / "dev" / "chromium.sh", tmp_path / "dev")
    (tmp_path / "bin").mkdir()
    for name in ("bash", "dirname", "mkdir", "flock"):
        (tmp_path / "bin" / name).symlink_to(str(shutil.which(name)))
    return tmp_path


def run(machine: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [machine / "dev" / "chromium.sh"],
        env={"PATH": str(machine / "bin")},
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )


def test_the_machines_own_browser_is_taken(machine: Path) -> None:
    own = machine / "bin" / "chromium"
    own.write_text("#!/bin/sh\n")
    own.chmod(0o755)
    done = run(machine)
    assert done.returncode == 0
    assert done.stdout.strip() == str(own)


def test_one_that_was_unpacked_is_taken_again(machine: Path) -> None:
    for name in ("apt-get", "dpkg-deb"):
        (machine / "bin" / name).symlink_to("/bin/false")
    unpacked = machine / ".cache" / "chromium" / "chromium"
    unpacked.parent.mkdir(parents=True)
    unpacked.write_text("#!/bin/sh\n")
    unpacked.chmod(0o755)
    assert run(machine).stdout.strip() == str(unpacked)


def test_where_there_can_be_none_the_reason_is_given(machine: Path) -> None:
    done = run(machine)
    assert done.returncode == 1
    assert "it needs apt-get" in done.stderr
    assert done.stdout == ""
