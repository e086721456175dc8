"""Whole runs of the real DAG: what each leaves behind, in Airflow, in EMR and in the lake."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from fruits_airflow.cost.prices import load_prices
from fruits_airflow.runs.run_status import WORK_TASKS

from tests.plugins import laptop

pytestmark = pytest.mark.timeout(900)  # the first test waits for all runs; half a minute on a quiet machine

MODEL = "a" * 64
RAW, LAKE = "raw-dags", "lake-dags"

SCENARIOS: dict[str, dict[str, Any]] = {
    "broken_step": {"stages": {"featurize": "fail"}},
    "good": {"locked_s": 3},
    "again": {},
    "gate_refuses": {"conf": {"k": 2}, "stages": {"publish": "refuse"}},
    "gate_refused_before": {"conf": {"k": 2}},
    "too_dear": {"conf": {"max_cost_eur": 0.01, "force": True}},
    "unreadable": {"unvalidated": {"variance": None, "region": None, "limit": "all"}},
    "janitor": {"dag": "cluster_janitor", "orphan_of": 3},
    "check": {"dag": "publication_check"},
}
OTHERS = ("janitor", "check")

# Follows the publications of the nightly database, and of the demo's.
FOLLOWERS = f"""
from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG, Asset
for database in ("fruits", "fruits_demo"):
    asset = Asset(name=database + ".current_pca", uri="s3://{LAKE}/tables/" + database + ".db")
    with DAG("follow_" + database, schedule=[asset], is_paused_upon_creation=False):
        EmptyOperator(task_id="follow")
"""


@dataclass
class Run:
    """One scenario's end."""

    run_id: str
    state: str
    tasks: dict[str, str]
    left: dict[str, str]
    record: dict[str, Any] = field(default_factory=dict)
    clusters: list[dict[str, Any]] = field(default_factory=list)


@dataclass
class World:
    """All runs, and the output of Airflow, where the tasks' logs are."""

    runs: dict[str, Run]
    log: str
    airflow: Callable[..., None]
    home: Path


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

        def airflow(*command: str, folder: Path = laptop.REPOSITORY / "dags") -> None:
            program = str(Path(sys.executable).with_name("airflow"))
            where = {"AIRFLOW__CORE__DAGS_FOLDER": str(folder)}
            done = subprocess.run(
                [program, *command], env=environment | where, capture_output=True, text=True, timeout=300, check=False
            )
            assert done.returncode == 0, done.stderr

        airflow("db", "migrate")
        (home / "followers").mkdir()
        (home / "followers" / "followers.py").write_text(FOLLOWERS)
        airflow("dags", "reserialize", folder=home / "followers")
        command = [sys.executable, str(Path(__file__).with_name("scenarios.py")), json.dumps([*SCENARIOS.values()])]
        output = home / "output.log"
        with output.open("w") as stream:
            subprocess.run(command, env=environment, stdout=stream, stderr=stream, timeout=800, check=False)
        log = output.read_text()
        results = [json.loads(line[7:]) for line in log.splitlines() if line.startswith("RESULT ")]
        assert len(results) == len(SCENARIOS), log[-4000:]
        runs = {name: Run(**result) for name, result in zip(SCENARIOS, results, strict=True)}
        for name in SCENARIOS.keys() - OTHERS:
            look(runs[name])
        yield World(runs, log, airflow, home)


def airflow_environment(home: Path) -> dict[str, str]:
    """Start an Airflow for this module."""
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
    """Return the deployment under test."""
    return {
        "FRUITS_DEPLOYMENT_ID": "dags",
        "FRUITS_RAW_BUCKET": RAW,
        "FRUITS_LAKE_BUCKET": LAKE,
        "FRUITS_MODEL_ID": MODEL,
        "FRUITS_SERVICE_ROLE": laptop.SERVICE_ROLE,
        "FRUITS_INSTANCE_PROFILE": laptop.INSTANCE_PROFILE,
        "FRUITS_SECURITY_CONFIGURATION": laptop.SECURITY_CONFIGURATION,
        "FRUITS_SUBNET_ID": laptop.subnet_id(),
        "FRUITS_NODE_ENVIRONMENT": "preinstalled",
        "FRUITS_POLL_S": "0.2",
        "FRUITS_LIST_CONSISTENCY_S": "1",
        "FRUITS_LOG_WAIT_S": "5",
    }


def look(run: Run) -> None:
    """Add what the run has left in the lake and in EMR."""
    key = f"runs/{run.run_id}/run.json"
    run.record = json.loads(laptop.client("s3").get_object(Bucket=LAKE, Key=key)["Body"].read())
    emr = laptop.client("emr")
    run.clusters = [
        c | {"Steps": emr.list_steps(ClusterId=c["Id"])["Steps"]}
        for c in emr.list_clusters()["Clusters"]
        if c["Name"].endswith(run.run_id)
    ]


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


def test_a_broken_run_says_what_its_nodes_have_cost_by_their_timelines(world: World) -> None:
    run = world.runs["broken_step"]
    nodes = laptop.client("emr").list_instances(ClusterId=run.clusters[0]["Id"])["Instances"]
    prices, usd = load_prices(run.record["region"]), 0.0
    for node in nodes:
        times = node["Status"]["Timeline"]
        hours = max(60.0, (times["EndDateTime"] - times["CreationDateTime"]).total_seconds()) / 3600
        usd += hours * prices.node_usd_per_hour(node["InstanceType"], node.get("Market", "ON_DEMAND"))[0]
    cost = run.record["cost"]
    assert len(nodes) > 1
    assert cost["estimate_parts"]["ec2"] == pytest.approx(usd * prices.eur_per_usd, abs=1e-4)
    forecast_of_nodes = sum(cost["forecast_parts"][part] for part in cost["estimate_parts"])
    assert cost["difference_eur"] == pytest.approx(cost["estimate_eur"] - forecast_of_nodes, abs=1e-3)


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


def test_a_run_of_parameters_that_cannot_be_read_is_refused_and_ends_at_once(world: World) -> None:
    run = world.runs["unreadable"]
    assert (run.state, run.clusters, run.record["state"]) == ("failed", [], "refused")
    assert "params." in run.record["reason"]
    assert run.record["region"] == "eu-west-1"
    # Each task of the end has run: none died of the parameters.
    assert (run.tasks["plan"], run.tasks["terminate_cluster"], run.tasks["report"]) == ("failed", "success", "success")


def test_no_run_leaves_a_cluster_behind(world: World) -> None:
    assert world.runs
    live = laptop.client("emr").list_clusters(ClusterStates=["STARTING", "BOOTSTRAPPING", "RUNNING", "WAITING"])
    assert live["Clusters"] == []


def test_no_run_leaves_a_lock_behind(world: World) -> None:
    assert world.runs
    assert laptop.client("s3").list_objects_v2(Bucket=LAKE, Prefix="locks/")["KeyCount"] == 0
    assert world.log.count("Took the lock of fruits,") >= 5
    assert world.log.count("Released the lock of fruits") >= 5


def test_a_run_beside_an_erasure_waits_and_then_does_its_work(world: World) -> None:
    assert "fruits is locked by erase_images run manual__erasure" in world.log
    assert world.runs["good"].record["state"] == "succeeded"


def test_a_stopped_run_has_a_page_too(world: World) -> None:
    for name in ("again", "too_dear"):
        key = f"runs/{world.runs[name].run_id}/report.html"
        page = laptop.client("s3").get_object(Bucket=LAKE, Key=key)["Body"].read().decode()
        assert world.runs[name].record["state"] in page


def test_a_red_run_is_told_with_its_cause_and_what_to_do(world: World) -> None:
    notices = [line for line in world.log.splitlines() if "NOTICE " in line]
    for words in ("is FAILED: ERROR WeightsMismatch", "runbook.md#red-run", "runbook.md#gate-failed", "#refused"):
        assert any(words in line for line in notices), words
    assert not any(world.runs["good"].run_id in line for line in notices)


def test_a_dag_that_follows_the_published_tables_is_triggered_once(world: World) -> None:
    world.airflow("scheduler", "--num-runs", "8")
    with closing(sqlite3.connect(world.home / "airflow.db")) as database:
        rows = database.execute("select dag_id, state from dag_run where dag_id like 'follow%'").fetchall()
    assert rows == [("follow_fruits", "success")], "the demo's tables were not published, and the others once"


def test_the_janitor_ends_the_cluster_of_a_run_that_airflow_knows_to_have_ended(world: World) -> None:
    run = world.runs["janitor"]
    assert run.state == "success"
    orphan, of_unknown_run = run.left.values()
    assert orphan == "TERMINATED"
    assert of_unknown_run in ("STARTING", "BOOTSTRAPPING", "RUNNING", "WAITING")


def test_the_check_finds_the_night_that_was_published(world: World) -> None:
    assert world.runs["check"].state == "success"


def test_the_verdict_looks_at_every_task_that_works(world: World) -> None:
    others = {"terminate_cluster", "report", "verdict"}
    assert set(WORK_TASKS) == set(world.runs["good"].tasks) - others
