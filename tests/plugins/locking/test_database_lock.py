"""A database has one writer: who gets its lock, who waits, who takes it over, and when it is released."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from airflow.providers.amazon.aws.hooks.emr import EmrHook
from botocore.exceptions import ClientError, EndpointConnectionError
from fruits_airflow.aws import clients
from fruits_airflow.aws.endpoints import EndpointLog
from fruits_airflow.config.errors import ConfigError, LockHeld, RunOvertaken
from fruits_airflow.config.settings import Settings
from fruits_airflow.emr.clusters import RunKey, describe_cluster
from fruits_airflow.locking.database_lock import DatabaseLock, LockRecord, take_all
from fruits_airflow.locking.lock_owners import open_lock
from fruits_airflow.runs.publication import Fingerprint, PublicationState
from fruits_airflow.runs.run_context import RunContext
from fruits_airflow.storage.lake import Lake

from tests.plugins import laptop
from tests.plugins.doubles import Double, KnownRuns
from tests.plugins.published import set_state

NIGHT, ERASURE = (RunKey("test", "fruits_pipeline", "n1"), RunKey("test", "erase_images", "e1"))
HOUR = timedelta(hours=1)


def now() -> datetime:
    return datetime.now(UTC)


@pytest.fixture
def lake(account: Settings) -> Lake:
    return Lake(laptop.client("s3"), account.lake_bucket)


Locks = Callable[..., DatabaseLock]


@pytest.fixture
def lock_of(lake: Lake) -> Locks:
    def lock(owner: RunKey, is_gone: Callable[[LockRecord], bool] = lambda _: False) -> DatabaseLock:
        return DatabaseLock(lake, "fruits", owner, "eu-west-1", is_gone)

    return lock


def test_the_second_run_learns_who_holds_the_lock(lock_of: Locks) -> None:
    lock_of(ERASURE).take(now() + HOUR)
    with pytest.raises(LockHeld, match="fruits is locked by erase_images run e1 of deployment test"):
        lock_of(NIGHT).take(now() + HOUR)


def test_the_object_contains_owner_and_deadline(lock_of: Locks, lake: Lake) -> None:
    until = now() + HOUR
    lock_of(NIGHT).take(until)
    note = lake.read_json("locks/fruits.json") or {}
    assert note["owner"] == {"deployment_id": "test", "dag_id": "fruits_pipeline", "run_id": "n1"}
    assert note["deadline"] == until.isoformat()


def test_of_many_concurrent_runs_one_gets_the_lock(lock_of: Locks) -> None:
    def take(number: int) -> bool:
        try:
            lock_of(RunKey("test", "fruits_pipeline", f"n{number}")).take(now() + HOUR)
        except LockHeld:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(take, range(24))) == 1


def test_a_retry_finds_its_lock_and_prolongs_it(lock_of: Locks) -> None:
    lock_of(NIGHT).take(now() + HOUR)
    taken, later = lock_of(NIGHT).read(), now() + 2 * HOUR
    lock_of(NIGHT).take(later)
    lock_of(NIGHT).take(now() + HOUR)
    record = lock_of(NIGHT).read()
    assert taken is not None
    assert record is not None
    assert record.deadline == later
    assert record.taken_at == taken.taken_at, "since when it has it, not since when it asked again"


def test_the_same_run_id_of_another_deployment_is_another_run(lock_of: Locks) -> None:
    lock_of(NIGHT).take(now() + HOUR)
    with pytest.raises(LockHeld):
        lock_of(replace(NIGHT, deployment_id="laptop")).take(now() + HOUR)


def test_a_lock_past_its_deadline_whose_owner_lives_stays(lock_of: Locks) -> None:
    lock_of(ERASURE).take(now() - HOUR)
    with pytest.raises(LockHeld):
        lock_of(NIGHT, is_gone=lambda _: False).take(now() + HOUR)


def test_a_lock_before_its_deadline_stays_though_its_owner_is_gone(lock_of: Locks) -> None:
    lock_of(ERASURE).take(now() + HOUR)
    with pytest.raises(LockHeld):
        lock_of(NIGHT, is_gone=lambda _: True).take(now() + HOUR)


def test_an_abandoned_lock_is_taken_over_and_the_log_says_from_whom(
    lock_of: Locks, caplog: pytest.LogCaptureFixture
) -> None:
    lock_of(ERASURE).take(now() - HOUR)
    lock_of(NIGHT, is_gone=lambda _: True).take(now() + HOUR)
    record = lock_of(NIGHT).read()
    assert record is not None
    assert record.owner == NIGHT
    assert "over from erase_images run e1" in caplog.text


def test_of_many_that_take_over_at_once_one_does(lock_of: Locks) -> None:
    lock_of(ERASURE).take(now() - HOUR)

    def take(number: int) -> bool:
        owner = RunKey("test", "fruits_pipeline", f"n{number}")
        try:
            lock_of(owner, is_gone=lambda _: True).take(now() + HOUR)
        except LockHeld:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(take, range(24))) == 1


def test_a_lock_is_taken_over_only_as_it_was_read(lock_of: Locks, lake: Lake) -> None:
    lock_of(ERASURE).take(now() - HOUR)

    def comes_back(_: LockRecord) -> bool:
        lock_of(ERASURE).take(now() + HOUR)
        return True

    with pytest.raises(LockHeld, match="erase_images"):
        lock_of(NIGHT, is_gone=comes_back).take(now() + HOUR)


@pytest.mark.parametrize("content", [b"{", b"{}", b"[]", b'{"owner": {}, "region": 1}'])
def test_an_object_that_is_not_a_lock_is_refused_with_the_remedy(lock_of: Locks, lake: Lake, content: bytes) -> None:
    lock = lock_of(NIGHT)
    lake.client.put_object(Bucket=lake.bucket, Key=lock.key, Body=content)
    with pytest.raises(ConfigError, match=r"locks/.*then remove it"):
        lock.take(now() + HOUR)


def release(lock: DatabaseLock) -> bool:
    return lock.release(lock.read())


def test_a_release_does_not_remove_a_lock_that_its_run_has_asked_for_again(lock_of: Locks) -> None:
    lock_of(NIGHT).take(now() + HOUR)
    record = lock_of(NIGHT).read()
    lock_of(NIGHT).take(now() + HOUR)  # cleared, and at work again
    assert not lock_of(NIGHT).release(record)
    assert lock_of(NIGHT).read() is not None


def test_it_is_released_by_its_owner_only(lock_of: Locks) -> None:
    lock_of(NIGHT).take(now() + HOUR)
    record = lock_of(NIGHT).read()
    assert not lock_of(ERASURE).release(record)
    assert lock_of(NIGHT).release(record)
    assert not lock_of(NIGHT).release(record)
    assert not lock_of(NIGHT).release(None)
    lock_of(ERASURE).take(now() + HOUR)


def test_a_lock_that_changes_hands_faster_than_it_can_be_read_is_held(lock_of: Locks, lake: Lake) -> None:
    def conflict(**_: Any) -> Any:
        raise ClientError({"Error": {"Code": "PreconditionFailed", "Message": "no"}}, "PutObject")

    busy = Lake(Double(lake.client, put_object=conflict), lake.bucket)
    with pytest.raises(LockHeld, match="changed hands 5 times"):
        replace(lock_of(NIGHT), lake=busy).take(now() + HOUR)


def test_a_release_does_not_remove_the_lock_of_who_took_over_meanwhile(
    lock_of: Locks, lake: Lake, caplog: pytest.LogCaptureFixture
) -> None:
    lock_of(NIGHT).take(now() - HOUR)
    record = lock_of(NIGHT).read()
    lock_of(ERASURE, is_gone=lambda _: True).take(now() + HOUR)
    assert not lock_of(NIGHT).release(record)
    assert "Released" not in caplog.text
    record = lock_of(ERASURE).read()
    assert record is not None
    assert record.owner == ERASURE


# who is gone


def test_a_holder_whose_run_is_alive_is_not_gone(run: RunContext) -> None:
    night, runs = run.identity, KnownRuns(alive={"n1"})
    holder = replace(night, run_id="n1")
    open_lock(run.settings, run.lake, holder, "fruits", run.region, runs).take(now() - HOUR)
    mine = open_lock(run.settings, run.lake, night, "fruits", run.region, runs)
    with pytest.raises(LockHeld):
        mine.take(now() + HOUR)
    runs.alive.clear()
    mine.take(now() + HOUR)


def test_a_holder_whose_cluster_is_alive_is_not_gone(make_run: Callable[..., RunContext]) -> None:
    holder, night = make_run("manual__holder"), make_run("manual__night")
    holder.find_or_create()
    record = holder.lock("fruits").read()
    assert record is not None
    holder.lake.write("locks/fruits.json", _expired(holder))
    with pytest.raises(LockHeld):
        night.lock("fruits").take(now() + HOUR)
    holder.lifecycle.end_all(timeout_s=30)
    night.lock("fruits").take(now() + HOUR)


def _expired(run: RunContext) -> bytes:
    note = run.lake.read_json("locks/fruits.json") or {}
    return json.dumps(note | {"deadline": (now() - HOUR).isoformat()}).encode()


# a run that makes a cluster


def test_a_run_with_a_cluster_holds_the_database(run: RunContext) -> None:
    cluster = run.find_or_create()
    record = run.lock("fruits").read()
    assert record is not None
    assert record.owner == run.identity
    deadline = describe_cluster(run.client, cluster.job_flow_id).deadline
    assert deadline is not None
    assert record.deadline > deadline


def test_a_resumed_run_makes_no_cluster_beside_another_writer(make_run: Callable[..., RunContext]) -> None:
    erasing, night = make_run("manual__erasure", dag_id="erase_images"), make_run("manual__night")
    erasing.lock("fruits").take(now() + HOUR)
    with pytest.raises(LockHeld):
        night.find_or_create()
    assert night.history() == []


def test_a_resumed_run_does_not_go_back_behind_a_later_one(run: RunContext) -> None:
    later = replace(run.plan.fingerprint, run_id="manual__later")
    for state in (PublicationState(begun=later), PublicationState(published=later)):
        set_state(run.lake, "fruits", state)
        with pytest.raises(RunOvertaken, match="manual__later"):
            run.find_or_create()
    assert run.history() == []


def test_a_resumed_run_goes_on_with_what_it_began(run: RunContext) -> None:
    begun, before = run.plan.fingerprint, Fingerprint("older", "l", "c", "m", "s")
    set_state(run.lake, "fruits", PublicationState(published=before, begun=begun))
    assert run.find_or_create().job_flow_id


def test_the_call_for_the_holders_cluster_is_logged_with_its_endpoint(
    make_run: Callable[..., RunContext], monkeypatch: pytest.MonkeyPatch
) -> None:
    called = EndpointLog()
    monkeypatch.setattr(clients, "CALLED", called)
    monkeypatch.setattr(EmrHook, "get_conn", lambda hook: hook.conn)  # one that nobody watches yet
    make_run("manual__gone").lock("fruits").take(now() - HOUR)
    make_run("manual__next").lock("fruits").take(now() + HOUR)
    assert [service for service, _ in called.seen] == ["emr"]


# several databases


def test_whoever_finds_one_of_two_locked_keeps_neither(make_run: Callable[..., RunContext]) -> None:
    erasing, demo = make_run("manual__erasure", dag_id="erase_images"), make_run("manual__demo")
    both = [erasing.lock(database) for database in ("fruits", "fruits_demo")]
    demo.lock("fruits_demo").take(now() + HOUR)
    with pytest.raises(LockHeld, match="fruits_demo is locked"):
        take_all(both, now() + HOUR)
    make_run("manual__night").lock("fruits").take(now() + HOUR)
    record = demo.lock("fruits_demo").read()
    assert record is not None
    assert record.owner == demo.identity


def test_whoever_cannot_ask_for_the_second_lock_keeps_the_first_no_longer(
    make_run: Callable[..., RunContext], monkeypatch: pytest.MonkeyPatch
) -> None:
    erasing, real = make_run("manual__erasure", dag_id="erase_images"), DatabaseLock.take

    def take(lock: DatabaseLock, until: datetime) -> None:
        if lock.database == "fruits_demo":
            raise EndpointConnectionError(endpoint_url="s3")
        real(lock, until)

    with monkeypatch.context() as patch:
        patch.setattr(DatabaseLock, "take", take)
        with pytest.raises(EndpointConnectionError):
            take_all([erasing.lock(database) for database in ("fruits", "fruits_demo")], now() + HOUR)
    make_run("manual__night").lock("fruits").take(now() + HOUR)


def test_two_that_name_the_same_databases_in_another_order_do_not_wait_for_each_other(
    make_run: Callable[..., RunContext], monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []
    real = DatabaseLock.take

    def take(lock: DatabaseLock, until: datetime) -> None:
        order.append(lock.database)
        real(lock, until)

    monkeypatch.setattr(DatabaseLock, "take", take)
    run = make_run()
    take_all([run.lock("b"), run.lock("a")], now() + HOUR)
    take_all([run.lock("a"), run.lock("b")], now() + HOUR)
    assert order == ["a", "b", "a", "b"]


def test_a_resumed_erasure_keeps_no_lock_while_it_may_not_go_on(make_run: Callable[..., RunContext]) -> None:
    erasing, demo = make_run("manual__erasure", dag_id="erase_images"), make_run("manual__demo")
    erasing = replace(erasing, plan=erasing.plan.model_copy(update={"locked_databases": ("fruits", "fruits_demo")}))
    erasing.keep(erasing.plan)
    demo.lock("fruits_demo").take(now() + HOUR)
    with pytest.raises(LockHeld):
        erasing.find_or_create()
    assert erasing.lock("fruits").read() is None
