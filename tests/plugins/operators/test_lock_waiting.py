"""A plan waits, without a worker slot, while another run holds its database."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from airflow.sdk.exceptions import (
    AirflowFailException,
    AirflowSkipException,
    TaskDeferralError,
    TaskDeferralTimeout,
    TaskDeferred,
)
from fruits_airflow.config.errors import LockHeld
from fruits_airflow.config.settings import Settings
from fruits_airflow.locking.database_lock import DatabaseLock
from fruits_airflow.operators.lock_waiting import LockWaitingOperator
from fruits_airflow.operators.plan import PlanOperator
from fruits_airflow.runs.publication import Fingerprint, PublicationState, read_state
from fruits_airflow.runs.run_context import RunContext
from fruits_airflow.storage.lake import run_key
from fruits_airflow.storage.run_notes import LAST_FAILURE

from tests.plugins import laptop
from tests.plugins.airflow_context import context_of
from tests.plugins.locking.test_database_lock import ERASURE, HOUR, NIGHT, Locks, lake, lock_of, now, release
from tests.plugins.published import set_state

__all__ = ["lake", "lock_of"]  # fixtures


class Waiting(LockWaitingOperator):
    """Takes its lock."""

    def __init__(self, *, lock: DatabaseLock, **kwargs: Any) -> None:
        super().__init__(task_id="work", **kwargs)
        self.lock = lock

    def work(self, context: Any) -> str:
        self.lock.take(now() + HOUR)
        return "done"

    def give_up(self, context: Any, held: LockHeld) -> Any:
        raise AirflowFailException(str(held))


def test_a_task_waits_without_a_worker_and_goes_on_when_the_lock_is_free(lock_of: Locks, account: Settings) -> None:
    lock_of(ERASURE).take(now() + HOUR)
    task = Waiting(lock=lock_of(NIGHT), settings=account)
    with pytest.raises(TaskDeferred) as first:
        task.execute({})
    with pytest.raises(TaskDeferred) as second:
        task.execute_again({}, event=None, **first.value.kwargs)
    assert second.value.kwargs == first.value.kwargs, "each wait counts from the first"
    release(lock_of(ERASURE))
    assert task.execute_again({}, event=None, **second.value.kwargs) == "done"


def test_the_wait_is_bounded(lock_of: Locks, account: Settings) -> None:
    lock_of(ERASURE).take(now() + HOUR)
    task = Waiting(lock=lock_of(NIGHT), settings=account)
    too_long_ago = now().timestamp() - account.lock_wait_minutes * 60 - 1
    with pytest.raises(AirflowFailException, match="erase_images"):
        task.execute_again({}, since=too_long_ago)


@pytest.fixture
def planner(run: RunContext) -> tuple[PlanOperator, Any]:
    laptop.put_photos(run.settings.raw_bucket, ["images/a.jpg"])
    schemas = {"variance": 0.95, "k": None, "engine": "litert", "model_id": run.settings.model_id}
    schemas |= {"profile": None, "max_cost_eur": 5.0, "full_refresh": False, "force": False}
    context = context_of(run, **schemas)
    return PlanOperator(task_id="plan", settings=run.settings), context


def test_a_plan_waits_for_an_erasure_and_writes_no_listing(planner: tuple[PlanOperator, Any], run: RunContext) -> None:
    erasing = replace(run.lock("fruits"), owner=ERASURE)
    erasing.take(now() + HOUR)
    task, context = planner
    with pytest.raises(TaskDeferred) as deferred:
        task.execute(context)
    assert run.lake.read(run_key(run.identity.run_id, "listing.parquet")) is None
    assert run.lake.read(run_key(run.identity.run_id, "run.json")) is None
    release(erasing)
    assert task.execute_again(context, **deferred.value.kwargs)["database"] == "fruits"
    record = run.lock("fruits").read()
    assert record is not None
    assert record.owner == run.identity


def test_a_plan_that_has_waited_too_long_is_refused_in_the_record(
    planner: tuple[PlanOperator, Any], run: RunContext
) -> None:
    replace(run.lock("fruits"), owner=ERASURE).take(now() + HOUR)
    task, context = planner
    with pytest.raises(AirflowFailException, match="LockHeld: fruits is locked by erase_images"):
        task.execute_again(context, since=0.0)
    record = run.lake.read_json(run_key(run.identity.run_id, "run.json")) or {}
    assert record["state"] == "refused"
    assert "erase_images" in record["reason"]


@pytest.mark.parametrize(
    ("reason", "raised", "cause"),
    [
        ("Trigger timeout", TaskDeferralTimeout, "is the triggerer alive?"),
        ("Trigger failure", TaskDeferralError, "Trigger failure"),
    ],
)
def test_that_the_wait_for_the_lock_gave_no_news_is_noted(
    planner: tuple[PlanOperator, Any], run: RunContext, reason: str, raised: type[Exception], cause: str
) -> None:
    task, context = planner
    with pytest.raises(raised):
        task.resume_execution("__fail__", {"error": reason}, context)
    failure = run.journal.read(LAST_FAILURE) or {}
    assert failure["stage"] == "plan"
    assert cause in failure["cause"]


def test_a_refused_plan_takes_no_lock(planner: tuple[PlanOperator, Any], run: RunContext) -> None:
    task, context = planner
    context["params"]["model_id"] = "d" * 64
    with pytest.raises(AirflowFailException, match="no complete model"):
        task.execute(context)
    assert run.lock("fruits").read() is None


def test_a_night_that_finds_nothing_to_do_has_ended_well(planner: tuple[PlanOperator, Any], run: RunContext) -> None:
    task, context = planner
    published = Fingerprint(**task.execute(context)["fingerprint"])
    set_state(run.lake, "fruits", PublicationState(published=published))
    with pytest.raises(AirflowSkipException):
        task.execute(context)
    state = read_state(run.lake, "fruits")
    assert state.published == published
    assert state.settled is not None
    assert (state.settled.run_id, state.settled.outcome) == (run.identity.run_id, "skipped")
