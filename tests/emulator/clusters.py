"""Faults in the life of clusters and steps.

`stays`: a cluster stays in `state` (STARTING, BOOTSTRAPPING or TERMINATING) until the fault is disarmed.
`bootstrap_fails`: a bootstrap action returns non-zero.
`cluster_lost`: the primary node is lost `seconds` after the cluster (STARTING, BOOTSTRAPPING, RUNNING or WAITING) or,
with `step`, the step (RUNNING, COMPLETED, FAILED or CANCELLED) entered `state`.
`step_hangs`: a step does nothing (`before`), or does its work and never ends (`after`).
`step_killed`: the step's program gets SIGKILL `seconds` after its start.
`disk_full`: the step's local and temporary files are on a disk of `kib`, mounted for it alone; needs Linux with
user namespaces, and the step fails where there are none.
`logs_late`: a step's logs come `seconds` after its end.
"""

from __future__ import annotations

import re
import threading
import time
import weakref
from collections.abc import Callable

from local_aws.emr.hooks import ClusterView, Hooks
from local_aws.emr.states import Ending
from local_aws.emr.steps import Step
from tests.emulator.armed import Fault, Faults

LOST = Ending("TERMINATED_WITH_ERRORS", "INSTANCE_FAILURE", "The master node was terminated.", abrupt=True)
_ENDLESS = "86400"
UNSHARED = ("unshare", "--user", "--map-root-user", "--mount")
_ON_A_SMALL_DISK = """
set -e
disk="$SPARK_LOCAL_DIRS/disk"
mkdir "$disk"
mount -t tmpfs -o "size=${1}k" tmpfs "$disk"
shift
export TMPDIR="$disk" SPARK_LOCAL_DIRS="$disk" SPARK_SUBMIT_OPTS="-Djava.io.tmpdir=$disk"
exec "$@"
"""


class FaultyClusters(Hooks):
    """Applies the armed faults to clusters and steps, and records the states of clusters."""

    def __init__(self, faults: Faults) -> None:
        self._faults = faults
        self._states: weakref.WeakKeyDictionary[ClusterView, list[tuple[float, str]]] = weakref.WeakKeyDictionary()
        self._lock = threading.Lock()

    def state_at(self, cluster: ClusterView, moment: float) -> str | None:
        """Return the state of a cluster at a moment (seconds since the epoch); None before its creation."""
        if cluster.timeline.created.timestamp() > moment:
            return None
        with self._lock:
            states = list(self._states.get(cluster, []))
        return next((state for since, state in reversed(states) if since <= moment), "STARTING")

    def entered(self, cluster: ClusterView) -> None:
        """Record the state, and lose the cluster if that is armed."""
        with self._lock:
            states = self._states.setdefault(cluster, [])
            if states and states[-1][1] == cluster.state:
                return
            states.append((time.time(), cluster.state))
        for fault in self._strike("cluster_lost", cluster.name, lambda fault: fault.step == ".*", cluster.state):
            _lose(cluster, fault)

    def stays(self, cluster: ClusterView) -> bool:
        """Whether a fault keeps the cluster in its present state."""
        return bool(self._strike("stays", cluster.name, lambda _: True, cluster.state))

    def bootstrap_problem(self, cluster: ClusterView) -> str | None:
        """Return EMR's message for a bootstrap action that fails, if that is armed."""
        if not self._strike("bootstrap_fails", cluster.name, lambda _: True):
            return None
        return "On the master instance ({primary}), bootstrap action 1 returned a non-zero return code"

    def step_command(self, cluster_name: str, step: Step, argv: list[str]) -> list[str]:
        """Return the step's command, or a command that hangs, is killed or has a small disk."""
        for fault in self._strike("step_hangs", cluster_name, _is_for(step)):
            if fault.when == "before":
                return ["sleep", _ENDLESS]
            return ["sh", "-c", f'"$@"; sleep {_ENDLESS}', "sh", *argv]
        for fault in self._strike("step_killed", cluster_name, _is_for(step)):
            return ["timeout", "--signal=KILL", str(fault.seconds), *argv]
        for fault in self._strike("disk_full", cluster_name, _is_for(step)):
            return [*UNSHARED, "sh", "-c", _ON_A_SMALL_DISK, "sh", str(fault.kib), *argv]
        return argv

    def step_entered(self, cluster: ClusterView, step: Step) -> None:
        """Lose the cluster if that is armed."""
        is_for = _is_for(step)
        for fault in self._strike(
            "cluster_lost", cluster.name, lambda fault: fault.step != ".*" and is_for(fault), step.state
        ):
            _lose(cluster, fault)

    def log_seconds(self, cluster_name: str, step: Step) -> float:
        """Return how late the step's logs are."""
        late = self._strike("logs_late", cluster_name, _is_for(step))
        return max((fault.seconds for fault in late), default=0.0)

    def _strike(
        self, kind: str, cluster_name: str, matches: Callable[[Fault], bool], state: str | None = None
    ) -> list[Fault]:
        return self._faults.strike(
            (kind,),
            lambda fault: (
                re.fullmatch(fault.cluster, cluster_name) is not None
                and (state is None or fault.state == state)
                and matches(fault)
            ),
        )


def _is_for(step: Step) -> Callable[[Fault], bool]:
    return lambda fault: re.fullmatch(fault.step, str(step.config["Name"])) is not None


def _lose(cluster: ClusterView, fault: Fault) -> None:
    timer = threading.Timer(fault.seconds, cluster.terminate, [LOST])
    timer.daemon = True
    timer.start()
