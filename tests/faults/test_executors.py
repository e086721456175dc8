"""F14: executors of their own, as on a cluster, that are killed; the real jobs on Spark's `local-cluster`."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.faults.spark_world import JARS, NODE_PYTHON, Nights, SparkDeployment, commit, spark_nights
from tests.faults.world import RAW_PREFIX, Pipeline, until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
Record = Callable[..., list[str]]
EXECUTOR = "CoarseGrainedExecutorBackend"
# The sizes are those of a node of EMR; here each of two executors has a gigabyte and a core.
SUBMIT = """#!{python}
import os, sys
arguments = sys.argv[1:]
at = arguments.index("--name")
for setting in {settings!r}:
    arguments[at:at] = ["--conf", setting]
os.environ["SPARK_HOME"] = {home!r}
os.execv({submit!r}, [{submit!r}, *arguments])
"""


def write_submit(folder: Path) -> Path:
    """A spark-submit for `local-cluster`, whose executors keep their files in a Spark home of the test's own."""
    installed = next((NODE_PYTHON.parents[1] / "lib").glob("python*/site-packages/pyspark"))
    home = folder / "spark"
    home.mkdir()
    for one in installed.iterdir():
        (home / one.name).symlink_to(one)
    jars = os.pathsep.join(str(jar) for jar in sorted(JARS.glob("*.jar")))
    settings = ["spark.executor.memory=1g", "spark.executor.cores=1", "spark.dynamicAllocation.enabled=false"]
    settings += [f"spark.executor.extraClassPath={jars}"]
    program = folder / "spark-submit"
    submit = str(NODE_PYTHON.with_name("spark-submit"))
    program.write_text(SUBMIT.format(python=sys.executable, settings=settings, home=str(home), submit=submit))
    program.chmod(0o755)
    return program


@pytest.fixture(scope="module")
def spark(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[SparkDeployment, Pipeline]]:
    folder = tmp_path_factory.mktemp("executors")
    options = ["--master", "local-cluster[2,1,1024]", "--spark-submit", str(write_submit(folder))]
    with spark_nights(folder, "executors", *options) as made:
        yield made


@pytest.fixture
def world(spark: tuple[SparkDeployment, Pipeline]) -> Iterator[Nights]:
    yield Nights(*spark)
    spark[0].aws.disarm()


@pytest.mark.parametrize("moment", ["before", "during", "after"])
def test_f14_killed_executors_cost_their_tasks_and_no_row(world: Nights, record: Record, moment: str) -> None:
    when = {"before": "before they have a task", "during": "as they read photos"}
    said = when.get(moment, "when they have written, and the commit is on its way")
    broken = record("F14", moment, "spark", f"both executors are killed {said}")
    if moment == "before":
        wait = world.begin()
        found = until(lambda: world.processes(EXECUTOR), "executors", 240)
    else:
        photo: dict[str, Any] = {"kind": "held", "service": "s3", "operation": "GetObject", "times": 1}
        photo["key"] = f"{RAW_PREFIX}.*"
        number = world.aws.arm(**(photo if moment == "during" else commit("before")))
        wait = world.begin()
        world.held(number)
        found = world.processes(EXECUTOR)
    assert found
    for one in found:
        one.kill()
    world.aws.disarm()
    world.end(wait, broken, "succeeded")
