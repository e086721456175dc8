"""Whether the night is published by the hour that the settings name; if not, somebody is told.

Reads what the runs leave in the lake, not what Airflow shows: a paused DAG has no failed run to look at.
"""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

from airflow.sdk.exceptions import AirflowFailException
from botocore.exceptions import BotoCoreError, ClientError
from croniter import croniter  # type: ignore[import-untyped]

from fruits_airflow.config.dag_ids import PIPELINE
from fruits_airflow.config.settings import Settings
from fruits_airflow.emr.clusters import RunKey
from fruits_airflow.records.models import RecordError, read_record
from fruits_airflow.runs.notices import Notice, tell
from fruits_airflow.runs.publication import Fingerprint, PublicationState, read_state
from fruits_airflow.runs.run_context import open_lake
from fruits_airflow.storage.lake import Lake

log = logging.getLogger(__name__)


def check_publication(settings: Settings, now: datetime | None = None) -> str:
    """Looks for a run that ended well since the last one was due; a night with nothing to do ended well.

    Args:
        settings: of the deployment.
        now: with a time zone; by default the present.

    Returns:
        Which run it was.

    Raises:
        AirflowFailException: there is none, or nobody can tell; a notice is sent.
    """
    due = last_due(settings, now or datetime.now(UTC))
    try:
        lake = open_lake(settings)
        state = read_state(lake, settings.database)
        settled = state.settled
        in_time = settled is not None and datetime.fromisoformat(settled.at) >= due
    except Exception as error:  # whatever it is, such as a state that is no JSON: somebody must be told
        cause = (
            f"{settings.database}: whether a run has ended well since {due:%Y-%m-%d %H:%M %Z} "
            f"cannot be read: {type(error).__name__}: {error}"
        )
        tell(settings, Notice("no-publication", _pipeline_run(settings, None), cause, None))
        raise AirflowFailException(cause) from error
    if settled and in_time:
        log.info("Run %s %s at %s; due since %s", settled.run_id, settled.outcome, settled.at, due)
        return settled.run_id
    cause = (
        f"{settings.database}: no run has ended well since {due:%Y-%m-%d %H:%M %Z}; {_last_words(state)}. "
        f"Is {PIPELINE} paused, is Airflow's scheduler up, is a run waiting?"
    )
    tell(
        settings,
        Notice("no-publication", _pipeline_run(settings, state.begun), cause, _cost_eur(lake, state)),
    )
    raise AirflowFailException(cause)


def last_due(settings: Settings, now: datetime) -> datetime:
    """When the pipeline's schedule last said that a night begins."""
    local = now.astimezone(ZoneInfo(settings.timezone))
    due: datetime = croniter(settings.schedule, local).get_prev(datetime)
    return due


def check_schedule(settings: Settings) -> str | None:
    """Cron of the check: daily at `publish_by_hour`; None without it, or without nights."""
    if settings.publish_by_hour is None or settings.schedule is None:
        return None
    return f"0 {settings.publish_by_hour} * * *"


def _pipeline_run(settings: Settings, begun: Fingerprint | None) -> RunKey:
    return RunKey(settings.deployment_id, PIPELINE, begun.run_id if begun else "(none)")


def _last_words(state: PublicationState) -> str:
    words = [
        f"the last that did was {state.settled.run_id} at {state.settled.at}"
        if state.settled
        else "none ever did"
    ]
    if state.begun:
        words.append(f"{state.begun.run_id} began and has not published")
    if state.gate_failed:
        words.append(f"the quality gate refused {state.gate_failed.run_id}")
    return ", ".join(words)


def _cost_eur(lake: Lake, state: PublicationState) -> float | None:
    try:
        record = read_record(lake, state.begun.run_id) if state.begun else None
        return None if record is None else record.cost.estimate_eur
    except (BotoCoreError, ClientError, RecordError) as error:
        log.warning("What it has cost is not known: %s", error)  # no reason to keep quiet about the night
        return None
