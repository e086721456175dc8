"""Reads that lag behind or go backward, as those of an eventually consistent service do.

`stale`: a read gives what it first gave `seconds` ago or earlier; ListClusters shows the clusters, and their states, as
they really were then, also when nobody has asked.
`backward`: a read gives, at its `rate`, what it gave before its answer last changed.

Both are for EMR's DescribeCluster, DescribeStep, ListClusters and ListSteps and for Glue's GetTable and GetTables, and
count as struck only where the earlier answer is another one than the present.
"""

from __future__ import annotations

import json
import threading
import time
from typing import Any

from local_aws.emr import describe
from local_aws.emr.cluster import Cluster
from local_aws.emr.models import EmrBackend, emr_backends
from local_aws.faults.armed import LAGGING, READS, Fault, Faults
from local_aws.faults.clusters import FaultyClusters
from local_aws.requests import Call
from local_aws.web import Reply

_BODY = "local_aws.faults.reads.body"
_KEPT = 200
"""Answers to one question that are remembered: minutes of a cluster that changes every second."""


class FaultyReads:
    """Answers reads from an earlier moment.

    Args:
        faults: what is armed.
        clusters: remembers the states of clusters.
    """

    def __init__(self, faults: Faults, clusters: FaultyClusters) -> None:
        self._faults = faults
        self._clusters = clusters
        self._lock = threading.Lock()
        self._given: dict[tuple[str, ...], list[tuple[float, Reply]]] = {}

    def before(self, call: Call) -> Reply | None:
        """Lets the request pass, with its body noted: the service consumes it."""
        if _lags(call):
            call.environ[_BODY] = _body(call)
        return None

    def after(self, call: Call, reply: Reply) -> Reply:
        """The reply, or an earlier one."""
        if reply.status != 200 or not _lags(call):
            return reply
        given = self._remembered(call, reply)
        earlier = {
            one.id: found
            for one in self._faults.armed()
            if one.kind in READS
            and one.is_for(call)
            and (found := self._earlier(call, one, given))
            and _says(call, found) != _says(call, reply)
        }
        struck = self._faults.strike(READS, lambda one: one.id in earlier)
        return earlier[struck[0].id] if struck else reply

    def _remembered(self, call: Call, reply: Reply) -> list[tuple[float, Reply]]:
        """Notes the reply; gives what was given until now and when it was first, this one the last."""
        key = (call.region, call.service, call.operation, call.environ[_BODY].decode("utf-8", "replace"))
        with self._lock:
            given = self._given.setdefault(key, [])
            if not given or given[-1][1].body != reply.body:
                given.append((time.time(), reply))
                del given[:-_KEPT]
            return list(given)

    def _earlier(self, call: Call, fault: Fault, given: list[tuple[float, Reply]]) -> Reply | None:
        if fault.kind == "backward":
            return given[-2][1] if len(given) > 1 else None
        moment = time.time() - fault.seconds
        if call.operation == "ListClusters":
            return self._listing(call, moment)
        known = [reply for since, reply in given if since <= moment]
        return known[-1] if known else given[0][1]

    def _listing(self, call: Call, moment: float) -> Reply:
        asked: dict[str, Any] = json.loads(call.environ[_BODY] or b"{}")
        wanted = asked.get("ClusterStates") or []
        after, before = asked.get("CreatedAfter", 0.0), asked.get("CreatedBefore", float("inf"))
        found = []
        for cluster in _all_clusters(call.region):
            state = self._clusters.state_at(cluster, moment)
            made = after < cluster.timeline.created.timestamp() < before
            if state is not None and made and (not wanted or state in wanted):
                summary: dict[str, Any] = describe.summary(cluster)
                summary["Status"] = {**summary["Status"], "State": state}
                found.append(summary)
        found.sort(key=lambda one: one["Status"]["Timeline"]["CreationDateTime"], reverse=True)
        body = json.dumps({"Clusters": found}, default=lambda moment: moment.timestamp()).encode()
        headers = [("Content-Type", "application/x-amz-json-1.1"), ("Content-Length", str(len(body)))]
        return Reply(200, headers, body)


def _lags(call: Call) -> bool:
    return f"{call.service}:{call.operation}" in LAGGING


def _says(call: Call, reply: Reply) -> object:
    """What a client would act on."""
    if call.operation != "ListClusters":
        return reply.body
    return [(one["Id"], one["Status"]["State"]) for one in json.loads(reply.body)["Clusters"]]


def _all_clusters(region: str) -> list[Cluster]:
    return [
        cluster
        for _, name, backend in emr_backends.iter_backends()
        if name == region and isinstance(backend, EmrBackend)
        for cluster in backend.list_clusters()
    ]


def _body(call: Call) -> bytes:
    source = call.environ["wsgi.input"]
    body: bytes = source.read()
    source.seek(0)
    return body
