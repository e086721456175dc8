"""Reads that lag behind or go backward, like those of an eventually consistent service.

`stale`: a read returns the answer of `seconds` ago. ListClusters shows the clusters and states of that moment even
where no request came then.
`backward`: a read returns, at its `rate`, the answer before the last change.

Both affect EMR's DescribeCluster, DescribeStep, ListClusters and ListSteps and Glue's GetTable and GetTables. They
count as struck only where the earlier answer differs from the present answer.
"""

from __future__ import annotations

import json
import threading
import time
from itertools import chain
from typing import Any

from local_aws.emr import describe
from local_aws.emr.models import emr_backends
from local_aws.replies import Reply
from local_aws.requests import Call
from local_aws.web import Interceptor
from tests.emulator.armed import LAGGING, READS, Fault, Faults
from tests.emulator.clusters import FaultyClusters

_BODY = "tests.emulator.reads.body"
_KEPT = 200
"""How many answers to a request are kept: minutes of a cluster that changes every second."""


class FaultyReads(Interceptor):
    """Answers reads as of an earlier moment; `clusters` records the states of clusters."""

    def __init__(self, faults: Faults, clusters: FaultyClusters) -> None:
        self._faults = faults
        self._clusters = clusters
        self._lock = threading.Lock()
        self._answers: dict[tuple[str, ...], list[tuple[float, Reply]]] = {}

    def before(self, call: Call) -> Reply | None:
        """Keep the body, which the service consumes, and let the request pass."""
        if _lags(call):
            call.environ[_BODY] = call.body()
        return None

    def after(self, call: Call, reply: Reply) -> Reply:
        """Return the reply or an earlier reply."""
        if reply.status != 200 or not _lags(call):
            return reply
        answers = self._record(call, reply)
        earlier = {
            fault.id: answer
            for fault in self._faults.armed()
            if fault.kind in READS
            and fault.is_for(call)
            and (answer := self._earlier(call, fault, answers))
            and _content(call, answer) != _content(call, reply)
        }
        struck = self._faults.strike(READS, lambda fault: fault.id in earlier)
        return earlier[struck[0].id] if struck else reply

    def _record(self, call: Call, reply: Reply) -> list[tuple[float, Reply]]:
        """Record the reply; return all answers, oldest first, each with the time of its first appearance."""
        key = (call.region, call.service, call.operation, call.environ[_BODY].decode("utf-8", "replace"))
        with self._lock:
            answers = self._answers.setdefault(key, [])
            if not answers or answers[-1][1].body != reply.body:
                answers.append((time.time(), reply))
                del answers[:-_KEPT]
            return list(answers)

    def _earlier(self, call: Call, fault: Fault, answers: list[tuple[float, Reply]]) -> Reply | None:
        if fault.kind == "backward":
            return answers[-2][1] if len(answers) > 1 else None
        moment = time.time() - fault.seconds
        if call.operation == "ListClusters":
            return self._listing(call, moment)
        known = [reply for since, reply in answers if since <= moment]
        return known[-1] if known else answers[0][1]

    def _listing(self, call: Call, moment: float) -> Reply:
        request: dict[str, Any] = json.loads(call.environ[_BODY] or b"{}")
        states = request.get("ClusterStates") or []
        after, before = request.get("CreatedAfter", 0.0), request.get("CreatedBefore", float("inf"))
        summaries = []
        backends: list[Any] = [emr for _, name, emr in emr_backends.iter_backends() if name == call.region]
        for cluster in chain.from_iterable(emr.list_clusters() for emr in backends):
            state = self._clusters.state_at(cluster, moment)
            is_in_time = after < cluster.timeline.created.timestamp() < before
            if state is not None and is_in_time and (not states or state in states):
                summary: dict[str, Any] = describe.summary(cluster)
                summary["Status"] = {**summary["Status"], "State": state}
                summaries.append(summary)
        summaries.sort(key=lambda item: item["Status"]["Timeline"]["CreationDateTime"], reverse=True)
        body = json.dumps({"Clusters": summaries}, default=lambda moment: moment.timestamp()).encode()
        headers = [("Content-Type", "application/x-amz-json-1.1"), ("Content-Length", str(len(body)))]
        return Reply(200, headers, body)


def _lags(call: Call) -> bool:
    return f"{call.service}:{call.operation}" in LAGGING


def _content(call: Call, reply: Reply) -> object:
    """Return what a client acts on."""
    if call.operation != "ListClusters":
        return reply.body
    return [(item["Id"], item["Status"]["State"]) for item in json.loads(reply.body)["Clusters"]]
