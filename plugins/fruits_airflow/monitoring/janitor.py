"""End the clusters of this deployment that have outlived their run or their deadline, and remove abandoned locks.

The janitor ends what the runs' own teardown missed: a scheduler that died, a run that was deleted, a DAG that was
paused. It identifies clusters by their tags; a cluster without them, or of another deployment, is never touched.
"""

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from airflow.sdk import Context
from airflow.sdk.exceptions import AirflowFailException
from botocore.exceptions import BotoCoreError, ClientError

from fruits_airflow.aws.clients import emr_client
from fruits_airflow.config.aws_types import EMRClient
from fruits_airflow.config.errors import ClustersUnseen, FruitsError, ResidencyError
from fruits_airflow.config.regions import EU_REGIONS
from fruits_airflow.config.settings import Settings
from fruits_airflow.cost.estimate import estimate_parts
from fruits_airflow.cost.prices import load_prices
from fruits_airflow.emr.clusters import (
    UNENDED_STATES,
    Cluster,
    RunKey,
    describe_cluster,
    end_and_watch,
    instances_of,
    tag_value,
)
from fruits_airflow.locking.airflow_runs import AirflowRuns
from fruits_airflow.locking.database_lock import DatabaseLock, LockRecord
from fruits_airflow.locking.lock_owners import is_orphaned, open_lock
from fruits_airflow.runs.notices import Notice, is_last_attempt, notify
from fruits_airflow.runs.run_context import open_lake
from fruits_airflow.storage.lake import Lake, error_code

log = logging.getLogger(__name__)

# Errors of a region that this account or role may not use: it can have no cluster of this deployment.
_CLOSED = frozenset(
    ["AccessDenied", "AccessDeniedException", "UnrecognizedClientException", "InvalidClientTokenId", "AuthFailure"]
)
_NO_ANSWER = (BotoCoreError, ClientError, ResidencyError)


@dataclass(frozen=True)
class ExpiredCluster:
    """A cluster to end, and why."""

    cluster: Cluster
    region: str
    why: str


def sweep_clusters(settings: Settings, context: Context) -> list[dict[str, Any]]:
    """End what has outlived its run or its deadline; notify of clusters that do not end or cannot be checked.

    Returns:
        For each expired cluster: id, region, run, why, and its present state.

    Raises:
        AirflowFailException: One does not end; the next sweep tries again.
        ClustersUnseen: A region or a cluster cannot be checked; a retry checks again, the last one notifies.
    """
    runs, report, unseen = AirflowRuns(context["ti"]), list[dict[str, Any]](), list[str]()
    for region in regions_of(settings):
        try:
            client = emr_client(settings, region)
        except _NO_ANSWER as error:  # of STS, for example, when the connection assumes a role
            unseen.append(f"{region}: {error}")
            continue
        expired = [
            ExpiredCluster(cluster, region, why)
            for cluster in clusters_of(client, settings, region, unseen)
            if (why := expiry_of(cluster, runs))
        ]
        report += _end(client, settings, expired)
    alive = [f"{entry['job_flow_id']} does not end" for entry in report if not entry["ended"]]
    if unseen and (alive or is_last_attempt(context)):
        run = RunKey(settings.deployment_id, context["dag"].dag_id, context["run_id"])
        notify(settings, Notice("clusters-unseen", run, "; ".join(unseen), None, "end_clusters"))
    if alive:
        raise AirflowFailException("; ".join([*alive, *unseen]))
    if unseen:
        raise ClustersUnseen("; ".join(unseen))
    log.info("%d clusters ended", len(report))
    return report


def regions_of(settings: Settings) -> list[str]:
    """List the regions that can have clusters of this deployment: those of its partition, its own first."""
    sovereign = settings.region.startswith("eusc-")
    others = [r for r in EU_REGIONS if r.startswith("eusc-") == sovereign and r != settings.region]
    return [settings.region, *others]


def clusters_of(client: EMRClient, settings: Settings, region: str, unseen: list[str]) -> Iterator[Cluster]:
    """Yield the clusters of this deployment in a region that have not ended, also while they are being created.

    Add what cannot be checked, and why, to `unseen`: one cluster must not hide those that are listed after it.
    """
    own_tags = {"project": "fruits", "deployment": tag_value(settings.deployment_id)}
    states: Any = UNENDED_STATES
    listed = list[str]()
    try:
        for page in client.get_paginator("list_clusters").paginate(ClusterStates=states):
            # The name saves a call for each foreign cluster; the tags decide.
            listed += [item["Id"] for item in page["Clusters"] if item["Name"].startswith("fruits/")]
    except _NO_ANSWER as error:
        if region != settings.region and isinstance(error, ClientError) and error_code(error) in _CLOSED:
            log.info("%s is closed to us (%s)", region, error_code(error))
        else:
            unseen.append(f"{region}: {error}")
    for job_flow_id in listed:
        try:
            cluster = describe_cluster(client, job_flow_id)
        except _NO_ANSWER as error:
            unseen.append(f"{job_flow_id} in {region}: {error}")
        else:
            if own_tags.items() <= cluster.tags.items():
                yield cluster


def expiry_of(cluster: Cluster, runs: AirflowRuns) -> str | None:
    """Return why a cluster of this deployment must end, or None.

    For a run that this Airflow does not know (it was deleted, or another Airflow started it) the deadline alone counts.
    """
    deadline = _deadline(cluster)
    if deadline is not None and deadline <= datetime.now(UTC):
        return f"its deadline, {deadline:%Y-%m-%d %H:%M:%S} UTC, has passed"
    dag_id, run_id = cluster.tags.get("dag", ""), cluster.tags.get("run", "")
    if runs.has_ended(dag_id, run_id):
        return f"its run {run_id} has ended"
    return None


def free_abandoned_locks(settings: Settings, context: Context) -> list[str]:
    """Remove each lock of this deployment whose owner is gone; return which, its holder, and why.

    A run gives its locks back in `verdict`, if its clusters are gone.
    """
    runs, lake = AirflowRuns(context["ti"]), open_lake(settings)
    run = RunKey(settings.deployment_id, context["dag"].dag_id, context["run_id"])
    removed = []
    for database in (settings.database, settings.demo_database):
        lock = open_lock(settings, lake, run, database, settings.region, runs)
        holding = lock.read()
        why = holding and abandonment_of(settings, lake, lock, holding, runs)
        if holding and why and lock.remove(holding):
            log.warning("Removed the lock of %s, which had %s: %s", database, holding, why)
            removed.append(f"{database}: {holding}: {why}")
    return removed


def abandonment_of(
    settings: Settings, lake: Lake, lock: DatabaseLock, holding: LockRecord, runs: AirflowRuns
) -> str | None:
    """Return why a lock may be removed, or None; for an unknown run the deadline counts, as for its clusters."""
    if holding.owner.deployment_id != settings.deployment_id:
        return None
    if is_orphaned(settings, lake, holding, runs):
        return "its run has ended, and no cluster of it is alive"
    if lock.is_abandoned(holding):
        return "its deadline has passed, and neither run nor cluster of it is alive"
    return None


def _end(client: EMRClient, settings: Settings, expired: list[ExpiredCluster]) -> list[dict[str, Any]]:
    for item in expired:
        log.warning("Ending %s (%s): %s", item.cluster.job_flow_id, item.cluster.state, item.why)
    ids = [item.cluster.job_flow_id for item in expired]
    _, alive = end_and_watch(client, ids, settings.terminate_timeout_minutes * 60, settings.poll_s)
    report = []
    for item in expired:
        job_flow_id, tags = item.cluster.job_flow_id, item.cluster.tags
        if state := alive.get(job_flow_id):
            run = RunKey(settings.deployment_id, tags.get("dag", "?"), tags.get("run", "?"))
            cause = f"{job_flow_id} in {item.region} must end because {item.why}, and is {state}"
            notify(settings, Notice("cluster-will-not-die", run, cause, _cost_eur(client, item)))
        report.append(
            {
                "job_flow_id": job_flow_id,
                "region": item.region,
                "run_id": tags.get("run"),
                "why": item.why,
                "ended": state is None,
                "state": state or "ended",
            }
        )
    return report


def _deadline(cluster: Cluster) -> datetime | None:
    try:
        deadline = cluster.deadline
    except ValueError:
        log.warning("%s has an unreadable deadline: %s", cluster.job_flow_id, cluster.tags["deadline"])
        return None
    return deadline if deadline is None or deadline.tzinfo else deadline.replace(tzinfo=UTC)


def _cost_eur(client: EMRClient, expired: ExpiredCluster) -> float | None:
    job_flow_id = expired.cluster.job_flow_id
    try:
        nodes = instances_of(client, job_flow_id)
        return sum(estimate_parts(nodes, load_prices(expired.region), datetime.now(UTC)).values())
    except (FruitsError, BotoCoreError, ClientError) as error:
        log.warning("The cost of %s is not known: %s", job_flow_id, error)
        return None
