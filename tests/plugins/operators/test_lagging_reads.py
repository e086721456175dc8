"""A lagging read after a wait does not override what the trigger has seen."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowFailException
from fruits_airflow.config.errors import ClusterLost
from fruits_airflow.config.settings import Settings
from fruits_airflow.emr.clusters import Cluster
from fruits_airflow.emr.steps import Step
from fruits_airflow.operators import sensors
from fruits_airflow.operators.sensors import ClusterReadySensor, StepSensor
from fruits_airflow.runs.run_context import RunContext

IDS = {"job_flow_id": "j-1", "step_id": "s-1"}


@pytest.fixture
def shows(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], list[str]]:
    """Set what DescribeCluster and DescribeStep show, and return the ids passed to TerminateJobFlows."""

    def show(cluster: str, step: str) -> list[str]:
        asked_to_end: list[str] = []
        client = SimpleNamespace(terminate_job_flows=lambda JobFlowIds: asked_to_end.extend(JobFlowIds))  # noqa: N803
        run = SimpleNamespace(client=client, journal=SimpleNamespace(note=lambda *_, **__: None))
        run.lake, run.settings = SimpleNamespace(client=None), SimpleNamespace(log_wait_s=0.0, poll_s=0.0)
        description = Cluster("j-1", "n", cluster, datetime.now(UTC), {}, "", "", {})
        monkeypatch.setattr(RunContext, "of", lambda *_: run)
        monkeypatch.setattr(sensors, "describe_cluster", lambda *_: description)
        monkeypatch.setattr(sensors, "describe_step", lambda *_: Step("s-1", "featurize/1", step, "", None))
        return asked_to_end

    return show


def ready(settings: Settings, event: dict[str, Any]) -> None:
    ClusterReadySensor(task_id="ready", settings=settings).execute_complete({}, IDS | event)  # type: ignore[arg-type]


def step(settings: Settings, event: dict[str, Any]) -> None:
    sensor = StepSensor(task_id="wait", settings=settings, stage="featurize", add_task_id="add")
    sensor.execute_complete({}, IDS | event)  # type: ignore[arg-type]


def test_a_ready_cluster_is_not_ended_because_a_look_shows_it_starting(settings: Settings, shows: Any) -> None:
    asked_to_end = shows("STARTING", "PENDING")
    ready(settings, {"status": "ready", "state": "WAITING"})
    assert asked_to_end == []


def test_a_cluster_seen_lost_stays_lost_for_its_own_reason(settings: Settings, shows: Any) -> None:
    shows("STARTING", "PENDING")
    event = {"status": "lost", "state": "TERMINATED_WITH_ERRORS", "reason": "BOOTSTRAP_FAILURE it failed"}
    with pytest.raises(AirflowFailException, match="BOOTSTRAP_FAILURE"):
        ready(settings, event)


def test_a_step_seen_completed_stays_completed(settings: Settings, shows: Any) -> None:
    shows("RUNNING", "RUNNING")
    step(settings, {"status": "ended", "state": "COMPLETED", "reason": ""})


def test_a_step_whose_cluster_was_seen_lost_is_tried_again(settings: Settings, shows: Any) -> None:
    shows("RUNNING", "RUNNING")
    event = {"status": "lost", "state": "TERMINATED_WITH_ERRORS", "reason": "INSTANCE_FAILURE gone"}
    with pytest.raises(ClusterLost, match="INSTANCE_FAILURE"):
        step(settings, event)
