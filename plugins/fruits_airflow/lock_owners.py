"""The lock of a database for a run of this Airflow: who its holder is, and whether anything of the holder is left."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from airflow.providers.amazon.aws.hooks.emr import EmrHook

from fruits_airflow.airflow_runs import AirflowRuns
from fruits_airflow.clusters import LIVE_STATES, ClusterIdentity, find
from fruits_airflow.database_lock import DatabaseLock, Holding
from fruits_airflow.endpoints import CALLED
from fruits_airflow.lake import Lake
from fruits_airflow.settings import Settings

_AFTER_A_CLUSTER = timedelta(hours=1)  # what terminate_cluster and verdict may need, their retries included


def open_lock(
    settings: Settings, lake: Lake, identity: ClusterIdentity, database: str, region: str, runs: AirflowRuns
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
        emr = EmrHook(emr_conn_id=None, aws_conn_id=settings.aws_conn_id, region_name=holding.region)
        return not find(CALLED.watch(emr.get_conn()), owner, (*LIVE_STATES, "TERMINATING"))

    return DatabaseLock(lake, database, identity, region, is_gone)


def lock_deadline(settings: Settings) -> datetime:
    """Until when a run may need the lock, counted from now: longer than any cluster made now lives."""
    return datetime.now(UTC) + timedelta(minutes=settings.max_cluster_minutes) + _AFTER_A_CLUSTER
