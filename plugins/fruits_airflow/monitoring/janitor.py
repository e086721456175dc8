"""Ending the clusters of this deployment that have outlived their run or their deadline, and giving back its locks.

For what the runs' own teardown missed: a scheduler that died, a run that was deleted, a DAG that was paused. Clusters
are told by their tags; one without them, or of another deployment, is never touched.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from airflow.sdk.exceptions import AirflowFailException
from botocore.exceptions import BotoCoreError, ClientError

from fruits_airflow.aws.clients import emr_client
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
from fruits_airflow.locking.airflow_runs import AirflowRuns, SupervisedRuns
from fruits_airflow.locking.database_lock import DatabaseLock, LockRecord
from fruits_airflow.locking.lock_owners import is_orphaned, open_lock
from fruits_airflow.runs.notices import Notice, is_last_attempt, tell
from fruits_airflow.runs.run_context import open_lake
from fruits_airflow.storage.lake import Lake, error_code

if TYPE_CHECKING:
    from airflow.sdk import Context
    from mypy_boto3_emr import EMRClient

log = logging.getLogger(__name__)

# What a region says that this account or role may not use: no cluster of ours can have been made there.
_CLOSED = frozenset(
    {
        "AccessDenied",
        "AccessDeniedException",
        "UnrecognizedClientException",
        "InvalidClientTokenId",
        "AuthFailure",
    }
)

_SILENT = (BotoCoreError, ClientError, ResidencyError)


@dataclass(frozen=True)
class ExpiredCluster:
    """A cluster to end, and why."""

    cluster: Cluster
    region: str
    why: str


def sweep_clusters(settings: Settings, context: Context) -> list[dict[str, Any]]:
    """Ends what has outlived its run or its deadline; tells of each one that does not end, and of what it cannot see.

    Returns:
        For each cluster that was condemned: id, region, run, why, and the state it is in now.

    Raises:
        AirflowFailException: one does not end; the next sweep tries again.
        ClustersUnseen: a region or a cluster could not be looked at; a retry looks again, the last one tells.
    """
    runs, report, unseen = SupervisedRuns(context["ti"]), list[dict[str, Any]](), list[str]()
    for region in regions_of(settings):
        condemned = list[ExpiredCluster]()
        try:
            client = emr_client(settings, region)
        except _SILENT as error:  # of STS, for one, when the connection assumes a role
            unseen.append(f"{region}: {error}")
            continue
        for cluster in clusters_of(client, settings, region, unseen):
            if why := judge(cluster, runs):
                condemned.append(ExpiredCluster(cluster, region, why))
        report += _end(client, settings, condemned)
    immortal = [f"{one['job_flow_id']} does not end" for one in report if not one["ended"]]
    if unseen and (immortal or is_last_attempt(context)):
        me = RunKey(settings.deployment_id, context["dag"].dag_id, context["run_id"])
        tell(settings, Notice("clusters-unseen", me, "; ".join(unseen), None))
    if immortal:
        raise AirflowFailException("; ".join([*immortal, *unseen]))
    if unseen:
        raise ClustersUnseen("; ".join(unseen))
    log.info("%d clusters ended", len(report))
    return report


def regions_of(settings: Settings) -> list[str]:
    """Where this deployment's runs can have made clusters: the regions of its partition, its own first."""
    sovereign = settings.region.startswith("eusc-")
    others = [r for r in EU_REGIONS if r.startswith("eusc-") == sovereign and r != settings.region]
    return [settings.region, *others]


def clusters_of(client: EMRClient, settings: Settings, region: str, unseen: list[str]) -> Iterator[Cluster]:
    """The clusters of this deployment in a region that have not ended, half-created ones included.

    Args:
        client: EMR client of the region.
        settings: of the deployment.
        region: where to look.
        unseen: gets what could not be looked at and why: one cluster must not hide those that are listed after it.
    """
    mine = {"project": "fruits", "deployment": tag_value(settings.deployment_id)}
    states: Any = UNENDED_STATES
    listed = list[str]()
    try:
        for page in client.get_paginator("list_clusters").paginate(ClusterStates=states):
            # a glance at the name saves a call for each foreign cluster; the tags decide
            listed += [found["Id"] for found in page["Clusters"] if found["Name"].startswith("fruits/")]
    except _SILENT as error:
        if region != settings.region and isinstance(error, ClientError) and error_code(error) in _CLOSED:
            log.info("%s is closed to us (%s)", region, error_code(error))
        else:
            unseen.append(f"{region}: {error}")
    for job_flow_id in listed:
        try:
            cluster = describe_cluster(client, job_flow_id)
        except _SILENT as error:
            unseen.append(f"{job_flow_id} in {region}: {error}")
        else:
            if mine.items() <= cluster.tags.items():
                yield cluster


def judge(cluster: Cluster, runs: AirflowRuns) -> str | None:
    """Why a cluster of this deployment must end, or None.

    A run that this Airflow does not know (it was deleted, or another Airflow started it) is judged by the deadline
    alone.
    """
    deadline = _deadline(cluster)
    if deadline is not None and deadline <= datetime.now(UTC):
        return f"its deadline, {deadline:%Y-%m-%d %H:%M:%S} UTC, has passed"
    dag_id, run_id = cluster.tags.get("dag", ""), cluster.tags.get("run", "")
    if runs.has_ended(dag_id, run_id):
        return f"its run {run_id} has ended"
    return None


def free_abandoned_locks(settings: Settings, context: Context) -> list[str]:
    """Removes each lock of this deployment whose owner is gone; returns which, who had it, and why.

    What a run gives back itself in `verdict`, if it is sure that its clusters are gone.
    """
    runs, lake = SupervisedRuns(context["ti"]), open_lake(settings)
    me = RunKey(settings.deployment_id, context["dag"].dag_id, context["run_id"])
    freed = []
    for database in (settings.database, settings.demo_database):
        lock = open_lock(settings, lake, me, database, settings.region, runs)
        holding = lock.read()
        if holding is None:
            continue
        why = judge_holder(settings, lake, lock, holding, runs)
        if why is not None and lock.remove(holding):
            log.warning("Removed the lock of %s, which had %s: %s", database, holding, why)
            freed.append(f"{database}: {holding}: {why}")
    return freed


def judge_holder(
    settings: Settings, lake: Lake, lock: DatabaseLock, holding: LockRecord, runs: AirflowRuns
) -> str | None:
    """Why a lock may be taken from who holds it, or None; a run that is unknown is judged by the deadline, as above."""
    if holding.owner.deployment_id != settings.deployment_id:
        return None
    if is_orphaned(settings, lake, holding, runs):
        return "its run has ended, and no cluster of it is alive"
    if lock.is_abandoned(holding):
        return "its deadline has passed, and neither run nor cluster of it is alive"
    return None


def _end(client: EMRClient, settings: Settings, condemned: list[ExpiredCluster]) -> list[dict[str, Any]]:
    for one in condemned:
        log.warning("Ending %s (%s): %s", one.cluster.job_flow_id, one.cluster.state, one.why)
    ids = [one.cluster.job_flow_id for one in condemned]
    _, alive = end_and_watch(client, ids, settings.terminate_timeout_minutes * 60, settings.poll_s)
    report = []
    for one in condemned:
        job_flow_id, tags = one.cluster.job_flow_id, one.cluster.tags
        if state := alive.get(job_flow_id):
            run = RunKey(settings.deployment_id, tags.get("dag", "?"), tags.get("run", "?"))
            cause = f"{job_flow_id} in {one.region} was told to end because {one.why}, and is {state}"
            tell(settings, Notice("cluster-will-not-die", run, cause, _cost_eur(client, one)))
        report.append(
            {
                "job_flow_id": job_flow_id,
                "region": one.region,
                "run_id": tags.get("run"),
                "why": one.why,
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


def _cost_eur(client: EMRClient, one: ExpiredCluster) -> float | None:
    try:
        nodes = instances_of(client, one.cluster.job_flow_id)
        return sum(estimate_parts(nodes, load_prices(one.region), datetime.now(UTC)).values())
    except (FruitsError, BotoCoreError, ClientError) as error:
        log.warning("What %s has cost is not known: %s", one.cluster.job_flow_id, error)
        return None
