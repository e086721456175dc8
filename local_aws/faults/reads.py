"""Reads that lag behind or go backward, as those of an eventually consistent service do.

`stale`: EMR's ListClusters shows the clusters, and their states, as they were `seconds` ago.
`backward`: a read gives, at its `rate`, what it gave before its answer last changed.
"""

from __future__ import annotations

import json
import threading
import time
from typing import Any

from local_aws.emr import describe
from local_aws.emr.cluster import Cluster
from local_aws.emr.models import EmrBackend, emr_backends
from local_aws.faults.armed import READS, Fault, Faults
from local_aws.faults.clusters import FaultyClusters
from local_aws.requests import Call
from local_aws.web import Reply

_STRUCK = "local_aws.faults.reads"


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
        self._given: dict[tuple[str, ...], list[Reply]] = {}

    def before(self, call: Call) -> Reply | None:
        """Lets the request pass, with what strikes noted."""
        call.environ[_STRUCK] = (
            [] if call.service == "local_aws" else self._faults.strike(READS, lambda one: one.is_for(call))
        )
        call.environ[_STRUCK + ".body"] = _body(call) if call.service == "emr" else b""
        return None

    def after(self, call: Call, reply: Reply) -> Reply:
        """The reply, or an earlier one."""
        if call.service != "emr" or reply.status != 200:
            return reply
        struck: list[Fault] = call.environ[_STRUCK]
        now = self._remembered(call, reply)
        for fault in struck:
            if fault.kind == "stale" and call.operation == "ListClusters":
                return self._listing(call, time.time() - fault.seconds)
            if fault.kind == "backward":
                return now
        return reply

    def _remembered(self, call: Call, reply: Reply) -> Reply:
        """Notes the reply; gives the one before the last change, or this one when there was none."""
        key = (call.region, call.operation, call.environ[_STRUCK + ".body"].decode("utf-8", "replace"))
        with self._lock:
            given = self._given.setdefault(key, [])
            if not given or given[-1].body != reply.body:
                given.append(reply)
                del given[:-2]
            return given[0]

    def _listing(self, call: Call, moment: float) -> Reply:
        wanted: list[str] = json.loads(call.environ[_STRUCK + ".body"] or b"{}").get("ClusterStates") or []
        found = []
        for cluster in _all_clusters(call.region):
            state = self._clusters.state_at(cluster, moment)
            if state is not None and (not wanted or state in wanted):
                summary: dict[str, Any] = describe.summary(cluster)
                summary["Status"] = {**summary["Status"], "State": state}
                found.append(summary)
        found.sort(key=lambda one: one["Status"]["Timeline"]["CreationDateTime"], reverse=True)
        body = json.dumps({"Clusters": found}, default=lambda moment: moment.timestamp()).encode()
        headers = [("Content-Type", "application/x-amz-json-1.1"), ("Content-Length", str(len(body)))]
        return Reply(200, headers, body)


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
