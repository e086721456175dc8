"""Faults that reach into Spark: the real jobs on few photos, with executors, workers and drivers that die."""

from __future__ import annotations

import io
import json
import os
import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import psutil
import pytest

from tests.faults import invariants
from tests.faults.world import (
    CANARY,
    RAW_PREFIX,
    REPOSITORY,
    Aws,
    Deployment,
    Pipeline,
    Run,
    closing_all,
    until,
)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
SPARK_PYTHON = REPOSITORY / ".venv-spark" / "bin" / "python"
LIMIT = 1000  # more than there are: the run is a demo's, so that random weights may publish
Record = Callable[..., list[str]]


class SparkDeployment(Deployment):
    """A deployment with real photos and a real model, whose runs write to the demo tables."""

    model: dict[str, Any]

    @property
    def database(self) -> str:
        return self.outputs["DemoDatabase"]

    def environment(self) -> dict[str, str]:
        return super().environment() | {
            **{"FRUITS_DATABASE": self.outputs["NightlyDatabase"], "FRUITS_MODEL_ID": self.model["model_id"]},
            **{"FRUITS_POLL_S": "0.5", "FRUITS_STEP_TIMEOUT_MINUTES": "600"},
        }

    def photo_bodies(self) -> dict[str, bytes]:
        from PIL import Image

        found = {}
        for number in range(self.photos):
            picture = Image.new("RGB", (48, 48), (25 * number % 256, 90, 255 - 25 * number % 256))
            picture.paste((250, 250, 40), (number, number, number + 12, number + 20))
            exif = Image.Exif()
            exif[0x010E] = CANARY
            sink = io.BytesIO()
            picture.save(sink, "JPEG", exif=exif, quality=95)
            found[f"{RAW_PREFIX}Training/Apple {number % 2}/{number}.jpg"] = sink.getvalue()
        return found | {f"{RAW_PREFIX}broken/page.jpg": f"<html>{CANARY}".encode()}

    def create(self) -> None:
        made = subprocess.run(
            [SPARK_PYTHON, "tools/make_model.py", "--weights", "random"],
            **{"cwd": REPOSITORY, "capture_output": True, "text": True, "timeout": 600, "check": True},
        )
        self.model = json.loads(made.stdout.strip().splitlines()[-1])
        super().create()
        folder = REPOSITORY / ".cache" / "models" / self.model["model_id"]
        for path in folder.iterdir():
            key = f"models/{folder.name}/{path.name}"
            self.aws.client("s3").put_object(Bucket=self.lake, Key=key, Body=path.read_bytes())


def iceberg_tables(deployment: Deployment) -> dict[str, list[Any]]:
    command = [SPARK_PYTHON, "tests/faults/read_iceberg.py", deployment.aws.endpoint, deployment.database]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False, timeout=120)
    if done.returncode:
        raise invariants.TablesUnreadable(done.stderr.strip().splitlines()[-1])
    return dict(json.loads(done.stdout))


@pytest.fixture(scope="module")
def spark(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[SparkDeployment, Pipeline]]:
    folder = tmp_path_factory.mktemp("spark")
    java = (REPOSITORY / ".cache" / "ready" / "java_home").read_text().strip()
    options = ["--spark-python", str(SPARK_PYTHON), "--jars-dir", str(REPOSITORY / ".cache" / "jars")]
    # four attempts of a task, as cluster.yaml asks for: local[n] alone gives one
    options += ["--java-home", java, "--master", "local[2,4]"]
    aws = Aws(folder, *options)
    with closing_all(aws):
        deployment = SparkDeployment(aws, name="spark")
        deployment.create()
        pipeline = Pipeline(deployment, folder / "airflow")
        with closing_all(pipeline):
            first = pipeline.run(seconds=600, limit=LIMIT)
            assert first.state == "success", pipeline.tail()
            assert invariants.check(deployment, first, iceberg_tables) == []
            yield deployment, pipeline


@pytest.fixture
def world(spark: tuple[SparkDeployment, Pipeline]) -> Iterator[Nights]:
    yield Nights(*spark)
    spark[0].aws.disarm()
    spark[0].put_photos()


class Nights:
    """Nights that do everything again, so that each stage has work for a fault to hit."""

    def __init__(self, deployment: SparkDeployment, pipeline: Pipeline) -> None:
        self.deployment, self.pipeline, self.aws = deployment, pipeline, deployment.aws
        self.before = invariants.digest(iceberg_tables(deployment))

    def begin(self) -> Callable[[], Run]:
        return self.pipeline.start(limit=LIMIT, full_refresh=True)

    def held(self, number: int) -> None:
        until(lambda: self.aws.fault(number)["holding"], "a call to be held", 240)

    def end(self, wait: Callable[[], Run], broken: list[str], expected: str) -> None:
        run = wait()
        self.aws.disarm()
        broken += invariants.check(self.deployment, run, iceberg_tables)
        assert broken == [], self.pipeline.tail()
        assert (self.deployment.record(run.run_id) or {})["state"] == expected, self.pipeline.tail()
        if expected == "failed":
            again = self.pipeline.run(seconds=600, limit=LIMIT, force=True)
            broken += invariants.check(self.deployment, again, iceberg_tables)
            assert again.state == "success", self.pipeline.tail()
        if invariants.digest(iceberg_tables(self.deployment)) != self.before:
            broken.append("another night over the same photos gave another result")
        assert broken == []

    def processes(self, word: str) -> list[psutil.Process]:
        """Processes of steps whose command line holds a word."""
        found = []
        for one in psutil.Process(self.aws.process.pid).children(recursive=True):
            try:
                if any(word in part for part in one.cmdline()):
                    found.append(one)
            except psutil.NoSuchProcess:
                continue
        return found


def commit(when: str, operation: str = "UpdateTable") -> dict[str, Any]:
    """A call of Iceberg's commit, held."""
    return {"kind": "held", "service": "glue", "operation": operation, "when": when, "times": 1}


@pytest.mark.parametrize("moment", ["before", "during", "after"])
def test_f16_a_driver_killed_about_its_commit_leaves_whole_tables(
    world: Nights, record: Record, moment: str
) -> None:
    broken = record("F16", moment, "spark", f"the driver is killed {moment} an Iceberg commit takes effect")
    if moment == "before":
        spec: dict[str, Any] = {
            **{"kind": "held", "service": "s3", "operation": "PutObject", "when": "before", "times": 1},
            "key": "tables/.*metadata.json",
        }
    else:
        spec = commit("before" if moment == "during" else "after")
    number = world.aws.arm(**spec)
    wait = world.begin()
    world.held(number)
    for one in world.processes("SparkSubmit"):
        one.kill()
    world.aws.disarm(number)
    world.end(wait, broken, "failed")


def test_f17_a_commit_whose_reply_is_lost_is_made_once(world: Nights, record: Record) -> None:
    broken = record("F17", "after", "spark", "the reply to an Iceberg commit is lost")
    number = world.aws.arm(**(commit("after") | {"kind": "lost"}))
    wait = world.begin()
    until(lambda: world.aws.fault(number)["struck"], "a commit", 240)
    world.end(wait, broken, "succeeded")


def test_f15_a_killed_python_worker_costs_a_task_and_no_row(world: Nights, record: Record) -> None:
    broken = record("F15", "during", "spark", "a Python worker is killed while it computes")
    number = world.aws.arm(kind="held", service="s3", operation="GetObject", key=f"{RAW_PREFIX}.*", times=1)
    wait = world.begin()
    world.held(number)
    daemons = world.processes("pyspark.daemon") + world.processes("pyspark.worker")
    assert daemons
    for one in daemons:
        for child in one.children():
            child.kill()
    world.aws.disarm(number)
    world.end(wait, broken, "succeeded")


def test_f18_s3_slow_down_is_waited_out(world: Nights, record: Record, seed: int) -> None:
    broken = record("F18", "during", "spark", "S3 answers one of twenty requests with SlowDown")
    number = world.aws.arm(
        kind="refused", service="s3", operation="(Get|Put|Head)Object", error="SlowDown", rate=0.05, seed=seed
    )
    wait = world.begin()
    until(lambda: world.aws.fault(number)["struck"], "a request to be refused", 240)
    world.end(wait, broken, "succeeded")


def test_f23_a_photo_that_changes_before_it_is_read_is_a_reject(world: Nights, record: Record) -> None:
    broken = record("F23", "before", "spark", "a photo is changed between the listing and its reading")
    number = world.aws.arm(kind="held", operation="RunJobFlow", times=1)
    wait = world.begin()
    world.held(number)
    key = sorted(key for key in world.deployment.photo_bodies() if "Training" in key)[0]
    other = sorted(world.deployment.photo_bodies().items())[1][1]
    world.aws.client("s3").put_object(Bucket=world.deployment.raw, Key=key, Body=other + b"\0")
    world.aws.disarm(number)
    run = wait()
    broken += invariants.check(world.deployment, run, iceberg_tables)
    assert broken == []
    assert (world.deployment.record(run.run_id) or {})["images"]["rejected"] == 2
    world.deployment.put_photos()
    world.end(lambda: world.pipeline.run(seconds=600, limit=LIMIT), broken, "succeeded")


def test_f24_a_model_that_changed_in_s3_is_not_used(world: Nights, record: Record) -> None:
    broken = record("F24", "during", "spark", "the model's file is replaced after the plan has looked at it")
    key = f"models/{world.deployment.model['model_id']}/{world.deployment.model['file']}"
    content = world.aws.read(world.deployment.lake, key)
    number = world.aws.arm(kind="held", operation="RunJobFlow", times=1)
    wait = world.begin()
    world.held(number)
    s3 = world.aws.client("s3")
    s3.put_object(Bucket=world.deployment.lake, Key=key, Body=os.urandom(1000))
    world.aws.disarm(number)

    def restored() -> Run:
        run = wait()
        s3.put_object(Bucket=world.deployment.lake, Key=key, Body=content)
        return run

    world.end(restored, broken, "failed")


def test_f21_a_hung_step_is_cancelled_with_all_its_processes(world: Nights, record: Record) -> None:
    broken = record("F21", "during", "spark", "the driver is stopped in mid-commit until its cluster's end")
    number = world.aws.arm(**commit("before"))
    wait = world.begin()
    world.held(number)
    for one in world.processes("SparkSubmit"):
        one.suspend()
    (cluster,) = world.aws.clusters(world.deployment.cluster_prefix, ("RUNNING",))
    world.aws.client("emr").terminate_job_flows(JobFlowIds=[cluster["Id"]])
    world.aws.disarm(number)
    world.end(wait, broken, "failed")
    assert not world.processes("SparkSubmit")
