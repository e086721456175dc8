"""The Python that runs the jobs on this machine has what a node's has, and nothing else."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path

import pytest

from tests.dev.job_imports import JOBS, MAP_IN_ARROW, ROOT, statements

NODE_PYTHON = ROOT / ".venv-node" / "bin" / "python"
VERSIONS = """
import json, re
from importlib import metadata

installed = metadata.distributions()
print(json.dumps({re.sub("[._]", "-", package.name.lower()): package.version for package in installed}))
"""


def locked(name: str) -> dict[str, str]:
    """The versions of a lock file, without those for another Python or system."""
    lock = (ROOT / "requirements" / f"{name}.lock").read_text()
    pinned = re.findall(r"^([a-z0-9-]+)==([^ ;\\]+)(.*)$", lock, re.MULTILINE)
    return {name: version for name, version, marker in pinned if ">=" not in marker and "win32" not in marker}


def in_node_python(code: str) -> str:
    return subprocess.run(
        [NODE_PYTHON, "-c", code],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(JOBS)},
        capture_output=True,
        text=True,
        check=True,
    ).stdout


def test_it_holds_the_lock_of_the_nodes_and_the_pyspark_of_their_image() -> None:
    on_image = {name: version for name, version in locked("spark").items() if name in ("pyspark", "py4j")}
    assert json.loads(in_node_python(VERSIONS)) == locked("node") | on_image


def test_every_module_that_a_job_imports_is_there() -> None:
    paths = sorted(path.relative_to(JOBS).with_suffix("") for path in JOBS.glob("fruits/**/[a-z]*.py"))
    modules = [f"import {'.'.join(path.parts)}" for path in paths]
    jobs = [f"import {path.stem}" for path in sorted(JOBS.glob("*.py"))]
    in_node_python("\n".join(statements() + modules + jobs))


@pytest.mark.spark
def test_spark_finds_what_its_own_mappers_import_lazily(tmp_path: Path) -> None:
    """PySpark imports pandas when a job calls mapInArrow, and not before."""
    script = tmp_path / "job.py"
    script.write_text(MAP_IN_ARROW)
    kept = {name: os.environ[name] for name in ("PATH", "JAVA_HOME") if name in os.environ}
    done = subprocess.run(
        [NODE_PYTHON.with_name("spark-submit"), "--master", "local[1]", script],
        env=kept | {"PYSPARK_PYTHON": str(NODE_PYTHON), "SPARK_LOCAL_IP": "127.0.0.1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "3 rows" in done.stdout, done.stderr[-3000:]
