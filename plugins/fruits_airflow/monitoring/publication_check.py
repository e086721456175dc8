"""Check that a run has ended well by the hour that the settings name; send a notice if none has.

The check reads what the runs leave in the lake, not what Airflow shows: a paused DAG has no failed run.
"""

import logging
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException
from botocore.exceptions import BotoCoreError, ClientError
from croniter import croniter  # type: ignore[import-untyped]

from fruits_airflow.config.dag_ids import PIPELINE
from fruits_airflow.config.settings import Settings
from fruits_airflow.emr.clusters import RunKey
from fruits_airflow.records.models import RecordError, read_record
from fruits_airflow.runs.notices import NO_RUN, Notice, notify
from fruits_airflow.runs.publication import Fingerprint, PublicationState, read_state
from fruits_airflow.runs.run_context import open_lake
from fruits_airflow.storage.lake import Lake

log = logging.getLogger(__name__)


def check_publication(settings: Settings, now: datetime | None = None) -> str:
    """Return the id of a run that ended well since the last one was due; a run that was skipped ended well.

    Raises:
        AirflowFailException: There is none, or the state cannot be read; a notice is sent.
        AirflowSkipException: The setting `schedule` is not set.
    """
    if settings.schedule is None:
        raise AirflowSkipException("schedule: not set, so that no run is ever due; set it, and publish_by_hour")
    due = last_due(settings, now or datetime.now(UTC))
    try:
        lake = open_lake(settings)
        state = read_state(lake, settings.database)
        settled = state.settled
        in_time = settled is not None and datetime.fromisoformat(settled.at) >= due
    except Exception as error:  # any error, such as a state that is no JSON, is worth a notice
        cause = (
            f"{settings.database}: whether a run has ended well since {due:%Y-%m-%d %H:%M %Z} "
            f"cannot be read: {type(error).__name__}: {error}"
        )
        notify(settings, Notice("no-publication", _pipeline_run(settings, None), cause, None))
        raise AirflowFailException(cause) from error
    if settled and in_time:
        outcome = ": ".join(filter(None, (settled.outcome, settled.reason)))
        log.info("Run %s %s at %s; due since %s", settled.run_id, outcome, settled.at, due)
        return settled.run_id
    cause = (
        f"{settings.database}: no run has ended well since {due:%Y-%m-%d %H:%M %Z}; {_describe(state)}. "
        f"Is {PIPELINE} paused, does its file import, is Airflow's scheduler up, is a run waiting?"
    )
    notify(settings, Notice("no-publication", _pipeline_run(settings, state.begun), cause, _cost_eur(lake, state)))
    raise AirflowFailException(cause)


def last_due(settings: Settings, now: datetime) -> datetime:
    """Return when the pipeline's schedule was last due."""
    local = now.astimezone(ZoneInfo(settings.timezone))
    due: datetime = croniter(settings.schedule, local).get_prev(datetime)
    return due


def check_schedule(settings: Settings) -> str | None:
    """Return the cron of the check: daily at `publish_by_hour`; None without it, or without a schedule."""
    if settings.publish_by_hour is None or settings.schedule is None:
        return None
    return f"0 {settings.publish_by_hour} * * *"


def _pipeline_run(settings: Settings, begun: Fingerprint | None) -> RunKey:
    return RunKey(settings.deployment_id, PIPELINE, begun.run_id if begun else NO_RUN)


def _describe(state: PublicationState) -> str:
    settled = state.settled
    facts = [f"the last that did was {settled.run_id} at {settled.at}" if settled else "none ever did"]
    if state.begun:
        facts.append(f"{state.begun.run_id} began and has not published")
    if state.gate_failed:
        facts.append(f"the quality gate refused {state.gate_failed.run_id}")
    return ", ".join(facts)


def _cost_eur(lake: Lake, state: PublicationState) -> float | None:
    try:
        record = read_record(lake, state.begun.run_id) if state.begun else None
        return None if record is None else record.cost.estimate_eur
    except (BotoCoreError, ClientError, RecordError) as error:
        log.warning("The cost of the run is not known: %s", error)
        return None
