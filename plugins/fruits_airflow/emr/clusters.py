"""Find, create and end the cluster of a run.

A second RunJobFlow creates a second cluster. Hence `send_announced` sends the request, and another request follows only
when EMR has not returned an id and the listing has not shown a cluster within its consistency window. The oldest
cluster is the run's; further ones are ended.
"""

import hashlib
import logging
import re
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from fruits_airflow.config.aws_types import EMRClient
from fruits_airflow.config.errors import ClusterLost
from fruits_airflow.emr.announced_requests import CREATED_ID, AnnouncedRequests, send_announced
from fruits_airflow.emr.cluster_lint import LONGEST_LIFE
from fruits_airflow.storage.lake import error_code
from fruits_airflow.storage.run_notes import Journal, age_s

log = logging.getLogger(__name__)

LIVE_STATES = ("STARTING", "BOOTSTRAPPING", "RUNNING", "WAITING")
READY_STATES = ("RUNNING", "WAITING")
UNENDED_STATES = (*LIVE_STATES, "TERMINATING")
ENDED_STATES = ("TERMINATED", "TERMINATED_WITH_ERRORS")
ALL_STATES = (*UNENDED_STATES, *ENDED_STATES)

CLUSTER_NOTE = "run_job_flow"
"""Name of the note that announces RunJobFlow; it contains CREATED_ID once EMR has answered."""
LONGEST_END_S = 600.0  # EMR takes one to three minutes
_NOT_IN_A_TAG = re.compile(r"[^A-Za-z0-9 _.:/=+@-]")


def tag_value(text: str) -> str:
    """Replace the characters that an AWS tag cannot contain; a digest then keeps the value unique."""
    allowed = _NOT_IN_A_TAG.sub("_", text)
    if allowed == text and len(text) <= 256:
        return text
    return f"{allowed[:240]}.{hashlib.sha256(text.encode()).hexdigest()[:12]}"


@dataclass(frozen=True)
class RunKey:
    """Deployment, DAG and run that a cluster belongs to: deployments in one account can have the same run ids."""

    deployment_id: str
    dag_id: str
    run_id: str

    @property
    def name(self) -> str:
        """The cluster's name: ListClusters returns names, but no tags."""
        parts = (self.deployment_id, self.dag_id, self.run_id)
        return "/".join(["fruits", *map(tag_value, parts)])[:256]

    @property
    def tags(self) -> dict[str, str]:
        """The tags that identify this run's cluster."""
        return {
            "project": "fruits",
            "deployment": tag_value(self.deployment_id),
            "dag": tag_value(self.dag_id),
            "run": tag_value(self.run_id),
        }


@dataclass(frozen=True)
class Cluster:
    """A cluster as DescribeCluster shows it."""

    job_flow_id: str
    name: str
    state: str
    created_at: datetime
    tags: Mapping[str, str]
    log_uri: str
    reason: str
    description: Mapping[str, Any]

    @property
    def deadline(self) -> datetime | None:
        """The time of its tag `deadline`."""
        text = self.tags.get("deadline")
        return datetime.fromisoformat(text) if text else None


def state_reason(status: Mapping[str, Any]) -> str:
    """Return why a cluster changed its state, such as `USER_REQUEST Terminated by user request`."""
    change = status.get("StateChangeReason", {})
    return " ".join(filter(None, (change.get("Code"), change.get("Message"))))


def describe_cluster(client: EMRClient, job_flow_id: str) -> Cluster:
    """Read a cluster."""
    description: Mapping[str, Any] = client.describe_cluster(ClusterId=job_flow_id)["Cluster"]
    status = description["Status"]
    return Cluster(
        job_flow_id=job_flow_id,
        name=description["Name"],
        state=status["State"],
        created_at=status["Timeline"]["CreationDateTime"],
        tags={tag["Key"]: tag["Value"] for tag in description.get("Tags", [])},
        log_uri=description.get("LogUri", ""),
        reason=state_reason(status),
        description=description,
    )


def is_unknown(error: Exception) -> bool:
    """Whether EMR answered that it does not know the cluster or step: it ended months ago, or never existed."""
    return isinstance(error, ClientError) and error_code(error) == "InvalidRequestException"


def find_clusters(
    client: EMRClient, identity: RunKey, states: Sequence[str] = LIVE_STATES, since: datetime | None = None
) -> list[Cluster]:
    """List the clusters of `identity` in `states`, created after `since`, oldest first.

    Raises:
        ClientError, BotoCoreError: EMR refused or did not answer.
    """
    request: dict[str, Any] = {"ClusterStates": list(states)} | ({"CreatedAfter": since} if since else {})
    pages = client.get_paginator("list_clusters").paginate(**request)
    ids = [c["Id"] for page in pages for c in page["Clusters"] if c["Name"] == identity.name]
    return _own(identity, [describe_cluster(client, job_flow_id) for job_flow_id in ids], states)


def find_noted(
    client: EMRClient, identity: RunKey, note: Mapping[str, Any] | None, states: Sequence[str] = LIVE_STATES
) -> list[Cluster]:
    """Find the cluster that CLUSTER_NOTE names, although the listing may not show it yet.

    Read `note` after the listing, so that it includes what was announced before.

    Raises:
        ClientError, BotoCoreError: EMR refused or did not answer.
    """
    if note is None or CREATED_ID not in note:
        return []
    try:
        cluster = describe_cluster(client, note[CREATED_ID])
    except ClientError as error:
        if _is_forgotten(error, note):
            return []
        raise
    return _own(identity, [cluster], states)


def _is_forgotten(error: ClientError, note: Mapping[str, Any]) -> bool:
    """Whether EMR no longer knows a noted cluster: it forgets a cluster two months after its end.

    A policy with tag conditions turns this answer into AccessDenied, since there is no tag to compare. AccessDenied for
    a cluster that may be alive says nothing.
    """
    denied = error_code(error) == "AccessDeniedException" and age_s(note) > LONGEST_LIFE.total_seconds()
    return denied or is_unknown(error)


def find_listed_or_noted(client: EMRClient, identity: RunKey, journal: Journal, states: Sequence[str]) -> list[Cluster]:
    """Find clusters as `find_clusters` does or, if it finds none, as `find_noted` does.

    Read the note only when the listing is empty, so that an S3 error cannot keep a listed cluster alive.
    """
    return find_clusters(client, identity, states) or find_noted(client, identity, journal.read(CLUSTER_NOTE), states)


def _own(identity: RunKey, clusters: list[Cluster], states: Sequence[str]) -> list[Cluster]:
    # Tags are compared for noted clusters too: another deployment with this lake has the same notes.
    own = [c for c in clusters if identity.tags.items() <= c.tags.items() and c.state in states]
    return sorted(own, key=lambda cluster: (cluster.created_at, cluster.job_flow_id))


@dataclass(frozen=True)
class ClusterLifecycle(AnnouncedRequests):
    """Creates and ends the cluster of a run."""

    identity: RunKey

    def find(self) -> Cluster | None:
        """Find the run's live cluster, and end further ones."""
        return self.find_announced(
            CLUSTER_NOTE,
            list_all=lambda: find_clusters(self.client, self.identity),
            describe=lambda note: find_noted(self.client, self.identity, note),
            choose=self._keep_oldest,
        )

    def find_or_create(self, body: Callable[[], dict[str, Any]]) -> Cluster:
        """Find the run's live cluster, or create it with the body of RunJobFlow that `body` builds.

        Raises:
            ClientError: AWS refused the request.
            BotoCoreError: AWS did not answer, and the listing showed no cluster within its window.
            ClusterLost: An earlier cluster of the run is still ending; a retry looks again.
        """
        if existing := self.find():
            return existing
        self._await_ending()
        request = body()
        job_flow_id = send_announced(
            self.journal,
            CLUSTER_NOTE,
            request=lambda: self.single_attempt_client.run_job_flow(**request)["JobFlowId"],
            find=lambda: cluster.job_flow_id if (cluster := self.find()) else None,
        )
        log.info("The run's cluster is %s, named %s", job_flow_id, self.identity.name)
        return describe_cluster(self.client, job_flow_id)

    def end_all(self, timeout_s: float) -> list[Cluster]:
        """End every cluster of the run, wait until each has ended, and return them.

        Raises:
            TimeoutError: A cluster has not ended in time; the message names each and its state.
            ClientError, BotoCoreError: EMR refused or did not answer, or S3 when the listing is empty.
        """
        if cluster := self.find():  # a second listing may show less than the first
            pending = [cluster, *find_clusters(self.client, self.identity, UNENDED_STATES)]
        else:
            pending = find_listed_or_noted(self.client, self.identity, self.journal, UNENDED_STATES)
        ids = {cluster.job_flow_id for cluster in pending}
        ended, alive = end_and_watch(self.client, ids, timeout_s, self.poll_s)
        if alive:
            raise TimeoutError(
                f"not ended after {timeout_s:.0f} s: {', '.join(f'{i} ({why})' for i, why in alive.items())}; "
                "a retry tries again; if that fails too, end it in the EMR console"
            )
        return ended

    def _keep_oldest(self, clusters: Sequence[Cluster]) -> Cluster | None:
        """Return the oldest cluster and end the others."""
        if not clusters:
            return None
        oldest, *others = clusters
        log.info("Using %s (%s), the oldest of %d", oldest.job_flow_id, oldest.state, len(clusters))
        for cluster in others:
            log.warning("Ending %s: the run has an older cluster", cluster.job_flow_id)
            try:
                request_end(self.client, cluster.job_flow_id)
            except (BotoCoreError, ClientError) as error:
                log.warning("Cannot end %s: %s; terminate_cluster tries again", cluster.job_flow_id, error)
        return oldest

    def _await_ending(self) -> None:
        """Wait until no cluster is ending: its step may still write, and two clusters cost twice as much."""
        give_up = time.monotonic() + LONGEST_END_S
        while ending := find_listed_or_noted(self.client, self.identity, self.journal, ("TERMINATING",)):
            if time.monotonic() >= give_up:
                raise ClusterLost(
                    f"{ending[0].job_flow_id} is TERMINATING for more than {LONGEST_END_S:.0f} s; the run's next "
                    "cluster is created when it has ended: see it in the EMR console"
                )
            log.info("Waiting until %s, which is TERMINATING, has ended", ending[0].job_flow_id)
            time.sleep(self.poll_s)


def request_end(client: EMRClient, job_flow_id: str) -> None:
    """Request the end of a cluster; disable its termination protection first if EMR requires that."""
    try:
        client.terminate_job_flows(JobFlowIds=[job_flow_id])
    except ClientError as error:
        if error_code(error) != "ValidationException":
            raise
        log.warning("EMR refused to end %s (%s); disabling its termination protection", job_flow_id, error)
        client.set_termination_protection(JobFlowIds=[job_flow_id], TerminationProtected=False)
        client.terminate_job_flows(JobFlowIds=[job_flow_id])


def end_and_watch(
    client: EMRClient, job_flow_ids: Collection[str], timeout_s: float, poll_s: float
) -> tuple[list[Cluster], dict[str, str]]:
    """End clusters and wait until each has ended; an error of one does not keep the others alive.

    Returns:
        The ended clusters, and the last state or error of each other cluster.
    """
    ended: list[Cluster] = []
    alive = dict.fromkeys(sorted(job_flow_ids), "not read")
    give_up = time.monotonic() + timeout_s
    while alive:
        for job_flow_id in list(alive):
            try:
                cluster = describe_cluster(client, job_flow_id)
                alive[job_flow_id] = cluster.state
                if cluster.state in ENDED_STATES:
                    log.info("%s is %s", job_flow_id, cluster.state)
                    del alive[job_flow_id]
                    ended.append(cluster)
                elif cluster.state in LIVE_STATES:
                    request_end(client, job_flow_id)
            except (BotoCoreError, ClientError) as error:
                log.warning("%s: %s; trying again", job_flow_id, error)
                alive[job_flow_id] = str(error)
        if not alive or time.monotonic() > give_up:
            break
        time.sleep(poll_s)
    return ended, alive


def instances_of(client: EMRClient, job_flow_id: str) -> list[dict[str, Any]]:
    """List the nodes that a cluster has had, with their timelines.

    Raises:
        ClientError: EMR does not know the cluster, or throttled longer than the client retries.
        BotoCoreError: EMR did not answer.
    """
    pages = client.get_paginator("list_instances").paginate(ClusterId=job_flow_id)
    return [dict(instance) for page in pages for instance in page["Instances"]]
