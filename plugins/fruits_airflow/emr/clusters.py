"""Finding, making and ending the cluster of one run.

A second RunJobFlow makes a second cluster. Hence it is sent by `send_announced`, and another one only when EMR has not
told the id of what the first made and the listing has had its consistency window to show it. The oldest found is the
run's cluster; others are ended.
"""

from __future__ import annotations

import hashlib
import logging
import re
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from botocore.exceptions import BotoCoreError, ClientError

from fruits_airflow.config.errors import ClusterLost
from fruits_airflow.emr.cluster_lint import LONGEST_LIFE
from fruits_airflow.storage.idempotency import MADE, send_announced
from fruits_airflow.storage.lake import error_code
from fruits_airflow.storage.run_notes import Journal, age_s

if TYPE_CHECKING:
    from mypy_boto3_emr import EMRClient

log = logging.getLogger(__name__)

LIVE_STATES = ("STARTING", "BOOTSTRAPPING", "RUNNING", "WAITING")
READY_STATES = ("RUNNING", "WAITING")
UNENDED_STATES = (*LIVE_STATES, "TERMINATING")
ENDED_STATES = ("TERMINATED", "TERMINATED_WITH_ERRORS")
ALL_STATES = (*UNENDED_STATES, *ENDED_STATES)

CLUSTER_REQUEST = "run_job_flow"
"""The note that announces a cluster, and names it once EMR has told its id."""
LONGEST_END_S = 600.0  # EMR takes one to three minutes
_NOT_IN_A_TAG = re.compile(r"[^A-Za-z0-9 _.:/=+@-]")


def tag_value(text: str) -> str:
    """`text` as an AWS tag may hold it: other characters are replaced, a digest then keeps it unique."""
    allowed = _NOT_IN_A_TAG.sub("_", text)
    if allowed == text and len(text) <= 256:
        return text
    return f"{allowed[:240]}.{hashlib.sha256(text.encode()).hexdigest()[:12]}"


@dataclass(frozen=True)
class RunKey:
    """Whose cluster it is: a laptop and production in one account have the same run ids."""

    deployment_id: str
    dag_id: str
    run_id: str

    @property
    def name(self) -> str:
        """The cluster's name: ListClusters gives names, but no tags."""
        return f"fruits/{tag_value(self.deployment_id)}/{tag_value(self.dag_id)}/{tag_value(self.run_id)}"[
            :256
        ]

    @property
    def tags(self) -> dict[str, str]:
        """The tags that tell this run's cluster from every other one."""
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
        """When it must be gone, from its tag."""
        text = self.tags.get("deadline")
        return datetime.fromisoformat(text) if text else None


def describe(client: EMRClient, job_flow_id: str) -> Cluster:
    """Reads one cluster."""
    found: Mapping[str, Any] = client.describe_cluster(ClusterId=job_flow_id)["Cluster"]
    status = found["Status"]
    change = status.get("StateChangeReason", {})
    return Cluster(
        job_flow_id=job_flow_id,
        name=found["Name"],
        state=status["State"],
        created_at=status["Timeline"]["CreationDateTime"],
        tags={tag["Key"]: tag["Value"] for tag in found.get("Tags", [])},
        log_uri=found.get("LogUri", ""),
        reason=" ".join(filter(None, (change.get("Code"), change.get("Message")))),
        description=found,
    )


def is_unknown(error: Exception) -> bool:
    """Whether EMR answered that it does not know the cluster or step: it ended months ago, or never existed here."""
    return isinstance(error, ClientError) and error_code(error) == "InvalidRequestException"


def find(client: EMRClient, identity: RunKey, states: Sequence[str] = LIVE_STATES) -> list[Cluster]:
    """The clusters of `identity` in `states` that the listing shows, oldest first; by name, then by tags.

    Raises:
        ClientError, BotoCoreError: EMR does not tell now.
    """
    pages = client.get_paginator("list_clusters").paginate(ClusterStates=list(states))  # type: ignore[arg-type]
    ids = [c["Id"] for page in pages for c in page["Clusters"] if c["Name"] == identity.name]
    return _own(identity, (describe(client, job_flow_id) for job_flow_id in ids), states)


def find_noted(
    client: EMRClient,
    identity: RunKey,
    request: Mapping[str, Any] | None,
    states: Sequence[str] = LIVE_STATES,
) -> list[Cluster]:
    """The cluster of `identity` in `states` that a note names, though the listing may not show it yet; or none.

    The note is to be read after the listing: it then has what was announced before. Whoever ends clusters reads it only
    if that shows none: a lake that denies must not keep a cluster alive that is listed.

    Args:
        client: EMR client.
        identity: whose.
        request: the note of CLUSTER_REQUEST, if there is one.
        states: which count.

    Raises:
        ClientError, BotoCoreError: EMR does not tell now.
    """
    if request is None or MADE not in request:
        return []
    try:
        cluster = describe(client, request[MADE])
    except ClientError as error:
        if _is_forgotten(error, request):
            return []
        raise
    return _own(identity, [cluster], states)


def _is_forgotten(error: ClientError, request: Mapping[str, Any]) -> bool:
    """Whether EMR, asked for a noted cluster, answers that it keeps nothing of it: it forgets two months after the end.

    A policy with tag conditions turns that answer into AccessDenied, since there is no tag to compare. Of a cluster
    that may still live, AccessDenied says nothing.
    """
    denied = error_code(error) == "AccessDeniedException" and age_s(request) > LONGEST_LIFE.total_seconds()
    return denied or is_unknown(error)


def find_listed_or_noted(
    client: EMRClient, identity: RunKey, journal: Journal, states: Sequence[str]
) -> list[Cluster]:
    """What `find` finds; where that is nothing, what `find_noted` does by the run's journal."""
    return find(client, identity, states) or find_noted(
        client, identity, journal.read(CLUSTER_REQUEST), states
    )


def _own(identity: RunKey, clusters: Iterable[Cluster], states: Sequence[str]) -> list[Cluster]:
    # By tags also what was noted: another deployment with this lake has the same notes.
    own = [c for c in clusters if identity.tags.items() <= c.tags.items() and c.state in states]
    return sorted(own, key=lambda cluster: (cluster.created_at, cluster.job_flow_id))


@dataclass(frozen=True)
class ClusterLifecycle:
    """Makes and ends clusters for one run.

    Attributes:
        client: EMR client for reading and ending: calls that may be repeated.
        single_attempt_client: EMR client whose calls send one request.
        journal: the run's notes.
        identity: whose cluster.
        consistency_s: how long ListClusters may not show a new cluster.
        poll_s: pause between two looks.
    """

    client: EMRClient
    single_attempt_client: EMRClient
    journal: Journal
    identity: RunKey
    consistency_s: float
    poll_s: float

    def adopt(self) -> Cluster | None:
        """The run's live cluster, if there is one; further ones are ended.

        Waits while a request announced moments ago may have made one that the listing does not show yet.
        """
        while not (clusters := find(self.client, self.identity)):
            request = self.journal.read(CLUSTER_REQUEST)
            if clusters := find_noted(self.client, self.identity, request):
                break
            if request is None or MADE in request or (age := age_s(request)) >= self.consistency_s:
                return None
            log.info("A request for a cluster was sent %.0f s ago; looking again", age)
            time.sleep(min(self.poll_s, self.consistency_s - age))
        oldest, *extra = clusters
        log.info("Adopting %s (%s), the oldest of %d", oldest.job_flow_id, oldest.state, len(clusters))
        for cluster in extra:
            log.warning("Ending %s: the run has an older cluster", cluster.job_flow_id)
            try:
                request_end(self.client, cluster.job_flow_id)
            except (BotoCoreError, ClientError) as error:
                log.warning("%s does not end: %s; terminate_cluster tries again", cluster.job_flow_id, error)
        return oldest

    def adopt_or_create(self, body: Callable[[], dict[str, Any]]) -> Cluster:
        """The run's live cluster, made now if there is none.

        Args:
            body: gives the body of RunJobFlow; called only when a cluster is made.

        Raises:
            ClientError: AWS refused the request.
            BotoCoreError: no answer came, and the listing showed no cluster within its window.
            ClusterLost: an earlier cluster of the run goes on ending; another attempt looks again.
        """
        if existing := self.adopt():
            return existing
        self._let_end()
        made_of = body()
        job_flow_id = send_announced(
            self.journal,
            CLUSTER_REQUEST,
            request=lambda: self.single_attempt_client.run_job_flow(**made_of)["JobFlowId"],
            find=lambda: found.job_flow_id if (found := self.adopt()) else None,
        )
        log.info("The run's cluster is %s, named %s", job_flow_id, self.identity.name)
        return describe(self.client, job_flow_id)

    def _let_end(self) -> None:
        """Waits for a cluster that is ending: a step on it may still write, and two at once cost twice."""
        give_up = time.monotonic() + LONGEST_END_S
        while ending := self._find(("TERMINATING",)):
            if time.monotonic() >= give_up:
                raise ClusterLost(
                    f"{ending[0].job_flow_id} is TERMINATING for more than {LONGEST_END_S:.0f} s; the run's next "
                    "cluster is made when it has ended: see it in the EMR console"
                )
            log.info("%s is TERMINATING; the next is made when it has ended", ending[0].job_flow_id)
            time.sleep(self.poll_s)

    def end_all(self, timeout_s: float) -> list[Cluster]:
        """Ends every cluster of the run and watches until each is seen ended.

        Args:
            timeout_s: how long to watch.

        Returns:
            The clusters, as last seen, each in an ended state.

        Raises:
            TimeoutError: one was not seen ended in time; it names each and its state.
            ClientError, BotoCoreError: EMR does not tell, or the lake does not when the listing shows none.
        """
        if adopted := self.adopt():  # a second listing may show less than the first
            pending = [adopted, *find(self.client, self.identity, UNENDED_STATES)]
        else:
            pending = self._find(UNENDED_STATES)
        ids = {cluster.job_flow_id for cluster in pending}
        ended, alive = end_and_watch(self.client, ids, timeout_s, self.poll_s)
        if alive:
            raise TimeoutError(
                f"not seen ended after {timeout_s:.0f} s: {', '.join(f'{i} ({why})' for i, why in alive.items())}; "
                "trying again; end it in the EMR console should this go on"
            )
        return ended

    def _find(self, states: Sequence[str]) -> list[Cluster]:
        return find_listed_or_noted(self.client, self.identity, self.journal, states)


def request_end(client: EMRClient, job_flow_id: str) -> None:
    """Asks EMR to end a cluster, lifting its termination protection if need be.

    Raises:
        ClientError: EMR refuses.
    """
    try:
        client.terminate_job_flows(JobFlowIds=[job_flow_id])
    except ClientError as error:
        if error_code(error) != "ValidationException":
            raise
        log.warning("%s refused to end (%s); lifting its termination protection", job_flow_id, error)
        client.set_termination_protection(JobFlowIds=[job_flow_id], TerminationProtected=False)
        client.terminate_job_flows(JobFlowIds=[job_flow_id])


def end_and_watch(
    client: EMRClient, job_flow_ids: Collection[str], timeout_s: float, poll_s: float
) -> tuple[list[Cluster], dict[str, str]]:
    """Ends clusters and watches until each is seen ended; one that refuses does not keep the others alive.

    Args:
        client: EMR client.
        job_flow_ids: what to end.
        timeout_s: how long to watch.
        poll_s: pause between two looks.

    Returns:
        The clusters seen ended, and for each other one its state or what EMR said.
    """
    pending, ended, last = set(job_flow_ids), [], dict.fromkeys(job_flow_ids, "not looked at")
    give_up = time.monotonic() + timeout_s
    while pending:
        for job_flow_id in sorted(pending):
            try:
                cluster = describe(client, job_flow_id)
                last[job_flow_id] = cluster.state
                if cluster.state in ENDED_STATES:
                    log.info("%s is %s", job_flow_id, cluster.state)
                    pending.discard(job_flow_id)
                    ended.append(cluster)
                elif cluster.state in LIVE_STATES:
                    request_end(client, job_flow_id)
            except (BotoCoreError, ClientError) as error:
                log.warning("%s: %s; looking again", job_flow_id, error)
                last[job_flow_id] = str(error)
        if pending and time.monotonic() > give_up:
            break
        if pending:
            time.sleep(poll_s)
    return ended, {job_flow_id: last[job_flow_id] for job_flow_id in sorted(pending)}


def clusters_of_run(client: EMRClient, identity: RunKey, since: datetime | None = None) -> list[Cluster]:
    """Every cluster that the run has had, ended ones included, oldest first; `since` shortens the search."""
    extra: dict[str, Any] = {} if since is None else {"CreatedAfter": since}
    pages = client.get_paginator("list_clusters").paginate(**extra)
    ids = [c["Id"] for page in pages for c in page["Clusters"] if c["Name"] == identity.name]
    return _own(identity, (describe(client, job_flow_id) for job_flow_id in ids), ALL_STATES)


def instances_of(client: EMRClient, job_flow_id: str) -> list[dict[str, Any]]:
    """The nodes that a cluster has had, with their timelines.

    Raises:
        ClientError: EMR refuses: it does not know the cluster, or throttles longer than the client is patient.
        BotoCoreError: EMR does not answer.
    """
    pages = client.get_paginator("list_instances").paginate(ClusterId=job_flow_id)
    return [dict(instance) for page in pages for instance in page["Instances"]]


def seconds_alive(cluster: Cluster) -> float:
    """From RunJobFlow to the cluster's end, or to now."""
    end = cluster.description["Status"]["Timeline"].get("EndDateTime") or datetime.now(UTC)
    return float((end - cluster.created_at).total_seconds())
