"""The life of a cluster: a thread takes it from STARTING to TERMINATED and runs its steps."""

import logging
import threading
from datetime import datetime, timedelta
from itertools import count
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from local_aws.emr import states
from local_aws.emr.execution import bootstrap
from local_aws.emr.execution.runtime import Node, Runtime, StepProcess
from local_aws.emr.execution.yarn import Yarn
from local_aws.emr.ids import new_id
from local_aws.emr.instances import Fleet, Instance, Timeline
from local_aws.emr.states import Ending
from local_aws.emr.steps import Step

log = logging.getLogger(__name__)

_HOOK_INTERVAL = timedelta(seconds=0.1)
# What a step may take beyond `kill_seconds`: its logs are written.
END_GRACE_SECONDS = 30


class Cluster:
    """One cluster.

    All attributes are read and written under `changed`. Whoever changes an attribute notifies it.

    Args:
        request: Parameters of RunJobFlow, valid.
        runtime: What the clusters of this server share.
        region: Region of the cluster.
        arn_prefix: `arn:<partition>:elasticmapreduce:<region>:<account>`.
        problem: Why EMR gives up while it provisions (`VALIDATION_ERROR`), if it does.
    """

    def __init__(
        self, request: dict[str, Any], runtime: Runtime, region: str, arn_prefix: str, problem: str | None = None
    ) -> None:
        self.id = new_id("j")
        self.arn = f"{arn_prefix}:cluster/{self.id}"
        self.request = request
        self.name = str(request["Name"])
        self.region = region
        self.changed = threading.Condition(threading.RLock())
        self.state = "STARTING"
        self.reason: dict[str, str] = {}
        instances = request["Instances"]
        now = runtime.clock.now()
        self.timeline = Timeline(now)
        addresses = count()
        self.fleets = [Fleet(config, region, now, addresses) for config in instances["InstanceFleets"]]
        self.tags = {tag["Key"]: tag.get("Value", "") for tag in request.get("Tags") or []}
        self.keep_alive = bool(instances.get("KeepJobFlowAliveWhenNoSteps"))
        self.termination_protected = bool(instances.get("TerminationProtected"))
        self.step_concurrency_level = request.get("StepConcurrencyLevel") or 1
        self.auto_termination_policy: dict[str, Any] | None = request.get("AutoTerminationPolicy")
        self.steps = [Step(config, now) for config in request.get("Steps") or []]
        self._node = Node(runtime, self.id, region, request)
        self._yarn = Yarn(self._node, self.fleets)
        self._settings, self._hooks, self._clock = runtime.settings, runtime.hooks, runtime.clock
        self._processes: dict[str, StepProcess] = {}
        self._problem = problem
        self._ending: Ending | None = None
        self._is_closing = False
        self._idle_since = now
        self._deadline: datetime | None = None
        self._thread = threading.Thread(target=self._live, name=self.id, daemon=True)

    def start(self) -> None:
        """Begin the cluster's life and return at once."""
        self._thread.start()

    @property
    def primary(self) -> Instance:
        """The machine of the primary node."""
        return next(fleet for fleet in self.fleets if fleet.role == "MASTER").instances[0]

    @property
    def is_ending(self) -> bool:
        """Whether the cluster is ending or has ended."""
        return self._ending is not None

    # what the API does to a cluster

    def terminate(self, ending: Ending = states.USER_REQUEST) -> None:
        """End the cluster; a cluster that is ending keeps its first ending."""
        with self.changed:
            if self._ending is None:
                self._ending = ending
                self.changed.notify_all()

    def add_steps(self, configs: list[dict[str, Any]]) -> list[Step]:
        """Append valid steps."""
        with self.changed:
            new = [Step(config, self._clock.now()) for config in configs]
            self.steps += new
            self.changed.notify_all()
            return new

    def cancel_step(self, step: Step, *, at_once: bool) -> dict[str, str]:
        """Cancel a PENDING step or end a RUNNING step; return `CancelStepsInfo`."""
        with self.changed:
            info = {"StepId": step.id, "Status": "SUBMITTED"}
            if step.state == "PENDING":
                step.end("CANCELLED", self._clock.now(), "Cancelled by user")
            elif step.state == "RUNNING":
                self._stop_step(step, "Cancelled by user", at_once=at_once)
            else:
                info |= {"Status": "FAILED", "Reason": f"Cannot cancel a step in state {step.state}."}
            self.changed.notify_all()
            return info

    def close(self) -> None:
        """End the cluster without delays: the server stops."""
        with self.changed:
            self._is_closing = True
            self.terminate(states.SERVER_STOPS)
            self.changed.notify_all()

    def join(self, timeout: float) -> None:
        """Wait at most `timeout` seconds until the cluster has ended."""
        self._thread.join(timeout)

    # its life

    def _live(self) -> None:
        """Go from STARTING to the end. An error ends the cluster and becomes its reason."""
        try:
            self._provision_and_work()
        except Exception as error:
            log.exception("%s ends", self.id)
            self.terminate(_internal_error(error))
        try:
            self._shut_down()
        except Exception as error:
            log.exception("%s is gone", self.id)
            with self.changed:
                ending = _internal_error(error)
                self.state, self.reason = ending.state, {"Code": ending.code, "Message": ending.message}
                self.timeline.ended = self._clock.now()
                self.changed.notify_all()

    def _provision_and_work(self) -> None:
        with self.changed:
            self._hooks.entered(self)
        self._stay_for(self._settings.start_seconds)
        if self._problem:
            self.terminate(states.failure("VALIDATION_ERROR", self._problem))
        if self._ending is None:
            self._bootstrap()
        self._stay_for(self._settings.bootstrap_seconds)
        with self.changed:
            if self._ending is None:
                self._work()

    def _stay_for(self, seconds: float) -> None:
        """Stay in the present state, for longer where the hooks keep it, until the cluster ends."""
        with self.changed:
            until = self._after(seconds)
            while self._ending is None and self._clock.now() < until:
                self._wait(until)
            while self._ending is None and self._hooks.stays(self):
                self._wait(self._clock.now() + _HOOK_INTERVAL)

    def _bootstrap(self) -> None:
        with self.changed:
            self._enter("BOOTSTRAPPING", {"Message": "Running bootstrap actions"})
            self._machines_enter("BOOTSTRAPPING")
            actions = self.request.get("BootstrapActions") or []
        try:
            bootstrap.check_scripts(actions, self._object_exists)
            deadline = bootstrap.deadline(actions)
            if problem := self._hooks.bootstrap_problem(self):
                raise bootstrap.BootstrapError(problem)
            self._yarn.start()
            while self._ending is None and not self._yarn.is_ready():
                with self.changed:
                    self._wait(self._after(0.2))
        except bootstrap.BootstrapError as error:
            message = str(error).format(primary=self.primary.ec2_id)
            self.terminate(states.failure("BOOTSTRAP_FAILURE", message))
            return
        with self.changed:
            self._deadline = deadline
            self._check_deadline()

    def _object_exists(self, bucket: str, key: str) -> bool:
        try:
            self._node.s3.head_object(Bucket=bucket, Key=key)
        except (BotoCoreError, ClientError):
            return False  # missing or out of reach: EMR cannot download it
        return True

    def _work(self) -> None:
        """Run steps until there is a reason to end."""
        self.timeline.ready = self._idle_since = self._clock.now()
        self._machines_enter("RUNNING")
        while self._ending is None:
            executing = sum(step.state in states.EXECUTING for step in self.steps)
            pending = next((step for step in self.steps if step.state == "PENDING"), None)
            if pending and executing < self.step_concurrency_level:
                self._start_step(pending)
            elif executing:
                self._wait()
            elif not self.keep_alive:
                self.terminate(states.STEPS_COMPLETED)
            else:
                self._enter("WAITING", {"Message": "Cluster ready to run steps."})
                self._wait(self._idle_until())
                if (idle_until := self._idle_until()) is not None and idle_until <= self._clock.now():
                    self.terminate(states.IDLE)

    def _idle_until(self) -> datetime | None:
        """Return when the auto-termination policy ends the idle cluster; None where it does not."""
        if not self.auto_termination_policy or any(step.state in states.ACTIVE for step in self.steps):
            return None
        seconds = self.auto_termination_policy.get("IdleTimeout", 3600) * self._settings.idle_scale
        return self._idle_since + timedelta(seconds=seconds)

    def _after(self, seconds: float) -> datetime:
        return self._clock.now() + timedelta(seconds=seconds)

    def _wait(self, until: datetime | None = None) -> None:
        """Wait for a change, at most until a moment or the cluster's deadline."""
        moments = [moment for moment in (until, self._deadline) if moment is not None]
        self._clock.wait(self.changed, min(moments, default=None))
        self._check_deadline()

    def _check_deadline(self) -> None:
        """End the cluster at the deadline of bootstrap.sh: the primary node shuts itself down, protected or not."""
        if self._deadline is not None and self._clock.now() >= self._deadline:
            self.terminate(states.DEADLINE)

    def _start_step(self, step: Step) -> None:
        self._enter("RUNNING", {"Message": "Running step"})
        step.state, step.started = "RUNNING", self._clock.now()
        self._processes[step.id] = self._node.runtime.run_step(
            self._node, step, lambda status, reason: self._step_ended(step, status, reason)
        )
        self._hooks.step_entered(self, step)

    def _stop_step(self, step: Step, message: str, *, at_once: bool) -> None:
        step.state, step.message = "CANCEL_PENDING", step.message or message
        self._processes[step.id].stop(at_once=at_once)

    def _step_ended(self, step: Step, status: int | None, reason: str) -> None:
        with self.changed:
            now = self._clock.now()
            if step.state == "CANCEL_PENDING":
                step.end("CANCELLED", now, step.message)
            elif status == 0:
                step.end("COMPLETED", now)
            else:
                step.end("FAILED", now)
                step.failure = {"Reason": "Unknown Error.", "Message": reason}
                if log_file := self._node.logs.uri(f"steps/{step.id}/stderr.gz"):
                    step.failure["LogFile"] = log_file
                self._act_on_failure(step)
            self._idle_since = now
            self._hooks.step_entered(self, step)
            self.changed.notify_all()

    def _act_on_failure(self, step: Step) -> None:
        action = step.action_on_failure
        # more than one at a time: AWS neither cancels the others nor terminates
        if action == "CONTINUE" or self.step_concurrency_level > 1:
            return
        self._cancel_pending("Cancelled because a previous step failed")
        if action in ("TERMINATE_CLUSTER", "TERMINATE_JOB_FLOW") and not self.termination_protected:
            self.terminate(states.STEP_FAILURE)

    def _cancel_pending(self, message: str) -> None:
        for step in self.steps:
            if step.state == "PENDING":
                step.end("CANCELLED", self._clock.now(), message)

    def _shut_down(self) -> None:
        with self.changed:
            ending = self._ending or states.USER_REQUEST
            reason = {"Code": ending.code, "Message": ending.message}
            self._enter("TERMINATING", reason)
            self._cancel_pending("Job terminated")
            executing = [step for step in self.steps if step.state in states.EXECUTING]
            for step in executing:
                self._stop_step(step, "Job terminated", at_once=ending.abrupt)
        for step in executing:
            self._processes[step.id].join(self._settings.kill_seconds + END_GRACE_SECONDS)
        self._yarn.stop(END_GRACE_SECONDS)
        with self.changed:
            until = self._after(self._settings.terminate_seconds)
            while not self._is_closing and self._clock.now() < until:
                self._clock.wait(self.changed, until)
            while not self._is_closing and self._hooks.stays(self):
                self._clock.wait(self.changed, self._clock.now() + _HOOK_INTERVAL)
            self.timeline.ended = self._clock.now()
            self._machines_enter("TERMINATED")
            self._enter(ending.state, reason)

    def _enter(self, state: str, reason: dict[str, str]) -> None:
        self.state, self.reason = state, reason
        self._hooks.entered(self)
        self.changed.notify_all()

    def _machines_enter(self, state: str) -> None:
        for fleet in self.fleets:
            fleet.enter(state, self._clock.now())


def _internal_error(error: Exception) -> Ending:
    return states.failure("INTERNAL_ERROR", f"local_aws: {type(error).__name__}: {error}")
