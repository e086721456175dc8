"""The sensors wait for the cluster and for a step, time out, and recover after a loss."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.amazon.aws.links.emr import EmrClusterLink
from airflow.sdk.exceptions import AirflowFailException, AirflowSensorTimeout, TaskDeferred
from botocore.exceptions import ClientError, ReadTimeoutError
from fruits_airflow.aws.links import StepLogLink
from fruits_airflow.config.errors import ClusterLost, StepLost
from fruits_airflow.emr import clusters
from fruits_airflow.emr.clusters import LIVE_STATES, READY_STATES, ClusterLifecycle
from fruits_airflow.emr.steps import TERMINAL_STATES, StepSubmitter, describe_step
from fruits_airflow.operators import step_failure
from fruits_airflow.operators.emr import AddStepOperator, CreateClusterOperator, TerminateClusterOperator
from fruits_airflow.operators.sensors import ClusterReadySensor, StepSensor
from fruits_airflow.operators.step_failure import cancel_step, fail_step, show_cancelled
from fruits_airflow.operators.triggers import ClusterReadyTrigger, StepTrigger
from fruits_airflow.runs import run_context
from fruits_airflow.runs.run_context import RunContext
from fruits_airflow.storage.run_notes import Journal

from tests.local_aws.server import until
from tests.plugins.airflow_context import context_of, drive, fire
from tests.plugins.bash_steps import ended
from tests.plugins.doubles import Double

UNKNOWN = {"job_flow_id": "j-UNKNOWN", "step_id": "s-UNKNOWN"}
NO_NEWS = "no event from the trigger until its deadline; is the triggerer alive? then clear the task"


def sensor(run: RunContext, **changed: Any) -> StepSensor:
    settings = replace(run.settings, **changed)
    return StepSensor(task_id="wait", settings=settings, stage="featurize", add_task_id="featurize.add")


def with_settings(run: RunContext, **changed: Any) -> RunContext:
    return replace(run, settings=replace(run.settings, **changed))


def add(run: RunContext, context: Any) -> dict[str, str]:
    added = AddStepOperator(task_id="add", settings=run.settings, stage="featurize").execute(context)
    context["ti"].xcoms["featurize.add"] = added
    return added


def begin(run: RunContext, does: Callable[[str], None], command: str) -> tuple[Any, dict[str, str]]:
    """Add a step that runs `command`, and return the tasks' context and the result of `add`."""
    does(command)
    context = context_of(run)
    return context, add(run, context)


def trigger_of(
    run: RunContext,
    added: dict[str, str],
    seconds: float = 60,
    kind: type[StepTrigger] = StepTrigger,
    consistency_s: float = 60,
) -> StepTrigger:
    """Return a trigger that polls the step for `seconds`."""
    return kind(
        **added,
        deadline=time.time() + seconds,
        settle_s=0,
        consistency_s=consistency_s,
        waiter_delay=0.1,
        aws_conn_id=None,
        region_name=run.region,
    )


def steps(run: RunContext, job_flow_id: str) -> list[tuple[str, str]]:
    newest_first = run.client.list_steps(ClusterId=job_flow_id)["Steps"]
    return [(step["Id"], step["Status"]["State"]) for step in reversed(newest_first)]


def cause(run: RunContext) -> tuple[str, str] | None:
    """Return the recorded stage and cause of the failure."""
    note = run.journal.read("last_failure")
    return None if note is None else (note["stage"], note["cause"])


def denied(*_: Any, **__: Any) -> Any:
    answer: Any = {
        "Error": {"Code": "AccessDeniedException", "Message": "the role may not"},
        "ResponseMetadata": {"HTTPStatusCode": 400},
    }
    raise ClientError(answer, "AddJobFlowSteps")


@pytest.fixture
def starting(run: RunContext, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Return a function that makes EMR show the run's cluster as STARTING, and replaces other methods of the client."""
    client = run.client

    def describe_cluster(**request: Any) -> Any:
        answer = client.describe_cluster(**request)
        answer["Cluster"]["Status"]["State"] = "STARTING"
        return answer

    def change(**methods: Any) -> None:
        double = Double(client, describe_cluster=describe_cluster, **methods)
        monkeypatch.setattr(RunContext, "client", property(lambda _: double))

    return change


# the cluster


def test_the_cluster_is_waited_for_until_it_takes_steps(run: RunContext) -> None:
    context = context_of(run)
    job_flow_id = CreateClusterOperator(task_id="create", settings=run.settings).execute(context)
    drive(ClusterReadySensor(task_id="ready", settings=run.settings), context)
    assert clusters.describe_cluster(run.client, job_flow_id).state in ("RUNNING", "WAITING")


def test_a_cluster_whose_bootstrap_fails_is_no_ready_cluster(run: RunContext) -> None:
    broken = replace(run, code_digest="missing")
    broken.journal.note("upload_code", digest="missing")
    with pytest.raises(AirflowFailException, match="BOOTSTRAP_FAILURE") as failed:
        drive(ClusterReadySensor(task_id="ready", settings=run.settings), context_of(broken))
    assert cause(run) == ("ready", str(failed.value))


def test_a_cluster_that_does_not_start_in_time_is_ended_so_that_a_retry_makes_another(run: RunContext) -> None:
    context = context_of(run)
    ready = ClusterReadySensor(task_id="ready", settings=run.settings)
    stuck = run.find_or_create().job_flow_id
    with pytest.raises(ClusterLost, match="start_timeout_minutes"):
        ready.resume_execution("execute_complete", {"event": {"status": "timeout", "job_flow_id": stuck}}, context)
    assert (cause(run) or ("", ""))[1].startswith(f"ClusterLost: {stuck} is still ")
    until(lambda: clusters.describe_cluster(run.client, stuck).state not in LIVE_STATES)
    assert run.find_or_create().job_flow_id != stuck


def test_a_cluster_that_does_not_start_in_time_is_ended_though_it_is_protected(
    run: RunContext, starting: Callable[..., None]
) -> None:
    stuck, real = run.find_or_create().job_flow_id, run.client
    real.set_termination_protection(JobFlowIds=[stuck], TerminationProtected=True)
    ready = ClusterReadySensor(task_id="ready", settings=run.settings)
    starting()
    with pytest.raises(ClusterLost, match="start_timeout_minutes"):
        ready.execute_complete(context_of(run), {"status": "timeout", "job_flow_id": stuck})
    until(lambda: clusters.describe_cluster(real, stuck).state not in LIVE_STATES)


def test_that_a_cluster_refuses_to_end_does_not_hide_that_it_did_not_start(
    run: RunContext, starting: Callable[..., None]
) -> None:
    stuck = run.find_or_create().job_flow_id
    ready = ClusterReadySensor(task_id="ready", settings=run.settings)
    starting(terminate_job_flows=denied)
    with pytest.raises(ClusterLost, match="start_timeout_minutes"):
        ready.execute_complete(context_of(run), {"status": "timeout", "job_flow_id": stuck})


@pytest.mark.parametrize(("further", "noted"), [(1, False), (0, True)])
def test_why_run_job_flow_was_refused_is_noted_by_the_last_attempt(run: RunContext, further: int, noted: bool) -> None:
    settings, context = replace(run.settings, service_role="no-such-role"), context_of(run)
    context["ti"].max_tries = context["ti"].try_number - 1 + further
    with pytest.raises(ClientError, match="no-such-role") as failed:
        CreateClusterOperator(task_id="create_cluster", settings=settings).execute(context)
    assert cause(run) == (("create_cluster", f"ClientError: {failed.value}") if noted else None)


def test_when_airflow_gives_up_waiting_for_a_cluster_it_is_noted(run: RunContext) -> None:
    with pytest.raises(AirflowSensorTimeout):
        ClusterReadySensor(task_id="cluster_ready", settings=run.settings).resume_execution(
            "__fail__", {"error": "Trigger timeout"}, context_of(run)
        )
    assert cause(run) == ("cluster_ready", NO_NEWS)


def test_a_retry_gives_a_stuck_cluster_no_further_half_hour(run: RunContext, monkeypatch: pytest.MonkeyPatch) -> None:
    starting = replace(run.find_or_create(), state="STARTING")
    monkeypatch.setattr(RunContext, "find_or_create", lambda _: starting)
    with pytest.raises(TaskDeferred) as deferred:
        ClusterReadySensor(task_id="ready", settings=run.settings).execute(context_of(run))
    assert deferred.value.trigger.deadline == starting.created_at.timestamp() + run.settings.start_timeout_minutes * 60


def test_killing_the_create_task_needs_no_answer_of_run_job_flow(run: RunContext) -> None:
    CreateClusterOperator(task_id="create", settings=run.settings).on_kill()


def test_on_an_emulator_there_is_no_link_to_the_console_of_aws(
    run: RunContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    linked: list[str] = []
    monkeypatch.setattr(EmrClusterLink, "persist", lambda **link: linked.append(link["job_flow_id"]))
    run.link_cluster(context_of(run), None, "j-1")
    assert linked == []
    monkeypatch.setattr(run_context, "is_simulated", lambda _: False)
    run.link_cluster(context_of(run), None, "j-1")
    assert linked == ["j-1"]


# the step


def test_why_a_step_was_not_added_is_noted(run: RunContext) -> None:
    """Nobody has uploaded the code."""
    with pytest.raises(AirflowFailException, match="CodeMismatch") as failed:
        add(run, context_of(run))
    assert cause(run) == ("featurize", str(failed.value))


@pytest.mark.parametrize("task", ["add", "wait"])
def test_why_add_job_flow_steps_was_refused_is_noted(
    run: RunContext, does: Callable[[str], None], monkeypatch: pytest.MonkeyPatch, task: str
) -> None:
    monkeypatch.setattr(StepSubmitter, "find_or_add", denied)
    with pytest.raises(ClientError, match="AccessDenied"):
        add(run, context_of(run)) if task == "add" else sensor(run).execute(context_of(run))
    stage, why = cause(run) or ("", "")
    assert stage == "featurize"
    assert "the role may not" in why


def test_a_cause_that_cannot_be_noted_stays_the_error_of_the_task(
    run: RunContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Journal, "note", denied)
    with pytest.raises(AirflowFailException, match="CodeMismatch"):
        add(run, context_of(run))
    monkeypatch.undo()


def test_a_step_that_ends_well_ends_the_wait(run: RunContext, does: Callable[[str], None]) -> None:
    context, added = begin(run, does, "sleep 0.5")
    drive(sensor(run), context)
    assert steps(run, added["job_flow_id"]) == [(added["step_id"], "COMPLETED")]


def test_adding_twice_adds_one_step(run: RunContext, does: Callable[[str], None]) -> None:
    does("sleep 0.5")
    context = context_of(run)
    assert add(run, context) == add(run, context)


def test_a_failed_step_fails_the_task_for_good_with_its_own_words(
    run: RunContext, does: Callable[[str], None], caplog: pytest.LogCaptureFixture
) -> None:
    context, _ = begin(run, does, "echo out; echo ERROR WeightsMismatch: other weights >&2; exit 1")
    with pytest.raises(AirflowFailException, match="FAILED: ERROR WeightsMismatch: other weights") as failed:
        drive(sensor(run), context)
    assert cause(run) == ("featurize", str(failed.value))
    assert "stdout| out" in caplog.text
    assert "stderr| ERROR WeightsMismatch: other weights" in caplog.text


def test_a_killed_driver_is_tried_again_once_and_the_second_time_it_is_the_failure(
    run: RunContext, does: Callable[[str], None]
) -> None:
    context, added = begin(run, does, "kill -9 $$")
    context["ti"].max_tries = context["ti"].try_number  # one attempt is left
    with pytest.raises(StepLost, match=r"killed: exit status 137, SIGKILL.*; a retry runs it once more"):
        drive(sensor(run), context)
    assert cause(run) is None
    with pytest.raises(
        AirflowFailException, match="killed: exit status 137, SIGKILL.*; a retry did not help$"
    ) as failed:
        drive(sensor(run), context)
    assert cause(run) == ("featurize", str(failed.value))
    assert [state for _, state in steps(run, added["job_flow_id"])] == ["FAILED", "FAILED"]


def test_a_killed_driver_that_ends_well_when_it_is_tried_again_ends_the_wait(
    run: RunContext, does: Callable[[str], None]
) -> None:
    context, added = begin(run, does, "kill -9 $$")
    with pytest.raises(StepLost):
        drive(sensor(run), context)
    does("true")
    drive(sensor(run), context)
    assert [state for _, state in steps(run, added["job_flow_id"])] == ["FAILED", "COMPLETED"]


def test_a_step_that_failed_before_the_wait_began_is_not_tried_again(
    run: RunContext, does: Callable[[str], None]
) -> None:
    context, added = begin(run, does, "exit 1")
    ended(run.step_submitter(added["job_flow_id"]), added["step_id"])
    with pytest.raises(AirflowFailException):
        drive(sensor(run), context)
    assert [state for _, state in steps(run, added["job_flow_id"])] == ["FAILED"]


def test_clearing_only_the_failed_wait_tries_the_step_again(run: RunContext, does: Callable[[str], None]) -> None:
    context, added = begin(run, does, "exit 1")
    with pytest.raises(AirflowFailException):
        drive(sensor(run), context)
    does("true")
    drive(sensor(run), context)
    assert [state for _, state in steps(run, added["job_flow_id"])] == ["FAILED", "COMPLETED"]


def test_clearing_only_the_failed_wait_makes_a_new_cluster_when_the_old_one_is_gone(
    run: RunContext, does: Callable[[str], None]
) -> None:
    context, added = begin(run, does, "exit 1")
    with pytest.raises(AirflowFailException):
        drive(sensor(run), context)
    run.lifecycle.end_all(timeout_s=30)
    does("true")
    drive(sensor(run), context)
    (cluster,) = clusters.find_clusters(run.client, run.identity)
    assert cluster.job_flow_id != added["job_flow_id"]
    assert [state for _, state in steps(run, cluster.job_flow_id)] == ["COMPLETED"]


def test_a_failure_that_nobody_reported_is_tried_again_when_its_cluster_is_gone(
    run: RunContext, does: Callable[[str], None]
) -> None:
    context, added = begin(run, does, "exit 1")
    ended(run.step_submitter(added["job_flow_id"]), added["step_id"])
    run.lifecycle.end_all(timeout_s=30)
    does("true")
    drive(sensor(run), context)
    (cluster,) = clusters.find_clusters(run.client, run.identity)
    assert [state for _, state in steps(run, cluster.job_flow_id)] == ["COMPLETED"]


def test_a_step_that_is_done_needs_no_cluster(run: RunContext, does: Callable[[str], None]) -> None:
    context, added = begin(run, does, "true")
    ended(run.step_submitter(added["job_flow_id"]), added["step_id"])
    run.lifecycle.end_all(timeout_s=30)
    drive(sensor(run), context)
    assert clusters.find_clusters(run.client, run.identity) == []


def test_a_step_whose_cluster_ended_is_retried(run: RunContext, does: Callable[[str], None]) -> None:
    _, added = begin(run, does, "sleep 30")
    lost = clusters.describe_cluster(run.client, added["job_flow_id"])
    step = describe_step(run.client, added["job_flow_id"], added["step_id"])
    gone = replace(lost, state="TERMINATED_WITH_ERRORS", reason="INSTANCE_FAILURE a node died")
    with pytest.raises(ClusterLost, match="INSTANCE_FAILURE"):
        fail_step(with_settings(run, log_wait_s=0), gone, step)
    on_purpose = replace(gone, reason="USER_REQUEST Terminated by user request")
    with pytest.raises(AirflowFailException, match="not retried"):
        fail_step(with_settings(run, log_wait_s=0), on_purpose, step)
    overdue = replace(gone, tags={**lost.tags, "deadline": "2020-01-01T00:00:00Z"})
    with pytest.raises(AirflowFailException, match="not retried"):
        fail_step(with_settings(run, log_wait_s=0), overdue, step)


@pytest.mark.parametrize(("further", "noted"), [(1, False), (0, True)])
def test_that_the_cluster_was_lost_under_a_step_is_noted_by_the_last_attempt(
    run: RunContext, does: Callable[[str], None], further: int, noted: bool
) -> None:
    context, added = begin(run, does, "sleep 30")
    context["ti"].max_tries = context["ti"].try_number - 1 + further
    event = {"status": "lost", "state": "TERMINATED_WITH_ERRORS", "reason": "INSTANCE_FAILURE a node died"}
    with pytest.raises(ClusterLost, match="INSTANCE_FAILURE") as lost:
        sensor(run, log_wait_s=0).resume_execution("execute_complete", {"event": added | event}, context)
    assert cause(run) == (("featurize", f"ClusterLost: {lost.value}") if noted else None)


def test_what_a_step_wrote_before_its_cluster_was_lost_is_shown(
    run: RunContext, does: Callable[[str], None], caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    context, added = begin(run, does, f"echo last words; touch {tmp_path}/said; sleep 60")
    with pytest.raises(TaskDeferred) as deferred:
        sensor(run).execute(context)
    until((tmp_path / "said").exists)
    run.client.terminate_job_flows(JobFlowIds=[added["job_flow_id"]])
    event = fire(deferred.value.trigger)
    with pytest.raises(AirflowFailException, match="ended on purpose"):
        sensor(run).execute_complete(context, event)
    assert "stdout| last words" in caplog.text


def test_logs_that_went_with_their_cluster_are_not_waited_for_as_long_as_late_ones(
    run: RunContext, does: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, added = begin(run, does, "sleep 30")
    lost = clusters.describe_cluster(run.client, added["job_flow_id"])
    step = describe_step(run.client, added["job_flow_id"], added["step_id"])
    monkeypatch.setattr(step_failure, "_LAST_LOGS_S", 0.3)
    begun = time.monotonic()
    with pytest.raises(ClusterLost):
        fail_step(with_settings(run, log_wait_s=60), replace(lost, state="TERMINATED_WITH_ERRORS"), step)
    assert time.monotonic() - begun < 20


def test_the_end_of_a_cluster_ends_the_wait(run: RunContext, does: Callable[[str], None]) -> None:
    context, added = begin(run, does, "sleep 60")
    with pytest.raises(TaskDeferred) as deferred:
        sensor(run).execute(context)
    run.client.terminate_job_flows(JobFlowIds=[added["job_flow_id"]])
    assert (fired := fire(deferred.value.trigger))["status"] in ("ended", "lost"), fired


def test_a_step_past_its_deadline_is_cancelled(
    run: RunContext, does: Callable[[str], None], caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    context, added = begin(run, does, f"echo hanging; touch {tmp_path}/hangs; sleep 60")
    with pytest.raises(TaskDeferred) as deferred:
        sensor(run).execute(context)
    until((tmp_path / "hangs").exists)
    trigger = deferred.value.trigger
    trigger.deadline = time.time() + 0.5
    trigger.serialized_fields["deadline"] = trigger.deadline
    event = fire(trigger)
    assert event["status"] == "timeout"
    state = describe_step(run.client, added["job_flow_id"], added["step_id"]).state
    assert state in ("CANCEL_PENDING", "CANCELLED"), "the trigger does it, should the task never resume"
    with pytest.raises(AirflowFailException, match="step_timeout_minutes") as failed:
        sensor(run).resume_execution("execute_complete", {"event": event}, context)
    assert cause(run) == ("featurize", str(failed.value))
    assert "stdout| hanging" in caplog.text
    assert ended(run.step_submitter(added["job_flow_id"]), added["step_id"]).state == "CANCELLED"


def test_a_cancel_that_has_no_effect_is_not_waited_for_longer_than_for_logs(
    run: RunContext, does: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    context, added = begin(run, does, "sleep 60")
    monkeypatch.setattr(step_failure, "cancel_step", lambda *_: None)
    begun = time.monotonic()
    with pytest.raises(AirflowFailException, match="step_timeout_minutes"):
        sensor(run, log_wait_s=0.5).execute_complete(context, {**added, "status": "timeout"})
    assert time.monotonic() - begun < 20


@pytest.mark.parametrize("left", ["a step that goes on", "a cluster past its deadline"])
@pytest.mark.parametrize("gives_up", ["the trigger", "Airflow"])
def test_late_logs_do_not_keep_a_cluster_that_only_costs(
    run: RunContext, does: Callable[[str], None], monkeypatch: pytest.MonkeyPatch, left: str, gives_up: str
) -> None:
    context, added = begin(run, does, "sleep 60")
    monkeypatch.setattr(step_failure, "_LAST_LOGS_S", 0.2)
    if left == "a step that goes on":
        refusing = Double(run.client, cancel_steps=denied)
        monkeypatch.setattr(RunContext, "client", property(lambda _: refusing))
    else:
        monkeypatch.setattr(step_failure, "cancel_step", lambda *_: True)
        overdue: Any = [{"Key": "deadline", "Value": "2020-01-01T00:00:00Z"}]
        run.client.add_tags(ResourceId=added["job_flow_id"], Tags=overdue)
    waiting, begun = sensor(run, log_wait_s=25.0), time.monotonic()
    news: dict[str, tuple[str, Any]] = {
        "the trigger": ("execute_complete", {"event": {**added, "status": "timeout"}}),
        "Airflow": ("__fail__", {"error": "Trigger timeout"}),
    }
    with pytest.raises((AirflowFailException, AirflowSensorTimeout)):
        waiting.resume_execution(*news[gives_up], context)
    assert time.monotonic() - begun < 15
    monkeypatch.undo()


def test_a_cancel_that_emr_refuses_in_its_answer_is_no_accepted_one(
    run: RunContext, does: Callable[[str], None]
) -> None:
    _, added = begin(run, does, "true")
    done = ended(run.step_submitter(added["job_flow_id"]), added["step_id"])
    assert not cancel_step(run, added["job_flow_id"], done.step_id)


def test_the_logs_of_a_step_that_the_trigger_has_cancelled_are_waited_for(
    run: RunContext, does: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, added = begin(run, does, "true")
    step = replace(
        ended(run.step_submitter(added["job_flow_id"]), added["step_id"]), state="CANCEL_PENDING"
    )  # of such a step EMR refuses a second cancel
    waits: list[float] = []
    monkeypatch.setattr(step_failure, "show_tails", lambda *arguments: waits.append(arguments[3]))
    cluster = clusters.describe_cluster(run.client, added["job_flow_id"])
    show_cancelled(with_settings(run, log_wait_s=300.0), cluster, step, is_accepted=False)
    assert waits[0] > 200


def test_the_wait_ends_no_later_than_the_cluster_must(run: RunContext, does: Callable[[str], None]) -> None:
    context, added = begin(run, does, "sleep 30")
    with pytest.raises(TaskDeferred) as deferred:
        sensor(run, step_timeout_minutes=10_000).execute(context)
    cluster = clusters.describe_cluster(run.client, added["job_flow_id"])
    assert cluster.deadline is not None
    assert deferred.value.trigger.deadline == cluster.deadline.timestamp()
    assert deferred.value.timeout > timedelta(seconds=cluster.deadline.timestamp() - time.time())


def test_clearing_or_marking_a_waiting_task_cancels_its_step(run: RunContext, does: Callable[[str], None]) -> None:
    _, added = begin(run, does, "sleep 60")
    asyncio.run(trigger_of(run, added).on_kill())
    assert ended(run.step_submitter(added["job_flow_id"]), added["step_id"]).state == "CANCELLED"


@pytest.mark.parametrize("attempt", [1, 2])
def test_a_step_that_is_cancelled_after_the_cleared_wait_found_it_is_done_once_more(
    run: RunContext, does: Callable[[str], None], attempt: int
) -> None:
    context, added = begin(run, does, "sleep 60")
    with pytest.raises(TaskDeferred) as first:
        sensor(run).execute(context)
    context["ti"].try_number = attempt
    with pytest.raises(TaskDeferred) as second:
        sensor(run).execute(context)
    assert second.value.trigger.ids == added
    asyncio.run(first.value.trigger.on_kill())
    does("true")
    event = fire(second.value.trigger)
    if attempt == 1:  # a person cancelled it
        with pytest.raises(AirflowFailException, match="is CANCELLED"):
            sensor(run).execute_complete(context, event)
        return
    with pytest.raises(TaskDeferred) as third:
        sensor(run).execute_complete(context, event)
    sensor(run).execute_complete(context, fire(third.value.trigger))
    assert [state for _, state in steps(run, added["job_flow_id"])] == ["CANCELLED", "COMPLETED"]


def test_a_step_that_is_cancelled_again_is_not_done_once_more(run: RunContext, does: Callable[[str], None]) -> None:
    context, added = begin(run, does, "sleep 60")
    with pytest.raises(TaskDeferred) as first:
        sensor(run).execute(context)
    asyncio.run(first.value.trigger.on_kill())
    context["ti"].try_number = 2
    with pytest.raises(TaskDeferred) as second:
        sensor(run).execute_complete(context, fire(first.value.trigger))
    asyncio.run(second.value.trigger.on_kill())
    with pytest.raises(AirflowFailException, match="is CANCELLED"):
        sensor(run).execute_complete(context, fire(second.value.trigger))
    assert len(steps(run, added["job_flow_id"])) == 2


def test_a_cleared_waits_step_that_its_cluster_took_along_is_not_done_once_more(
    run: RunContext, does: Callable[[str], None]
) -> None:
    context, added = begin(run, does, "sleep 60")
    with pytest.raises(TaskDeferred) as first:
        sensor(run).execute(context)
    context["ti"].try_number = 2
    run.client.terminate_job_flows(JobFlowIds=[added["job_flow_id"]])
    event = fire(first.value.trigger) | {"status": "ended", "state": "CANCELLED", "reason": "its cluster ended"}
    with pytest.raises(AirflowFailException, match="ended on purpose"):
        sensor(run).execute_complete(context, event)


def test_the_restart_of_a_triggerer_cancels_no_step(run: RunContext, does: Callable[[str], None]) -> None:
    does("sleep 2")
    added = add(run, context_of(run))
    trigger = trigger_of(run, added)

    async def killed() -> None:
        waiting = asyncio.create_task(anext(trigger.run()))  # type: ignore[arg-type]
        await asyncio.sleep(1)
        waiting.cancel()
        with suppress(asyncio.CancelledError):
            await waiting

    asyncio.run(killed())
    assert ended(run.step_submitter(added["job_flow_id"]), added["step_id"]).state == "COMPLETED"


def test_a_cluster_is_waited_for_in_its_own_region(run: RunContext) -> None:
    elsewhere = replace(run, region="eu-west-3", plan=run.plan.model_copy(update={"region": "eu-west-3"}))
    body = run.body()
    elsewhere.keep(elsewhere.plan)
    del body["SecurityConfiguration"], body["Instances"]["Ec2SubnetIds"]  # of the other region
    job_flow_id = elsewhere.client.run_job_flow(**body)["JobFlowId"]
    try:
        ready = ClusterReadySensor(task_id="cluster_ready", settings=run.settings)
        drive(ready, context_of(elsewhere))
        assert clusters.describe_cluster(elsewhere.client, job_flow_id).state in READY_STATES
        assert clusters.find_clusters(run.client, run.identity) == []
    finally:
        elsewhere.lifecycle.end_all(timeout_s=30)


def test_when_airflow_gives_up_the_step_is_cancelled(run: RunContext, does: Callable[[str], None]) -> None:
    context, added = begin(run, does, "sleep 60")
    with pytest.raises(AirflowSensorTimeout):
        sensor(run).resume_execution("__fail__", {"error": "Trigger timeout"}, context)
    assert cause(run) == ("featurize", NO_NEWS)
    assert ended(run.step_submitter(added["job_flow_id"]), added["step_id"]).state == "CANCELLED"


def test_when_airflow_gives_up_and_emr_is_silent_it_stays_a_timeout(
    run: RunContext, does: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    def silent(_: ClusterLifecycle) -> None:
        raise ReadTimeoutError(endpoint_url="emr")

    context, _ = begin(run, does, "sleep 60")
    monkeypatch.setattr(ClusterLifecycle, "find", silent)
    with pytest.raises(AirflowSensorTimeout):
        sensor(run).resume_execution("__fail__", {"error": "Trigger timeout"}, context)
    monkeypatch.undo()


def test_the_wait_for_a_step_of_a_cluster_that_emr_does_not_know_ends_after_the_consistency_window(
    run: RunContext,
) -> None:
    event = fire(trigger_of(run, UNKNOWN, seconds=3600, consistency_s=0.3))
    assert (event["status"], event["job_flow_id"]) == ("unknown", UNKNOWN["job_flow_id"])
    with pytest.raises(ClusterLost, match=r"EMR does not know j-UNKNOWN.* is not valid"):
        sensor(run).execute_complete(context_of(run), event)


def test_a_cluster_that_emr_does_not_show_yet_is_waited_for_within_the_consistency_window(run: RunContext) -> None:
    assert fire(trigger_of(run, UNKNOWN, seconds=0.5))["status"] == "timeout"


def test_the_wait_for_a_cluster_that_emr_does_not_know_ends_after_the_consistency_window(run: RunContext) -> None:
    watched = {"job_flow_id": UNKNOWN["job_flow_id"], "deadline": time.time() + 3600, "region_name": run.region}
    event = fire(ClusterReadyTrigger(**watched, settle_s=0, consistency_s=0.3, waiter_delay=0.1, aws_conn_id=None))
    assert event["status"] == "unknown"
    with pytest.raises(ClusterLost, match="EMR does not know j-UNKNOWN"):
        ClusterReadySensor(task_id="ready", settings=run.settings).execute_complete(context_of(run), event)


def test_a_retry_of_a_wait_whose_cluster_emr_does_not_know_goes_on_with_a_new_cluster(
    run: RunContext, does: Callable[[str], None]
) -> None:
    does("exit 0")
    context = context_of(run)
    context["ti"].xcoms["featurize.add"] = dict(UNKNOWN)
    drive(sensor(run), context)
    (cluster,) = clusters.find_clusters(run.client, run.identity)
    assert [state for _, state in steps(run, cluster.job_flow_id)] == ["COMPLETED"]


def test_a_poll_that_fails_is_repeated(run: RunContext, does: Callable[[str], None]) -> None:
    context = context_of(run)
    added = add(run, context)
    looks: list[int] = []

    class Flaky(StepTrigger):
        async def poll(self, client: Any, count: int) -> dict[str, Any] | None:
            looks.append(count)
            if len(looks) < 3:
                raise ConnectionResetError
            return await super().poll(client, count)

    assert fire(trigger_of(run, added, 30, Flaky))["status"] == "ended"
    assert len(looks) >= 3


def test_a_trigger_does_not_poll_before_its_settle_time(monkeypatch: pytest.MonkeyPatch) -> None:
    begun = time.monotonic()
    looked: list[float] = []

    class Looked(Exception):
        pass

    def hook(_: StepTrigger) -> None:
        looked.append(time.monotonic() - begun)
        raise Looked

    monkeypatch.setattr(StepTrigger, "hook", hook)
    trigger = StepTrigger(
        job_flow_id="j", step_id="s", deadline=time.time() + 60, settle_s=0.3, consistency_s=60, waiter_delay=0.1
    )
    with pytest.raises(Looked):
        fire(trigger)
    assert looked[0] >= 0.3


def test_the_settle_time_follows_from_airflows_configuration(
    run: RunContext, does: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL", "0.5")
    context, _ = begin(run, does, "sleep 30")
    with pytest.raises(TaskDeferred) as deferred:
        sensor(run).execute(context)
    assert deferred.value.trigger.settle_s == 1.0


def test_a_waiting_task_links_to_the_page_of_its_steps_logs(
    run: RunContext, does: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW__API__BASE_URL", "https://airflow.example.org/team/")
    context = context_of(run)
    added = add(run, context)
    drive(sensor(run), context)
    address = context["ti"].links[StepLogLink.key]
    cluster, step = added["job_flow_id"], added["step_id"]
    assert address == f"https://airflow.example.org/team/fruits-runs/steps/{cluster}/{step}"
    assert address == context["ti"].links[StepLogLink().xcom_key]


def test_terminating_ends_a_cluster_whose_id_no_task_returned(run: RunContext) -> None:
    orphan = run.client.run_job_flow(**run.body())["JobFlowId"]
    TerminateClusterOperator(task_id="end", settings=run.settings).execute(context_of(run))
    assert clusters.describe_cluster(run.client, orphan).state == "TERMINATED"


# how far, and how long


def test_a_wait_knows_what_past_runs_took(run: RunContext, does: Callable[[str], None]) -> None:
    assert run.run_plan is not None
    typical_s = {"cluster_start": 60.0, "featurize": 300.0}
    run = replace(run, plan=run.run_plan.model_copy(update={"typical_s": typical_s}))
    assert run.plan is not None
    run.keep(run.plan)
    context, _ = begin(run, does, "sleep 30")
    with pytest.raises(TaskDeferred) as deferred:
        sensor(run).execute(context)
    assert deferred.value.trigger.typical_s == 300
    assert deferred.value.trigger.serialize()[1]["typical_s"] == 300


def test_the_first_run_waits_without_an_estimate(run: RunContext, does: Callable[[str], None]) -> None:
    context, _ = begin(run, does, "sleep 30")
    with pytest.raises(TaskDeferred) as deferred:
        sensor(run).execute(context)
    assert deferred.value.trigger.typical_s is None


@pytest.mark.parametrize(
    ("typical_s", "words"),
    [
        (None, r"s-1 is RUNNING for 10\d s; given up at 2100-01-01"),
        (300.0, r"RUNNING for 10\d s; past runs took some 300 s, so about 1\d\d s are left; given up at"),
        (60.0, r"RUNNING for 10\d s; past runs took some 60 s, so it takes longer; given up at"),
    ],
)
def test_each_look_says_how_long_the_step_goes_on_and_when_it_will_be_done(
    typical_s: float | None, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines: list[str] = []
    trigger = StepTrigger(
        **{"job_flow_id": "j-1", "step_id": "s-1", "deadline": datetime(2100, 1, 1, tzinfo=UTC).timestamp()},
        **{"typical_s": typical_s, "settle_s": 0, "consistency_s": 0, "waiter_delay": 1},
    )
    monkeypatch.setattr(StepTrigger, "log", Double(trigger.log, info=lambda text, *values: lines.append(text % values)))
    trigger.log_progress("RUNNING", datetime.now(UTC) - timedelta(seconds=105))
    assert re.search(words, lines[0]), lines
    trigger.log_progress("PENDING", None)
    assert "s-1 is PENDING for 0 s" in lines[1]


def test_a_step_that_has_ended_is_not_said_to_need_more_time(
    run: RunContext, does: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    lines: list[str] = []
    monkeypatch.setattr(StepTrigger, "log_progress", lambda _, state, __: lines.append(state))
    context, added = begin(run, does, "sleep 60")
    with pytest.raises(TaskDeferred) as deferred:
        sensor(run).execute(context)
    run.client.terminate_job_flows(JobFlowIds=[added["job_flow_id"]])
    fire(deferred.value.trigger)
    assert not set(lines) & set(TERMINAL_STATES)
