"""An Airflow without a database: it runs the real DAGs' tasks, in the order that the seed draws.

States, trigger rules, retries, deferrals, lost heartbeats, clears and marks are those of Airflow 3.3
(`ti_deps/deps/trigger_rule_dep.py`, `models/taskinstance.py`, `api/common/mark_tasks.py`). An attempt is an actor; a
killed attempt is noticed by its missing heartbeat.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from random import Random
from types import SimpleNamespace
from typing import Any

from airflow.sdk import TriggerRule
from airflow.sdk.bases.operator import TRIGGER_FAIL_REPR, TriggerFailureReason
from airflow.sdk.definitions.xcom_arg import XComArg
from airflow.sdk.exceptions import AirflowFailException, AirflowSensorTimeout, AirflowSkipException, TaskDeferred
from airflow.sdk.module_loading import import_string

from tests.plugins.airflow_context import Announced
from tests.simulation import clocks
from tests.simulation.loop import Actor, Killed, Loop

FINISHED = ("success", "failed", "skipped", "upstream_failed")
HEARTBEAT_S = (300.0, 360.0)
QUEUE_S = (0.5, 8.0)
START_DELAYS = {"cluster_janitor": (0.5, 120.0)}

Log = Callable[[str], None]


@dataclass
class Task:
    """A task instance.

    Attributes:
        epoch: Number of the attempt or clear; what an actor of an earlier one reports is ignored.
        actor: Its attempt, or its trigger while it is deferred.
        deferral: What it waits for while it is deferred.
        error: Why its last attempt failed.
    """

    task_id: str
    max_tries: int
    state: str | None = None
    try_number: int = 0
    xcom: Any = None
    epoch: int = 0
    actor: Actor | None = None
    deferral: TaskDeferred | None = None
    error: str = ""


@dataclass
class DagRun:
    """A run of a DAG."""

    dag: Any
    run_id: str
    conf: dict[str, Any]
    params: dict[str, Any]
    tasks: dict[str, Task]
    state: str = "queued"
    started_at: float = 0.0
    ended_at: float = 0.0

    @property
    def key(self) -> str:
        """DAG and run."""
        return f"{self.dag.dag_id} {self.run_id}"


class TaskInstance:
    """What operators see of their task, and of other runs."""

    def __init__(self, airflow: Airflow, run: DagRun, task: Task) -> None:
        self._airflow, self._run = airflow, run
        self.dag_id, self.run_id, self.task_id = run.dag.dag_id, run.run_id, task.task_id
        self.try_number, self.max_tries = task.try_number, task.max_tries
        self.map_index = -1

    def xcom_pull(self, task_ids: str) -> Any:
        """Return what a task has returned."""
        return self._run.tasks[task_ids].xcom

    def xcom_push(self, key: str, value: Any) -> None:
        """Keep nothing: links are for people."""

    def get_dr_count(self, dag_id: str, run_ids: list[str], states: list[str]) -> int:
        """Return how many of the runs are in some states."""
        runs = (self._airflow.runs.get((dag_id, run_id)) for run_id in run_ids)
        return sum(run is not None and run.state in states for run in runs)

    def get_task_states(self, dag_id: str, task_ids: list[str], run_ids: list[str]) -> dict[str, dict[str, str]]:
        """Return the states of tasks by run."""
        rows = {}
        for run_id in run_ids:
            tasks = self._airflow.runs[dag_id, run_id].tasks
            rows[run_id] = {name: state for name in task_ids if (state := tasks[name].state) is not None}
        return rows


class Airflow:
    """Scheduler, workers and triggerer.

    Args:
        loop: Whose clock and turns.
        dags: The DAGs by id.
        draw: Draws delays and orders.
        log: Takes each event.
    """

    def __init__(self, loop: Loop, dags: Mapping[str, Any], draw: Random, log: Log) -> None:
        self.loop, self.dags, self.draw, self.log = loop, dags, draw, log
        self.runs: dict[tuple[str, str], DagRun] = {}
        self.is_up = True
        self.on_start: Callable[[DagRun, Task, Actor], None] = lambda _run, _task, _actor: None
        self.on_end: Callable[[DagRun, Task, str], None] = lambda _run, _task, _outcome: None

    # what a person or a timetable does

    def trigger(self, dag_id: str, run_id: str, **conf: Any) -> DagRun:
        """Queue a run."""
        dag = self.dags[dag_id]
        params = {name: param.value if hasattr(param, "value") else param for name, param in dag.params.items()} | conf
        tasks = {task.task_id: Task(task.task_id, task.retries) for task in dag.tasks}
        run = DagRun(dag, run_id, conf, params, tasks)
        self.runs[dag_id, run_id] = run
        self.log(f"trigger {run.key} {json.dumps(conf, sort_keys=True)}")
        self._start_queued()
        return run

    def clear_failed(self, run: DagRun) -> None:
        """Clear the tasks that failed, as a person does."""
        self._clear(run, [t for t in run.tasks.values() if t.state in ("failed", "upstream_failed")])

    def clear(self, run: DagRun, task_id: str) -> None:
        """Clear a task with all that comes after it, whatever its state is."""
        names = {task_id, *(task.task_id for task in run.dag.get_task(task_id).get_flat_relatives(upstream=False))}
        self._clear(run, [run.tasks[name] for name in sorted(names)])

    def _clear(self, run: DagRun, tasks: list[Task]) -> None:
        self.log(f"clear {run.key} {' '.join(task.task_id for task in tasks)}")
        for task in tasks:
            self._stop(run, task, by_person=True)
            task.epoch += 1
            task.state, task.xcom = None, None
            task.max_tries = task.try_number + run.dag.get_task(task.task_id).retries
        if run.state in ("success", "failed"):
            run.state = "queued"
        self._start_queued()
        self._schedule(run)

    def mark_failed(self, run: DagRun) -> None:
        """Mark a run as failed, as a person does: its teardowns still run."""
        self.log(f"mark failed {run.key}")
        is_teardown = {task.task_id: task.is_teardown for task in run.dag.tasks}
        for task in run.tasks.values():
            if task.state in FINISHED or is_teardown[task.task_id]:
                continue
            is_at_work = task.state in ("running", "deferred")
            self._stop(run, task, by_person=True)
            task.epoch += 1
            task.state = "failed" if is_at_work else "skipped"
        self._schedule(run)

    # what dies

    def kill_attempt(self, run: DagRun, task: Task) -> None:
        """Kill the process of an attempt."""
        if task.actor is not None and task.state == "running":
            self.loop.kill(task.actor)

    def stop_all(self) -> None:
        """Kill every process of Airflow, as when its machine goes."""
        self.log("airflow is killed")
        self.is_up = False
        for run in self.runs.values():
            for task in run.tasks.values():
                if task.actor is not None and not task.actor.has_ended:
                    self.loop.kill(task.actor)
                if task.state == "scheduled":
                    task.epoch += 1
                    task.state = None

    def start_all(self) -> None:
        """Start Airflow again: it goes on where its database says."""
        self.log("airflow is started")
        self.is_up = True
        self.restart_triggerer()
        self._start_queued()
        for run in list(self.runs.values()):
            self._schedule(run)

    def restart_triggerer(self) -> None:
        """Kill the triggers; the next triggerer restores them from what was serialized."""
        for run in self.runs.values():
            for task in run.tasks.values():
                if task.state == "deferred":
                    if task.actor is not None:
                        self.loop.kill(task.actor)
                    self._watch(run, task)

    # the scheduler

    def _start_queued(self) -> None:
        if not self.is_up:
            return
        active = {run.dag.dag_id for run in self.runs.values() if run.state == "running"}
        for run in self.runs.values():
            if run.state == "queued" and run.dag.dag_id not in active:
                run.state, run.started_at = "running", run.started_at or self.loop.now
                active.add(run.dag.dag_id)
                self._schedule(run)

    def _schedule(self, run: DagRun) -> None:
        """Settle what cannot run, start what can, and end the run when nothing is left."""
        if not self.is_up or run.state != "running":
            return
        is_changed = True
        while is_changed:
            is_changed = False
            for operator in run.dag.tasks:
                task = run.tasks[operator.task_id]
                if task.state is None and (verdict := _readiness(run, operator)) is not None:
                    is_changed = True
                    task.state = verdict
                    if verdict == "scheduled":
                        self._start(run, task, *START_DELAYS.get(run.dag.dag_id, QUEUE_S))
                    else:
                        self.log(f"{run.key} {task.task_id} is {verdict}")
        if all(task.state in FINISHED for task in run.tasks.values()):
            ends = [run.tasks[name].state for name in _leaves(run.dag)]
            run.state = "failed" if set(ends) & {"failed", "upstream_failed"} else "success"
            run.ended_at = self.loop.now
            self.log(f"{run.key} is {run.state}")
            self._start_queued()

    def _start(self, run: DagRun, task: Task, shortest: float, longest: float) -> None:
        task.epoch += 1
        epoch = task.epoch

        def work() -> None:
            if task.epoch != epoch:
                return
            task.try_number += 1
            task.state, task.xcom = "running", None
            self._attempt(run, task, lambda operator, context: _execute(run, operator, context))

        self._spawn(run, task, work, self.draw.uniform(shortest, longest))

    def _resume(self, run: DagRun, task: Task, epoch: int, method: str, arguments: dict[str, Any]) -> None:
        if task.epoch != epoch or task.state != "deferred":
            return
        task.epoch += 1
        epoch, task.state = task.epoch, "scheduled_to_resume"

        def work() -> None:
            if task.epoch == epoch:
                task.state = "running"
                self._attempt(
                    run, task, lambda operator, context: operator.resume_execution(method, arguments, context)
                )

        self._spawn(run, task, work, self.draw.uniform(*QUEUE_S))

    def _spawn(self, run: DagRun, task: Task, work: Callable[[], None], delay: float) -> None:
        task.actor = self.loop.spawn(f"{run.dag.dag_id}.{task.task_id}", work, delay)
        self.on_start(run, task, task.actor)

    def _attempt(self, run: DagRun, task: Task, execute: Callable[[Any, Any], Any]) -> None:
        """Execute an attempt, or what is left of it after a deferral, and act on its outcome."""
        operator, epoch, actor = run.dag.get_task(task.task_id), task.epoch, task.actor
        assert actor is not None
        self.log(f"{run.key} {task.task_id} attempt {task.try_number}")
        try:
            result = execute(operator, self._context(run, task))
        except Killed:
            self.loop.spawn("heartbeat", lambda: self._lose(run, task, epoch), self.draw.uniform(*HEARTBEAT_S))
            raise
        except TaskDeferred as deferral:
            self.loop.require_alive(actor)
            if task.epoch == epoch:
                task.state, task.deferral = "deferred", deferral
                self._watch(run, task)
            return
        except AirflowSkipException as error:
            outcome, message = "skipped", str(error)
        except (AirflowFailException, AirflowSensorTimeout) as error:
            outcome, message = "failed", f"{type(error).__name__}: {error}"
        except Exception as error:  # noqa: BLE001  Airflow retries whatever it is
            outcome, message = "retry", f"{type(error).__name__}: {error}"
        else:
            outcome, message = "success", ""
            task.xcom = None if result is None else json.loads(json.dumps(result))
        if task.epoch == epoch:
            self._end(run, task, outcome, message)

    def _lose(self, run: DagRun, task: Task, epoch: int) -> None:
        while not self.is_up:
            self.loop.sleep(60.0)
        if task.epoch == epoch and task.state == "running":
            self._end(run, task, "retry", "its process was killed")

    def _end(self, run: DagRun, task: Task, outcome: str, message: str) -> None:
        operator = run.dag.get_task(task.task_id)
        self.log(f"{run.key} {task.task_id} ends: {outcome} {message}")
        self.on_end(run, task, outcome)
        task.epoch += 1
        task.error = message
        if outcome == "retry" and task.try_number <= task.max_tries:
            task.state = "up_for_retry"
            delay = operator.retry_delay.total_seconds()
            if operator.retry_exponential_backoff:
                delay *= 2 ** (task.try_number - 1)
            if operator.max_retry_delay:
                delay = min(delay, operator.max_retry_delay.total_seconds())
            epoch = task.epoch
            self.loop.spawn("retry", lambda: self._retry(run, task, epoch), delay * self.draw.uniform(1.0, 1.5))
            return
        task.state = "failed" if outcome == "retry" else outcome
        self._schedule(run)

    def _retry(self, run: DagRun, task: Task, epoch: int) -> None:
        if task.epoch == epoch and task.state == "up_for_retry":
            task.state = None
            self._schedule(run)

    def _stop(self, run: DagRun, task: Task, *, by_person: bool) -> None:
        """Stop what a task does; a trigger is told that a person has stopped it."""
        if task.actor is not None and not task.actor.has_ended:
            self.loop.kill(task.actor)
        if by_person and task.state == "deferred" and task.deferral is not None:
            on_kill = getattr(_restored(task.deferral), "on_kill", None)
            if on_kill is not None:
                self.loop.spawn(
                    "trigger on_kill", lambda: _ignore_aws(lambda: drive(on_kill())), self.draw.uniform(0.1, 5)
                )

    def _watch(self, run: DagRun, task: Task) -> None:
        """Run a deferred task's trigger, from its serialized form, and its timeout."""
        deferral, epoch = task.deferral, task.epoch
        assert deferral is not None
        failed = (TRIGGER_FAIL_REPR, {"error": TriggerFailureReason.TRIGGER_FAILURE})

        def watch() -> None:
            events = _restored(deferral).run()
            try:
                payload = drive(events.__anext__()).payload
            except Killed:
                raise
            except Exception as error:  # noqa: BLE001  a trigger that fails fails its task
                self.log(f"{run.key} {task.task_id} trigger: {type(error).__name__}: {error}")
                self._resume(run, task, epoch, *failed)
                return
            drive(events.aclose())
            arguments = {**(deferral.kwargs or {}), "event": payload}
            self._resume(run, task, epoch, deferral.method_name, arguments)

        def give_up() -> None:
            while not self.is_up:
                self.loop.sleep(60.0)
            error = {"error": TriggerFailureReason.TRIGGER_TIMEOUT}
            self._resume(run, task, epoch, TRIGGER_FAIL_REPR, error)

        task.actor = self.loop.spawn(f"{run.dag.dag_id}.{task.task_id} trigger", watch, self.draw.uniform(*QUEUE_S))
        if deferral.timeout is not None:
            self.loop.spawn("trigger timeout", give_up, deferral.timeout.total_seconds())

    def _context(self, run: DagRun, task: Task) -> dict[str, Any]:
        events: dict[Any, Any] = defaultdict(Announced)
        return {
            "ti": TaskInstance(self, run, task),
            "dag": run.dag,
            "dag_run": SimpleNamespace(conf=run.conf),
            "run_id": run.run_id,
            "params": run.params,
            "outlet_events": events,
        }


def _readiness(run: DagRun, operator: Any) -> str | None:
    """Return the state that a task without one gets by its trigger rule; None while it waits."""
    states = [run.tasks[name].state for name in sorted(operator.upstream_task_ids)]
    if operator.trigger_rule == TriggerRule.ALL_SUCCESS:
        if {"failed", "upstream_failed"} & set(states):
            return "upstream_failed"
        if "skipped" in states:
            return "skipped"
        return "scheduled" if all(state == "success" for state in states) else None
    return "scheduled" if all(state in FINISHED for state in states) else None  # all_done, and teardowns without setups


def _leaves(dag: Any) -> Iterator[str]:
    """Yield the tasks that decide the state of a run, as `DagRun._tis_for_dagrun_state`."""
    for task in dag.tasks:
        downstream = [dag.get_task(name) for name in task.downstream_task_ids]
        is_ignored = task.is_teardown and not task.on_failure_fail_dagrun
        if not is_ignored and all(t.is_teardown and not t.on_failure_fail_dagrun for t in downstream):
            yield task.task_id


def _execute(run: DagRun, operator: Any, context: Any) -> Any:
    clocks.of_process("context", dict).update(context)
    function = getattr(operator, "python_callable", None)
    if function is None:
        return operator.execute(context)
    arguments = [run.tasks[a.operator.task_id].xcom if isinstance(a, XComArg) else a for a in operator.op_args]
    names = operator.op_kwargs.items()
    named = {n: run.tasks[a.operator.task_id].xcom if isinstance(a, XComArg) else a for n, a in names}
    is_given_context = any(p.kind == p.VAR_KEYWORD for p in _parameters(function))
    return function(*arguments, **(context | named if is_given_context else named))


def _parameters(function: Any) -> Any:
    import inspect

    return inspect.signature(function).parameters.values()


def _restored(deferral: TaskDeferred) -> Any:
    name, arguments = deferral.trigger.serialize()
    return import_string(name)(**arguments)


def drive(awaitable: Any) -> Any:
    """Run what is awaitable to its end; it waits as an actor does, and never suspends."""
    try:
        awaitable.send(None)
    except StopIteration as end:
        return end.value
    raise RuntimeError(f"{awaitable} waits for an event loop")


def _ignore_aws(work: Callable[[], Any]) -> None:
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        work()
    except (BotoCoreError, ClientError):
        return  # a triggerer logs it
