"""Failures of a task: whether Airflow retries them, and what run.json and the notice say of them."""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeGuard

from airflow.sdk import Context
from airflow.sdk.exceptions import AirflowFailException, AirflowSensorTimeout, TaskDeferralTimeout

from fruits_airflow.config.errors import FruitsError, LockHeld, Retryable
from fruits_airflow.config.settings import Settings
from fruits_airflow.emr.clusters import RunKey
from fruits_airflow.runs.notices import Notice, is_last_attempt, notify
from fruits_airflow.runs.run_context import RunContext
from fruits_airflow.storage.run_notes import LAST_FAILURE

log = logging.getLogger(__name__)


@contextmanager
def fail_without_retry(passes: tuple[type[Exception], ...] = ()) -> Iterator[None]:
    """Convert a `FruitsError` into `AirflowFailException`, so that Airflow does not retry it; leave `passes` alone."""
    try:
        yield
    except passes:
        raise
    except FruitsError as error:
        raise AirflowFailException(f"{type(error).__name__}: {error}") from error


@contextmanager
def record_failure(
    settings: Settings, context: Context, stage: str, unrecorded: tuple[type[Exception], ...] = ()
) -> Iterator[None]:
    """Record why a task failed, for run.json and the notice, when Airflow will not retry it.

    Failures that will be retried are not recorded, nor those `unrecorded` that are none or are recorded elsewhere.

    Raises:
        Retryable: Unchanged; a retry creates a new cluster or adds the step again.
        AirflowFailException: Any other `FruitsError`, see `fail_without_retry`.
        Exception: Any other, unchanged.
    """
    try:
        with fail_without_retry(passes=(Retryable, *unrecorded)):
            yield
    except unrecorded:
        raise
    except Exception as error:
        final = isinstance(error, AirflowFailException | AirflowSensorTimeout)
        if final or is_last_attempt(context):
            try:
                RunContext.of(context, settings).journal.note(LAST_FAILURE, stage=stage, cause=_cause(error))
            except Exception:
                # An S3 error here must not hide the failure, nor make Airflow retry it.
                log.exception("The failure of the task cannot be recorded")
        raise


@contextmanager
def notify_unjudged(
    settings: Settings, context: Context, what: str, passes: tuple[type[Exception], ...] = (AirflowFailException,)
) -> Iterator[None]:
    """Notify when the last attempt of a verdict fails for another reason than the run itself, and so `what` is open.

    `passes` are exceptions that have been notified already.
    """
    try:
        yield
    except passes:
        raise
    except Exception as error:
        if is_last_attempt(context):
            run = RunKey(settings.deployment_id, context["dag"].dag_id, context["run_id"])
            notify(settings, Notice("red-run", run, f"{what} could not be judged: {error}", None, "verdict"))
        raise


def _cause(error: Exception) -> str:
    if isinstance(error, AirflowFailException):  # its message names the cause
        return str(error)
    if isinstance(error, AirflowSensorTimeout | TaskDeferralTimeout):
        # A trigger that runs fires by its deadline.
        return "no event from the trigger until its deadline; is the triggerer alive? then clear the task"
    return f"{type(error).__name__}: {error}"


def is_lock_timeout(failure: Mapping[str, Any] | None) -> TypeGuard[Mapping[str, Any]]:
    """Tell whether the recorded failure says that another run held the database."""
    return failure is not None and str(failure["cause"]).startswith(LockHeld.__name__)
