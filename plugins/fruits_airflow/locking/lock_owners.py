"""Locks as runs of this Airflow use them: whether a lock's owner is alive."""

from datetime import UTC, datetime, timedelta

from fruits_airflow.aws.clients import emr_client
from fruits_airflow.config.settings import Settings
from fruits_airflow.emr.clusters import CLUSTER_NOTE, UNENDED_STATES, RunKey, find_listed_or_noted
from fruits_airflow.locking.airflow_runs import AirflowRuns
from fruits_airflow.locking.database_lock import DatabaseLock, LockRecord
from fruits_airflow.storage.lake import Lake
from fruits_airflow.storage.run_notes import Journal, age_s, folder_of

_AFTER_A_CLUSTER = timedelta(hours=1)  # for terminate_cluster and verdict with their retries


def open_lock(
    settings: Settings, lake: Lake, identity: RunKey, database: str, region: str, runs: AirflowRuns
) -> DatabaseLock:
    """Return the lock of `database` for the run `identity`, whose cluster is in `region`."""

    def is_gone(record: LockRecord) -> bool:
        owner = record.owner
        # An unknown run was deleted, or belongs to another Airflow of this deployment and may be working. Only the
        # deadline tells these apart, so that DatabaseLock waits for it (docs/runbook.md#lock-held).
        if owner.deployment_id == settings.deployment_id and runs.is_alive(owner.dag_id, owner.run_id):
            return False
        return not _has_cluster(settings, lake, record)

    return DatabaseLock(lake, database, identity, region, is_gone)


def is_orphaned(settings: Settings, lake: Lake, record: LockRecord, runs: AirflowRuns) -> bool:
    """Whether this Airflow knows that the lock's run has ended and left no cluster.

    Call it between reading and removing the lock. The run's state is read before its clusters, so that the listing
    shows all that the run created, and again after them, in case the run was cleared meanwhile. A run that is cleared
    later takes the lock again before it creates a cluster, and the removal fails.
    """
    owner = record.owner
    if not runs.has_ended(owner.dag_id, owner.run_id):
        return False
    note = _journal(lake, record).read(CLUSTER_NOTE)
    if note and age_s(note) < settings.list_consistency_s:
        return False  # the listing may not show the requested cluster yet
    return not _has_cluster(settings, lake, record) and runs.has_ended(owner.dag_id, owner.run_id)


def lock_deadline(settings: Settings) -> datetime:
    """Return a deadline for a run's lock, counted from now, that is after the end of any cluster created now."""
    return datetime.now(UTC) + timedelta(minutes=settings.max_cluster_minutes) + _AFTER_A_CLUSTER


def _journal(lake: Lake, record: LockRecord) -> Journal:
    return Journal(lake, folder_of(record.owner.dag_id, record.owner.run_id))


def _has_cluster(settings: Settings, lake: Lake, record: LockRecord) -> bool:
    client = emr_client(settings, record.region)
    return bool(find_listed_or_noted(client, record.owner, _journal(lake, record), UNENDED_STATES))
