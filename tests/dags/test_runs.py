"""Whole runs of the real DAG: what each leaves behind, in Airflow, in EMR and in the lake."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from fruits_airflow.outcome import WORK_TASKS

from tests.plugins import laptop

MODEL = "a" * 64
RAW, LAKE = "raw-dags", "lake-dags"

SCENARIOS: dict[str, dict[str, Any]] = {
    "broken_step": {"stages": {"featurize": "fail"}},
    "good": {},
    "again": {},
    "gate_refuses": {"conf": {"k": 2}, "stages": {"publish": "refuse"}},
    "gate_refused_before": {"conf": {"k": 2}},
    "too_dear": {"conf": {"max_cost_eur": 0.01, "force": True}},
}


@dataclass
class Run:
    """One scenario's end."""

    run_id: str
    state: str
    tasks: dict[str, str]
    record: dict[str, Any]
    clusters: list[dict[str, Any]] = field(default_factory=list)


@dataclass
class World:
    """All runs, and the output of Airflow, where the tasks' logs are."""

    runs: dict[str, Run]
    log: str


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    home = tmp_path_factory.mktemp("airflow")
    with laptop.local_aws(tmp_path_factory.mktemp("aws")) as url, pytest.MonkeyPatch.context() as patch:
        outside = {k: v for k, v in os.environ.items() if not k.startswith(("AWS_", "FRUITS_", "AIRFLOW"))}
        aws = laptop.aws_environment(url)
        for name, value in aws.items():
            patch.setenv(name, value)
        laptop.make_roles()
        laptop.make_bucket(RAW)
        laptop.make_bucket(LAKE)
        laptop.put_photos(RAW, [f"images/Training/Apple {n}/{n}.jpg" for n in range(3)])
        laptop.put_model(LAKE, MODEL)
        environment = outside | aws | airflow_environment(home) | fruits_environment()
        airflow = str(Path(sys.executable).with_name("airflow"))
        subprocess.run(
            [airflow, "db", "migrate"], env=environment, check=True, capture_output=True, timeout=120
        )
        command = [
            sys.executable,
            str(Path(__file__).with_name("scenarios.py")),
            json.dumps([*SCENARIOS.values()]),
        ]
        output = home / "output.log"
        with output.open("w") as stream:
            subprocess.run(command, env=environment, stdout=stream, stderr=stream, timeout=250, check=False)
        log = output.read_text()
        results = [json.loads(line[7:]) for line in log.splitlines() if line.startswith("RESULT ")]
        assert len(results) == len(SCENARIOS), log[-4000:]
        yield World({name: look(**result) for name, result in zip(SCENARIOS, results, strict=True)}, log)


def airflow_environment(home: Path) -> dict[str, str]:
    """An Airflow of its own."""
    repository = str(laptop.REPOSITORY)
    return {
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__DAGS_FOLDER": f"{repository}/dags",
        "AIRFLOW__CORE__PLUGINS_FOLDER": f"{repository}/plugins",
        "AIRFLOW__CORE__LOAD_EXAMPLES": "false",
        "PYTHONPATH": f"{repository}/plugins",
        "AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL": "0",  # nothing to settle without a scheduler
        "NO_COLOR": "1",
    }


def fruits_environment() -> dict[str, str]:
    """The deployment under test."""
    return {
        "FRUITS_DEPLOYMENT_ID": "dags",
        "FRUITS_RAW_BUCKET": RAW,
        "FRUITS_LAKE_BUCKET": LAKE,
        "FRUITS_MODEL_ID": MODEL,
        "FRUITS_SERVICE_ROLE": laptop.SERVICE_ROLE,
        "FRUITS_INSTANCE_PROFILE": laptop.INSTANCE_PROFILE,
        "FRUITS_SECURITY_CONFIGURATION": laptop.SECURITY_CONFIGURATION,
        "FRUITS_NODE_ENVIRONMENT": "preinstalled",
        "FRUITS_POLL_S": "0.2",
        "FRUITS_LIST_CONSISTENCY_S": "1",
        "FRUITS_LOG_WAIT_S": "5",
    }


def look(run_id: str, state: str, tasks: dict[str, str]) -> Run:
    """The run with what it left in the lake and in EMR."""
    record = json.loads(
        laptop.client("s3").get_object(Bucket=LAKE, Key=f"runs/{run_id}/run.json")["Body"].read()
    )
    emr = laptop.client("emr")
    named = [c for c in emr.list_clusters()["Clusters"] if c["Name"].endswith(run_id)]
    for cluster in named:
        cluster["Steps"] = emr.list_steps(ClusterId=cluster["Id"])["Steps"]
    return Run(run_id, state, tasks, record, named)


def test_a_run_does_every_task_once_and_ends_its_cluster(world: World) -> None:
    run = world.runs["good"]
    assert run.state == "success"
    assert set(run.tasks.values()) == {"success"}
    assert [cluster["Status"]["State"] for cluster in run.clusters] == ["TERMINATED"]
    steps = sorted(step["Name"].split("/")[0] for step in run.clusters[0]["Steps"])
    assert steps == ["featurize", "load_images", "publish", "reduce_pca"]


def test_its_record_holds_what_the_stages_measured(world: World) -> None:
    record = world.runs["good"].record
    assert record["state"] == "succeeded"
    assert record["images"]["loaded"] == 3
    assert record["pca"]["k"] == 2
    assert record["cluster"]["state"] == "TERMINATED"
    assert record["seconds"]["featurize"] > 0
    assert 0 < record["cost"]["estimate_eur"] < record["cost"]["ceiling_eur"]


def test_its_report_lies_beside_the_record(world: World) -> None:
    key = f"runs/{world.runs['good'].run_id}/report.html"
    assert laptop.client("s3").head_object(Bucket=LAKE, Key=key)["ContentType"].startswith("text/html")


def test_a_second_run_over_the_same_input_skips_green_without_a_cluster(world: World) -> None:
    run = world.runs["again"]
    assert run.state == "success"
    assert run.tasks["plan"] == "skipped"
    assert run.clusters == []
    assert run.record["state"] == "skipped"
    assert world.runs["good"].run_id in run.record["reason"]


def test_a_broken_step_turns_the_run_red_and_the_cluster_is_ended(world: World) -> None:
    run = world.runs["broken_step"]
    assert run.state == "failed"
    assert run.tasks["featurize.wait"] == "failed"
    assert run.tasks["terminate_cluster"] == "success"
    assert [cluster["Status"]["State"] for cluster in run.clusters] == ["TERMINATED"]
    assert run.record["state"] == "failed"
    assert "featurize.wait" in run.record["reason"]


def test_a_broken_step_is_not_tried_again(world: World) -> None:
    steps = [step["Name"].split("/")[0] for step in world.runs["broken_step"].clusters[0]["Steps"]]
    assert steps.count("featurize") == 1


def test_the_log_shows_the_end_of_both_outputs_of_a_broken_step(world: World) -> None:
    assert "stdout| featurize says hello" in world.log
    assert "stderr| ERROR WeightsMismatch: featurize found other weights" in world.log


def test_a_broken_run_is_no_publication(world: World) -> None:
    assert world.runs["good"].tasks["plan"] == "success", "it came after the broken one, with the same input"


def test_a_refusing_gate_turns_the_run_red(world: World) -> None:
    run = world.runs["gate_refuses"]
    assert run.state == "failed"
    assert "reject_rate" in run.record["reason"]


def test_the_same_input_whose_gate_refused_is_red_without_a_cluster(world: World) -> None:
    again = world.runs["gate_refused_before"]
    assert (again.state, again.clusters, again.record["state"]) == ("failed", [], "refused")
    assert world.runs["gate_refuses"].run_id in again.record["reason"]


def test_a_refused_run_is_red_without_a_cluster_and_says_why(world: World) -> None:
    run = world.runs["too_dear"]
    assert run.state == "failed"
    assert run.tasks["plan"] == "failed"
    assert run.clusters == []
    assert run.record["state"] == "refused"
    assert "max_cost_eur" in run.record["reason"]


def test_no_run_leaves_a_cluster_behind(world: World) -> None:
    assert world.runs
    live = laptop.client("emr").list_clusters(
        ClusterStates=["STARTING", "BOOTSTRAPPING", "RUNNING", "WAITING"]
    )
    assert live["Clusters"] == []


def test_the_verdict_looks_at_every_task_that_works(world: World) -> None:
    others = {"terminate_cluster", "report", "verdict"}
    assert set(WORK_TASKS) == set(world.runs["good"].tasks) - others
