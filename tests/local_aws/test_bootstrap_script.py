"""include/bootstrap.sh, run with a node's commands replaced by commands that record their arguments."""

from __future__ import annotations

import hashlib
import io
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tarfile
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.dev.job_imports import modules
from tests.local_aws.server import REPOSITORY

SCRIPT = REPOSITORY / "include" / "bootstrap.sh"


@pytest.fixture
def node(tmp_path: Path) -> Path:
    """Create a folder with a `sudo` that records its arguments."""
    sudo = tmp_path / "sudo"
    sudo.write_text(f'#!/bin/bash\nprintf "%s\\n" "$*" >> {tmp_path}/commands\n')
    sudo.chmod(0o755)
    return tmp_path


def run(node: Path, *args: str, primary: bool = True, path: str | None = None) -> subprocess.CompletedProcess[str]:
    info = node / "instance.json"
    info.write_text('{\n  "isMaster": %s,\n  "isRunningNameNode": true\n}' % ("true" if primary else "false"))
    script = SCRIPT.read_text().replace("/mnt/var/lib/info/instance.json", str(info))
    script = script.replace("/opt/fruits", str(node / "opt"))
    copy = node / "bootstrap.sh"
    copy.write_text(script)
    return subprocess.run(
        [str(shutil.which("bash")), str(copy), *args],
        # As where the user may not write: what is not done as root keeps no bytecode.
        env=os.environ | {"PATH": path or f"{node}:{os.environ['PATH']}", "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def commands_of(node: Path) -> str:
    path = node / "commands"
    return path.read_text() if path.exists() else ""


def moment(seconds: float) -> str:
    return (datetime.now(UTC) + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")


def test_the_primary_node_arms_a_timer_that_shuts_it_down(node: Path) -> None:
    assert run(node, f"--deadline={moment(3600)}").returncode == 0
    match = re.fullmatch(
        r"systemd-run --unit=fruits-deadline --on-active=(\d+)s /usr/sbin/shutdown -h now\n", commands_of(node)
    )
    assert match
    assert 3590 <= int(match[1]) <= 3600


def test_other_nodes_arm_nothing(node: Path) -> None:
    assert run(node, f"--deadline={moment(3600)}", primary=False).returncode == 0
    assert commands_of(node) == ""


def test_a_deadline_that_has_passed_shuts_down_at_once(node: Path) -> None:
    assert run(node, f"--deadline={moment(-5)}").returncode == 0
    assert commands_of(node) == "shutdown -h now\n"


@pytest.mark.parametrize(
    "args",
    [
        [],
        ["--deadline"],
        ["--deadline=tomorrow"],
        ["--deadline=2030-01-01T00:00:00"],
        ["--dead=x"],
        ["--deadline=2030-01-01T00:00:00Z", "--environment=s3://lake/env/latest/environment.tar.gz"],
        ["--deadline=2030-01-01T00:00:00Z", f"--environment=https://elsewhere/env/{'0' * 64}/environment.tar.gz"],
    ],
)
def test_anything_else_fails_the_bootstrap(node: Path, args: list[str]) -> None:
    ended = run(node, *args)
    assert ended.returncode != 0
    assert "usage" in ended.stderr
    assert commands_of(node) == ""


@dataclass
class Bucket:
    """A lake whose objects are files, and a node whose `aws s3 cp` and `sudo` can unpack an archive."""

    node: Path

    def put(self, files: dict[str, str], digest: str | None = None) -> str:
        """Write an archive and return its address."""
        content = io.BytesIO()
        with tarfile.open(mode="w:gz", fileobj=content) as archive:
            for name, text in files.items():
                entry = tarfile.TarInfo(name)
                entry.size = len(text)
                archive.addfile(entry, io.BytesIO(text.encode()))
        digest = digest or hashlib.sha256(content.getvalue()).hexdigest()
        path = self.node / "lake" / "env" / digest / "environment.tar.gz"
        path.parent.mkdir(parents=True)
        path.write_bytes(content.getvalue())
        return f"s3://lake/env/{digest}/environment.tar.gz"

    def boot(self, environment: str, path: str | None = None) -> subprocess.CompletedProcess[str]:
        """Run the script on a core node, below a folder in place of /opt; `path` replaces this machine's PATH."""
        for name, command in {
            "sudo": 'exec env -i PATH="$PATH" "$@"',
            "aws": f'[ "$1 $2 $3" = "s3 cp --only-show-errors" ] && cp "{self.node}/${{4#s3://}}" "$5"',
        }.items():
            (self.node / name).write_text(f"#!/bin/bash\n{command}\n")
            (self.node / name).chmod(0o755)
        arguments = (f"--deadline={moment(3600)}", f"--environment={environment}")
        return run(self.node, *arguments, primary=False, path=path)

    def libraries(self) -> Path:
        return self.node / "opt" / "lib" / "python3.11" / "site-packages"


@pytest.fixture
def lake(node: Path) -> Bucket:
    return Bucket(node)


def manifest(machine: str) -> str:
    return json.dumps({"architecture": machine, "python": "3.11"})


CHECK = re.search(r"^readonly modules='([^']*)'$", SCRIPT.read_text(), re.MULTILINE)
assert CHECK
CHECKED = {module.strip() for module in CHECK[1].split(",")}
MODULES = {f"{module.replace('.', '/')}.py": "" for module in CHECKED}
GOOD = MODULES | {"fruits-environment.json": manifest(platform.machine())}


def test_libraries_are_unpacked_into_a_python_of_their_own(lake: Bucket) -> None:
    ended = lake.boot(lake.put(GOOD))
    assert ended.returncode == 0, ended.stderr
    assert (lake.libraries() / "boto3.py").exists()
    assert list((lake.libraries() / "__pycache__").glob("boto3.*.pyc")), "each job would compile it again"
    code = "import boto3, sys; print(boto3.__file__, sys.version_info[:2])"
    output = subprocess.run(
        [lake.node / "opt" / "bin" / "python", "-c", code], capture_output=True, text=True, check=True
    ).stdout
    assert output == f"{lake.libraries() / 'boto3.py'} (3, 11)\n"
    assert "python3.11 is on the image" in ended.stdout, "make first-night reads it from the log"


def test_libraries_that_are_not_what_their_digest_says_are_not_unpacked(lake: Bucket) -> None:
    ended = lake.boot(lake.put(GOOD, digest="0" * 64))
    assert ended.returncode == 1
    assert "is not what its digest says" in ended.stderr
    assert not lake.libraries().exists()


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (GOOD | {"fruits-environment.json": manifest("sparc")}, f"is not for {platform.machine()}"),
        *(
            ({name: text for name, text in GOOD.items() if name != lacking}, "lacks a module")
            for lacking in ("pandas.py", "ai_edge_litert/interpreter.py")
        ),
        (GOOD | {"boto3.py": "raise ImportError('GLIBCXX_3.4.99 not found')"}, "GLIBCXX_3.4.99 not found"),
    ],
)
def test_libraries_that_do_not_fit_fail_the_bootstrap(lake: Bucket, files: dict[str, str], message: str) -> None:
    ended = lake.boot(lake.put(files))
    assert ended.returncode == 1
    assert message in ended.stderr


def test_the_check_imports_what_the_jobs_and_pyspark_import() -> None:
    unchecked = {
        module for module in modules() if not any(name == module or name.startswith(f"{module}.") for name in CHECKED)
    }
    assert unchecked == set()
    assert "pandas" in CHECKED  # PySpark's mapInArrow imports it on the driver


def without_python(lake: Bucket, dnf: str) -> Bucket:
    """Create a node whose image lacks Python 3.11, and whose `dnf install` runs a command."""
    for name in ("bash", "env", "cat", "cp", "date", "grep", "ln", "mktemp", "rm", "sha256sum", "tar", "gzip", "uname"):
        (lake.node / name).symlink_to(str(shutil.which(name)))
    python = os.path.realpath(sys.executable)  # not what a version manager puts before it
    (lake.node / "dnf").write_text(
        f'#!/bin/bash\n[ "$*" = "install -y -q python3.11" ] || exit 9\npython={python}\n{dnf}\n'
    )
    (lake.node / "dnf").chmod(0o755)
    return lake


def test_a_python_that_the_image_lacks_comes_from_its_package_repository(lake: Bucket) -> None:
    without_python(lake, f'ln -s "$python" {lake.node}/python3.11')
    ended = lake.boot(lake.put(GOOD), path=str(lake.node))
    assert ended.returncode == 0, ended.stderr
    assert (lake.node / "opt" / "bin" / "python").exists()
    assert "python3.11 comes from the repository of the image" in ended.stdout


def test_a_python_that_is_nowhere_is_one_clear_line(lake: Bucket) -> None:
    without_python(lake, "echo 'Error: Unable to find a match: python3.11' >&2; exit 1")
    ended = lake.boot(lake.put(GOOD), path=str(lake.node))
    assert ended.returncode == 1
    assert "python3.11 is neither on this image nor in its package repository" in ended.stderr
    assert "Unable to find a match" in ended.stderr


def test_libraries_that_are_not_there_fail_the_bootstrap(lake: Bucket) -> None:
    ended = lake.boot(f"s3://lake/env/{'1' * 64}/environment.tar.gz")
    assert ended.returncode == 1
    assert "cannot be fetched" in ended.stderr


def test_nothing_is_fetched_from_a_third_party() -> None:
    commands = [line for line in SCRIPT.read_text().splitlines() if not line.lstrip().startswith("#")]
    assert [line for line in commands if re.search(r"https?:|\bpip\b|\bcurl\b|\bwget\b|\byum\b|\bdnf\b", line)] == [
        '  sudo dnf install -y -q "$python" || true',  # the image's own package repository
        '  sudo "$python" -m venv --without-pip "$home"',
    ]
