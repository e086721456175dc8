"""The faults that are armed: what each is, which requests or clusters it is for, and how often it has struck."""

from __future__ import annotations

import itertools
import random
import re
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, field, fields
from typing import Any

from local_aws.requests import Call

WIRE = ("lost", "cut", "refused", "delayed", "held")
READS = ("stale", "backward")
CLUSTERS = ("stays", "bootstrap_fails", "cluster_lost", "step_hangs", "step_killed", "disk_full", "logs_late")
KINDS = (*WIRE, *READS, *CLUSTERS)
LAGGING = (
    *("emr:DescribeCluster", "emr:DescribeStep", "emr:ListClusters", "emr:ListSteps"),
    *("glue:GetTable", "glue:GetTables"),
)
"""The reads that READS can bend, as service:operation; S3 is strongly consistent."""
_WHEN = {
    "lost": ("before", "during", "after"),
    "cut": ("after",),
    **dict.fromkeys(("refused", "delayed", "held", "step_hangs"), ("before", "after")),
}
_STATES = {
    "stays": ("STARTING", "BOOTSTRAPPING", "TERMINATING"),
    "cluster_lost": ("STARTING", "BOOTSTRAPPING", "RUNNING", "WAITING"),
}
_UNSEEN = ("first", "released")
_STEP_STATES = ("RUNNING", "COMPLETED", "FAILED", "CANCELLED")


class FaultSpecError(Exception):
    """What was posted is no fault; the message says why."""


@dataclass
class Fault:
    """One armed fault.

    Attributes:
        kind: one of KINDS.
        service: regular expression for the request's service, such as `emr`.
        operation: regular expression for the request's operation.
        bucket: regular expression for the S3 bucket.
        key: regular expression for the S3 key.
        agent: regular expression that is searched in the user agent.
        cluster: regular expression for the cluster's name.
        step: regular expression for the step's name.
        state: the state of a cluster or step that the fault is about.
        when: before, during or after the effect; what a kind has no sense for is refused.
        error: for `refused`: the error's name, see `local_aws.faults.errors`.
        seconds: how long it takes, by kind.
        kib: for `disk_full`: size of the node's disk, KiB.
        skip: how many matches are let pass first.
        times: how many matches it strikes; None for all.
        rate: share of the matches it strikes, drawn with `seed`.
        seed: of the generator that draws.
        reset: whether a lost connection is reset instead of closed.
        lasts: for how many seconds from its first strike on it strikes; None for as long as it is armed.
    """

    kind: str
    service: str = ".*"
    operation: str = ".*"
    bucket: str = ".*"
    key: str = ".*"
    agent: str = ""
    cluster: str = ".*"
    step: str = ".*"
    state: str = ""
    when: str = "before"
    error: str = "Throttling"
    seconds: float = 1.0
    kib: int = 1024
    skip: int = 0
    times: int | None = None
    rate: float = 1.0
    seed: int = 0
    reset: bool = False
    lasts: float | None = None
    id: int = 0
    matched: int = 0
    struck: int = 0
    holding: int = 0
    first: float | None = field(default=None, repr=False)
    released: threading.Event = field(default_factory=threading.Event, repr=False)

    @classmethod
    def parse(cls, spec: Mapping[str, Any]) -> Fault:
        """A fault from JSON.

        Raises:
            FaultSpecError: an unknown name or kind, a value of a wrong type, a bad expression, or what could never
                strike or would do nothing.
        """
        settable = {one.name: one for one in fields(cls)[:-6]}
        if unknown := sorted(spec.keys() - settable.keys()):
            raise FaultSpecError(f"unknown {', '.join(unknown)}; known are {', '.join(settable)}")
        if spec.get("kind") not in KINDS:
            raise FaultSpecError(f"kind {spec.get('kind')!r}: one of {', '.join(KINDS)}")
        for name, value in spec.items():
            default = settable[name].default
            allowed: tuple[type, ...] = (str,) if default is MISSING else (type(default),)
            allowed = (int, float) if default is not MISSING and isinstance(default, float) else allowed
            if name in ("times", "lasts"):
                allowed = (int, type(None)) if name == "times" else (int, float, type(None))
            if not isinstance(value, allowed) or (isinstance(value, bool) and bool not in allowed):
                raise FaultSpecError(f"{name} {value!r}: of a wrong type")
        moments = _WHEN.get(spec["kind"], ("before",))
        fault = cls(**{"when": moments[0], **spec})
        for name in ("service", "operation", "bucket", "key", "agent", "cluster", "step"):
            try:
                re.compile(getattr(fault, name))
            except re.error as error:
                raise FaultSpecError(f"{name}: {error}") from None
        fault._require_effect(moments)
        return fault

    def _require_effect(self, moments: tuple[str, ...]) -> None:
        """Refuses what would be counted and do nothing, or could never strike.

        Raises:
            FaultSpecError: what, its value, and what is allowed.
        """
        self._require("when", self.when, moments)
        if self.kind in _STATES:
            of_a_step = self.kind == "cluster_lost" and self.step != ".*"
            self._require("state", self.state, _STEP_STATES if of_a_step else _STATES[self.kind])
        if self.kind in READS and not any(self._may_read(*one.split(":")) for one in LAGGING):
            asked = f"service {self.service!r} with operation {self.operation!r}"
            raise FaultSpecError(f"{asked} of {self.kind!r}: must match one of {', '.join(LAGGING)}")
        if self.skip < 0 or (self.times is not None and self.times < 1) or not 0.0 < self.rate <= 1.0:
            asked = f"skip {self.skip}, times {self.times}, rate {self.rate}"
            raise FaultSpecError(f"{asked}: skip is 0 or more, times 1 or more, rate above 0 and at most 1")

    def _require(self, name: str, value: str, allowed: tuple[str, ...]) -> None:
        if value not in allowed:
            raise FaultSpecError(f"{name} {value!r} of {self.kind!r}: one of {', '.join(allowed)}")

    def _may_read(self, service: str, operation: str) -> bool:
        return bool(re.fullmatch(self.service, service) and re.fullmatch(self.operation, operation))

    def is_for(self, call: Call) -> bool:
        """Whether the fault is about this request."""
        return (
            re.fullmatch(self.service, call.service) is not None
            and re.fullmatch(self.operation, call.operation) is not None
            and re.fullmatch(self.bucket, call.bucket) is not None
            and re.fullmatch(self.key, call.key, re.DOTALL) is not None
            and re.search(self.agent, call.header("User-Agent")) is not None
        )

    def is_over(self) -> bool:
        """Whether it has struck for as long as it lasts."""
        if self.lasts is None or self.first is None:
            return False
        return time.monotonic() - self.first >= self.lasts

    def describe(self) -> dict[str, Any]:
        """What the control path shows."""
        return {one.name: getattr(self, one.name) for one in fields(self) if one.name not in _UNSEEN}


class Faults:
    """The armed faults, and the draw of which strikes."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._armed: dict[int, tuple[Fault, random.Random]] = {}
        self._ids = itertools.count(1)

    def arm(self, fault: Fault) -> Fault:
        """Arms a fault."""
        with self._lock:
            fault.id = next(self._ids)
            self._armed[fault.id] = fault, random.Random(fault.seed)  # noqa: S311  repeatable, not secret
        return fault

    def disarm(self, number: int | None = None) -> int:
        """Disarms one fault or all, and lets go what they hold; gives how many there were."""
        with self._lock:
            gone = list(self._armed) if number is None else [one for one in self._armed if one == number]
            for one in gone:
                self._armed.pop(one)[0].released.set()
        return len(gone)

    def armed(self) -> list[Fault]:
        """What is armed, in the order of arming."""
        with self._lock:
            return [fault for fault, _ in self._armed.values()]

    def strike(self, kinds: tuple[str, ...], matches: Callable[[Fault], bool]) -> list[Fault]:
        """The faults of some kinds that strike now; each match of each is counted."""
        struck = []
        with self._lock:
            for fault, draw in self._armed.values():
                if fault.kind not in kinds or not matches(fault):
                    continue
                fault.matched += 1
                if fault.matched <= fault.skip or (fault.times is not None and fault.struck >= fault.times):
                    continue
                if fault.is_over():
                    continue
                if fault.rate < 1.0 and draw.random() >= fault.rate:
                    continue
                fault.struck += 1
                fault.first = time.monotonic() if fault.first is None else fault.first
                struck.append(fault)
        return struck
