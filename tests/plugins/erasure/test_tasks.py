"""The tasks of an erasure: locks, order, receipt, verdict; without Spark, which tests/dags and tests/e2e have."""

from __future__ import annotations

import gzip
import io
import resource
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from airflow.sdk.exceptions import AirflowFailException, TaskDeferred
from botocore.exceptions import ClientError
from fruits_airflow.config.errors import (
    ConfigError,
    CostCeilingExceeded,
    ErasureIncomplete,
    ErasureRefused,
    LockHeld,
    ResidencyError,
    RunOvertaken,
)
from fruits_airflow.config.settings import Settings
from fruits_airflow.emr.clusters import RunKey
from fruits_airflow.emr.stage_steps import ERASURE_STAGES, step_for
from fruits_airflow.erasure import plan as erasure_plan
from fruits_airflow.erasure import stored_content, verdict
from fruits_airflow.erasure.plan import plan_erasure
from fruits_airflow.erasure.request import parameter_schemas, read_suppressed, suppression_key
from fruits_airflow.erasure.tasks import erase_exports, erase_photos, write_receipt
from fruits_airflow.erasure.verdict import WORK_TASKS, judge_erasure
from fruits_airflow.locking.database_lock import DatabaseLock
from fruits_airflow.operators.erasure_plan import ErasurePlanOperator
from fruits_airflow.report.archive import RunArchive
from fruits_airflow.runs import failures
from fruits_airflow.runs.notices import Notice
from fruits_airflow.runs.publication import Fingerprint, PublicationState, read_state
from fruits_airflow.runs.run_context import RunContext
from fruits_airflow.storage.lake import Lake, erasure_key
from fruits_airflow.storage.object_versions import image_id_of, list_versions
from fruits_airflow.storage.run_notes import LAST_FAILURE

from tests.plugins import laptop
from tests.plugins.airflow_context import context_of
from tests.plugins.erasure.test_request import ID, KEY, leave_traces, place
from tests.plugins.published import set_state
from tests.plugins.searching import find_everywhere

__all__ = ["place"]  # the fixture

ERASURE = "manual__erasure"
ALL_DONE = dict.fromkeys(WORK_TASKS, "success")


@pytest.fixture
def task(make_run: Callable[..., RunContext], place: Any) -> Callable[..., Any]:
    """Makes the context of a task of the erasure."""
    run = make_run(ERASURE, dag_id="erase_images")

    def make(states: dict[str, str] | None = None, **params: Any) -> Any:
        defaults = {name: schema["default"] for name, schema in parameter_schemas().items()}
        context = context_of(run, states, **defaults | params)
        context["ti"].xcoms["plan"] = None
        return context

    return make


def carry_out(settings: Settings, context: Any, without: str = "") -> Any:
    """Plans and does the work of an erasure; the steps only say that they have. Returns what the exports came to."""
    plan = context["ti"].xcoms["plan"] = plan_erasure(settings, context)
    lake = Lake(laptop.client("s3"), settings.lake_bucket)
    for stage, database in ERASURE_STAGES.items():
        if stage != without:
            lake.write_json(metrics_key(plan[database]), {"rows": {}})
    exports = erase_exports(settings, context) if without != "erase_exports" else None
    if without != "erase_photos":
        erase_photos(settings, context)
    return exports


def metrics_key(database: str) -> str:
    return erasure_key(ERASURE, f"{database}/stages/erase_images.json")


def lock_of(settings: Settings, database: str, run_id: str = "a-night") -> DatabaseLock:
    owner = RunKey(settings.deployment_id, "fruits_pipeline", run_id)
    return DatabaseLock(
        Lake(laptop.client("s3"), settings.lake_bucket), database, owner, settings.region, lambda _: False
    )


def test_the_plan_has_both_locks_and_no_key(account: Settings, task: Callable[..., Any]) -> None:
    plan = plan_erasure(account, task(keys=[KEY], expected_photos=2))
    holders = [lock_of(account, database).read() for database in plan["databases"]]
    assert [holder and holder.owner.dag_id for holder in holders] == ["erase_images", "erase_images", None], (
        "the third is the notebook's, which no run locks"
    )
    assert KEY not in str(plan)
    assert plan["photos"] == 2, "the photo, and the same bytes under another key"


@pytest.mark.parametrize("setting", ["raw_bucket", "lake_bucket"])
def test_a_bucket_outside_the_union_is_refused_and_nothing_is_begun(
    account: Settings, task: Callable[..., Any], setting: str
) -> None:
    name = f"london-{setting.replace('_', '-')}-{account.deployment_id}"
    laptop.make_bucket(name, "eu-west-2")
    moved = replace(account, **{setting: name})
    with pytest.raises(ResidencyError, match=rf"{setting} '{name}'.*United Kingdom"):
        plan_erasure(moved, task(keys=[KEY], expected_photos=2))
    lake = Lake(laptop.client("s3"), moved.lake_bucket)
    assert lake.read(suppression_key(ERASURE)) is None
    assert lock_of(moved, "fruits").read() is None


@pytest.mark.parametrize("database", ["fruits", "fruits_demo"])
def test_while_a_run_has_a_database_the_erasure_waits_and_then_works(
    account: Settings, task: Callable[..., Any], database: str
) -> None:
    night = lock_of(account, database)
    night.take(datetime.now(UTC) + timedelta(hours=1))
    operator = ErasurePlanOperator(task_id="plan", settings=account)
    with pytest.raises(TaskDeferred) as deferred:
        operator.execute(task(keys=[KEY], expected_photos=2))
    lake = Lake(laptop.client("s3"), account.lake_bucket)
    assert lake.read(suppression_key(ERASURE)) is None, "what runs now had listed the photo: nothing is half done"
    night.release(night.read())
    again = getattr(operator, deferred.value.method_name)
    assert again(task(keys=[KEY], expected_photos=2), **deferred.value.kwargs)["photos"] == 2


def test_a_database_that_never_becomes_free_is_told(
    account: Settings, task: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    lock_of(account, "fruits").take(datetime.now(UTC) + timedelta(hours=1))
    operator = ErasurePlanOperator(task_id="plan", settings=account)
    with pytest.raises(AirflowFailException, match="fruits is locked by.*nothing is erased yet"):
        operator.execute_again(task(keys=[KEY], expected_photos=2), since=0.0)
    notices: list[Notice] = []
    monkeypatch.setattr(verdict, "notify", lambda _, notice: notices.append(notice))
    with pytest.raises(AirflowFailException, match="not everything is erased: plan: LockHeld: fruits is locked by"):
        judge_erasure(account, task(ALL_DONE | {"plan": "failed"}))
    assert [notice.anchor for notice in notices] == ["lock-held"]


def test_what_aws_owes_to_the_last_attempt_of_the_plan_is_in_the_verdict(
    account: Settings, task: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def throttled(*_: Any, **__: Any) -> Any:
        raise ClientError({"Error": {"Code": "SlowDown", "Message": "reduce your rate"}}, "ListObjectsV2")

    monkeypatch.setattr(erasure_plan, "resolve", throttled)
    with pytest.raises(ClientError):
        ErasurePlanOperator(task_id="plan", settings=account).execute(task(keys=[KEY], expected_photos=2))
    with pytest.raises(AirflowFailException, match="plan: ClientError: .*SlowDown.*; plan is failed"):
        judge_erasure(account, task(ALL_DONE | {"plan": "failed"}))


def test_the_words_of_a_refused_parameter_stay_out_of_the_lake(account: Settings, task: Callable[..., Any]) -> None:
    context = task(image_ids=[KEY])
    with pytest.raises(AirflowFailException, match=r"ConfigError: params.image_ids\[0\]: violates pattern") as refused:
        ErasurePlanOperator(task_id="plan", settings=account).execute(context)
    assert KEY not in str(refused.value)
    assert RunContext.of(context, account).journal.read(LAST_FAILURE) is None


def test_while_it_waits_for_the_second_database_the_night_may_have_the_first(
    account: Settings, task: Callable[..., Any]
) -> None:
    lock_of(account, "fruits_demo", "a-demo").take(datetime.now(UTC) + timedelta(hours=1))
    with pytest.raises(TaskDeferred):
        ErasurePlanOperator(task_id="plan", settings=account).execute(task(keys=[KEY], expected_photos=2))
    lock_of(account, "fruits").take(datetime.now(UTC) + timedelta(hours=1))


def test_an_erasure_leaves_nothing_among_the_runs_and_of_its_notes_the_receipt(
    account: Settings, task: Callable[..., Any], make_run: Callable[..., RunContext]
) -> None:
    lake = Lake(laptop.client("s3"), account.lake_bucket)
    context = task(keys=[KEY], expected_photos=2)
    carry_out(account, context)
    run = RunContext.of(context, account)
    run.journal.note("run_job_flow", name="x")
    write_receipt(account, context)
    assert run.journal.read("run_job_flow"), "terminate_cluster may still need it"
    assert ERASURE not in RunArchive(lake.client, lake.bucket).run_ids()
    judge_erasure(account, task(ALL_DONE))
    verdict.remove_notes(lake, ERASURE)
    left = lake.client.list_objects_v2(Bucket=lake.bucket, Prefix=f"{erasure_key(ERASURE)}/")["Contents"]
    assert [entry["Key"] for entry in left] == [erasure_key(ERASURE, "receipt.json")]
    assert ERASURE not in RunArchive(lake.client, lake.bucket).run_ids()


NIGHT = Fingerprint("a-night", "l", "c", "m", "s")


@pytest.mark.parametrize(
    "before",
    [PublicationState(published=NIGHT), PublicationState(begun=NIGHT, gate_failed=NIGHT)],
    ids=["published", "gate failed"],
)
def test_after_an_erasure_an_older_run_may_not_go_on(
    account: Settings, task: Callable[..., Any], make_run: Callable[..., RunContext], before: PublicationState
) -> None:
    lake = Lake(laptop.client("s3"), account.lake_bucket)
    set_state(lake, "fruits", before)
    plan_erasure(account, task(keys=[KEY], expected_photos=2))
    after = read_state(lake, "fruits")
    assert after.begun == replace(NIGHT, run_id=ERASURE)
    assert (after.published, after.gate_failed) == (before.published, before.gate_failed)
    lake.remove("locks/fruits.json")
    with pytest.raises(RunOvertaken, match=ERASURE):
        make_run("a-night").find_or_create()


def test_each_database_has_a_step_with_metrics_of_its_own(account: Settings, task: Callable[..., Any]) -> None:
    plan = plan_erasure(account, task(keys=[KEY], expected_photos=2))
    steps = [step_for(stage, plan, "c0de")["HadoopJarStep"]["Args"] for stage in ERASURE_STAGES]
    for arguments, database in zip(steps, ("fruits", "fruits_demo", "fruits_notebook"), strict=True):
        assert f"s3://{account.lake_bucket}/code/c0de/erase_images.py" in arguments
        assert arguments[arguments.index("--database") + 1] == f"lake.{database}"
        folder = f"s3://{account.lake_bucket}/erasures/{ERASURE}"
        assert arguments[arguments.index("--run-folder") + 1] == f"{folder}/{database}"
        assert arguments[arguments.index("--erasure") + 1] == f"{folder}/request.json"


def test_a_photo_uploaded_again_meanwhile_is_no_receipt(account: Settings, task: Callable[..., Any]) -> None:
    context = task(keys=[KEY], expected_photos=2)
    carry_out(account, context)
    laptop.client("s3").put_object(Bucket=account.raw_bucket, Key=KEY, Body=b"again")
    with pytest.raises(ErasureIncomplete, match="1 versions of these photos"):
        write_receipt(account, context)
    erase_photos(account, context)
    assert write_receipt(account, context).endswith("/receipt.json")
    lake = Lake(laptop.client("s3"), account.lake_bucket)
    assert lake.read(erasure_key(ERASURE, "request.json")) is None
    assert ID in (lake.read_json(erasure_key(ERASURE, "receipt.json")) or {})["image_ids"]


@pytest.mark.parametrize("undone", ["erase_demo_images.wait", "write_receipt", "plan"])
def test_the_verdict_is_red_and_tells_unless_all_is_done_and_gives_the_locks_back(
    account: Settings, task: Callable[..., Any], undone: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    notices: list[Notice] = []
    monkeypatch.setattr(verdict, "notify", lambda _, notice: notices.append(notice))
    context = task(keys=[KEY], expected_photos=2)
    carry_out(account, context)
    write_receipt(account, context)
    with pytest.raises(AirflowFailException, match=f"not everything is erased: {undone} is failed"):
        judge_erasure(account, task(ALL_DONE | {undone: "failed"}))
    assert lock_of(account, "fruits").read() is None
    assert [(notice.anchor, notice.run.run_id) for notice in notices] == [("red-run", ERASURE)]
    judge_erasure(account, task(ALL_DONE))
    assert len(notices) == 1


@pytest.mark.parametrize(
    "silent", [*ERASURE_STAGES, "erase_exports", "erase_photos"], ids=lambda name: f"{name} marked"
)
def test_a_task_that_was_marked_as_success_is_in_no_receipt(
    account: Settings, task: Callable[..., Any], silent: str
) -> None:
    context = task(keys=[KEY], expected_photos=2)
    carry_out(account, context)  # an earlier attempt, whose plan was cleared
    carry_out(account, context, without=silent)
    with pytest.raises(ErasureIncomplete, match=f"^{silent}: nothing says what was erased"):
        write_receipt(account, context)


def test_whoever_edits_results_of_tasks_writes_nothing_into_a_receipt(
    account: Settings, task: Callable[..., Any], make_run: Callable[..., RunContext]
) -> None:
    """The steps would erase another database, and the receipt would say of it that the photo is gone."""
    context, lake = task(keys=[KEY], expected_photos=2), Lake(laptop.client("s3"), account.lake_bucket)
    carry_out(account, context)
    sound = context["ti"].xcoms["plan"]
    lake.write_json(metrics_key("scratch"), {"rows": {}})
    edits = [{"database": "scratch", "databases": ["scratch", "fruits_demo", "fruits_notebook"]}]
    edits += [{"run_id": "another"}, {"planned_at": "2020-01-01T00:00:00+00:00"}, {"databases": []}, {"photos": 0}]
    for edit in edits:
        context["ti"].xcoms["plan"] = sound | edit
        edited = RunContext.of(context | {"ti": context["ti"]}, account)
        for attack in (lambda: write_receipt(account, context), lambda: edited.step("erase_images")):  # noqa: B023
            with pytest.raises(ConfigError, match="has a person edited it"):
                attack()
    assert lake.read(erasure_key(ERASURE, "receipt.json")) is None
    context["ti"].xcoms |= {"plan": sound, "erase_exports": {"objects": 99}, "erase_photos": {"versions": 99}}
    write_receipt(account, context)
    receipt = lake.read_json(erasure_key(ERASURE, "receipt.json")) or {}
    assert (receipt["exports"]["objects"], receipt["photos"]["versions"]) != (99, 99)


def test_a_receipt_that_was_marked_as_written_is_red(account: Settings, task: Callable[..., Any]) -> None:
    carry_out(account, task(keys=[KEY], expected_photos=2))
    with pytest.raises(AirflowFailException, match="no receipt is written"):
        judge_erasure(account, task(ALL_DONE))


def test_a_step_that_did_its_work_for_an_earlier_plan_is_to_do_it_again(
    account: Settings, task: Callable[..., Any]
) -> None:
    context = task(keys=[KEY], expected_photos=2)
    carry_out(account, context)
    context["ti"].xcoms["plan"] = plan_erasure(account, context)
    with pytest.raises(ErasureIncomplete, match=", ".join(ERASURE_STAGES)):
        write_receipt(account, context)


def test_a_receipt_whose_task_died_while_it_tidied_up_stays_as_it_is(
    account: Settings, task: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    lake = Lake(laptop.client("s3"), account.lake_bucket)
    context, removed = task(keys=[KEY], expected_photos=2), list[str]()
    carry_out(account, context)

    def dies(self: Lake, key: str) -> None:
        if len(removed) == 2:
            raise KeyboardInterrupt
        removed.append(key)
        self.client.delete_object(Bucket=self.bucket, Key=key)

    with monkeypatch.context() as patch:
        patch.setattr(Lake, "remove", dies)
        with pytest.raises(KeyboardInterrupt):
            write_receipt(account, context)
    written = lake.read(erasure_key(ERASURE, "receipt.json"))
    write_receipt(account, context)
    assert lake.read(erasure_key(ERASURE, "receipt.json")) == written
    verdict.remove_notes(lake, ERASURE)
    left = lake.client.list_objects_v2(Bucket=lake.bucket, Prefix=f"{erasure_key(ERASURE)}/")["Contents"]
    assert [entry["Key"] for entry in left] == [erasure_key(ERASURE, "receipt.json")]


def test_an_erasure_that_is_planned_again_after_its_receipt_suppresses_what_it_did(
    account: Settings, task: Callable[..., Any]
) -> None:
    lake = Lake(laptop.client("s3"), account.lake_bucket)
    context = task(keys=[KEY], expected_photos=2)
    carry_out(account, context)
    write_receipt(account, context)
    first = lake.read_json(erasure_key(ERASURE, "receipt.json")) or {}
    assert first["content_sha256"]
    carry_out(account, context)
    write_receipt(account, context)
    again = lake.read_json(erasure_key(ERASURE, "receipt.json")) or {}
    assert [again[name] for name in ("image_ids", "content_sha256")] == [
        first[name] for name in ("image_ids", "content_sha256")
    ]


def test_a_photo_that_a_night_has_listed_meanwhile_is_no_receipt(account: Settings, task: Callable[..., Any]) -> None:
    lake = Lake(laptop.client("s3"), account.lake_bucket)
    context = task(keys=[KEY], expected_photos=2)
    carry_out(account, context)
    leave_traces(lake, "a-night-between")
    with pytest.raises(ErasureIncomplete, match="clear erase_exports"):
        write_receipt(account, context)
    erase_exports(account, context)
    assert write_receipt(account, context).endswith("/receipt.json")


def test_exports_are_not_touched_while_a_run_works_by_its_listing(account: Settings, task: Callable[..., Any]) -> None:
    context = task(keys=[KEY], expected_photos=2)
    context["ti"].xcoms["plan"] = plan_erasure(account, context)
    with pytest.raises(AirflowFailException):
        judge_erasure(account, task(ALL_DONE | {"erase_exports": "failed"}))
    lock_of(account, "fruits").take(datetime.now(UTC) + timedelta(hours=1))
    with pytest.raises(LockHeld, match="fruits is locked by"):
        erase_exports(account, context)


def test_locks_that_the_cleared_erasure_has_asked_for_again_outlive_the_verdict_before(
    account: Settings, task: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    context = task(keys=[KEY], expected_photos=2)
    context["ti"].xcoms["plan"] = plan_erasure(account, context)

    def cleared_meanwhile(*_: Any, **__: Any) -> list[Any]:
        erase_exports(account, context)
        return []

    monkeypatch.setattr("fruits_airflow.emr.clusters.ClusterLifecycle.end_all", cleared_meanwhile)
    with pytest.raises(AirflowFailException):
        judge_erasure(account, task(ALL_DONE | {"erase_exports": "failed"}))
    assert lock_of(account, "fruits").read() is not None


def test_the_verdict_says_what_a_task_failed_of(account: Settings, task: Callable[..., Any]) -> None:
    plan_erasure(account, task(keys=[KEY], expected_photos=2))
    context = task(ALL_DONE | {"erase_images.wait": "failed"})
    RunContext.of(context, account).journal.note(LAST_FAILURE, stage="erase_images", cause="its disk is full")
    with pytest.raises(AirflowFailException, match="erased: erase_images: its disk is full; erase_images.wait"):
        judge_erasure(account, context)


def test_the_verdict_keeps_the_locks_of_a_cluster_that_may_be_alive(
    account: Settings, task: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    plan_erasure(account, task(keys=[KEY], expected_photos=2))

    def unseen(*_: Any, **__: Any) -> Any:
        raise TimeoutError("not seen ended")

    notices: list[Notice] = []
    monkeypatch.setattr(failures, "notify", lambda _, notice: notices.append(notice))
    with monkeypatch.context() as patch:
        patch.setattr("fruits_airflow.emr.clusters.ClusterLifecycle.end_all", unseen)
        context = task(ALL_DONE)
        context["ti"].max_tries = 1
        with pytest.raises(TimeoutError):
            judge_erasure(account, context)
        assert notices == [], "a retry looks again"
        with pytest.raises(TimeoutError):
            judge_erasure(account, task(ALL_DONE))
    causes = [notice.cause for notice in notices]
    assert causes == ["the erasure could not be judged: a cluster may be alive: not seen ended"]
    assert lock_of(account, "fruits").read() is not None


def test_the_verdict_ends_a_cluster_whatever_the_lake_denies(
    account: Settings, task: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    timeouts: list[float] = []

    def denied(_: DatabaseLock) -> Any:
        raise ClientError({"Error": {"Code": "AccessDenied", "Message": "no"}}, "GetObject")

    monkeypatch.setattr(DatabaseLock, "read", denied)
    monkeypatch.setattr(
        "fruits_airflow.emr.clusters.ClusterLifecycle.end_all", lambda _, timeout_s: timeouts.append(timeout_s) or []
    )
    with pytest.raises(ClientError, match="AccessDenied"):
        judge_erasure(account, task(ALL_DONE))
    assert len(timeouts) == 1


@pytest.mark.parametrize(
    ("changed", "refused"),
    [
        ({"expected_photos": None}, "2 photos would be erased, 1 of them because .* expected_photos=2"),
        ({"expected_photos": 1}, "2 photos would be erased"),
        ({"keys": [KEY, "images/Léo.jpg"]}, "1 parts of the request match nothing"),
    ],
    ids=["no number", "another number", "a key that matches nothing"],
)
def test_what_is_not_confirmed_is_neither_erased_nor_suppressed(
    account: Settings,
    task: Callable[..., Any],
    changed: dict[str, Any],
    refused: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    lake = Lake(laptop.client("s3"), account.lake_bucket)
    before = [version.key for version in list_versions(lake.client, account.raw_bucket)]
    set_state(lake, "fruits", state := PublicationState(published=NIGHT))
    context = task(**{"keys": [KEY], "expected_photos": 2} | changed)
    with caplog.at_level("INFO"), pytest.raises(AirflowFailException, match=refused) as caught:
        ErasurePlanOperator(task_id="plan", settings=account).execute(context)
    assert "1 in images/Training/Poire Léa/" in caplog.text
    assert "1 in images/inbox/" in caplog.text
    assert "images" not in str(caught.value)
    assert [version.key for version in list_versions(lake.client, account.raw_bucket)] == before
    assert lake.read(suppression_key(ERASURE)) is None
    assert lake.read(erasure_key(ERASURE, "keys.json")) is None
    assert read_state(lake, "fruits") == state
    notices: list[Notice] = []
    monkeypatch.setattr(verdict, "notify", lambda _, notice: notices.append(notice))
    with pytest.raises(AirflowFailException, match=refused):
        judge_erasure(account, task(ALL_DONE | {"plan": "failed"}))
    assert [notice.anchor for notice in notices] == ["refused"]
    assert lock_of(account, "fruits").read() is None


def test_more_photos_than_the_settings_allow_are_refused(account: Settings, task: Callable[..., Any]) -> None:
    with pytest.raises(ErasureRefused, match="max_erased_photos is 1"):
        plan_erasure(replace(account, max_erased_photos=1), task(keys=[KEY], expected_photos=2))


def test_what_may_be_gone_already_is_suppressed_all_the_same(account: Settings, task: Callable[..., Any]) -> None:
    gone = image_id_of("images/Léo.jpg")
    plan_erasure(account, task(image_ids=[gone], expected_photos=0, allow_missing=True))
    assert read_suppressed(Lake(laptop.client("s3"), account.lake_bucket), ERASURE).image_ids == {gone}


def test_a_plan_without_a_number_does_not_wait_for_a_run(account: Settings, task: Callable[..., Any]) -> None:
    lock_of(account, "fruits").take(datetime.now(UTC) + timedelta(hours=1))
    with pytest.raises(AirflowFailException, match="expected_photos=2"):
        ErasurePlanOperator(task_id="plan", settings=account).execute(task(keys=[KEY]))


def test_while_a_log_spells_the_key_there_is_no_receipt(account: Settings, task: Callable[..., Any]) -> None:
    lake = Lake(laptop.client("s3"), account.lake_bucket)
    context = task(keys=[KEY], expected_photos=2)
    carry_out(account, context)
    lake.write("logs/late/stderr.gz", gzip.compress(f"no JPEG: {KEY!a}".encode()))
    with pytest.raises(ErasureIncomplete, match=r"1 objects .* for example logs/late/stderr.gz; clear erase_ex"):
        write_receipt(account, context)
    erase_exports(account, context)
    assert write_receipt(account, context).endswith("/receipt.json")
    names = {"key": KEY, "spelled": ascii(KEY)[1:-1]}
    assert not any(find_everywhere(lake.client, [account.raw_bucket, lake.bucket], names).values())


def test_the_plan_says_that_scratch_goes_and_there_is_no_receipt_while_it_is_there(
    account: Settings, task: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    lake, context = Lake(laptop.client("s3"), account.lake_bucket), task(keys=[KEY], expected_photos=2)
    lake.write("staging/berries/a.jpg", b"a copy")
    with caplog.at_level("INFO"):
        exports = carry_out(account, context)
    assert "1 objects of scratch space in staging/ would go with them" in caplog.text
    assert exports["scratch"] == 1
    lake.write("staging/berries/a.jpg", b"a copy")
    with pytest.raises(ErasureIncomplete, match="staging/berries/a.jpg"):
        write_receipt(account, context)


@pytest.mark.parametrize("megabytes", [40, 400])
def test_a_cell_of_gigabytes_in_a_file_of_a_kilobyte_is_removed_and_stops_no_erasure(
    account: Settings, task: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, megabytes: int
) -> None:
    """A node may write it; the numbers are smaller here."""
    monkeypatch.setattr(stored_content, "MAX_MEMORY_BYTES", 200_000_000)
    before = resource.getrlimit(resource.RLIMIT_AS)
    lake, context = Lake(laptop.client("s3"), account.lake_bucket), task(keys=[KEY], expected_photos=2)
    out = io.BytesIO()
    pq.write_table(pa.table({"label": ["a" * megabytes * 1_000_000]}), out, compression="zstd")
    lake.write("runs/forged/pca.parquet", out.getvalue())
    exports = carry_out(account, context)
    assert exports["objects"] > 0
    assert lake.read("runs/forged/pca.parquet") is None or megabytes == 40
    assert resource.getrlimit(resource.RLIMIT_AS) == before


def test_an_unknown_parameter_is_refused(account: Settings, task: Callable[..., Any]) -> None:
    context = task(keys=[KEY], expected_photos=2)
    context["dag_run"].conf = {"key": KEY}
    with pytest.raises(
        ConfigError, match="unknown key; an erasure takes allow_missing, expected_photos, image_ids, keys, prefix"
    ):
        plan_erasure(account, context)


def test_a_cleared_plan_that_is_refused_does_not_tell_what_it_failed_of_before(
    account: Settings, task: Callable[..., Any]
) -> None:
    context = task(keys=[KEY], expected_photos=2)
    journal = RunContext.of(context, account).journal
    journal.note(LAST_FAILURE, stage="plan", cause="no news from the trigger")
    with pytest.raises(CostCeilingExceeded):
        plan_erasure(replace(account, max_cost_eur=0.01), context)
    assert journal.read(LAST_FAILURE) is None


def test_a_ceiling_that_pays_for_no_cluster_is_refused_before_anything_is_suppressed(
    account: Settings, task: Callable[..., Any]
) -> None:
    with pytest.raises(CostCeilingExceeded):
        plan_erasure(replace(account, max_cost_eur=0.01), task(image_ids=[image_id_of(KEY)], expected_photos=2))
    assert Lake(laptop.client("s3"), account.lake_bucket).read(suppression_key(ERASURE)) is None
