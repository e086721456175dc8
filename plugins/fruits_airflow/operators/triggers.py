"""Triggers that poll until there is an event or a deadline has passed.

The provider's waiters count attempts, restart the count with the triggerer, and end at the first error that they do not
list. Here the deadline is a point in time, and an error is logged and the call repeated.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

from airflow.providers.amazon.aws.hooks.emr import EmrHook
from airflow.providers.amazon.aws.triggers.base import AwsBaseWaiterTrigger
from airflow.providers.amazon.aws.triggers.emr import EmrCreateJobFlowTrigger, EmrStepSensorTrigger
from airflow.sdk.configuration import conf
from airflow.triggers.base import TriggerEvent
from asgiref.sync import sync_to_async
from botocore.exceptions import BotoCoreError, ClientError

from fruits_airflow.aws.clients import emr_hook
from fruits_airflow.emr.clusters import ENDED_STATES, READY_STATES, is_unknown, state_reason
from fruits_airflow.emr.steps import TERMINAL_STATES, Step

_CLUSTER_EVERY = 5  # reads of a step per read of its cluster


def settle_seconds() -> float:
    """Return for how many seconds after its task's deferral a trigger must not fire.

    A worker's supervisor may need `[workers] min_heartbeat_interval` seconds to notice that its task has deferred. If
    the task has been resumed by then, the scheduler mistakes the report for the end of the resumed task, marks it
    killed and retries it (seen with Airflow 3.3.2 and LocalExecutor).
    """
    return 2.0 * float(conf.getfloat("workers", "min_heartbeat_interval"))


class _DeadlineTrigger(AwsBaseWaiterTrigger):
    """Polls until an event or a deadline; a subclass says what to poll.

    Args:
        deadline: Seconds since the epoch.
        typical_s: Seconds that past runs have waited, as far as they tell.
        settle_s: Seconds before the first poll, see `settle_seconds`.
        consistency_s: Seconds for which EMR may answer that it does not know the cluster or step before the wait ends.
        waiter_delay: Seconds between two polls.
        waiter_max_attempts: Ignored; the deadline bounds the wait.
        **kwargs: Ids of what is watched (`job_flow_id`, `step_id`), connection id and region.
    """

    def __init__(
        self,
        *,
        deadline: float,
        typical_s: float | None = None,
        settle_s: float,
        consistency_s: float,
        waiter_delay: float,
        waiter_max_attempts: int = 0,
        **kwargs: Any,
    ) -> None:
        # The next class in the order of resolution is the subclass's provider trigger, which takes the ids.
        super().__init__(
            waiter_delay=waiter_delay,  # type: ignore[arg-type]
            waiter_max_attempts=waiter_max_attempts,
            **kwargs,
        )
        self.deadline, self.typical_s, self.settle_s, self.consistency_s = deadline, typical_s, settle_s, consistency_s
        self.serialized_fields |= {"deadline": deadline, "typical_s": typical_s}
        self.serialized_fields |= {"settle_s": settle_s, "consistency_s": consistency_s}

    @property
    def ids(self) -> dict[str, Any]:
        """Ids of what is watched, part of every event, since `dag.test()` passes nothing else to the task."""
        return {k: v for k, v in self.serialized_fields.items() if k in ("job_flow_id", "step_id")}

    def log_progress(self, state: str, started_at: datetime | None) -> None:
        """Log how long the cluster or step has taken so far and, as far as past runs tell, how long it still takes."""
        seconds, past = time.time() - started_at.timestamp() if started_at else 0, ""
        if self.typical_s:
            left = f"about {self.typical_s - seconds:.0f} s are left" if seconds < self.typical_s else "it takes longer"
            past = f"; past runs took some {self.typical_s:.0f} s, so {left}"
        limit = datetime.fromtimestamp(int(self.deadline), UTC)
        self.log.info("%s is %s for %.0f s%s; given up at %s", list(self.ids.values())[-1], state, seconds, past, limit)

    def hook(self) -> EmrHook:
        """Return a hook that retries as the tasks' do; it reads the connection from Airflow, and so blocks."""
        return emr_hook(self.aws_conn_id, self.region_name)

    async def client(self) -> Any:
        """Return an EMR client as an asynchronous context manager."""
        hook = await sync_to_async(self.hook)()
        return await hook.get_async_conn()  # type: ignore[no-untyped-call]

    async def poll(self, client: Any, count: int) -> dict[str, Any] | None:
        """Return the event, if there is one."""
        raise NotImplementedError

    async def on_deadline(self, client: Any) -> None:
        """Act when the deadline has passed; do nothing by default."""

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Yield one event, whose `status` is that of `poll`, `unknown` or `timeout`."""
        count, unknown_since = 0, None
        await asyncio.sleep(self.settle_s)
        while True:
            try:
                async with await self.client() as client:
                    while True:
                        if event := await self.poll(client, count):
                            yield self._event(**event)
                            return
                        if time.time() >= self.deadline:
                            await self.on_deadline(client)
                            yield self._event(status="timeout")
                            return
                        count, unknown_since = count + 1, None
                        await asyncio.sleep(min(self.waiter_delay, max(0.1, self.deadline - time.time())))
            except (BotoCoreError, ClientError, OSError) as error:
                self.log.warning("Cannot read %s: %s; trying again", self.waiter_args, error)
                unknown_since = (unknown_since or time.time()) if is_unknown(error) else None
                if unknown_since and time.time() - unknown_since >= self.consistency_s:
                    yield self._event(status="unknown", reason=str(error))
                    return
                if time.time() >= self.deadline:
                    yield self._event(status="timeout", reason=str(error))
                    return
                await asyncio.sleep(self.waiter_delay)

    def _event(self, **facts: Any) -> TriggerEvent:
        return TriggerEvent(self.ids | facts)  # type: ignore[no-untyped-call]


class StepTrigger(_DeadlineTrigger, EmrStepSensorTrigger):
    """Waits for a step; cancels it when its task is cleared or marked, or when the deadline has passed.

    A restart of the triggerer cancels nothing: it does not call `on_kill`.
    """

    async def poll(self, client: Any, count: int) -> dict[str, Any] | None:
        """Return the end of the step, or of its cluster."""
        step = Step.of((await client.describe_step(**self.waiter_args))["Step"])
        if step.state in TERMINAL_STATES:
            return {"status": "ended", "state": step.state, "reason": step.reason}
        self.log_progress(step.state, step.started_at)
        if count % _CLUSTER_EVERY == _CLUSTER_EVERY - 1:
            status = await _cluster_status(client, self.waiter_args["ClusterId"])
            if status["State"] in ENDED_STATES:
                return {"status": "lost", "state": status["State"], "reason": state_reason(status)}
        return None

    async def on_kill(self) -> None:
        """Cancel the step when a person clears or marks the task."""
        async with await self.client() as client:
            await self.on_deadline(client)

    async def on_deadline(self, client: Any) -> None:
        """Cancel the step, which would only cost."""
        cluster, step = self.waiter_args["ClusterId"], self.waiter_args["StepId"]
        self.log.warning("Cancelling step %s of %s", step, cluster)
        await client.cancel_steps(ClusterId=cluster, StepIds=[step], StepCancellationOption="TERMINATE_PROCESS")


class ClusterReadyTrigger(_DeadlineTrigger, EmrCreateJobFlowTrigger):
    """Waits until a cluster accepts steps, or has ended.

    The provider's waiter `job_flow_waiting` accepts a TERMINATED cluster.
    """

    async def poll(self, client: Any, count: int) -> dict[str, Any] | None:  # noqa: ARG002 - the loop's signature
        """Return the cluster's readiness, or its end."""
        status = await _cluster_status(client, self.waiter_args["ClusterId"])
        self.log_progress(status["State"], status["Timeline"]["CreationDateTime"])
        if status["State"] in READY_STATES:
            return {"status": "ready", "state": status["State"]}
        if status["State"] in (*ENDED_STATES, "TERMINATING"):
            return {"status": "lost", "state": status["State"], "reason": state_reason(status)}
        return None


async def _cluster_status(client: Any, job_flow_id: str) -> dict[str, Any]:
    return dict((await client.describe_cluster(ClusterId=job_flow_id))["Cluster"]["Status"])
