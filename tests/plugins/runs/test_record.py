"""run.json beside report.html: the same run, told twice."""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import boto3
import pytest
from fruits_airflow.aws.endpoints import is_simulated
from fruits_airflow.config.errors import ConfigError
from fruits_airflow.records.models import RunRecord, StageMetrics, read_record
from fruits_airflow.runs import report_task, run_context
from fruits_airflow.runs.record import assemble_record
from fruits_airflow.runs.report_task import report_run
from fruits_airflow.runs.run_context import RunContext
from fruits_airflow.runs.run_status import WORK_TASKS
from fruits_airflow.runs.verdict import judge_run
from fruits_airflow.storage.lake import run_key

from tests.plugins.airflow_context import context_of
from tests.plugins.emr.test_clusters import hiding
from tests.plugins.measured import measure

DONE = dict.fromkeys(WORK_TASKS, "success")


def test_the_page_and_the_record_count_the_same_seconds(run: RunContext, monkeypatch: pytest.MonkeyPatch) -> None:
    measure(run)
    run.find_or_create()
    run.lifecycle.end_all(timeout_s=30)
    pages: list[RunRecord] = []
    monkeypatch.setattr(report_task, "write_report", lambda _run, record, _stages: pages.append(record) or {})
    report_run(run.settings, context_of(run, DONE))
    time.sleep(1.1)  # verdict comes later
    judge_run(run.settings, context_of(run, DONE))
    content = run.lake.read_json(run_key(run.identity.run_id, "run.json")) or {}
    assert content["seconds"]["total"] == pages[0].seconds.total > 0


def test_a_cluster_that_the_listing_does_not_show_yet_is_in_the_record_whole(run: RunContext) -> None:
    cluster = run.find_or_create()
    run.lifecycle.end_all(timeout_s=30)
    blind = replace(run)
    blind.__dict__["client"] = hiding(run, 60)
    record = assemble_record(blind, "nightly", {}, ended=True, whole=True)
    assert record.cluster.id == cluster.job_flow_id
    assert record.cluster.state == "TERMINATED"


def test_a_run_whose_profile_is_gone_from_the_files_is_recorded_without_its_cost(
    run: RunContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    measure(run)
    cluster = run.find_or_create()
    run.lifecycle.end_all(timeout_s=30)

    def gone(name: str) -> Any:
        raise ConfigError(f"profile: {name!r} is not in include/cluster.yaml")

    monkeypatch.setattr(run_context, "load_profile", gone)
    judge_run(run.settings, context_of(run, DONE))
    content = run.lake.read_json(run_key(run.identity.run_id, "run.json")) or {}
    assert (content["state"], content["cluster"]["id"]) == ("succeeded", cluster.job_flow_id)
    assert content["cost"]["estimate_eur"] == 0


def test_a_cluster_that_ended_before_the_plan_is_not_the_runs(run: RunContext, monkeypatch: pytest.MonkeyPatch) -> None:
    run.find_or_create()  # noted by an attempt before `plan` was cleared
    run = replace(run, plan=run.plan.model_copy(update={"planned_at": datetime.now(UTC).isoformat()}))
    run.keep(run.plan)
    monkeypatch.setattr(RunContext, "history", lambda _: [])
    assert assemble_record(run, "nightly", {}).cluster.id is None


def test_the_cluster_has_the_executors_of_the_stage_that_had_most(run: RunContext) -> None:
    facts = {"load_images": ("yarn", 1, 1), "featurize": ("yarn", 4, 2), "publish": ("yarn", 2, 2)}
    stages = {
        stage: StageMetrics.model_validate({"cluster": {"engine": engine, "executors": executors, "hosts": hosts}})
        for stage, (engine, executors, hosts) in facts.items()
    }
    cluster = assemble_record(run, "nightly", stages).cluster
    assert (cluster.engine, cluster.executors, cluster.hosts) == ("yarn", 4, 2)


def test_a_stage_names_no_cluster(run: RunContext) -> None:
    stages = {"publish": StageMetrics.model_validate({"cluster": {"id": "j-OF-A-NODE", "executors": 1}})}
    assert assemble_record(run, "nightly", stages).cluster.id is None


def test_a_run_on_an_emulator_of_aws_is_recorded_as_simulated(run: RunContext) -> None:
    measure(run)
    judge_run(run.settings, context_of(run, DONE))
    record = read_record(run.lake, run.identity.run_id)
    assert record
    assert record.simulated


def test_a_client_of_aws_itself_is_not_simulated() -> None:
    endpoint = "https://s3.eu-west-1.amazonaws.com"
    assert not is_simulated(boto3.client("s3", region_name="eu-west-1", endpoint_url=endpoint))
