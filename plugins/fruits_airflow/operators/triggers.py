"""Waiting without a worker slot: one loop that looks until there is news or a deadline has passed.

The provider's waiters count attempts, start to count anew when a triggerer restarts, and end at the first error that
is not on their list. Here the deadline is a moment, and an error of a look is logged and the look repeated.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

from airflow.providers.amazon.aws.hooks.emr import EmrHook
from airflow.providers.amazon.aws.triggers.base import AwsBaseWaiterTrigger
from airflow.providers.amazon.aws.triggers.emr import EmrCreateJobFlowTrigger, EmrStepSensorTrigger
from airflow.sdk.configuration import conf
from airflow.triggers.base import TriggerEvent
from asgiref.sync import sync_to_async
from botocore.exceptions import BotoCoreError, ClientError

from fruits_airflow.aws.clients import emr_hook
from fruits_airflow.emr.clusters import ENDED_STATES, READY_STATES, is_unknown
from fruits_airflow.emr.steps import TERMINAL_STATES, Step

_CLUSTER_EVERY = 5  # looks at a step between two looks at its cluster


def settle_seconds() -> float:
    """How long a trigger must not fire after its task has deferred.

    A worker's supervisor may notice only after `[workers] min_heartbeat_interval` seconds that its task has ended. If
    the task has been resumed by then, the scheduler takes that news for the end of the resumed half, calls the task
    killed and tries it again (seen with Airflow 3.3.2 and LocalExecutor).
    """
    return 2.0 * float(conf.getfloat("workers", "min_heartbeat_interval"))


class _LookUntilDeadline(AwsBaseWaiterTrigger):
    """The loop; a subclass says what to look at.

    Args:
        deadline: seconds since the epoch.
        settle_s: seconds before the first look, see `settle_seconds`.
        consistency_s: Seconds for which EMR may answer that it does not know the cluster or step before the wait ends.
        waiter_delay: seconds between two looks.
        waiter_max_attempts: not used; the deadline bounds the wait.
        **kwargs: what is watched (`job_flow_id`, `step_id`), connection id and region.
    """

    def __init__(
        self,
        *,
        deadline: float,
        settle_s: float,
        consistency_s: float,
        waiter_delay: float,
        waiter_max_attempts: int = 0,
        **kwargs: Any,
    ) -> None:
        # the next class is the provider's trigger of the subclass, which knows what is watched
        super().__init__(
            waiter_delay=waiter_delay,  # type: ignore[arg-type]
            waiter_max_attempts=waiter_max_attempts,
            **kwargs,
        )
        self.deadline, self.settle_s, self.consistency_s = deadline, settle_s, consistency_s
        self.serialized_fields = {
            **self.serialized_fields,
            **{"deadline": deadline, "settle_s": settle_s, "consistency_s": consistency_s},
        }

    @property
    def ids(self) -> dict[str, Any]:
        """What was watched; goes with every event, since `dag.test()` passes nothing else on."""
        return {
            name: self.serialized_fields[name]
            for name in ("job_flow_id", "step_id")
            if name in self.serialized_fields
        }

    def hook(self) -> EmrHook:
        """As patient as the tasks are; asks Airflow for the connection, so it blocks."""
        return emr_hook(self.aws_conn_id, self.region_name)

    async def client(self) -> Any:
        """EMR's client, to be entered."""
        hook = await sync_to_async(self.hook)()
        return await hook.get_async_conn()  # type: ignore[no-untyped-call]

    async def look(self, client: Any, count: int) -> dict[str, Any] | None:
        """News, or None."""
        raise NotImplementedError

    async def give_up(self, client: Any) -> None:
        """What to do when the deadline has passed; nothing by default."""

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Yields one event: `status` is what `look` found, `unknown` or `timeout`."""
        count, unknown_since = 0, None
        await asyncio.sleep(self.settle_s)
        while True:
            try:
                async with await self.client() as client:
                    while True:
                        if news := await self.look(client, count):
                            yield TriggerEvent(self.ids | news)  # type: ignore[no-untyped-call]
                            return
                        if time.time() >= self.deadline:
                            await self.give_up(client)
                            yield TriggerEvent(self.ids | {"status": "timeout"})  # type: ignore[no-untyped-call]
                            return
                        count, unknown_since = count + 1, None
                        await asyncio.sleep(min(self.waiter_delay, max(0.1, self.deadline - time.time())))
            except (BotoCoreError, ClientError, OSError) as error:
                self.log.warning("Cannot look at %s: %s; trying again", self.waiter_args, error)
                unknown_since = (unknown_since or time.time()) if is_unknown(error) else None
                if unknown_since and time.time() - unknown_since >= self.consistency_s:
                    yield TriggerEvent(self.ids | {"status": "unknown", "reason": str(error)})  # type: ignore[no-untyped-call]
                    return
                if time.time() >= self.deadline:
                    yield TriggerEvent(self.ids | {"status": "timeout", "reason": str(error)})  # type: ignore[no-untyped-call]
                    return
                await asyncio.sleep(self.waiter_delay)


class StepTrigger(_LookUntilDeadline, EmrStepSensorTrigger):
    """Waits for one step; cancels it when its task is cleared or marked, or when the deadline has passed.

    A restart of the triggerer cancels nothing: `on_kill` is not called then.
    """

    async def look(self, client: Any, count: int) -> dict[str, Any] | None:
        """The step's end, or its cluster's."""
        step = Step.of((await client.describe_step(**self.waiter_args))["Step"])
        self.log.info("Step %s is %s", step.step_id, step.state)
        if step.state in TERMINAL_STATES:
            return {"status": "ended", "state": step.state, "reason": step.reason}
        if count % _CLUSTER_EVERY == _CLUSTER_EVERY - 1:
            status = await _cluster_status(client, self.waiter_args["ClusterId"])
            if status["State"] in ENDED_STATES:
                return {"status": "lost", "state": status["State"], "reason": _reason(status)}
        return None

    async def give_up(self, client: Any) -> None:
        """Cancels the step: past its deadline it only costs."""
        await self._cancel(client)

    async def on_kill(self) -> None:
        """Cancels the step when a person clears or marks the task."""
        async with await self.client() as client:
            await self._cancel(client)

    async def _cancel(self, client: Any) -> None:
        cluster, step = self.waiter_args["ClusterId"], self.waiter_args["StepId"]
        self.log.warning("Cancelling step %s of %s", step, cluster)
        await client.cancel_steps(
            ClusterId=cluster, StepIds=[step], StepCancellationOption="TERMINATE_PROCESS"
        )


class ClusterReadyTrigger(_LookUntilDeadline, EmrCreateJobFlowTrigger):
    """Waits until a cluster takes steps, or has ended.

    The provider's waiter `job_flow_waiting` accepts a TERMINATED cluster.
    """

    async def look(self, client: Any, count: int) -> dict[str, Any] | None:  # noqa: ARG002 - the loop's signature
        """The cluster's readiness, or its end."""
        status = await _cluster_status(client, self.waiter_args["ClusterId"])
        self.log.info("Cluster %s is %s", self.waiter_args["ClusterId"], status["State"])
        if status["State"] in READY_STATES:
            return {"status": "ready", "state": status["State"]}
        if status["State"] in (*ENDED_STATES, "TERMINATING"):
            return {"status": "lost", "state": status["State"], "reason": _reason(status)}
        return None


async def _cluster_status(client: Any, job_flow_id: str) -> dict[str, Any]:
    return dict((await client.describe_cluster(ClusterId=job_flow_id))["Cluster"]["Status"])


def _reason(status: dict[str, Any]) -> str:
    change = status.get("StateChangeReason", {})
    return " ".join(filter(None, (change.get("Code"), change.get("Message"))))
