"""The life of one cluster: a thread that takes it from STARTING to TERMINATED, and the steps it runs on the way."""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from botocore.exceptions import BotoCoreError, ClientError

from local_aws.emr.execution import bootstrap
from local_aws.emr.execution.logs import LogFolder
from local_aws.emr.ids import new_id
from local_aws.emr.instances import Instance, Timeline, machine_sets
from local_aws.emr.steps import Execution, Step

if TYPE_CHECKING:
    from local_aws.emr.execution.runtime import Runtime

log = logging.getLogger(__name__)

LIVE = ("STARTING", "BOOTSTRAPPING", "RUNNING", "WAITING")
_HOOK_SECONDS = 0.1


@dataclass(frozen=True)
class Ending:
    """How a cluster ends: its last state, why, and whether its machines are gone at once."""

    state: str
    code: str
    message: str
    abrupt: bool = False


USER_REQUEST = Ending("TERMINATED", "USER_REQUEST", "Terminated by user request")
STEPS_COMPLETED = Ending("TERMINATED", "ALL_STEPS_COMPLETED", "Steps completed")
IDLE = Ending("TERMINATED", "ALL_STEPS_COMPLETED", "Cluster auto-terminated because it was idle")
STEP_FAILURE = Ending("TERMINATED_WITH_ERRORS", "STEP_FAILURE", "Shut down as step failed")


class Cluster:
    """One cluster.

    All attributes are read and written under `changed`; whoever changes something notifies it.

    Args:
        request: `RunJobFlow`'s parameters, already validated.
        runtime: what the clusters of this server share.
        region: where it is.
        arn_prefix: `arn:<partition>:elasticmapreduce:<region>:<account>`.
        problem: why EMR would give up while provisioning (`VALIDATION_ERROR`), if it would.
    """

    def __init__(
        self,
        request: dict[str, Any],
        runtime: Runtime,
        region: str,
        arn_prefix: str,
        problem: str | None = None,
    ) -> None:
        self.id = new_id("j")
        self.arn = f"{arn_prefix}:cluster/{self.id}"
        self.request = request
        self.region = region
        self.settings = runtime.settings
        self.hooks = runtime.hooks
        self.endpoint = runtime.endpoint
        self.credentials = runtime.credentials
        self.s3 = runtime.s3(region)
        self.place = runtime.place(region)
        self.folder = runtime.folder(self.id)
        self.logs = LogFolder(self.s3, request.get("LogUri"), self.id)
        self.classifications: list[dict[str, Any]] = request.get("Configurations") or []
        self.changed = threading.Condition(threading.RLock())
        self.timeline = Timeline()
        self.state = "STARTING"
        self.reason: dict[str, str] = {}
        instances = request["Instances"]
        self.machines = machine_sets(instances, region)
        self.tags = {one["Key"]: one.get("Value", "") for one in request.get("Tags") or []}
        self.keep_alive = bool(instances.get("KeepJobFlowAliveWhenNoSteps"))
        self.termination_protected = bool(instances.get("TerminationProtected"))
        self.visible_to_all_users = request.get("VisibleToAllUsers", True)
        self.step_concurrency_level = request.get("StepConcurrencyLevel") or 1
        self.auto_termination_policy: dict[str, Any] | None = request.get("AutoTerminationPolicy")
        self.managed_scaling_policy: dict[str, Any] | None = request.get("ManagedScalingPolicy")
        self.steps = [Step(one) for one in request.get("Steps") or []]
        self._problem = problem
        self._ending: Ending | None = None
        self._closing = False
        self._idle_since = time.monotonic()
        self._deadline: datetime | None = None
        self._thread = threading.Thread(target=self._live, name=self.id, daemon=True)

    def start(self) -> None:
        """Begins the cluster's life; returns at once."""
        self._thread.start()

    @property
    def primary(self) -> Instance:
        """The machine of the primary node."""
        return next(one for one in self.machines if one.role == "MASTER").instances[0]

    @property
    def ending(self) -> bool:
        """Whether the cluster is on its way out, or gone."""
        return self._ending is not None

    # what the API does to a cluster

    def terminate(self, ending: Ending = USER_REQUEST) -> None:
        """Asks the cluster to end; does nothing when it is ending already."""
        with self.changed:
            if self._ending is None:
                self._ending = ending
                self.changed.notify_all()

    def add_steps(self, configs: list[dict[str, Any]]) -> list[Step]:
        """Appends steps, already validated."""
        with self.changed:
            new = [Step(one) for one in configs]
            self.steps += new
            self.changed.notify_all()
            return new

    def cancel_step(self, step: Step, *, at_once: bool) -> dict[str, str]:
        """Cancels a PENDING step, or ends a RUNNING one; gives `CancelStepsInfo`."""
        with self.changed:
            info = {"StepId": step.id, "Status": "SUBMITTED"}
            if step.state == "PENDING":
                step.end("CANCELLED", "Cancelled by user")
            elif step.state == "RUNNING" and step.execution is not None:
                step.state, step.message = "CANCEL_PENDING", "Cancelled by user"
                step.execution.stop(at_once=at_once)
            else:
                info |= {"Status": "FAILED", "Reason": f"Cannot cancel a step in state {step.state}."}
            self.changed.notify_all()
            return info

    def close(self) -> None:
        """Ends the cluster without delays: the server stops."""
        with self.changed:
            self._closing = True
            self.terminate(Ending("TERMINATED", "INTERNAL_ERROR", "local_aws stops"))
            self.changed.notify_all()

    def join(self, timeout: float) -> None:
        """Waits until the cluster has ended."""
        self._thread.join(timeout)

    # its life

    def _live(self) -> None:
        """From STARTING to the end; whatever breaks on the way ends the cluster and says so."""
        try:
            self._rise_and_work()
        except Exception as error:
            log.exception("%s ends", self.id)
            self.terminate(Ending("TERMINATED_WITH_ERRORS", "INTERNAL_ERROR", _said(error)))
        try:
            self._shut_down()
        except Exception as error:
            log.exception("%s is gone", self.id)
            with self.changed:
                self.state = "TERMINATED_WITH_ERRORS"
                self.reason = {"Code": "INTERNAL_ERROR", "Message": _said(error)}
                self.timeline.ended = datetime.now(UTC)
                self.changed.notify_all()

    def _rise_and_work(self) -> None:
        with self.changed:
            self.hooks.entered(self)
        self._pause(self.settings.start_seconds)
        self._stay()
        if self._problem:
            self.terminate(Ending("TERMINATED_WITH_ERRORS", "VALIDATION_ERROR", self._problem))
        if self._ending is None:
            self._bootstrap()
        self._pause(self.settings.bootstrap_seconds)
        self._stay()
        with self.changed:
            if self._ending is None:
                self._work()

    def _pause(self, seconds: float) -> None:
        """Waits, but no longer than somebody wants the cluster to live."""
        until = time.monotonic() + seconds
        with self.changed:
            while self._ending is None and (left := until - time.monotonic()) > 0:
                self.changed.wait(min(left, self._seconds_to_deadline()))
                self._look_at_deadline()

    def _stay(self) -> None:
        """Waits for as long as the hooks keep the cluster in its state and nobody ends it."""
        with self.changed:
            while self._ending is None and self.hooks.stays(self):
                self.changed.wait(min(_HOOK_SECONDS, self._seconds_to_deadline()))
                self._look_at_deadline()

    def _bootstrap(self) -> None:
        with self.changed:
            self._enter("BOOTSTRAPPING", {"Message": "Running bootstrap actions"})
            self._machines_enter("BOOTSTRAPPING")
            actions = self.request.get("BootstrapActions") or []
        try:
            bootstrap.check_scripts(actions, self._object_exists)
            deadline = bootstrap.deadline(actions)
            if problem := self.hooks.bootstrap_problem(self):
                raise bootstrap.BootstrapError(problem)
        except bootstrap.BootstrapError as error:
            message = str(error).format(primary=self.primary.ec2_id)
            self.terminate(Ending("TERMINATED_WITH_ERRORS", "BOOTSTRAP_FAILURE", message))
            return
        with self.changed:
            self._deadline = deadline
            self._look_at_deadline()

    def _object_exists(self, bucket: str, key: str) -> bool:
        try:
            self.s3.head_object(Bucket=bucket, Key=key)
        except (BotoCoreError, ClientError):
            return False  # there, or not to be had: EMR cannot download it
        return True

    def _work(self) -> None:
        """Runs steps until there is a reason to end."""
        self.timeline.ready = datetime.now(UTC)
        self._machines_enter("RUNNING")
        self._idle_since = time.monotonic()
        while self._ending is None:
            running = [one for one in self.steps if one.state in ("RUNNING", "CANCEL_PENDING")]
            pending = [one for one in self.steps if one.state == "PENDING"]
            if pending and len(running) < self.step_concurrency_level:
                self._start_step(pending[0])
            elif running:
                self._wait(None)
            elif not self.keep_alive:
                self.terminate(STEPS_COMPLETED)
            else:
                self._enter("WAITING", {"Message": "Cluster ready to run steps."})
                self._wait(self._idle_seconds_left())
                if (left := self._idle_seconds_left()) is not None and left <= 0:
                    self.terminate(IDLE)
            self._look_at_deadline()

    def _wait(self, seconds: float | None) -> None:
        limit = self._seconds_to_deadline()
        self.changed.wait(limit if seconds is None else max(0.0, min(seconds, limit)))

    def _idle_seconds_left(self) -> float | None:
        """Seconds until the auto-termination policy ends an idle cluster; None without one."""
        if any(one.state in ("PENDING", "RUNNING", "CANCEL_PENDING") for one in self.steps):
            return None
        if not self.auto_termination_policy:
            return None
        allowed = self.auto_termination_policy.get("IdleTimeout", 3600) * self.settings.idle_scale
        return float(self._idle_since + allowed - time.monotonic())

    def _seconds_to_deadline(self) -> float:
        if self._deadline is None:
            return threading.TIMEOUT_MAX
        return min(max(0.0, (self._deadline - datetime.now(UTC)).total_seconds()), threading.TIMEOUT_MAX)

    def _look_at_deadline(self) -> None:
        """The timer that bootstrap.sh armed: the primary node shuts itself down, protected or not."""
        if self._deadline is not None and datetime.now(UTC) >= self._deadline:
            self.terminate(
                Ending(
                    "TERMINATED_WITH_ERRORS", "INSTANCE_FAILURE", "The master node was terminated by user."
                )
            )

    def _start_step(self, step: Step) -> None:
        self._enter("RUNNING", {"Message": "Running step"})
        step.state, step.started = "RUNNING", datetime.now(UTC)
        step.execution = Execution(self, step, lambda status, why: self._step_ended(step, status, why))
        step.execution.start()
        self.hooks.step_entered(self, step)

    def _step_ended(self, step: Step, status: int | None, why: str) -> None:
        with self.changed:
            if step.state == "CANCEL_PENDING":
                step.end("CANCELLED", step.message)
            elif status == 0:
                step.end("COMPLETED")
            else:
                step.end("FAILED")
                step.failure = {"Reason": "Unknown Error.", "Message": why}
                if log_file := self.logs.uri(f"steps/{step.id}/stderr.gz"):
                    step.failure["LogFile"] = log_file
                self._after_failure(step)
            self._idle_since = time.monotonic()
            self.hooks.step_entered(self, step)
            self.changed.notify_all()

    def _after_failure(self, step: Step) -> None:
        action = step.action_on_failure
        # more than one at a time: AWS neither cancels the others nor terminates
        if action == "CONTINUE" or self.step_concurrency_level > 1:
            return
        self._cancel_pending("Cancelled because a previous step failed")
        if action in ("TERMINATE_CLUSTER", "TERMINATE_JOB_FLOW") and not self.termination_protected:
            self.terminate(STEP_FAILURE)

    def _cancel_pending(self, why: str) -> None:
        for one in self.steps:
            if one.state == "PENDING":
                one.end("CANCELLED", why)

    def _shut_down(self) -> None:
        with self.changed:
            ending = self._ending or USER_REQUEST
            reason = {"Code": ending.code, "Message": ending.message}
            self._enter("TERMINATING", reason)
            self._machines_enter("TERMINATING")
            self._cancel_pending("Job terminated")
            running = [
                one
                for one in self.steps
                if one.execution is not None and one.state in ("RUNNING", "CANCEL_PENDING")
            ]
            for one in running:
                one.state, one.message = "CANCEL_PENDING", one.message or "Job terminated"
                if one.execution is not None:
                    one.execution.stop(at_once=ending.abrupt)
        for one in running:
            if one.execution is not None:
                one.execution.join(self.settings.kill_seconds + 30)
        with self.changed:
            until = time.monotonic() + self.settings.terminate_seconds
            while not self._closing and (left := until - time.monotonic()) > 0:
                self.changed.wait(left)
            while not self._closing and self.hooks.stays(self):
                self.changed.wait(_HOOK_SECONDS)
            self.timeline.ended = datetime.now(UTC)
            self._machines_enter("TERMINATED")
            self._enter(ending.state, reason)

    def _enter(self, state: str, reason: dict[str, str]) -> None:
        self.state, self.reason = state, reason
        self.hooks.entered(self)
        self.changed.notify_all()

    def _machines_enter(self, state: str) -> None:
        now = datetime.now(UTC)
        for group in self.machines:
            group.enter(state, now)


def _said(error: Exception) -> str:
    return f"local_aws: {type(error).__name__}: {error}"
