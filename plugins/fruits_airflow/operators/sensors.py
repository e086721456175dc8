"""Deferrable sensors: wait until the cluster accepts steps, and until the step of a stage has completed."""

import time
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any, NoReturn

from airflow.providers.amazon.aws.links.emr import EmrClusterLink
from airflow.providers.amazon.aws.sensors.emr import EmrJobFlowSensor, EmrStepSensor
from airflow.sdk import Context
from airflow.sdk.exceptions import AirflowFailException, AirflowSensorTimeout, TaskDeferred
from botocore.exceptions import BotoCoreError, ClientError

from fruits_airflow.aws.links import StepLogLink, step_page_address
from fruits_airflow.config.errors import ClusterLost
from fruits_airflow.config.settings import Settings
from fruits_airflow.emr.clusters import LIVE_STATES, READY_STATES, Cluster, describe_cluster, is_unknown, request_end
from fruits_airflow.emr.steps import FAILED_STATES, TERMINAL_STATES, Step, describe_step
from fruits_airflow.operators import step_failure
from fruits_airflow.operators.triggers import ClusterReadyTrigger, StepTrigger, settle_seconds
from fruits_airflow.runs.failures import record_failure
from fruits_airflow.runs.run_context import RunContext

_GRACE = timedelta(minutes=2)  # the trigger ends at its deadline; this is for a triggerer that died
_NOT_RETRIED = ("BOOTSTRAP_FAILURE", "VALIDATION_ERROR", "USER_REQUEST")  # another cluster would end alike


def _defer(
    run: RunContext, trigger: type[ClusterReadyTrigger | StepTrigger], part: str, deadline: float, **watched: Any
) -> NoReturn:
    """Free the worker until the trigger has an event, then continue with the sensor's `execute_complete`."""
    raise TaskDeferred(
        trigger=trigger(
            **watched,
            deadline=deadline,
            typical_s=run.run_plan.typical_s.get(part) if run.run_plan else None,
            settle_s=settle_seconds(),
            consistency_s=run.settings.list_consistency_s,
            waiter_delay=run.settings.poll_s,
            aws_conn_id=run.settings.aws_conn_id,
            region_name=run.region,
        ),
        method_name="execute_complete",
        timeout=timedelta(seconds=max(0.0, deadline - time.time())) + _GRACE,
    )


def _require_known(event: Mapping[str, Any]) -> None:
    if event["status"] == "unknown":
        raise ClusterLost(
            f"EMR does not know {event['job_flow_id']} ({event['reason']}); a retry creates a new cluster"
        )


def _as_lost(cluster: Cluster, event: Mapping[str, Any]) -> Cluster:
    """Return the cluster in the ended state that the trigger saw, if a lagging read shows it alive."""
    if event["status"] == "lost" and cluster.state in LIVE_STATES:
        return replace(cluster, state=event["state"], reason=event["reason"])
    return cluster


class ClusterReadySensor(EmrJobFlowSensor):
    """Waits until the run's cluster accepts steps.

    The provider's sensor, when deferred, waits for the end of the cluster and then succeeds.
    """

    operator_extra_links = (EmrClusterLink(),)  # type: ignore[assignment]

    def __init__(self, *, settings: Settings, **kwargs: Any) -> None:
        super().__init__(
            aws_conn_id=settings.aws_conn_id, deferrable=True, poke_interval=settings.poll_s, job_flow_id="", **kwargs
        )
        self.settings = settings

    def execute(self, context: Context) -> None:
        """Defer until the cluster is ready."""
        with record_failure(self.settings, context, self.task_id):
            run = RunContext.of(context, self.settings)
            cluster = run.find_or_create()
            run.link_cluster(context, self, cluster.job_flow_id)
            if cluster.state in READY_STATES:
                self.log.info("%s is %s", cluster.job_flow_id, cluster.state)
                return
            # Counted from its creation, so that a retry does not give a stuck cluster another half hour.
            deadline = cluster.created_at.timestamp() + self.settings.start_timeout_minutes * 60
            _defer(run, ClusterReadyTrigger, "cluster_start", deadline, job_flow_id=cluster.job_flow_id)

    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context) -> Any:
        """Continue after the trigger, or fail because it sent no event; record the failure in both cases."""
        with record_failure(self.settings, context, self.task_id):
            return super().resume_execution(next_method, next_kwargs, context)

    def execute_complete(self, context: Context, event: Mapping[str, Any]) -> None:  # type: ignore[override]
        """Succeed if the cluster is ready.

        Raises:
            ClusterLost: The cluster ended, did not start in time or is unknown to EMR; a retry creates a new one.
            AirflowFailException: The cluster ended for a reason that a new one would share.
        """
        _require_known(event)
        run = RunContext.of(context, self.settings)
        cluster = _as_lost(describe_cluster(run.client, str(event["job_flow_id"])), event)
        is_alive = cluster.state in LIVE_STATES
        if cluster.state in READY_STATES or (is_alive and event["status"] == "ready"):
            self.log.info("%s is %s", cluster.job_flow_id, cluster.state)
            return
        if is_alive:
            self._end_stuck(run, cluster)
        message = f"{cluster.job_flow_id} is {cluster.state} before any step: {cluster.reason or event.get('reason')}"
        if cluster.reason.startswith(_NOT_RETRIED):
            raise AirflowFailException(f"{message}; see its bootstrap logs below {cluster.log_uri}")
        raise ClusterLost(message)

    def _end_stuck(self, run: RunContext, cluster: Cluster) -> NoReturn:
        job_flow_id, minutes = cluster.job_flow_id, self.settings.start_timeout_minutes
        self.log.warning("%s was not ready in time; ending it", job_flow_id)
        try:
            request_end(run.client, job_flow_id)
        except (BotoCoreError, ClientError) as error:
            self.log.warning("Cannot end it: %s; the next attempt or terminate_cluster does", error)
        raise ClusterLost(
            f"{job_flow_id} is still {cluster.state} after {minutes} minutes (start_timeout_minutes) and is being "
            "ended; a retry creates a new cluster"
        )


class StepSensor(EmrStepSensor):
    """Waits until the step of a stage has completed.

    Finds the cluster and the step itself, so that it is enough to clear this task when both are gone.
    """

    operator_extra_links = (EmrClusterLink(), StepLogLink())  # type: ignore[assignment]

    def __init__(self, *, settings: Settings, stage: str, add_task_id: str, **kwargs: Any) -> None:
        super().__init__(
            aws_conn_id=settings.aws_conn_id,
            deferrable=True,
            poke_interval=settings.poll_s,
            job_flow_id="",
            step_id="",
            **kwargs,
        )
        self.settings = settings
        self.stage = stage
        self.add_task_id = add_task_id

    def execute(self, context: Context) -> None:
        """Defer until the step has ended."""
        with record_failure(self.settings, context, self.stage):
            run = RunContext.of(context, self.settings)
            ids = context["ti"].xcom_pull(task_ids=self.add_task_id)
            self._wait_for(run, context, *self._find_step(run, ids))

    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context) -> Any:
        """Continue after the trigger, or cancel the step if Airflow stopped waiting: the trigger does not then."""
        with record_failure(self.settings, context, self.stage):
            try:
                return super().resume_execution(next_method, next_kwargs, context)
            except AirflowSensorTimeout:
                self._cancel_live_step(RunContext.of(context, self.settings))
                raise

    def execute_complete(self, context: Context, event: Mapping[str, Any]) -> None:  # type: ignore[override]
        """Succeed if the step has completed; otherwise log the end of its output and fail.

        Raises:
            AirflowFailException: The step failed, or was cancelled at its deadline.
            StepLost: The step failed for a transient cause; a retry adds it again.
            ClusterLost: Its cluster ended or is unknown to EMR; a retry continues on a new one.
        """
        _require_known(event)
        run, job_flow_id = RunContext.of(context, self.settings), event["job_flow_id"]
        step = describe_step(run.client, job_flow_id, event["step_id"])
        if event["status"] == "ended" and step.state not in TERMINAL_STATES:
            step = replace(step, state=event["state"], reason=event["reason"])  # a lagging read
        if step.state == "COMPLETED":
            self.log.info("%s has completed: %s", step.name, step.step_id)
            return
        cluster = describe_cluster(run.client, job_flow_id)
        if step.state == "CANCELLED" and cluster.state in LIVE_STATES and _was_cleared(run, context, step):
            self.log.warning("%s was cancelled for an earlier attempt, which was cleared", step.step_id)
            self._wait_for(run, context, *self._find_step(run, event))
        elif event["status"] == "timeout":
            self._fail_overdue(run, cluster, step)
        else:
            step_failure.fail_step(run, _as_lost(cluster, event), step)

    def _find_step(self, run: RunContext, ids: Mapping[str, str] | None) -> tuple[Cluster, Step]:
        """Return the step that `add` returned while it is usable, or one on the run's present cluster."""
        if ids and (usable := self._read_usable(run, ids["job_flow_id"], ids["step_id"])):
            return usable
        cluster = run.find_or_create()
        return cluster, run.step_submitter(cluster.job_flow_id).find_or_add(run.step(self.stage))

    def _read_usable(self, run: RunContext, job_flow_id: str, step_id: str) -> tuple[Cluster, Step] | None:
        """Return the cluster and step if the step has completed, is alive, or has failed and was not reported yet."""
        try:
            cluster = describe_cluster(run.client, job_flow_id)
            step = describe_step(run.client, job_flow_id, step_id)
        except ClientError as error:
            if not is_unknown(error):
                raise
            self.log.warning("EMR does not know %s of %s: %s; adding a new step", step_id, job_flow_id, error)
            return None
        if step.state == "COMPLETED":
            return cluster, step
        if cluster.state in LIVE_STATES:
            is_reported = run.journal.read(step_failure.failure_note(step_id)) is not None
            if step.state not in FAILED_STATES or (step.state == "FAILED" and not is_reported):
                return cluster, step
        self.log.warning(
            "%s of %s is %s, the cluster %s; adding a new step", step_id, job_flow_id, step.state, cluster.state
        )
        return None

    def _wait_for(self, run: RunContext, context: Context, cluster: Cluster, step: Step) -> None:
        """Defer until the step has ended, or until its timeout or the deadline of its cluster."""
        run.link_cluster(context, self, cluster.job_flow_id)
        StepLogLink.persist(context, step_page_address(cluster.job_flow_id, step.step_id))
        if step.state == "COMPLETED":
            self.log.info("%s has completed: %s", step.name, step.step_id)
            return
        if step.state in FAILED_STATES:
            step_failure.fail_step(run, cluster, step)
        if run.journal.read(_wait_note(step)) is None:
            run.journal.note(_wait_note(step), attempt=context["ti"].try_number)
        deadline = time.time() + self.settings.step_timeout_minutes * 60
        if cluster.deadline:
            deadline = min(deadline, cluster.deadline.timestamp())
        _defer(run, StepTrigger, self.stage, deadline, job_flow_id=cluster.job_flow_id, step_id=step.step_id)

    def _fail_overdue(self, run: RunContext, cluster: Cluster, step: Step) -> NoReturn:
        is_accepted = step_failure.cancel_step(run, cluster.job_flow_id, step.step_id)
        run.journal.note(step_failure.failure_note(step.step_id), state=step.state, reason="deadline")
        step_failure.show_cancelled(run, cluster, step, is_accepted)
        raise AirflowFailException(
            f"step {step.step_id} was {step.state} at its deadline and cancelled; raise step_timeout_minutes "
            f"({self.settings.step_timeout_minutes}) or max_cost_eur ({run.plan and run.plan.max_cost_eur})"
        )

    def _cancel_live_step(self, run: RunContext) -> None:
        """Cancel the stage's step; only log an error of EMR, which would make Airflow retry what a timeout does not."""
        try:
            if (cluster := run.lifecycle.find()) is None:
                return
            step = run.step_submitter(cluster.job_flow_id).find(run.step(self.stage))
            if step is not None and step.state != "COMPLETED":
                is_accepted = step_failure.cancel_step(run, cluster.job_flow_id, step.step_id)
                step_failure.show_cancelled(run, cluster, step, is_accepted)
        except (BotoCoreError, ClientError) as error:
            self.log.warning("Cannot find the step: %s; terminate_cluster ends its cluster", error)


def _wait_note(step: Step) -> str:
    return f"waited-{step.step_id}"


def _was_cleared(run: RunContext, context: Context, step: Step) -> bool:
    """Whether an earlier attempt has waited for this step.

    When a task is cleared, Airflow starts it again and tells its trigger to cancel the step, in no order: the new
    attempt may have seen the step still running.
    """
    note = run.journal.read(_wait_note(step))
    return note is not None and int(note["attempt"]) < context["ti"].try_number
