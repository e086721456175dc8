"""After "clear failed" with the cluster gone, a new one takes up what is done, and the run ends green."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowFailException
from fruits_airflow.emr.stage_steps import STAGES
from fruits_airflow.operators.emr import AddStepOperator, TerminateClusterOperator
from fruits_airflow.operators.sensors import StepSensor
from fruits_airflow.records.models import read_stages
from fruits_airflow.runs.publication import read_state
from fruits_airflow.runs.run_context import RunContext
from fruits_airflow.runs.run_status import WORK_TASKS
from fruits_airflow.runs.verdict import judge_run
from fruits_airflow.storage.run_notes import LAST_FAILURE

from tests.plugins.airflow_context import context_of, drive
from tests.plugins.measured import MEASURED, REFUSED, measure

DONE = dict.fromkeys(WORK_TASKS, "success")


def do_stage(run: RunContext, context: Any, stage: str) -> None:
    """Add the step of a stage, and wait for it."""
    task_id = f"{stage}.add"
    context["ti"].xcoms[task_id] = AddStepOperator(task_id="add", settings=run.settings, stage=stage).execute(context)
    wait_for(run, context, stage)


def wait_for(run: RunContext, context: Any, stage: str) -> None:
    """Wait for the step of a stage: all that a person clears after a lost cluster."""
    task_id = f"{stage}.add"
    drive(StepSensor(task_id="wait", settings=run.settings, stage=stage, add_task_id=task_id), context)


def test_a_run_whose_cluster_was_lost_goes_on_with_another_and_publishes(
    run: RunContext, does: Callable[[str], None]
) -> None:
    context = context_of(run, DONE | {"featurize.wait": "failed"})
    does("true")
    do_stage(run, context, "load_images")
    measure(run, {"load_images": MEASURED["load_images"]})  # all that there will be of it
    does("sleep 60")
    context["ti"].xcoms["featurize.add"] = AddStepOperator(
        task_id="add", settings=run.settings, stage="featurize"
    ).execute(context)
    run.lifecycle.end_all(timeout_s=30)
    with pytest.raises(AirflowFailException):
        judge_run(run.settings, context)
    assert run.lock("fruits").read() is None

    measure(run, {"publish": REFUSED})
    run.journal.note(LAST_FAILURE, stage="publish", cause="of the first attempt")

    does("true")  # cleared: load_images stays done, the wait of featurize runs anew
    wait_for(run, context, "featurize")
    holding = run.lock("fruits").read()
    assert holding is not None
    assert holding.owner == run.identity
    assert run.journal.read(LAST_FAILURE) is None
    assert "publish" not in read_stages(run.lake, run.identity.run_id)
    for stage in ("reduce_pca", "publish"):
        do_stage(run, context, stage)
    measure(run, {stage: MEASURED[stage] for stage in STAGES[1:]})
    TerminateClusterOperator(task_id="terminate_cluster", settings=run.settings).execute(context)
    judge_run(run.settings, context_of(run, DONE))

    first, second = run.history()
    assert {first.state, second.state} == {"TERMINATED"}
    done = [
        step["Name"]
        for cluster in (first, second)
        for step in run.client.list_steps(ClusterId=cluster.job_flow_id)["Steps"]
        if step["Status"]["State"] == "COMPLETED"
    ]
    assert sorted(done) == ["featurize/1", "load_images/1", "publish/1", "reduce_pca/1"]
    published = read_state(run.lake, "fruits").published
    assert published is not None
    assert published.run_id == run.identity.run_id
    assert run.lock("fruits").read() is None
