"""What dev/venv.sh leaves: environments whose processes start fast."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

SHOW = """
import pyspark
from pyspark.sql import SparkSession

def where(_):
    import pyspark
    return pyspark.__cached__

context = SparkSession.builder.master("local[1]").config("spark.ui.enabled", "false").getOrCreate().sparkContext
print("CACHED", pyspark.__cached__, *context.parallelize([0], 1).map(where).collect())
context.stop()
"""


@pytest.mark.spark
def test_drivers_and_workers_start_from_bytecode(tmp_path: Path) -> None:
    """Spark would put a zip of itself, without any, before the package."""
    script = tmp_path / "show.py"
    script.write_text(SHOW)
    submit = Path(importlib.util.find_spec("pyspark").origin).parent / "bin" / "spark-submit"  # type: ignore[union-attr, arg-type]
    output = subprocess.run(
        [submit, "--conf", f"spark.pyspark.python={sys.executable}", script], capture_output=True, text=True, check=True
    ).stdout
    cached = next(line for line in output.splitlines() if line.startswith("CACHED")).split()[1:]
    assert len(cached) == 2
    assert all(Path(path).is_file() for path in cached), cached


def test_bytecode_is_made_by_set_up_and_not_by_the_first_that_imports():
    package = Path(importlib.util.find_spec("numpy").origin).parent  # type: ignore[union-attr, arg-type]
    assert Path(importlib.util.cache_from_source(str(package / "conftest.py"))).is_file()


def test_the_images_of_the_stack_lack_the_same_zips():
    line = 'rm -f "$venv"/lib/python3.11/site-packages/pyspark/python/lib/{pyspark,py4j-*-src}.zip'
    for script in ("dev/venv.sh", "compose/install.sh"):
        assert line in (ROOT / script).read_text().splitlines(), script
