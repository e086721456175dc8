"""The lock of a database for a run of this Airflow: who its holder is, and whether anything of the holder is left."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from fruits_airflow.aws.clients import emr_client
from fruits_airflow.config.settings import Settings
from fruits_airflow.emr.clusters import (
    CLUSTER_REQUEST,
    UNENDED_STATES,
    RunKey,
    find_listed_or_noted,
)
from fruits_airflow.locking.airflow_runs import AirflowRuns
from fruits_airflow.locking.database_lock import DatabaseLock, Holding
from fruits_airflow.storage.lake import Lake
from fruits_airflow.storage.run_notes import Journal, age_s, folder_of

_AFTER_A_CLUSTER = timedelta(hours=1)  # what terminate_cluster and verdict may need, their retries included


def open_lock(
    settings: Settings, lake: Lake, identity: RunKey, database: str, region: str, runs: AirflowRuns
) -> DatabaseLock:
    """The lock of `database` as the run `identity` sees it.

    Args:
        settings: of the deployment.
        lake: the lake bucket.
        identity: the run that asks.
        database: which.
        region: where the run's cluster would be.
        runs: what this Airflow knows.
    """

    def is_gone(holding: Holding) -> bool:
        owner = holding.owner
        # A run that was deleted is unknown here, and so is one of another Airflow of this deployment, which may be at
        # work: only the deadline tells them apart, so it is waited for (docs/runbook.md#lock-held).
        if owner.deployment_id == settings.deployment_id and runs.is_alive(owner.dag_id, owner.run_id):
            return False
        return not _has_cluster(settings, lake, holding)

    return DatabaseLock(lake, database, identity, region, is_gone)


def has_left_it_behind(settings: Settings, lake: Lake, holding: Holding, runs: AirflowRuns) -> bool:
    """Whether a run is known here to be over, and nothing of it is at work: then its lock is of no use.

    Asked between the reading of the lock and its removal. The run's state is asked for before its clusters, so that
    the listing can show every one that it made; and after them, for a run that was cleared meanwhile and wants its
    lock. One that is cleared later still changes the lock before it makes a cluster.

    Args:
        settings: of the deployment.
        lake: the lake bucket.
        holding: what the lock says.
        runs: what this Airflow knows; a run that is unknown may be at work in another Airflow.
    """
    owner = holding.owner

    def is_over() -> bool:
        return runs.has_ended(owner.dag_id, owner.run_id)

    if not is_over():
        return False
    request = _journal(lake, holding).read(CLUSTER_REQUEST)
    if request and age_s(request) < settings.list_consistency_s:
        return False  # what it asked for may not be listed yet
    if _has_cluster(settings, lake, holding):
        return False
    return is_over()


def lock_deadline(settings: Settings) -> datetime:
    """Until when a run may need the lock, counted from now: longer than any cluster made now lives."""
    return datetime.now(UTC) + timedelta(minutes=settings.max_cluster_minutes) + _AFTER_A_CLUSTER


def _journal(lake: Lake, holding: Holding) -> Journal:
    return Journal(lake, folder_of(holding.owner.dag_id, holding.owner.run_id))


def _has_cluster(settings: Settings, lake: Lake, holding: Holding) -> bool:
    client = emr_client(settings, holding.region)
    return bool(find_listed_or_noted(client, holding.owner, _journal(lake, holding), UNENDED_STATES))
