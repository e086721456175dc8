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
from fruits_airflow.emr import clusters
from fruits_airflow.emr.clusters import LIVE_STATES, ClusterLifecycle
from fruits_airflow.emr.stage_steps import STAGES
from fruits_airflow.operators import emr
from fruits_airflow.operators.emr import TerminateClusterOperator
from fruits_airflow.operators.sensors import StepSensor
from fruits_airflow.runs import failures, report_task, verdict
from fruits_airflow.runs.assets import PUBLISHED as PUBLISHED_TABLES
from fruits_airflow.runs.notices import Notice
from fruits_airflow.runs.plan import RunPlan
from fruits_airflow.runs.preparation import plan_run
from fruits_airflow.runs.publication import PublicationState, read_state
from fruits_airflow.runs.report_task import report_run
from fruits_airflow.runs.run_context import RunContext
from fruits_airflow.runs.run_status import WORK_TASKS, failed_task, problems_of
from fruits_airflow.runs.verdict import judge_run
from fruits_airflow.storage.lake import Lake, run_key

from tests.plugins import laptop
from tests.plugins.airflow_context import context_of
from tests.plugins.measured import MEASURED, PUBLISHED, REFUSED, blank_record, measure, parsed
from tests.plugins.published import set_state

DONE = dict.fromkeys(WORK_TASKS, "success")


@pytest.fixture
def lake(run: RunContext) -> Lake:
    return run.lake


@pytest.fixture
def run_plan(plan: dict[str, Any]) -> RunPlan:
    return RunPlan.model_validate(plan)


def record(run: RunContext) -> dict[str, Any]:
    return run.lake.read_json(run_key(run.identity.run_id, "run.json")) or {}


def throttled(*_: object, **__: object) -> Any:
    raise ClientError({"Error": {"Code": "Throttling", "Message": "slow down"}}, "ListClusters")


def unplanned(run: RunContext) -> RunContext:
    return replace(run, plan=None, code_digest="")


def test_all_work_done_and_published_is_green(run: RunContext) -> None:
    measure(run)
    judge_run(run.settings, context_of(run, DONE))
    assert record(run)["state"] == "succeeded"
    published = read_state(run.lake, "fruits").published
    assert published is not None
    assert (published.run_id, published.code_digest) == (run.identity.run_id, "c0de")


@pytest.mark.parametrize("task", WORK_TASKS)
@pytest.mark.parametrize("state", ["failed", "upstream_failed", "skipped", "removed", None])
def test_no_task_may_be_anything_but_done(run_plan: RunPlan, task: str, state: str | None) -> None:
    assert problems_of({**DONE, task: state}, parsed(), run_plan) == [f"{task} is {state}"]


def test_the_task_whose_log_has_the_cause_is_the_first_that_failed() -> None:
    states = {**DONE, "featurize.wait": "failed", "reduce_pca.add": "upstream_failed"}
    assert failed_task(states) == "featurize.wait"
    assert failed_task(DONE) == "verdict"


def test_the_cause_comes_before_its_consequences(run_plan: RunPlan) -> None:
    failure = {"stage": "featurize", "cause": "ERROR WeightsMismatch: x"}
    problems = problems_of(
        {**DONE, "featurize.wait": "failed", "publish.wait": "upstream_failed"}, {}, run_plan, failure
    )
    assert problems == ["featurize: ERROR WeightsMismatch: x", "featurize.wait is failed"], "not what only followed"
    problems = problems_of({**DONE, "publish.wait": "failed"}, parsed({"publish": REFUSED}), run_plan, failure)
    assert problems[0].startswith("the quality gate refused: reject_rate")


@pytest.mark.parametrize("marked", [*((stage,) for stage in STAGES), STAGES])
def test_a_run_whose_tasks_were_marked_done_by_hand_is_red(run: RunContext, marked: tuple[str, ...]) -> None:
    measure(run, {stage: metrics for stage, metrics in MEASURED.items() if stage not in marked})
    with pytest.raises(AirflowFailException, match=f"{', '.join(marked)} left no metrics"):
        judge_run(run.settings, context_of(run, DONE))
    assert record(run)["state"] == "failed"
    assert read_state(run.lake, "fruits").published is None


def test_a_plan_that_was_marked_done_by_hand_is_red(run: RunContext) -> None:
    measure(run)  # of an earlier attempt
    with pytest.raises(AirflowFailException, match="plan has planned nothing"):
        judge_run(run.settings, context_of(unplanned(run), DONE))
    assert record(run)["state"] == "failed"


@pytest.mark.parametrize(
    ("counts", "green"),
    [
        ({"new": 3, "unchanged": 0, "loaded": 2, "rejected": 1}, True),
        ({"new": 0, "unchanged": 3, "loaded": 0, "rejected": 0}, True),  # done again after its commit
        ({"new": 1, "unchanged": 0, "loaded": 1, "rejected": 0, "suppressed": 2}, True),  # erased
        ({"new": 2, "unchanged": 0, "loaded": 2, "rejected": 0}, False),
        ({"new": 4, "unchanged": 0, "loaded": 4, "rejected": 0}, False),
        ({}, False),
    ],
)
def test_every_photo_that_was_listed_must_have_become_something(
    run_plan: RunPlan, counts: dict[str, int], green: bool
) -> None:
    problems = problems_of(DONE, parsed(MEASURED | {"load_images": {"images": counts}}), run_plan)
    assert problems == [] if green else ["and plan has listed 3" in problem for problem in problems] == [True]


def test_a_run_whose_tasks_were_marked_failed_by_hand_is_red(run: RunContext) -> None:
    measure(run)
    with pytest.raises(AirflowFailException, match=r"featurize\.wait is failed"):
        judge_run(run.settings, context_of(run, DONE | {"featurize.wait": "failed"}))
    assert record(run)["state"] == "failed"
    assert read_state(run.lake, "fruits").published is None


def test_a_task_without_a_state_is_not_done(run: RunContext) -> None:
    measure(run)
    states = {task: state for task, state in DONE.items() if task != "publish.wait"}
    with pytest.raises(AirflowFailException, match=r"publish\.wait is None"):
        judge_run(run.settings, context_of(run, states))


def test_a_refusing_gate_is_red_and_remembered(run: RunContext) -> None:
    before = PublicationState(published=None)
    set_state(run.lake, "fruits", before)
    measure(run, MEASURED | {"publish": REFUSED})
    with pytest.raises(AirflowFailException, match="reject_rate"):
        judge_run(run.settings, context_of(run, DONE | {"publish.wait": "failed"}))
    state = read_state(run.lake, "fruits")
    assert state.published is None
    assert state.gate_failed is not None


@pytest.mark.parametrize("published", [PUBLISHED, REFUSED])
def test_an_edited_plan_is_red_and_its_fingerprint_is_not_published(run: RunContext, published: dict[str, Any]) -> None:
    """It would have the next nights take for published, or for refused by the gate, what they were to do."""
    before = PublicationState(published=replace(run.plan.fingerprint, run_id="before", listing_digest="old"))
    set_state(run.lake, "fruits", before)
    measure(run, MEASURED | {"publish": published})
    edited = replace(run.plan.fingerprint, listing_digest="tomorrow's")
    run = replace(run, plan=run.plan.model_copy(update={"fingerprint": edited, "forecast_eur": 99.0}))
    with pytest.raises(AirflowFailException, match="has a person edited it"):
        judge_run(run.settings, context_of(run, DONE))
    assert read_state(run.lake, "fruits") == before


@pytest.mark.parametrize("published", [PUBLISHED, REFUSED])
def test_an_old_run_judged_again_does_not_undo_a_later_publication(run: RunContext, published: dict[str, Any]) -> None:
    later = replace(run.plan.fingerprint, run_id="manual__later")
    set_state(run.lake, "fruits", PublicationState(published=later))
    measure(run, MEASURED | {"publish": published})
    with suppress(AirflowFailException):
        judge_run(run.settings, context_of(run, DONE))
    assert read_state(run.lake, "fruits") == PublicationState(published=later)


@pytest.mark.parametrize("published", [PUBLISHED, REFUSED])
def test_a_verdict_that_is_overtaken_while_it_judges_undoes_nothing(
    run: RunContext, published: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = run.plan.fingerprint
    later = PublicationState(published=replace(begun, run_id="manual__later"))
    set_state(run.lake, "fruits", PublicationState(begun=begun))
    real = verdict.require_not_overtaken

    def then_another_publishes(state: PublicationState, run_id: str) -> None:
        real(state, run_id)
        set_state(run.lake, "fruits", later)

    monkeypatch.setattr(verdict, "require_not_overtaken", then_another_publishes)
    measure(run, MEASURED | {"publish": published})
    with suppress(AirflowFailException):
        judge_run(run.settings, context_of(run, DONE))
    assert read_state(run.lake, "fruits") == later


def test_what_a_stage_failed_of_is_in_the_record(run: RunContext) -> None:
    run.journal.note("last_failure", stage="featurize", cause="ERROR WeightsMismatch: x")
    with pytest.raises(AirflowFailException, match="featurize: ERROR WeightsMismatch"):
        judge_run(run.settings, context_of(run, DONE | {"featurize.wait": "failed"}))


def test_a_cluster_made_after_the_teardown_is_ended_by_the_verdict(run: RunContext) -> None:
    measure(run)
    late = run.find_or_create().job_flow_id
    judge_run(run.settings, context_of(run, DONE))
    assert clusters.describe_cluster(run.client, late).state == "TERMINATED"
    assert record(run)["cluster"]["state"] == "TERMINATED"
    assert run.lake.read(run_key(run.identity.run_id, "report.html")) is not None


def test_a_run_whose_report_was_skipped_by_hand_gets_one_from_the_verdict(run: RunContext) -> None:
    with pytest.raises(AirflowFailException):
        judge_run(run.settings, context_of(run, DONE | {"featurize.wait": "failed"}))
    assert run.lake.read(run_key(run.identity.run_id, "report.html")) is not None


def test_a_page_that_cannot_be_made_does_not_decide_the_run(run: RunContext, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> str:
        raise ValueError("no page")

    monkeypatch.setattr(report_task, "write_report", broken)
    measure(run)
    judge_run(run.settings, context_of(run, DONE))
    assert record(run)["state"] == "succeeded"


def test_a_cluster_that_cannot_be_seen_ended_turns_the_run_red(
    run: RunContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object, **__: object) -> None:
        raise TimeoutError("not seen ended: j-1")

    measure(run)
    with monkeypatch.context() as patch:
        patch.setattr(ClusterLifecycle, "end_all", never)
        with pytest.raises(TimeoutError, match="j-1"):
            judge_run(run.settings, context_of(run, DONE))
    assert record(run)["state"] == "failed"
    assert "j-1" in record(run)["reason"]


@pytest.mark.parametrize("decided", ["skipped", None])
def test_an_attempt_that_is_not_the_last_leaves_the_word_to_the_next(
    run: RunContext, notices: list[Notice], monkeypatch: pytest.MonkeyPatch, decided: str | None
) -> None:
    if decided:
        run.lake.write_json(run_key(run.identity.run_id, "run.json"), {"state": decided, "reason": "nothing to do"})
        context = context_of(unplanned(run), dict.fromkeys(WORK_TASKS, "skipped"))
    else:
        measure(run)
        context = context_of(run, DONE)
    context["ti"].max_tries = 1
    before = record(run)
    with monkeypatch.context() as patch:
        patch.setattr(ClusterLifecycle, "end_all", throttled)
        with pytest.raises(TimeoutError, match="Throttling"):
            judge_run(run.settings, context)
    assert (record(run), notices) == (before, [])
    context["ti"].try_number = 2
    judge_run(run.settings, context)
    assert record(run)["state"] == (decided or "succeeded")
    assert notices == []


def test_a_record_with_only_the_id_of_its_cluster_is_written_by_the_last_attempt_only(
    run: RunContext, notices: list[Notice], monkeypatch: pytest.MonkeyPatch
) -> None:
    measure(run)
    created = run.find_or_create()
    run.lifecycle.end_all(timeout_s=30)
    monkeypatch.setattr(RunContext, "history", throttled)
    context = context_of(run, DONE)
    context["ti"].max_tries = 1
    with pytest.raises(ClientError, match="Throttling"):
        judge_run(run.settings, context)
    assert (record(run), notices) == ({}, [])
    context["ti"].try_number = 2
    judge_run(run.settings, context)
    assert record(run)["state"] == "succeeded"
    cluster = record(run)["cluster"]
    assert (cluster["id"], cluster["name"], cluster["state"]) == (created.job_flow_id, created.name, None)


def test_a_plan_that_skipped_alone_is_green(run: RunContext) -> None:
    skipped = unplanned(run)
    run.lake.write_json(run_key(run.identity.run_id, "run.json"), {"state": "skipped", "reason": "nothing to do"})
    judge_run(run.settings, context_of(skipped, dict.fromkeys(WORK_TASKS, "skipped")))
    assert record(run)["state"] == "skipped"


def test_a_skipped_plan_beside_a_live_cluster_is_red(run: RunContext) -> None:
    run.lake.write_json(run_key(run.identity.run_id, "run.json"), {"state": "skipped", "reason": "nothing to do"})
    alive = run.find_or_create().job_flow_id
    with pytest.raises(AirflowFailException):
        judge_run(run.settings, context_of(unplanned(run), dict.fromkeys(WORK_TASKS, "skipped")))
    assert clusters.describe_cluster(run.client, alive).state not in LIVE_STATES
    assert record(run)["state"] == "failed"


def test_a_skipped_plan_that_was_marked_otherwise_is_red_in_the_record_too(run: RunContext) -> None:
    run.lake.write_json(run_key(run.identity.run_id, "run.json"), {"state": "skipped", "reason": "nothing to do"})
    states = {"plan": "failed"} | dict.fromkeys(WORK_TASKS[1:], "skipped")
    with pytest.raises(AirflowFailException, match="plan is failed"):
        judge_run(run.settings, context_of(unplanned(run), states))
    assert record(run)["state"] == "failed"


def test_a_refusal_stays_a_refusal_and_red(run: RunContext) -> None:
    run.lake.write_json(run_key(run.identity.run_id, "run.json"), {"state": "refused", "reason": "too dear"})
    states = {"plan": "failed"} | dict.fromkeys(WORK_TASKS[1:], "upstream_failed")
    with pytest.raises(AirflowFailException, match="refused: too dear"):
        judge_run(run.settings, context_of(unplanned(run), states))
    assert record(run)["state"] == "refused"


def test_a_plan_that_died_without_a_word_is_a_failure(run: RunContext) -> None:
    states = {"plan": "failed"} | dict.fromkeys(WORK_TASKS[1:], "upstream_failed")
    with pytest.raises(AirflowFailException, match="plan is failed"):
        judge_run(run.settings, context_of(unplanned(run), states))
    assert record(run)["state"] == "failed"


def test_a_refused_plan_says_so_in_the_record(run: RunContext) -> None:
    context = context_of(run)
    context["dag_run"].conf = {"limits": 3}
    with pytest.raises(AirflowFailException, match="limits"):
        plan_run(run.settings, context)
    assert record(run)["state"] == "refused"
    assert "limits" in record(run)["reason"]
    assert set(record(run)) == set(blank_record("r", "demo", "eu-west-1"))


def test_a_lake_that_is_not_there_is_refused_by_its_name(run: RunContext) -> None:
    settings = replace(run.settings, lake_bucket="nowhere")
    with pytest.raises(AirflowFailException, match=r"lake_bucket: cannot read 'nowhere'.*deploy include"):
        plan_run(settings, context_of(run))


def test_in_a_lake_outside_the_union_nothing_is_written(run: RunContext) -> None:
    name = f"london-{run.settings.deployment_id}"
    laptop.make_bucket(name, "eu-west-2")
    with pytest.raises(AirflowFailException, match=rf"lake_bucket '{name}'.*United Kingdom"):
        plan_run(replace(run.settings, lake_bucket=name), context_of(run))
    assert "Contents" not in laptop.client("s3").list_objects_v2(Bucket=name)


def test_a_stopped_run_has_a_page_that_says_why(run: RunContext) -> None:
    decided = blank_record(run.identity.run_id, "nightly", run.region) | {"state": "refused", "reason": "too dear"}
    run.lake.write_json(run_key(run.identity.run_id, "run.json"), decided)
    report_run(run.settings, context_of(unplanned(run)))
    page = run.lake.read(run_key(run.identity.run_id, "report.html")) or b""
    assert b"too dear" in page


def test_there_is_no_page_of_a_plan_that_died_without_a_word(run: RunContext) -> None:
    with pytest.raises(AirflowSkipException):
        report_run(run.settings, context_of(unplanned(run)))


def test_the_record_merges_what_each_stage_measured(make_run: Callable[..., RunContext]) -> None:
    run = make_run("manual__merged")
    loaded = {"seconds": 2, "images": {"loaded": 2, "rejected": 1}, "rejects_by_code": {"x": 1}}
    stages: dict[str, dict[str, Any]] = {
        "load_images": loaded,
        "featurize": {"seconds": 3, "features": {"rows": 2}, "bytes": {"features": 9}},
        "reduce_pca": {"seconds": 4, "drift": {"angle_degrees": 7.5, "new_basis": False}},
    }
    measure(run, MEASURED | stages)
    judge_run(run.settings, context_of(run, DONE))
    content = record(run)
    drift = {name: value for name, value in content["drift"].items() if value is not None}
    assert drift == {"angle_degrees": 7.5, "new_basis": False}
    nothing = dict.fromkeys(("unchanged", "removed", "suppressed"), 0)
    assert content["images"] == {"seen": 3, "new": 3, "loaded": 2, "rejected": 1, **nothing}
    assert content["rejects_by_code"] == {"x": 1}
    assert content["features"]["rows"] == 2
    assert content["features"]["weights"] == "path"
    assert content["bytes"] == {"input": 30, "pixels": 0, "features": 9, "pca": 0}
    assert content["seconds"]["featurize"] == 3
    assert set(content) == set(blank_record("r", "demo", "eu-west-1"))


# the lock of the database


@pytest.mark.parametrize("published", [PUBLISHED, REFUSED, None])
def test_the_verdict_gives_the_lock_back_however_the_run_ended(
    run: RunContext, published: dict[str, Any] | None
) -> None:
    run.lock("fruits").take(datetime.now(UTC) + timedelta(hours=1))
    if published:
        measure(run, MEASURED | {"publish": published})
    with suppress(AirflowFailException):
        judge_run(run.settings, context_of(run, DONE))
    assert run.lock("fruits").read() is None


# what an attempt cannot do


def denied_at(monkeypatch: pytest.MonkeyPatch, call: str, where: str) -> None:
    """One call of the lake is refused for some keys."""
    real = getattr(Lake, call)

    def refused(lake: Lake, key: str, *rest: Any) -> Any:
        if where in key:
            raise ClientError({"Error": {"Code": "AccessDenied", "Message": where}}, call)
        return real(lake, key, *rest)

    monkeypatch.setattr(Lake, call, refused)


@pytest.mark.parametrize(
    ("call", "where", "reason", "published"),
    [
        ("write_once", "state/fruits", "the state of fruits cannot be written: .*AccessDenied", False),
        ("remove_version", "locks/fruits", "the lock of fruits cannot be given back: .*AccessDenied", True),
        ("read_version", "stages/featurize", "the run's notes cannot be read: .*AccessDenied", False),
        ("read_version", "locks/fruits", "the lock of fruits cannot be read: .*AccessDenied", False),
    ],
)
def test_what_the_last_attempt_cannot_do_is_in_the_record_and_an_earlier_one_leaves_it_to_the_next(
    run: RunContext,
    notices: list[Notice],
    monkeypatch: pytest.MonkeyPatch,
    call: str,
    where: str,
    reason: str,
    published: bool,
) -> None:
    run.lock("fruits").take(datetime.now(UTC) + timedelta(hours=1))
    measure(run)
    context = context_of(run, DONE)
    report_run(run.settings, context)  # when all was well
    context["ti"].max_tries = 1
    with monkeypatch.context() as patch:
        denied_at(patch, call, where)
        with pytest.raises(ClientError, match="AccessDenied"):
            judge_run(run.settings, context)
        assert (record(run), notices) == ({}, [])
        context["ti"].try_number = 2
        with pytest.raises(AirflowFailException, match=reason):
            judge_run(run.settings, context)
    assert record(run)["state"] == "failed"
    assert "AccessDenied" in record(run)["reason"]
    assert [notice.anchor for notice in notices] == ["red-run"]
    assert not context["outlet_events"]
    page = run.lake.read(run_key(run.identity.run_id, "report.html")) or b""
    assert b"AccessDenied" in page
    assert (read_state(run.lake, "fruits").published is not None) == published
    judge_run(run.settings, context)  # cleared, once the role may do it
    assert record(run)["state"] == "succeeded"


def test_what_a_plan_has_decided_is_not_written_over_unread(
    run: RunContext, notices: list[Notice], monkeypatch: pytest.MonkeyPatch
) -> None:
    skipped, decision = unplanned(run), {"state": "skipped", "reason": "nothing new"}
    run.lake.write_json(run_key(run.identity.run_id, "run.json"), decision)
    context = context_of(skipped, dict.fromkeys(DONE, "skipped"))
    with monkeypatch.context() as patch:
        denied_at(patch, "read_version", "run.json")
        with pytest.raises(ClientError, match="AccessDenied"):
            judge_run(run.settings, context)
    assert record(run) == decision
    assert [notice.anchor for notice in notices] == ["red-run"]
    judge_run(run.settings, context)


@pytest.mark.parametrize("state", ["skipped", "refused"])
def test_a_stopped_run_whose_lock_stays_is_red_and_says_so(
    run: RunContext, monkeypatch: pytest.MonkeyPatch, state: str
) -> None:
    run.lock("fruits").take(datetime.now(UTC) + timedelta(hours=1))
    run.lake.write_json(run_key(run.identity.run_id, "run.json"), {"state": state, "reason": "as planned"})
    denied_at(monkeypatch, "remove_version", "locks/fruits")
    with pytest.raises(AirflowFailException, match="as planned; the lock of fruits"):
        judge_run(run.settings, context_of(unplanned(run), dict.fromkeys(WORK_TASKS, "skipped")))
    assert record(run)["state"] == "failed"


def test_a_page_that_cannot_be_looked_for_does_not_decide_the_run(
    run: RunContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    measure(run)
    denied_at(monkeypatch, "read_version", "report.html")
    judge_run(run.settings, context_of(run, DONE))
    assert record(run)["state"] == "succeeded"


@pytest.mark.parametrize("state", ["skipped", "refused", None])
def test_the_verdict_gives_the_lock_of_a_stopped_plan_back(run: RunContext, state: str | None) -> None:
    run.lock("fruits").take(datetime.now(UTC) + timedelta(hours=1))
    if state:
        run.lake.write_json(run_key(run.identity.run_id, "run.json"), {"state": state, "reason": "x"})
    with suppress(AirflowFailException):
        judge_run(run.settings, context_of(unplanned(run), dict.fromkeys(WORK_TASKS, "skipped")))
    assert run.lock("fruits").read() is None


def test_a_lock_that_the_cleared_run_has_asked_for_again_outlives_the_verdict_before(
    run: RunContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    later = datetime.now(UTC) + timedelta(hours=1)
    run.lock("fruits").take(later)
    measure(run)

    def cleared_meanwhile(*_: Any, **__: Any) -> list[Any]:
        run.lock("fruits").take(later)
        return []

    monkeypatch.setattr(ClusterLifecycle, "end_all", cleared_meanwhile)
    judge_run(run.settings, context_of(run, DONE))
    assert run.lock("fruits").read() is not None


def test_the_lock_stays_while_a_cluster_may_be_alive(run: RunContext, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object, **__: object) -> None:
        raise TimeoutError("not seen ended: j-1")

    run.lock("fruits").take(datetime.now(UTC) + timedelta(hours=1))
    with monkeypatch.context() as patch:
        patch.setattr(ClusterLifecycle, "end_all", never)
        with pytest.raises(TimeoutError):
            judge_run(run.settings, context_of(run, DONE))
    assert run.lock("fruits").read() is not None


# notices


@pytest.fixture
def notices(monkeypatch: pytest.MonkeyPatch) -> list[Notice]:
    notices: list[Notice] = []
    for module in (verdict, failures):
        monkeypatch.setattr(module, "notify", lambda _, notice: notices.append(notice))
    return notices


def test_a_publication_is_an_event_of_its_database_and_no_news_for_anybody(
    run: RunContext, notices: list[Notice]
) -> None:
    pca = {"pca": {"pca_id": "p1", "k": 2, "explained_variance": 0.9, "n": 3}}
    measure(run, MEASURED | {"reduce_pca": pca})
    context = context_of(run, DONE)
    judge_run(run.settings, context)
    ((asset, extra),) = context["outlet_events"][PUBLISHED_TABLES].events
    assert (asset.name, asset.uri) == ("fruits.current_pca", f"s3://{run.settings.lake_bucket}/tables/fruits.db")
    assert extra == {"run_id": run.identity.run_id, "pca_id": "p1", "rows": 3}
    assert notices == []
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
    run: RunContext, notices: list[Notice], states: dict[str, str], published: dict[str, Any] | None, anchor: str
) -> None:
    if published:
        measure(run, MEASURED | {"publish": published})
    context = context_of(run, states)
    with pytest.raises(AirflowFailException):
        judge_run(run.settings, context)
    assert [(notice.anchor, notice.run) for notice in notices] == [(anchor, run.identity)]
    assert notices[0].cause == record(run)["reason"]
    assert notices[0].cost_eur == record(run)["cost"]["estimate_eur"]
    assert not context["outlet_events"]
    assert read_state(run.lake, "fruits").settled is None


def test_a_resumed_run_that_finds_the_database_locked_says_so(
    make_run: Callable[..., RunContext], notices: list[Notice]
) -> None:
    run, other = make_run(), make_run("manual__other")
    measure(run, MEASURED | {"publish": REFUSED})  # of the attempt before
    other.lock("fruits").take(datetime.now(UTC) + timedelta(hours=1))
    wait = StepSensor(task_id="wait", settings=run.settings, stage="featurize", add_task_id="featurize.add")
    with pytest.raises(AirflowFailException, match="LockHeld"):
        wait.execute(context_of(run))
    with pytest.raises(AirflowFailException):
        judge_run(run.settings, context_of(run, DONE | {"featurize.wait": "failed"}))
    assert [notice.anchor for notice in notices] == ["lock-held"]
    assert "LockHeld: fruits is locked by fruits_pipeline run manual__other" in notices[0].cause


@pytest.mark.parametrize(
    ("reason", "anchor"), [("CostCeilingExceeded: too dear", "refused"), ("LockHeld: by x", "lock-held")]
)
def test_a_refusal_is_told(run: RunContext, notices: list[Notice], reason: str, anchor: str) -> None:
    run.lake.write_json(run_key(run.identity.run_id, "run.json"), {"state": "refused", "reason": reason})
    with pytest.raises(AirflowFailException):
        judge_run(run.settings, context_of(unplanned(run), dict.fromkeys(WORK_TASKS, "upstream_failed")))
    assert [(notice.anchor, notice.cause, notice.cost_eur) for notice in notices] == [(anchor, reason, 0.0)]


def test_a_night_with_nothing_to_do_is_no_event_and_no_news(run: RunContext, notices: list[Notice]) -> None:
    run.lake.write_json(run_key(run.identity.run_id, "run.json"), {"state": "skipped", "reason": "nothing to do"})
    context = context_of(unplanned(run), dict.fromkeys(WORK_TASKS, "skipped"))
    judge_run(run.settings, context)
    assert notices == []
    assert not context["outlet_events"]


def test_a_cluster_that_does_not_end_is_told(
    run: RunContext, notices: list[Notice], monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object, **__: object) -> None:
        raise TimeoutError("not seen ended: j-1")

    measure(run)
    report_run(run.settings, context_of(run, DONE))  # when all was well
    with monkeypatch.context() as patch:
        patch.setattr(ClusterLifecycle, "end_all", never)
        with pytest.raises(TimeoutError):
            judge_run(run.settings, context_of(run, DONE))
    assert [notice.anchor for notice in notices] == ["cluster-will-not-die"]
    assert "j-1" in notices[0].cause
    assert b"j-1" in (run.lake.read(run_key(run.identity.run_id, "report.html")) or b"")


@pytest.mark.parametrize(("max_tries", "expected"), [(0, ["red-run"]), (1, [])])
def test_a_run_that_cannot_be_judged_is_told_once(
    run: RunContext, notices: list[Notice], monkeypatch: pytest.MonkeyPatch, max_tries: int, expected: list[str]
) -> None:
    monkeypatch.setattr(Lake, "write_json", throttled)
    context = context_of(run, DONE)
    context["ti"].max_tries = max_tries
    with pytest.raises(ClientError):
        judge_run(run.settings, context)
    assert [notice.anchor for notice in notices] == expected
    assert all("Throttling" in notice.cause and notice.run == run.identity for notice in notices)


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
    run: RunContext, monkeypatch: pytest.MonkeyPatch, error: Exception, max_tries: int, expected: list[str]
) -> None:
    notices: list[Notice] = []

    def never(*_: object, **__: object) -> None:
        raise error

    context = context_of(run)
    context["ti"].max_tries = max_tries
    with monkeypatch.context() as patch:
        patch.setattr(emr, "notify", lambda _, notice: notices.append(notice))
        patch.setattr(ClusterLifecycle, "end_all", never)
        with pytest.raises(type(error), match="j-1"):
            TerminateClusterOperator(task_id="terminate_cluster", settings=run.settings).execute(context)
    assert [(notice.anchor, notice.run) for notice in notices] == [(anchor, run.identity) for anchor in expected]
    assert all("j-1" in notice.cause and notice.cost_eur == 0 for notice in notices)


def test_a_channel_that_fails_does_not_change_how_a_run_ends(run: RunContext, caplog: pytest.LogCaptureFixture) -> None:
    settings = replace(run.settings, notify="webhook", notify_conn_id="nowhere")
    with pytest.raises(AirflowFailException, match="featurize"):
        judge_run(settings, context_of(run, DONE | {"featurize.wait": "failed"}))
    assert record(run)["state"] == "failed"
    assert "A notice was not sent by webhook" in caplog.text
