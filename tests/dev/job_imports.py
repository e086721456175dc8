"""What the jobs import, read from their source, so that an import inside a function counts too."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
JOBS = ROOT / "spark_jobs"
ON_THE_IMAGE = {"pyspark", "py4j"}
REFERENCE_ENGINE = {"h5py", "keras", "tensorflow"}
"""What only `ENGINE=tensorflow` imports, which runs in .venv-spark."""
MAP_IN_ARROW = """
from pyspark.sql import SparkSession

spark = SparkSession.builder.getOrCreate()
print(spark.range(3).mapInArrow(lambda batches: batches, "id long").toArrow().num_rows, "rows")
spark.stop()
"""
"""A job that makes PySpark import what it needs and no job names: pandas."""


def statements() -> list[str]:
    """Each import of a library of a node, as a statement of its own: `from PIL import Image`."""
    own = {"fruits", *(path.stem for path in JOBS.glob("*.py"))}
    others = own | set(sys.stdlib_module_names) | REFERENCE_ENGINE
    lines = {
        (module, name)
        for path in JOBS.rglob("*.py")
        for module, name in _imports(path)
        if module.partition(".")[0] not in others
    }
    return sorted(f"from {module} import {name}" if name else f"import {module}" for module, name in lines)


def modules() -> set[str]:
    """The modules that those statements name, without those that a node's image brings."""
    named = {statement.split()[1] for statement in statements()}
    return {module for module in named if module.partition(".")[0] not in ON_THE_IMAGE}


def _imports(path: Path) -> Iterator[tuple[str, str]]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from ((node.module or "", alias.name) for alias in node.names)
