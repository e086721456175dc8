"""How a run ends: in run.json, in the state of the database, and in the colour of the run."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException
from botocore.exceptions import ClientError
from fruits_airflow import clusters, operators, reporting, verdict
from fruits_airflow.assets import PUBLISHED as PUBLISHED_TABLES
from fruits_airflow.clusters import LIVE_STATES, ClusterDesk
from fruits_airflow.lake import Lake, run_key
from fruits_airflow.notices import Notice
from fruits_airflow.operators import TerminateClusterOperator
from fruits_airflow.outcome import WORK_TASKS, problems_of
from fruits_airflow.publication import Fingerprint, PublicationState, read_state
from fruits_airflow.reporting import report_run
from fruits_airflow.run_cluster import RunCluster
from fruits_airflow.run_control import plan_run
from fruits_airflow.run_record import blank_record
from fruits_airflow.sensors import StepSensor
from fruits_airflow.verdict import judge_run

from tests.plugins import laptop
from tests.plugins.airflow_context import context_of
from tests.plugins.published import set_state

DONE = dict.fromkeys(WORK_TASKS, "success")
PUBLISHED: dict[str, Any] = {"seconds": 1, "published": True, "quality": {"checks": {}}}
REFUSED = PUBLISHED | {
    "published": False,
    "quality": {"checks": {"reject_rate": {"ok": False, "value": 1, "limit": 0}}},
}


@pytest.fixture
def lake(run: RunCluster) -> Lake:
    return run.lake


def record(run: RunCluster) -> dict[str, Any]:
    return run.lake.read_json(run_key(run.identity.run_id, "run.json")) or {}


def throttled(*_: object, **__: object) -> Any:
    raise ClientError({"Error": {"Code": "Throttling", "Message": "slow down"}}, "ListClusters")


def stage(run: RunCluster, name: str, metrics: dict[str, Any]) -> None:
    run.lake.write_json(run_key(run.identity.run_id, f"stages/{name}.json"), metrics)


def unplanned(run: RunCluster) -> RunCluster:
    return RunCluster(run.settings, run.region, run.identity, {}, "", run.runs)


def test_all_work_done_and_published_is_green(run: RunCluster) -> None:
    stage(run, "publish", PUBLISHED)
    judge_run(run.settings, context_of(run, DONE))
    assert record(run)["state"] == "succeeded"
    published = read_state(run.lake, "fruits").published
    assert published is not None
    assert (published.run_id, published.code_digest) == (run.identity.run_id, "c0de")


@pytest.mark.parametrize("task", WORK_TASKS)
@pytest.mark.parametrize("state", ["failed", "upstream_failed", "skipped", "removed", None])
def test_no_task_may_be_anything_but_done(task: str, state: str | None) -> None:
    assert problems_of({**DONE, task: state}, {"publish": PUBLISHED}) == [f"{task} is {state}"]


def test_the_cause_comes_before_its_consequences() -> None:
    failure = {"stage": "featurize", "cause": "ERROR WeightsMismatch: x"}
    problems = problems_of(
        {**DONE, "featurize.wait": "failed", "publish.wait": "upstream_failed"}, {}, failure
    )
    assert problems[0] == "featurize: ERROR WeightsMismatch: x"
    assert problems_of({**DONE, "publish.wait": "failed"}, {"publish": REFUSED}, failure)[0].startswith(
        "the quality gate refused: reject_rate"
    )


def test_a_run_whose_tasks_were_marked_done_by_hand_is_red(run: RunCluster) -> None:
    with pytest.raises(AirflowFailException, match="nothing was published"):
        judge_run(run.settings, context_of(run, DONE))
    assert record(run)["state"] == "failed"
    assert read_state(run.lake, "fruits").published is None


def test_a_run_whose_tasks_were_marked_failed_by_hand_is_red(run: RunCluster) -> None:
    stage(run, "publish", PUBLISHED)
    with pytest.raises(AirflowFailException, match=r"featurize\.wait is failed"):
        judge_run(run.settings, context_of(run, DONE | {"featurize.wait": "failed"}))
    assert record(run)["state"] == "failed"
    assert read_state(run.lake, "fruits").published is None


def test_a_task_without_a_state_is_not_done(run: RunCluster) -> None:
    stage(run, "publish", PUBLISHED)
    states = {task: state for task, state in DONE.items() if task != "publish.wait"}
    with pytest.raises(AirflowFailException, match=r"publish\.wait is None"):
        judge_run(run.settings, context_of(run, states))


def test_a_refusing_gate_is_red_and_remembered(run: RunCluster) -> None:
    before = PublicationState(published=None)
    set_state(run.lake, "fruits", before)
    stage(run, "publish", REFUSED)
    with pytest.raises(AirflowFailException, match="reject_rate"):
        judge_run(run.settings, context_of(run, DONE | {"publish.wait": "failed"}))
    state = read_state(run.lake, "fruits")
    assert state.published is None
    assert state.gate_failed is not None


@pytest.mark.parametrize("published", [PUBLISHED, REFUSED])
def test_an_old_run_judged_again_does_not_undo_a_later_publication(
    run: RunCluster, published: dict[str, Any]
) -> None:
    later = Fingerprint(**{**run.plan["fingerprint"], "run_id": "manual__later"})
    set_state(run.lake, "fruits", PublicationState(published=later))
    stage(run, "publish", published)
    with suppress(AirflowFailException):
        judge_run(run.settings, context_of(run, DONE))
    assert read_state(run.lake, "fruits") == PublicationState(published=later)


@pytest.mark.parametrize("published", [PUBLISHED, REFUSED])
def test_a_verdict_that_is_overtaken_while_it_judges_undoes_nothing(
    run: RunCluster, published: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = Fingerprint(**run.plan["fingerprint"])
    later = PublicationState(published=replace(begun, run_id="manual__later"))
    set_state(run.lake, "fruits", PublicationState(begun=begun))
    real = verdict.require_not_overtaken

    def then_another_publishes(state: PublicationState, run_id: str) -> None:
        real(state, run_id)
        set_state(run.lake, "fruits", later)

    monkeypatch.setattr(verdict, "require_not_overtaken", then_another_publishes)
    stage(run, "publish", published)
    with suppress(AirflowFailException):
        judge_run(run.settings, context_of(run, DONE))
    assert read_state(run.lake, "fruits") == later


def test_what_a_stage_failed_of_is_in_the_record(run: RunCluster) -> None:
    run.journal.note("last_failure", stage="featurize", cause="ERROR WeightsMismatch: x")
    with pytest.raises(AirflowFailException, match="featurize: ERROR WeightsMismatch"):
        judge_run(run.settings, context_of(run, DONE | {"featurize.wait": "failed"}))


def test_a_cluster_made_after_the_teardown_is_ended_by_the_verdict(run: RunCluster) -> None:
    stage(run, "publish", PUBLISHED)
    late = run.adopt_or_create().job_flow_id
    judge_run(run.settings, context_of(run, DONE))
    assert clusters.describe(run.client, late).state == "TERMINATED"
    assert record(run)["cluster"]["state"] == "TERMINATED"
    assert run.lake.read(run_key(run.identity.run_id, "report.html")) is not None


def test_a_run_whose_report_was_skipped_by_hand_gets_one_from_the_verdict(run: RunCluster) -> None:
    with pytest.raises(AirflowFailException):
        judge_run(run.settings, context_of(run, DONE | {"featurize.wait": "failed"}))
    assert run.lake.read(run_key(run.identity.run_id, "report.html")) is not None


def test_a_page_that_cannot_be_made_does_not_decide_the_run(
    run: RunCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> str:
        raise ValueError("no page")

    monkeypatch.setattr(reporting, "write_report", broken)
    stage(run, "publish", PUBLISHED)
    judge_run(run.settings, context_of(run, DONE))
    assert record(run)["state"] == "succeeded"


def test_a_cluster_that_cannot_be_seen_ended_turns_the_run_red(
    run: RunCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object, **__: object) -> None:
        raise TimeoutError("not seen ended: j-1")

    stage(run, "publish", PUBLISHED)
    with monkeypatch.context() as patch:
        patch.setattr(ClusterDesk, "end_all", never)
        with pytest.raises(TimeoutError, match="j-1"):
            judge_run(run.settings, context_of(run, DONE))
    assert record(run)["state"] == "failed"
    assert "j-1" in record(run)["reason"]


@pytest.mark.parametrize("decided", ["skipped", None])
def test_an_attempt_that_is_not_the_last_leaves_the_word_to_the_next(
    run: RunCluster, told: list[Notice], monkeypatch: pytest.MonkeyPatch, decided: str | None
) -> None:
    if decided:
        run.lake.write_json(
            run_key(run.identity.run_id, "run.json"), {"state": decided, "reason": "nothing to do"}
        )
        context = context_of(unplanned(run), dict.fromkeys(WORK_TASKS, "skipped"))
    else:
        stage(run, "publish", PUBLISHED)
        context = context_of(run, DONE)
    context["ti"].max_tries = 1
    before = record(run)
    with monkeypatch.context() as patch:
        patch.setattr(ClusterDesk, "end_all", throttled)
        with pytest.raises(TimeoutError, match="Throttling"):
            judge_run(run.settings, context)
    assert (record(run), told) == (before, [])
    context["ti"].try_number = 2
    judge_run(run.settings, context)
    assert record(run)["state"] == (decided or "succeeded")
    assert told == []


def test_a_record_without_its_cluster_is_written_by_the_last_attempt_only(
    run: RunCluster, told: list[Notice], monkeypatch: pytest.MonkeyPatch
) -> None:
    stage(run, "publish", PUBLISHED)
    monkeypatch.setattr(RunCluster, "history", throttled)
    context = context_of(run, DONE)
    context["ti"].max_tries = 1
    with pytest.raises(ClientError, match="Throttling"):
        judge_run(run.settings, context)
    assert (record(run), told) == ({}, [])
    context["ti"].try_number = 2
    judge_run(run.settings, context)
    assert record(run)["state"] == "succeeded"
    assert record(run)["cluster"]["id"] is None


def test_a_plan_that_skipped_alone_is_green(run: RunCluster) -> None:
    skipped = unplanned(run)
    run.lake.write_json(
        run_key(run.identity.run_id, "run.json"), {"state": "skipped", "reason": "nothing to do"}
    )
    judge_run(run.settings, context_of(skipped, dict.fromkeys(WORK_TASKS, "skipped")))
    assert record(run)["state"] == "skipped"


def test_a_skipped_plan_beside_a_live_cluster_is_red(run: RunCluster) -> None:
    run.lake.write_json(
        run_key(run.identity.run_id, "run.json"), {"state": "skipped", "reason": "nothing to do"}
    )
    alive = run.adopt_or_create().job_flow_id
    with pytest.raises(AirflowFailException):
        judge_run(run.settings, context_of(unplanned(run), dict.fromkeys(WORK_TASKS, "skipped")))
    assert clusters.describe(run.client, alive).state not in LIVE_STATES
    assert record(run)["state"] == "failed"


def test_a_refusal_stays_a_refusal_and_red(run: RunCluster) -> None:
    run.lake.write_json(run_key(run.identity.run_id, "run.json"), {"state": "refused", "reason": "too dear"})
    states = {"plan": "failed"} | dict.fromkeys(WORK_TASKS[1:], "upstream_failed")
    with pytest.raises(AirflowFailException, match="refused: too dear"):
        judge_run(run.settings, context_of(unplanned(run), states))
    assert record(run)["state"] == "refused"


def test_a_plan_that_died_without_a_word_is_a_failure(run: RunCluster) -> None:
    states = {"plan": "failed"} | dict.fromkeys(WORK_TASKS[1:], "upstream_failed")
    with pytest.raises(AirflowFailException, match="plan is failed"):
        judge_run(run.settings, context_of(unplanned(run), states))
    assert record(run)["state"] == "failed"


def test_a_refused_plan_says_so_in_the_record(run: RunCluster) -> None:
    context = context_of(run)
    context["dag_run"].conf = {"limits": 3}
    with pytest.raises(AirflowFailException, match="limits"):
        plan_run(run.settings, context)
    assert record(run)["state"] == "refused"
    assert "limits" in record(run)["reason"]
    assert set(record(run)) == set(blank_record("r", "demo", "eu-west-1"))


def test_a_lake_that_is_not_there_is_refused_by_its_name(run: RunCluster) -> None:
    settings = replace(run.settings, lake_bucket="nowhere")
    with pytest.raises(AirflowFailException, match=r"lake_bucket: cannot read 'nowhere'.*deploy include"):
        plan_run(settings, context_of(run))


def test_in_a_lake_outside_the_union_nothing_is_written(run: RunCluster) -> None:
    name = f"london-{run.settings.deployment_id}"
    laptop.make_bucket(name, "eu-west-2")
    with pytest.raises(AirflowFailException, match=rf"lake_bucket '{name}'.*United Kingdom"):
        plan_run(replace(run.settings, lake_bucket=name), context_of(run))
    assert "Contents" not in laptop.client("s3").list_objects_v2(Bucket=name)


def test_a_stopped_run_has_a_page_that_says_why(run: RunCluster) -> None:
    decided = blank_record(run.identity.run_id, "nightly", run.region) | {
        "state": "refused",
        "reason": "too dear",
    }
    run.lake.write_json(run_key(run.identity.run_id, "run.json"), decided)
    report_run(run.settings, context_of(unplanned(run)))
    page = run.lake.read(run_key(run.identity.run_id, "report.html")) or b""
    assert b"too dear" in page


def test_there_is_no_page_of_a_plan_that_died_without_a_word(run: RunCluster) -> None:
    with pytest.raises(AirflowSkipException):
        report_run(run.settings, context_of(unplanned(run)))


def test_the_record_merges_what_each_stage_measured(make_run: Callable[..., RunCluster]) -> None:
    run = make_run("manual__merged")
    stage(
        run,
        "load_images",
        {"seconds": 2, "images": {"loaded": 2, "rejected": 1}, "rejects_by_code": {"x": 1}},
    )
    stage(run, "featurize", {"seconds": 3, "features": {"rows": 2}, "bytes": {"features": 9}})
    stage(run, "reduce_pca", {"seconds": 4, "drift": {"angle_degrees": 7.5, "new_basis": False}})
    stage(run, "publish", PUBLISHED)
    judge_run(run.settings, context_of(run, DONE))
    found = record(run)
    assert found["drift"] == {"angle_degrees": 7.5, "new_basis": False}
    assert found["images"] == {"seen": 3, "new": 3, "unchanged": 0, "removed": 0, "loaded": 2, "rejected": 1}
    assert found["rejects_by_code"] == {"x": 1}
    assert found["features"]["rows"] == 2
    assert found["features"]["weights"] == "path"
    assert found["bytes"] == {"input": 30, "pixels": 0, "features": 9, "pca": 0}
    assert found["seconds"]["featurize"] == 3
    assert set(found) == set(blank_record("r", "demo", "eu-west-1"))


# the lock of the database


@pytest.mark.parametrize("published", [PUBLISHED, REFUSED, None])
def test_the_verdict_gives_the_lock_back_however_the_run_ended(
    run: RunCluster, published: dict[str, Any] | None
) -> None:
    run.lock("fruits").take(datetime.now(UTC) + timedelta(hours=1))
    if published:
        stage(run, "publish", published)
    with suppress(AirflowFailException):
        judge_run(run.settings, context_of(run, DONE))
    assert run.lock("fruits").holding() is None


@pytest.mark.parametrize("state", ["skipped", "refused", None])
def test_the_verdict_gives_the_lock_of_a_stopped_plan_back(run: RunCluster, state: str | None) -> None:
    run.lock("fruits").take(datetime.now(UTC) + timedelta(hours=1))
    if state:
        run.lake.write_json(run_key(run.identity.run_id, "run.json"), {"state": state, "reason": "x"})
    with suppress(AirflowFailException):
        judge_run(run.settings, context_of(unplanned(run), dict.fromkeys(WORK_TASKS, "skipped")))
    assert run.lock("fruits").holding() is None


def test_the_lock_stays_while_a_cluster_may_be_alive(
    run: RunCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object, **__: object) -> None:
        raise TimeoutError("not seen ended: j-1")

    run.lock("fruits").take(datetime.now(UTC) + timedelta(hours=1))
    with monkeypatch.context() as patch:
        patch.setattr(ClusterDesk, "end_all", never)
        with pytest.raises(TimeoutError):
            judge_run(run.settings, context_of(run, DONE))
    assert run.lock("fruits").holding() is not None


# who is told


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[Notice]:
    notices: list[Notice] = []
    monkeypatch.setattr(verdict, "tell", lambda _, notice: notices.append(notice))
    return notices


def test_a_publication_is_an_event_of_its_database_and_no_news_for_anybody(
    run: RunCluster, told: list[Notice]
) -> None:
    stage(run, "reduce_pca", {"pca": {"pca_id": "p1", "k": 2, "explained_variance": 0.9, "n": 3}})
    stage(run, "publish", PUBLISHED)
    context = context_of(run, DONE)
    judge_run(run.settings, context)
    ((asset, extra),) = context["outlet_events"][PUBLISHED_TABLES].events
    assert (asset.name, asset.uri) == (
        "fruits.current_pca",
        f"s3://{run.settings.lake_bucket}/tables/fruits.db",
    )
    assert extra == {"run_id": run.identity.run_id, "pca_id": "p1", "rows": 3}
    assert told == []
    settled = read_state(run.lake, "fruits").settled
    assert settled is not None
    assert (settled.run_id, settled.outcome) == (run.identity.run_id, "succeeded")


@pytest.mark.parametrize(
    ("states", "published", "anchor"),
    [
        (DONE | {"featurize.wait": "failed"}, None, "red-run"),
        (DONE | {"publish.wait": "failed"}, REFUSED, "gate-failed"),
        (DONE, None, "red-run"),
    ],
)
def test_a_red_run_is_told_and_is_no_event(
    run: RunCluster, told: list[Notice], states: dict[str, str], published: dict[str, Any] | None, anchor: str
) -> None:
    if published:
        stage(run, "publish", published)
    context = context_of(run, states)
    with pytest.raises(AirflowFailException):
        judge_run(run.settings, context)
    assert [(notice.anchor, notice.run) for notice in told] == [(anchor, run.identity)]
    assert told[0].cause == record(run)["reason"]
    assert told[0].cost_eur == record(run)["cost"]["estimate_eur"]
    assert not context["outlet_events"]
    assert read_state(run.lake, "fruits").settled is None


def test_a_resumed_run_that_finds_the_database_locked_says_so(
    make_run: Callable[..., RunCluster], told: list[Notice]
) -> None:
    run, other = make_run(), make_run("manual__other")
    stage(run, "publish", REFUSED)  # of the attempt before
    other.lock("fruits").take(datetime.now(UTC) + timedelta(hours=1))
    wait = StepSensor(task_id="wait", settings=run.settings, stage="featurize", add_task_id="featurize.add")
    with pytest.raises(AirflowFailException, match="LockHeld"):
        wait.execute(context_of(run))
    with pytest.raises(AirflowFailException):
        judge_run(run.settings, context_of(run, DONE | {"featurize.wait": "failed"}))
    assert [notice.anchor for notice in told] == ["lock-held"]
    assert "LockHeld: fruits is locked by fruits_pipeline run manual__other" in told[0].cause


@pytest.mark.parametrize(
    ("reason", "anchor"), [("CostCeilingExceeded: too dear", "refused"), ("LockHeld: by x", "lock-held")]
)
def test_a_refusal_is_told(run: RunCluster, told: list[Notice], reason: str, anchor: str) -> None:
    run.lake.write_json(run_key(run.identity.run_id, "run.json"), {"state": "refused", "reason": reason})
    with pytest.raises(AirflowFailException):
        judge_run(run.settings, context_of(unplanned(run), dict.fromkeys(WORK_TASKS, "upstream_failed")))
    assert [(notice.anchor, notice.cause, notice.cost_eur) for notice in told] == [(anchor, reason, 0.0)]


def test_a_night_with_nothing_to_do_is_no_event_and_no_news(run: RunCluster, told: list[Notice]) -> None:
    run.lake.write_json(
        run_key(run.identity.run_id, "run.json"), {"state": "skipped", "reason": "nothing to do"}
    )
    context = context_of(unplanned(run), dict.fromkeys(WORK_TASKS, "skipped"))
    judge_run(run.settings, context)
    assert told == []
    assert not context["outlet_events"]


def test_a_cluster_that_does_not_end_is_told(
    run: RunCluster, told: list[Notice], monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object, **__: object) -> None:
        raise TimeoutError("not seen ended: j-1")

    with monkeypatch.context() as patch:
        patch.setattr(ClusterDesk, "end_all", never)
        with pytest.raises(TimeoutError):
            judge_run(run.settings, context_of(run, DONE))
    assert [notice.anchor for notice in told] == ["cluster-will-not-die"]
    assert "j-1" in told[0].cause


@pytest.mark.parametrize(("max_tries", "expected"), [(0, ["red-run"]), (1, [])])
def test_a_run_that_cannot_be_judged_is_told_once(
    run: RunCluster,
    told: list[Notice],
    monkeypatch: pytest.MonkeyPatch,
    max_tries: int,
    expected: list[str],
) -> None:
    monkeypatch.setattr(verdict, "read_stages", throttled)
    context = context_of(run, DONE)
    context["ti"].max_tries = max_tries
    with pytest.raises(ClientError):
        judge_run(run.settings, context)
    assert [notice.anchor for notice in told] == expected
    assert all("Throttling" in notice.cause and notice.run == run.identity for notice in told)


@pytest.mark.parametrize(
    ("error", "max_tries", "expected"),
    [
        (TimeoutError("not seen ended: j-1"), 8, ["cluster-will-not-die"]),
        (ClientError({"Error": {"Code": "Throttling", "Message": "j-1"}}, "ListClusters"), 8, []),
        (
            ClientError({"Error": {"Code": "AccessDenied", "Message": "j-1"}}, "ListClusters"),
            0,
            ["cluster-will-not-die"],
        ),
    ],
)
def test_a_teardown_tells_of_a_cluster_that_has_had_its_time_or_that_nobody_will_try_to_end_again(
    run: RunCluster, monkeypatch: pytest.MonkeyPatch, error: Exception, max_tries: int, expected: list[str]
) -> None:
    told: list[Notice] = []

    def never(*_: object, **__: object) -> None:
        raise error

    context = context_of(run)
    context["ti"].max_tries = max_tries
    with monkeypatch.context() as patch:
        patch.setattr(operators, "tell", lambda _, notice: told.append(notice))
        patch.setattr(ClusterDesk, "end_all", never)
        with pytest.raises(type(error), match="j-1"):
            TerminateClusterOperator(task_id="terminate_cluster", settings=run.settings).execute(context)
    assert [(notice.anchor, notice.run) for notice in told] == [(anchor, run.identity) for anchor in expected]
    assert all("j-1" in notice.cause and notice.cost_eur == 0 for notice in told)


def test_a_channel_that_fails_does_not_change_how_a_run_ends(
    run: RunCluster, caplog: pytest.LogCaptureFixture
) -> None:
    settings = replace(run.settings, notify="webhook", notify_conn_id="nowhere")
    with pytest.raises(AirflowFailException, match="featurize"):
        judge_run(settings, context_of(run, DONE | {"featurize.wait": "failed"}))
    assert record(run)["state"] == "failed"
    assert "A notice was not sent by webhook" in caplog.text
