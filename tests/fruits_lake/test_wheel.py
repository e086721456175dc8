"""`pip install ./fruits_lake` gives what a reader needs, without Spark and without the repository."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from importlib.metadata import Distribution, distribution, distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.spark_jobs.conftest import ROOT

pytestmark = [pytest.mark.spark, pytest.mark.timeout(600)]

UV = ROOT / ".cache" / "uv" / "bin" / "uv"
PAGE = (ROOT / "docs" / "fruits_lake.md").read_text()
BLOCKS = "\n".join(re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL))
PROGRAM = f"""
import os
import sys
from pathlib import Path
os.chdir(sys.argv[1])
{BLOCKS}
print(lake.recognise(Path(sys.argv[2]))["neighbours"]["label"].to_pylist(), matrix(lake.vectors()).shape)
print({{"pyspark", "tensorflow", "duckdb"}} & set(sys.modules), sys.modules["fruits"].__file__)
"""


def run(*command: str | Path, folder: Path) -> subprocess.CompletedProcess[str]:
    environ = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run(command, cwd=folder, env=environ, capture_output=True, text=True, check=False)


def needed(requirement: Requirement, known: dict[str, Distribution]) -> dict[str, Distribution]:
    """Return what a requirement installs here, without an index: its distribution and those that this one requires."""
    name = canonicalize_name(requirement.name)
    if name not in known:
        known[name] = distribution(name)
    for text in known[name].requires or ():
        part = Requirement(text)
        markers = (
            [part.marker.evaluate({"extra": extra}) for extra in requirement.extras or {""}] if part.marker else [True]
        )
        if any(markers) and not ({canonicalize_name(part.name)} <= set(known) and not part.extras):
            needed(part, known)
    return known


def test_the_wheel_alone_answers_in_an_empty_environment(local: Path, tmp_path: Path) -> None:
    source = tmp_path / "clone"  # setuptools writes beside the sources
    ignored = shutil.ignore_patterns("__pycache__", "build", "*.egg-info")
    for name in ("fruits_lake", "spark_jobs/fruits"):
        shutil.copytree(ROOT / name, source / name, ignore=ignored)
    build = [UV, "build", "--wheel", "--offline", "--no-build-isolation", "--python", sys.executable, "-o", tmp_path]
    built = run(*build, source / "fruits_lake", folder=tmp_path)
    assert built.returncode == 0, built.stderr
    (wheel,) = tmp_path.glob("*.whl")
    python = tmp_path / "empty" / "bin" / "python"
    assert run(UV, "venv", "--python", sys.executable, tmp_path / "empty", folder=tmp_path).returncode == 0
    installed = run(UV, "pip", "install", "--offline", "--no-deps", "--python", python, wheel, folder=tmp_path)
    assert installed.returncode == 0, installed.stderr
    (packages,) = (tmp_path / "empty").glob("lib/python*/site-packages")
    (own,) = distributions(name="fruits-lake", path=[str(packages)])
    known = {"fruits-lake": own}
    needed(Requirement("fruits-lake[photos]"), known)
    for part in known.values():
        for entry in {Path(file).parts[0] for file in part.files or ()} - {"..", "__pycache__"}:
            if not (packages / entry).exists():
                (packages / entry).symlink_to(part.locate_file(entry))
    photo = next((local / "photos").rglob("*.jpg"))
    answer = run(python, "-c", PROGRAM, local, photo, folder=tmp_path)
    assert answer.returncode == 0, answer.stderr
    *shown, labels, modules = answer.stdout.splitlines()
    assert (shown[0], shown[-1]) == ("(6, 3)", "(100, 100)"), "what the page's blocks print"
    assert labels == f"{['Label 0'] * 5} (6, 3)"
    assert modules.startswith("set() ")
    assert str(tmp_path / "empty") in modules, "the jobs' library is the wheel's own"
    assert not (packages / "pyspark").exists()
