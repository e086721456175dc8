"""The failure of any task is recorded when Airflow will not retry it."""

from __future__ import annotations

from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException
from botocore.exceptions import ClientError, ReadTimeoutError
from fruits_airflow.config.errors import CodeMismatch, ConfigError, FruitsError, LockHeld
from fruits_airflow.operators.plan import PlanOperator
from fruits_airflow.runs import preparation
from fruits_airflow.runs.failures import record_failure
from fruits_airflow.runs.preparation import upload_code
from fruits_airflow.runs.run_context import RunContext
from fruits_airflow.storage.run_notes import Journal

from tests.plugins.airflow_context import context_of


def fails(error: Exception) -> Any:
    def fail(*_: Any, **__: Any) -> Any:
        raise error

    return fail


THROTTLED = ClientError({"Error": {"Code": "SlowDown", "Message": "reduce your rate"}}, "ListObjectsV2")


def cause(run: RunContext) -> tuple[str, str] | None:
    note = run.journal.read("last_failure")
    return None if note is None else (note["stage"], note["cause"])


@pytest.mark.parametrize(("further", "noted"), [(1, False), (0, True)])
@pytest.mark.parametrize("task", ["plan", "upload_code"])
def test_an_aws_error_is_recorded_by_the_last_attempt_only(
    run: RunContext, monkeypatch: pytest.MonkeyPatch, task: str, further: int, noted: bool
) -> None:
    context = context_of(run)
    context["ti"].max_tries = context["ti"].try_number - 1 + further
    monkeypatch.setattr(preparation, "plan_run", fails(THROTTLED))
    monkeypatch.setattr(preparation, "upload_bundle", fails(THROTTLED))
    plan = PlanOperator(task_id="plan", settings=run.settings)
    with pytest.raises(ClientError, match="SlowDown"):
        plan.work(context) if task == "plan" else upload_code(run.settings, context)
    assert cause(run) == ((task, f"ClientError: {THROTTLED}") if noted else None)


def test_code_that_is_not_what_its_digest_says_is_noted(run: RunContext, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preparation, "upload_bundle", fails(CodeMismatch("another's")))
    with pytest.raises(AirflowFailException, match="CodeMismatch"):
        upload_code(run.settings, context_of(run))
    assert cause(run) == ("upload_code", "CodeMismatch: another's")


@pytest.mark.parametrize(
    "error", [LockHeld("by a night"), AirflowSkipException("nothing to do"), AirflowFailException("refused")]
)
def test_an_error_that_the_plan_reports_elsewhere_is_not_recorded(
    run: RunContext, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    monkeypatch.setattr(preparation, "plan_run", fails(error))
    with pytest.raises(type(error), match=str(error)):
        PlanOperator(task_id="plan", settings=run.settings).work(context_of(run))
    assert cause(run) is None


@pytest.mark.parametrize(
    "silent", [ConfigError("no such profile"), KeyError("region"), ReadTimeoutError(endpoint_url="xcom")]
)
def test_a_cause_that_cannot_be_noted_leaves_what_is_final_final(
    run: RunContext, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, silent: Exception
) -> None:
    context = context_of(run)
    monkeypatch.setattr(RunContext, "of", fails(silent))
    with (
        pytest.raises(AirflowFailException, match="the task's own"),
        record_failure(run.settings, context, "featurize"),
    ):
        raise FruitsError("the task's own")
    assert "Traceback" in caplog.text


def test_a_note_that_s3_does_not_take_leaves_what_is_final_final(
    run: RunContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Journal, "note", fails(THROTTLED))
    context = context_of(run)
    with (
        pytest.raises(AirflowFailException, match="the task's own"),
        record_failure(run.settings, context, "featurize"),
    ):
        raise FruitsError("the task's own")
