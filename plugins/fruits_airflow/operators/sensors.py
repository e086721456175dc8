"""Deferrable sensors: until the cluster takes steps, and until a stage's step has ended well."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any, NoReturn

from airflow.providers.amazon.aws.links.emr import EmrClusterLink
from airflow.providers.amazon.aws.sensors.emr import EmrJobFlowSensor, EmrStepSensor
from airflow.sdk.exceptions import AirflowFailException, AirflowSensorTimeout, TaskDeferred
from botocore.exceptions import BotoCoreError, ClientError

from fruits_airflow.aws.links import StepLogLink, step_page_address
from fruits_airflow.config.errors import ClusterLost
from fruits_airflow.config.settings import Settings
from fruits_airflow.emr.clusters import (
    ENDED_STATES,
    LIVE_STATES,
    READY_STATES,
    Cluster,
    describe,
    is_unknown,
    request_end,
)
from fruits_airflow.emr.step_logs import show_tails
from fruits_airflow.emr.steps import (
    FAILED_STATES,
    TERMINAL_STATES,
    Step,
    describe_step,
)
from fruits_airflow.operators.triggers import ClusterReadyTrigger, StepTrigger, settle_seconds
from fruits_airflow.runs.failures import record_failure
from fruits_airflow.runs.run_context import RunContext

if TYPE_CHECKING:
    from airflow.sdk import Context

_GRACE = timedelta(minutes=2)  # the trigger ends by itself at its deadline; this is for a triggerer that died
_LAST_LOGS_S = 60.0  # a cluster that ends uploads its logs; what is not there soon after went with the nodes
_HOPELESS = ("BOOTSTRAP_FAILURE", "VALIDATION_ERROR", "USER_REQUEST")  # another cluster would end alike


_CANCELLED_STATES = ("CANCEL_PENDING", "CANCELLED")


def _is_overdue(cluster: Cluster) -> bool:
    return cluster.deadline is not None and cluster.deadline.timestamp() <= time.time()


def _waited_for(step: Step) -> str:
    return f"waited-{step.step_id}"


def _defer(
    run: RunContext, trigger: type[ClusterReadyTrigger | StepTrigger], deadline: float, **watched: Any
) -> NoReturn:
    """Frees the worker until the trigger has news, then goes on with the sensor's `execute_complete`."""
    raise TaskDeferred(
        trigger=trigger(
            **watched,
            deadline=deadline,
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
    """Raises `ClusterLost` when EMR does not know what the trigger watched; another attempt makes a new cluster."""
    if event["status"] == "unknown":
        raise ClusterLost(
            f"EMR does not know {event['job_flow_id']} ({event['reason']}); another attempt goes on with a new cluster"
        )


class ClusterReadySensor(EmrJobFlowSensor):
    """Waits until the run's cluster takes steps.

    The provider's sensor, deferred, waits for the end of the cluster and then succeeds.

    Args:
        settings: of the deployment.
        **kwargs: of the task.
    """

    operator_extra_links = (EmrClusterLink(),)  # type: ignore[assignment]

    def __init__(self, *, settings: Settings, **kwargs: Any) -> None:
        super().__init__(
            aws_conn_id=settings.aws_conn_id,
            deferrable=True,
            poke_interval=settings.poll_s,
            job_flow_id="",
            **kwargs,
        )
        self.settings = settings

    def execute(self, context: Context) -> None:
        """Defers until the cluster is ready."""
        with record_failure(self.settings, context, self.task_id):
            run = RunContext.of(context, self.settings)
            cluster = run.adopt_or_create()
            run.link_cluster(context, self, cluster.job_flow_id)
            if cluster.state in READY_STATES:
                self.log.info("%s is %s", cluster.job_flow_id, cluster.state)
                return
            # From its creation, not from now: a retry must not give a stuck cluster another half hour.
            deadline = cluster.created_at.timestamp() + self.settings.start_timeout_minutes * 60
            _defer(run, ClusterReadyTrigger, deadline, job_flow_id=cluster.job_flow_id)

    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context) -> Any:
        """Goes on after the trigger, or fails because it gave no news; either way the cause is noted."""
        with record_failure(self.settings, context, self.task_id):
            return super().resume_execution(next_method, next_kwargs, context)

    def execute_complete(self, context: Context, event: Mapping[str, Any]) -> None:  # type: ignore[override]
        """Judges what the trigger saw.

        Raises:
            ClusterLost: the cluster ended, did not start in time or is unknown to EMR; another attempt makes a new one.
            AirflowFailException: it ended for a reason that a new one would share.
        """
        _require_known(event)
        run, job_flow_id = RunContext.of(context, self.settings), str(event["job_flow_id"])
        cluster = describe(run.client, job_flow_id)
        if cluster.state in LIVE_STATES and event["status"] == "lost":
            cluster = replace(
                cluster, state=event["state"], reason=event["reason"]
            )  # a read that lags behind
        if cluster.state in READY_STATES or (cluster.state in LIVE_STATES and event["status"] == "ready"):
            self.log.info("%s is %s", job_flow_id, cluster.state)
            return
        if cluster.state in LIVE_STATES:
            self.log.warning("%s was not ready in time; ending it", job_flow_id)
            try:
                request_end(run.client, job_flow_id)
            except (BotoCoreError, ClientError) as error:
                self.log.warning("Cannot end it: %s; the next attempt or terminate_cluster does", error)
            raise ClusterLost(
                f"{job_flow_id} is still {cluster.state} after {self.settings.start_timeout_minutes} minutes "
                "(start_timeout_minutes); told to end, another attempt makes another"
            )
        message = f"{job_flow_id} is {cluster.state} before any step: {cluster.reason or event.get('reason')}"
        if cluster.reason.startswith(_HOPELESS):
            raise AirflowFailException(f"{message}; see its bootstrap logs below {cluster.log_uri}")
        raise ClusterLost(message)


class StepSensor(EmrStepSensor):
    """Waits until the step of a stage has ended well.

    Looks for the cluster and the step itself, so that clearing only this task works when both are gone.

    Args:
        settings: of the deployment.
        stage: one of STAGES.
        add_task_id: the task that adds the step.
        **kwargs: of the task.
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
        """Defers until the step has ended."""
        with record_failure(self.settings, context, self.stage):
            run = RunContext.of(context, self.settings)
            added = context["ti"].xcom_pull(task_ids=self.add_task_id)
            self._wait_for(run, context, *self._step_to_wait_for(run, added))

    def _wait_for(self, run: RunContext, context: Context, cluster: Cluster, step: Step) -> None:
        run.link_cluster(context, self, cluster.job_flow_id)
        StepLogLink.persist(context, step_page_address(cluster.job_flow_id, step.step_id))
        if step.state == "COMPLETED":
            self.log.info("%s is done: %s", step.name, step.step_id)
            return
        if step.state in FAILED_STATES:
            self._fail(run, cluster, step)
        if run.journal.read(_waited_for(step)) is None:
            run.journal.note(_waited_for(step), attempt=context["ti"].try_number)
        deadline = time.time() + self.settings.step_timeout_minutes * 60
        if cluster.deadline:
            deadline = min(deadline, cluster.deadline.timestamp())
        _defer(run, StepTrigger, deadline, job_flow_id=cluster.job_flow_id, step_id=step.step_id)

    def execute_complete(self, context: Context, event: Mapping[str, Any]) -> None:  # type: ignore[override]
        """Judges what the trigger saw, by a look of its own.

        Raises:
            AirflowFailException: the step failed, or was cancelled at its deadline.
            ClusterLost: its cluster ended or is unknown to EMR; another attempt makes a new one and goes on.

        Each after the task's log has shown the end of the step's own output, as far as there is any.
        """
        _require_known(event)
        run, job_flow_id, step_id = (
            RunContext.of(context, self.settings),
            event["job_flow_id"],
            event["step_id"],
        )
        step = describe_step(run.client, job_flow_id, step_id)
        if event["status"] == "ended" and step.state not in TERMINAL_STATES:
            step = replace(step, state=event["state"], reason=event["reason"])  # a read that lags behind
        if step.state == "COMPLETED":
            self.log.info("%s is done: %s", step.name, step_id)
            return
        cluster = describe(run.client, job_flow_id)
        if (
            step.state == "CANCELLED"
            and cluster.state in LIVE_STATES
            and self._was_cleared(run, context, step)
        ):
            self.log.warning("%s was cancelled for an earlier attempt, which was cleared", step_id)
            self._wait_for(run, context, *self._step_to_wait_for(run, event))
            return
        if event["status"] == "lost" and cluster.state in LIVE_STATES:
            cluster = replace(cluster, state=event["state"], reason=event["reason"])
        if event["status"] == "timeout":
            accepted = self._cancel(run, job_flow_id, step_id)
            run.journal.note(f"failed-{step_id}", state=step.state, reason="deadline")
            self._show_cancelled(run, cluster, step, accepted)
            raise AirflowFailException(
                f"step {step.step_id} was {step.state} at its deadline and cancelled; raise step_timeout_minutes "
                f"({self.settings.step_timeout_minutes}) or max_cost_eur ({run.plan and run.plan.max_cost_eur})"
            )
        self._fail(run, cluster, step)

    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context) -> Any:
        """Cancels the step when Airflow gave up waiting: the trigger's `on_kill` is not called then."""
        with record_failure(self.settings, context, self.stage):
            try:
                return super().resume_execution(next_method, next_kwargs, context)
            except AirflowSensorTimeout:
                run = RunContext.of(context, self.settings)
                try:
                    for cluster, step in self._live_steps(run):
                        accepted = self._cancel(run, cluster.job_flow_id, step.step_id)
                        self._show_cancelled(run, cluster, step, accepted)
                except (BotoCoreError, ClientError) as error:  # which would be tried again, a timeout is not
                    self.log.warning(
                        "Cannot look for the step: %s; terminate_cluster ends its cluster", error
                    )
                raise

    def _step_to_wait_for(self, run: RunContext, added: Mapping[str, str] | None) -> tuple[Cluster, Step]:
        """The step that `add` named while it is alive or unreported; else one on the cluster that the run has now."""
        if added and (usable := self._usable(run, added["job_flow_id"], added["step_id"])):
            return usable
        cluster = run.adopt_or_create()
        return cluster, run.step_submitter(cluster.job_flow_id).adopt_or_add(run.step(self.stage))

    def _usable(self, run: RunContext, job_flow_id: str, step_id: str) -> tuple[Cluster, Step] | None:
        """Return the cluster and step that `add` named, or None when a new attempt must take their place."""
        try:
            cluster, step = describe(run.client, job_flow_id), describe_step(run.client, job_flow_id, step_id)
        except ClientError as error:
            if not is_unknown(error):
                raise
            self.log.warning(
                "EMR does not know %s of %s: %s; starting a new attempt", step_id, job_flow_id, error
            )
            return None
        if step.state == "COMPLETED":
            return cluster, step
        if cluster.state in LIVE_STATES:
            reported = run.journal.read(f"failed-{step_id}") is not None
            if step.state not in FAILED_STATES or (step.state == "FAILED" and not reported):
                return cluster, step
        self.log.warning(
            "%s of %s is %s, the cluster %s; starting a new attempt",
            *(step_id, job_flow_id, step.state, cluster.state),
        )
        return None

    def _was_cleared(self, run: RunContext, context: Context, step: Step) -> bool:
        """Whether an earlier attempt has waited for this step.

        When a task is cleared, Airflow starts it anew and tells its trigger to cancel the step, in no order: the new
        attempt may have found the step still running.
        """
        note = run.journal.read(_waited_for(step))
        return note is not None and int(note["attempt"]) < context["ti"].try_number

    def _live_steps(self, run: RunContext) -> list[tuple[Cluster, Step]]:
        cluster = run.desk.adopt()
        if cluster is None:
            return []
        step = run.step_submitter(cluster.job_flow_id).adopt(run.step(self.stage))
        return [(cluster, step)] if step and step.state != "COMPLETED" else []

    def _cancel(self, run: RunContext, job_flow_id: str, step_id: str) -> bool:
        """Whether EMR has taken the request; one that has cancelled the step already, for the trigger, may not."""
        self.log.warning("Cancelling step %s of %s", step_id, job_flow_id)
        try:
            answer = run.client.cancel_steps(
                ClusterId=job_flow_id, StepIds=[step_id], StepCancellationOption="TERMINATE_PROCESS"
            )
        except (BotoCoreError, ClientError) as error:
            self.log.warning("Cannot cancel it: %s; terminate_cluster ends it with its cluster", error)
            return False
        for one in answer["CancelStepsInfoList"]:
            if one.get("Status") == "FAILED":
                self.log.warning("It is not cancelled: %s", one.get("Reason"))
                return False
        return True

    def _show_cancelled(self, run: RunContext, cluster: Cluster, step: Step, accepted: bool) -> None:
        """Shows what a cancelled step has written, once that has taken effect; `log_wait_s` bounds both waits.

        Shorter where the cluster would only cost: the step goes on, or the cluster must be gone.
        """
        wait_s = self.settings.log_wait_s
        if not (accepted or step.state in _CANCELLED_STATES) or _is_overdue(cluster):
            wait_s = min(wait_s, _LAST_LOGS_S)
        poll_s, give_up = self.settings.poll_s, time.monotonic() + wait_s
        while (left := give_up - time.monotonic()) > 0:
            try:
                if describe_step(run.client, cluster.job_flow_id, step.step_id).state in TERMINAL_STATES:
                    break
            except (BotoCoreError, ClientError) as error:
                self.log.warning("Cannot look at %s: %s; looking again", step.step_id, error)
            time.sleep(min(poll_s, left))
        show_tails(run.lake.client, cluster, step, max(0.0, left), poll_s)

    def _fail(self, run: RunContext, cluster: Cluster, step: Step) -> NoReturn:
        settings = self.settings
        if cluster.state in (*ENDED_STATES, "TERMINATING"):
            # A failed step never ends its cluster (ActionOnFailure), so the cluster went first.
            show_tails(
                run.lake.client, cluster, step, min(settings.log_wait_s, _LAST_LOGS_S), settings.poll_s
            )
            message = (
                f"step {step.step_id} is {step.state}: "
                f"{cluster.job_flow_id} is {cluster.state} ({cluster.reason})"
            )
            if _is_overdue(cluster) or cluster.reason.startswith("USER_REQUEST"):
                raise AirflowFailException(
                    f"{message}; ended on purpose or at its deadline, so not tried again"
                )
            raise ClusterLost(f"{message}; another attempt goes on with a new cluster")
        run.journal.note(f"failed-{step.step_id}", state=step.state, reason=step.reason)
        tails = show_tails(run.lake.client, cluster, step, settings.log_wait_s, settings.poll_s)
        cause = next(
            (line for line in reversed(tails.get("stderr", [])) if line.startswith("ERROR ")), step.reason
        )
        raise AirflowFailException(f"step {step.step_id} is {step.state}: {cause}")
