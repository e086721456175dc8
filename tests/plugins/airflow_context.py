"""As much of Airflow's task context as our operators read, and the deferral loop without a triggerer."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

from airflow.sdk.exceptions import TaskDeferred
from fruits_airflow.runs.run_context import RunContext


class TaskInstance:
    """XComs and task states in dictionaries."""

    def __init__(self, run: RunContext, states: Mapping[str, str]) -> None:
        self.dag_id, self.run_id = run.identity.dag_id, run.identity.run_id
        self.xcoms: dict[str, Any] = {"plan": run.plan and run.plan.to_xcom(), "upload_code": run.code_digest or None}
        self.links: dict[str, str] = {}
        self.try_number, self.max_tries = 1, 0  # the last attempt
        self._states = states
        self._runs = run.runs

    def xcom_pull(self, task_ids: str) -> Any:
        return self.xcoms.get(task_ids)

    def xcom_push(self, key: str, value: Any) -> None:
        self.links[key] = value

    def get_dr_count(self, dag_id: str, run_ids: list[str], states: list[str]) -> int:
        asked = {"queued": self._runs.is_alive, "success": self._runs.has_ended}[states[0]]
        return sum(asked(dag_id, run_id) for run_id in run_ids)

    def get_task_states(self, dag_id: str, task_ids: list[str], run_ids: list[str]) -> dict[str, dict[str, str]]:
        assert dag_id == self.dag_id
        return {run_id: {task: self._states[task] for task in task_ids if task in self._states} for run_id in run_ids}


@dataclass
class Announced:
    """Events that a task adds to one of its outlets."""

    events: list[tuple[Any, dict[str, Any]]] = field(default_factory=list)

    def add(self, asset: Any, extra: dict[str, Any]) -> None:
        self.events.append((asset, extra))


def context_of(run: RunContext, states: Mapping[str, str] | None = None, **params: Any) -> Any:
    """A context of a task of `run`."""
    events: dict[Any, Any] = defaultdict(Announced)
    defaults = {"region": run.region, "limit": None, "input_prefix": run.settings.raw_prefix}
    return {
        "ti": TaskInstance(run, states or {}),
        "dag": SimpleNamespace(dag_id=run.identity.dag_id),
        "dag_run": SimpleNamespace(conf={}, start_date=datetime(2026, 1, 1, tzinfo=UTC)),
        "run_id": run.identity.run_id,
        "params": defaults | params,
        "outlet_events": events,
    }


def drive(sensor: Any, context: Any) -> Any:
    """Runs a deferrable task to its end, the trigger in this process and from its serialized form."""
    try:
        return sensor.execute(context)
    except TaskDeferred as deferred:
        return sensor.resume_execution(deferred.method_name, {"event": fire(deferred.trigger)}, context)


def fire(trigger: Any) -> Any:
    """The payload of the event that `trigger` gives after a restart of the triggerer."""
    _, arguments = trigger.serialize()
    restored = type(trigger)(**arguments)

    async def first() -> Any:
        async for event in restored.run():
            return event.payload
        return None

    return asyncio.run(first())
