"""The bill of materials names what the locks name."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest

from tests.infra.conftest import REPOSITORY, Run

TOOL = REPOSITORY / ".venv-sbom" / "bin" / "cyclonedx-py"
LOCKS = sorted((REPOSITORY / "requirements").glob("*.lock"))


def test_make_sbom_covers_every_lock_and_make_lock_resolves_each() -> None:
    makefile = (REPOSITORY / "Makefile").read_text()
    assert "for lock in requirements/*.lock; do" in makefile
    (names,) = re.findall(r"^\t@for name in (.*); do", makefile, re.MULTILINE)
    assert set(names.split()) == {lock.stem for lock in LOCKS}
    assert len(re.findall(r"^\t@\$\(NPM\) (sbom|update) .*--package-lock-only", makefile, re.MULTILINE)) == 2


@pytest.mark.skipif(not TOOL.exists(), reason="bills of materials are not checked: `make sbom` makes .venv-sbom")
@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.stem)
def test_every_library_of_a_lock_is_listed_with_its_checksums(lock: Path, tmp_path: Path) -> None:
    bill = tmp_path / "bill.json"
    subprocess.run([TOOL, "requirements", "--short-PURLs", "-o", bill, lock], check=True, capture_output=True)
    components = json.loads(bill.read_text())["components"]
    locked = re.findall(r"^([\w.-]+)(?:\[[\w,-]+\])?==([\w.+!]+)", lock.read_text(), re.MULTILINE)
    assert sorted((part["name"], part["version"]) for part in components) == sorted(locked)
    assert all(part["externalReferences"][0]["hashes"] for part in components)


def test_every_node_package_is_listed_with_its_checksum(run: Run) -> None:
    folder = REPOSITORY / "requirements" / "lint"
    ended = run("npm", "--prefix", folder, "sbom", "--sbom-format", "cyclonedx", "--package-lock-only")
    components = json.loads(ended.stdout)["components"]
    locked = json.loads((folder / "package-lock.json").read_text())["packages"]
    assert sorted((part["name"], part["version"]) for part in components) == sorted(
        (path.removeprefix("node_modules/"), package["version"]) for path, package in locked.items() if path
    )
    assert all(part["hashes"] for part in components)
