"""The faults that need no scheduler, each with the moments at which it strikes and the end that is right for it.

`before` the effect, `during` it, `after` it. What is armed is in the words of `tests.emulator`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Case:
    """One fault at one moment.

    Attributes:
        fault: its number.
        moment: before, during or after the effect.
        what: in one line, for docs/reliability.md.
        armed: the faults to arm before the run.
        end: how run.json must say that the run ended.
        clusters: most clusters that the run may have had, one after the other.
        red_though_published: whether the PCA model was published before.
        quick: whether it is in the selection of `make test`.
        note: distinguishes cases of one fault and moment.
    """

    fault: str
    moment: str
    what: str
    armed: tuple[dict[str, Any], ...]
    end: str = "succeeded"
    clusters: int = 1
    red_though_published: bool = False
    quick: bool = False
    note: str = ""

    @property
    def id(self) -> str:
        """The test's name."""
        return "-".join(filter(None, (self.fault.replace(" ", "-"), self.moment, self.note)))


def lost(operation: str, moment: str, **more: Any) -> tuple[dict[str, Any], ...]:
    """A reply of EMR that is lost."""
    return ({"kind": "lost", "service": "emr", "operation": operation, "when": moment, "times": 1} | more,)


def refused(operation: str, error: str, **more: Any) -> tuple[dict[str, Any], ...]:
    """A call of EMR that is refused."""
    return ({"kind": "refused", "service": "emr", "operation": operation, "error": error} | more,)


def denied(operation: str, key: str) -> dict[str, Any]:
    """A call of S3 that is denied."""
    refusal = {"kind": "refused", "service": "s3", "error": "AccessDenied"}
    return refusal | {"operation": operation, "key": key}


def conflict(key: str, **more: Any) -> dict[str, Any]:
    """A write to S3 that meets another operation on its key."""
    refusal = {"kind": "refused", "service": "s3", "error": "Conflict", "operation": "PutObject"}
    return {**refusal, "agent": "Airflow", "key": key, **more}


def slow_commit(when: str, file: str = "current.json", seconds: float = 3.0, table: str = "features") -> dict[str, Any]:
    """A commit of a table that takes effect late, or whose reply is late."""
    key = f"tables/[^/]*/{table}/{file}"
    return {
        **{"kind": "delayed", "service": "s3", "operation": "PutObject", "key": key},
        **{"when": when, "seconds": seconds, "times": 1},
    }


def lost_commit(when: str) -> dict[str, Any]:
    """A commit of the table `features` that is lost, or whose reply is."""
    return slow_commit(when, seconds=1.0) | {"kind": "lost"}


def step_lost(state: str, seconds: float) -> dict[str, Any]:
    """The cluster is lost `seconds` after featurize has entered `state`."""
    return {**{"kind": "cluster_lost", "step": "featurize/.*", "state": state}, **{"seconds": seconds, "times": 1}}


def killed(seconds: float) -> dict[str, Any]:
    """The driver of featurize is killed."""
    return {"kind": "step_killed", "step": "featurize/.*", "seconds": seconds, "times": 1}


def hangs(when: str) -> dict[str, Any]:
    """Featurize hangs."""
    return {"kind": "step_hangs", "step": "featurize/.*", "when": when, "times": 1}


CASES = (
    # F1: RunJobFlow's reply is lost
    Case("F1", "before", "RunJobFlow is lost on its way", lost("RunJobFlow", "before")),
    Case(
        "F1",
        "during",
        "the client of RunJobFlow is cut off, the cluster is made a second later",
        lost("RunJobFlow", "during", seconds=1.0),
        quick=True,
    ),
    Case("F1", "after", "RunJobFlow's reply is lost", lost("RunJobFlow", "after"), quick=True),
    Case("F1", "after", "RunJobFlow's reply is reset", lost("RunJobFlow", "after", reset=True), note="reset"),
    Case(
        "F1",
        "after",
        "RunJobFlow's reply is cut in the middle",
        ({"kind": "cut", "service": "emr", "operation": "RunJobFlow", "when": "after", "times": 1},),
        note="cut",
    ),
    # F2: AddJobFlowSteps' reply is lost
    Case("F2", "before", "AddJobFlowSteps is lost on its way", lost("AddJobFlowSteps", "before", skip=1)),
    Case(
        "F2",
        "during",
        "the client of AddJobFlowSteps is cut off, the step is added a second later",
        lost("AddJobFlowSteps", "during", skip=1, seconds=1.0),
    ),
    Case(
        "F2",
        "after",
        "the replies to all four AddJobFlowSteps are lost",
        lost("AddJobFlowSteps", "after", times=4),
        quick=True,
    ),
    # a call that is throttled when it has had its effect: nothing is to be made twice
    Case(
        "F9",
        "after",
        "RunJobFlow has made the cluster and says that it is throttled",
        refused("RunJobFlow", "Throttling", when="after", times=1),
        note="made",
    ),
    Case(
        "F9",
        "after",
        "AddJobFlowSteps has added the step and says that it is throttled, twice",
        refused("AddJobFlowSteps", "Throttling", when="after", skip=1, times=2),
        note="added",
    ),
    # F3: TerminateJobFlows' reply is lost
    Case("F3", "before", "TerminateJobFlows is lost on its way", lost("TerminateJobFlows", "before")),
    Case(
        "F3",
        "during",
        "the client of TerminateJobFlows is cut off, it takes effect a second later",
        lost("TerminateJobFlows", "during", seconds=1.0),
    ),
    Case("F3", "after", "TerminateJobFlows' reply is lost", lost("TerminateJobFlows", "after"), quick=True),
    # F9: calls are throttled
    Case("F9", "before", "RunJobFlow is throttled twice", refused("RunJobFlow", "Throttling", times=2)),
    Case(
        "F9",
        "during",
        "three of ten of all EMR calls are throttled",
        refused("(List|Describe|Add).*", "Throttling", rate=0.3),
        quick=True,
    ),
    Case(
        "F9", "after", "TerminateJobFlows is throttled nine times", refused("TerminateJobFlows", "Throttling", times=9)
    ),
    # F10: reads are stale and backward reads
    Case(
        "F10",
        "before",
        "RunJobFlow's reply is lost, and ListClusters lags by 1.5 s",
        (*lost("RunJobFlow", "after"), {"kind": "stale", "operation": "ListClusters", "seconds": 1.5}),
        quick=True,
    ),
    Case(
        "F10",
        "before",
        "create_cluster fails when RunJobFlow is answered, and ListClusters lags longer than runs wait for it",
        (
            *refused("DescribeCluster", "AccessDenied", times=1),
            {"kind": "stale", "operation": "ListClusters", "seconds": 4.0},
        ),
        note="lags",
    ),
    Case(
        "F10",
        "during",
        "four of ten looks at steps and clusters show what was before",
        ({"kind": "backward", "service": "emr", "operation": "Describe(Step|Cluster)", "rate": 0.4},),
    ),
    Case(
        "F10",
        "during",
        "what is told of steps is a second old",
        ({"kind": "stale", "operation": "(ListSteps|DescribeStep)", "seconds": 1.0},),
        note="stale",
    ),
    Case(
        "F10",
        "after",
        "AddJobFlowSteps' replies are lost, and ListSteps goes backward",
        (
            *lost("AddJobFlowSteps", "after", times=2),
            {"kind": "backward", "service": "emr", "operation": "ListSteps", "rate": 0.5},
        ),
    ),
    # F11: a cluster that does not start
    Case(
        "F11",
        "before",
        "every cluster is stuck in STARTING",
        ({"kind": "stays", "state": "STARTING"},),
        end="failed",
        clusters=3,
    ),
    Case(
        "F11",
        "during",
        "every cluster is stuck in BOOTSTRAPPING",
        ({"kind": "stays", "state": "BOOTSTRAPPING"},),
        end="failed",
        clusters=3,
    ),
    Case(
        "F11",
        "after",
        "the first cluster is stuck in STARTING, the next starts",
        ({"kind": "stays", "state": "STARTING", "times": 65},),
        clusters=2,
    ),
    # F12: a bootstrap action that fails; a cluster that had ended before anybody saw why is replaced once
    Case(
        "F12",
        "before",
        "RunJobFlow's reply is lost, and the bootstrap has failed before the cluster is found",
        (*lost("RunJobFlow", "after"), {"kind": "bootstrap_fails"}),
        end="failed",
        clusters=3,
    ),
    Case(
        "F12",
        "during",
        "a bootstrap action returns non-zero",
        ({"kind": "bootstrap_fails"},),
        end="failed",
        clusters=2,
        quick=True,
    ),
    Case(
        "F12",
        "after",
        "a bootstrap action has returned non-zero, and the cluster stays TERMINATING for some seconds",
        ({"kind": "bootstrap_fails"}, {"kind": "stays", "state": "TERMINATING", "times": 40}),
        end="failed",
        clusters=2,
    ),
    # F13: a cluster that is lost
    Case(
        "F13",
        "before",
        "the cluster is lost before its first step",
        ({"kind": "cluster_lost", "state": "WAITING", "seconds": 0.0, "times": 1},),
        clusters=2,
    ),
    Case(
        "F13",
        "during",
        "the cluster is lost while a step is about to commit",
        (slow_commit("before"), step_lost("RUNNING", 1.5)),
        clusters=2,
        quick=True,
    ),
    Case(
        "F13",
        "during",
        "the cluster is lost while a step that has committed is at work",
        (slow_commit("after"), step_lost("RUNNING", 1.5)),
        clusters=2,
        note="committed",
    ),
    Case("F13", "after", "the cluster is lost when a step has ended", (step_lost("COMPLETED", 0.0),), clusters=2),
    # F16: the driver is killed
    Case(
        "F16",
        "before",
        "a step's driver is killed before its commit",
        (slow_commit("before", "data-.*", 5.0), killed(3.0)),
    ),
    Case(
        "F16",
        "during",
        "a step's driver is killed, and its commit takes effect afterwards",
        (slow_commit("before", seconds=5.0), killed(3.0)),
    ),
    Case(
        "F16", "after", "a step's driver is killed after its commit", (slow_commit("after", seconds=5.0), killed(3.0))
    ),
    # F17: a commit that is lost (two at once: test_spark.py)
    Case("F17", "before", "a commit is lost on its way", (lost_commit("before"),)),
    Case(
        "F17",
        "during",
        "the writer of a commit is cut off, the commit takes effect a second later",
        (lost_commit("during"),),
    ),
    Case("F17", "after", "the reply to a commit is lost", (lost_commit("after"),)),
    # F18: S3 SlowDown
    Case(
        "F18",
        "before",
        "S3 answers the plan's listing with SlowDown, twice",
        ({"kind": "refused", "service": "s3", "operation": "ListObjectsV2", "error": "SlowDown", "times": 2},),
    ),
    Case(
        "F18",
        "during",
        "S3 answers one of eight requests with SlowDown",
        ({"kind": "refused", "service": "s3", "operation": "(Get|Put|Head)Object", "error": "SlowDown", "rate": 0.12},),
        quick=True,
    ),
    Case(
        "F18",
        "after",
        "S3 has written run.json and says 500",
        (
            {
                **{"kind": "refused", "service": "s3", "operation": "PutObject", "key": "runs/.*/run.json"},
                **{"error": "InternalError", "when": "after", "times": 2},
            },
        ),
    ),
    # F19: S3 reset or slow
    Case(
        "F19",
        "before",
        "S3 resets one of eight requests before it has done anything",
        ({"kind": "lost", "service": "s3", "operation": "(Get|Put)Object", "rate": 0.12, "reset": True},),
    ),
    Case(
        "F19",
        "during",
        "S3 cuts off one of ten writes and does them a second later",
        ({"kind": "lost", "service": "s3", "operation": "PutObject", "rate": 0.1, "when": "during"},),
    ),
    Case(
        "F19",
        "after",
        "S3's replies to one of eight writes are lost",
        ({"kind": "lost", "service": "s3", "operation": "PutObject", "rate": 0.12, "when": "after"},),
        quick=True,
    ),
    Case(
        "F19",
        "after",
        "one of five replies of S3 is half a second late",
        ({"kind": "delayed", "service": "s3", "rate": 0.2, "seconds": 0.5, "when": "after"},),
        note="slow",
    ),
    # F21: a hung step
    Case("F21", "before", "a step hangs before it has done anything", (hangs("before"),), end="failed"),
    Case(
        "F21",
        "during",
        "a step hangs in mid-commit, and the commit takes effect when its cluster has gone",
        (slow_commit("before") | {"kind": "held"},),
        end="failed",
    ),
    Case("F21", "after", "a step hangs when its work is done", (hangs("after"),), end="failed", quick=True),
    # F25: access denied, credentials expired
    Case("F25", "before", "RunJobFlow is denied", refused("RunJobFlow", "AccessDenied"), end="failed"),
    Case(
        "F25",
        "during",
        "adding the third step is denied from then on",
        refused("AddJobFlowSteps", "AccessDenied", skip=2),
        end="failed",
        quick=True,
    ),
    Case(
        "F25",
        "during",
        "the credentials have expired for five looks at a step",
        refused("DescribeStep", "ExpiredToken", skip=2, times=5),
        note="expired",
    ),
    Case(
        "F25", "after", "TerminateJobFlows is denied four times", refused("TerminateJobFlows", "AccessDenied", times=4)
    ),
    Case(
        "F25",
        "before",
        "reading a table in S3 is denied to a step",
        (denied("GetObject", "tables/[^/]*/images/.*"),),
        end="failed",
        note="s3-read",
    ),
    Case(
        "F25",
        "during",
        "writing a table in S3 is denied to a step",
        (denied("PutObject", "tables/[^/]*/features/.*"),),
        end="failed",
        note="s3-write",
    ),
    Case(
        "F25",
        "before",
        "writing the names of photos in S3 is denied to a step",
        (denied("PutObject", "tables/[^/]*/predictions/.*"),),
        end="failed",
        quick=True,
        note="names",
    ),
    Case(
        "F25",
        "during",
        "publishing the classifier is denied to a step that has named the photos",
        (denied("PutObject", "tables/[^/]*/classifiers/current.json"),),
        end="failed",
        red_though_published=True,
        quick=True,
        note="classifier",
    ),
    # F27: a termination that is refused
    Case("F27", "before", "the cluster is termination protected", refused("TerminateJobFlows", "Protected", times=3)),
    Case(
        "F27",
        "during",
        "the cluster is termination protected while a step hangs",
        (hangs("before"), *refused("TerminateJobFlows", "Protected", times=3)),
        end="failed",
    ),
    Case(
        "F27",
        "after",
        "the cluster stays TERMINATING for ten seconds",
        ({"kind": "stays", "state": "TERMINATING", "times": 100},),
    ),
    # F29: a conditional write meets another operation on its key
    Case(
        "F29",
        "before",
        "the lock's first write is answered with ConditionalRequestConflict twice",
        (conflict("locks/.*", times=2),),
        quick=True,
    ),
    Case(
        "F29",
        "during",
        "three of ten writes of locks, states and notes are answered with ConditionalRequestConflict",
        (conflict("(locks|state|runs)/.*", rate=0.3),),
    ),
    Case(
        "F29",
        "after",
        "the lock's first write takes effect and is answered with ConditionalRequestConflict",
        (conflict("locks/.*", when="after", times=1),),
    ),
    # logs that are late
    Case(
        "late logs",
        "after",
        "a step fails, and its logs come three seconds late",
        ({"kind": "logs_late", "seconds": 3.0}, slow_commit("before", seconds=5.0), killed(3.0)),
    ),
)
