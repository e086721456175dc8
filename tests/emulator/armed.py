"""The armed faults: what each does, which requests or clusters it is for, and how often it has struck."""

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
"""The reads that READS affect, as service:operation; S3 is strongly consistent."""
_WHEN = {
    "lost": ("before", "during", "after"),
    "cut": ("after",),
    **dict.fromkeys(("refused", "delayed", "held", "step_hangs"), ("before", "after")),
}
_STATES = {
    "stays": ("STARTING", "BOOTSTRAPPING", "TERMINATING"),
    "cluster_lost": ("STARTING", "BOOTSTRAPPING", "RUNNING", "WAITING"),
}
_TYPES: dict[str, tuple[type, ...]] = {
    "times": (int, type(None)),
    "lasts": (int, float, type(None)),
    **dict.fromkeys(("seconds", "rate"), (int, float)),
}
_UNSEEN = ("first", "released")
_STEP_STATES = ("RUNNING", "COMPLETED", "FAILED", "CANCELLED")


class FaultSpecError(Exception):
    """A specification that is no valid fault; the message says why."""


@dataclass
class Fault:
    """One armed fault. Only what all its regular expressions match is struck.

    Attributes:
        kind: An item of KINDS.
        service, operation, bucket, key: Regular expressions for the request.
        agent: Regular expression that is searched in the user agent.
        cluster, step: Regular expressions for the names of the cluster and the step.
        state: State of the cluster or step, for kinds that have one.
        when: Before, during or after the effect; a kind refuses what makes no sense for it.
        error: For `refused`: name of the error in `local_aws.errors`.
        seconds: How long it takes, by kind.
        kib: For `disk_full`: size of the node's disk, KiB.
        skip: How many matches pass first.
        times: How many matches are struck; None for all.
        rate: Share of the matches that is struck, drawn with `seed`.
        reset: Whether a lost connection is reset instead of closed.
        lasts: For how many seconds from its first strike on it strikes; None for as long as it is armed.
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
        """Return the fault that JSON specifies.

        Raises:
            FaultSpecError: A name, kind, type or expression is wrong, or the fault can never strike or has no effect.
        """
        settable = {item.name: item for item in fields(cls)[:-6]}
        if unknown := sorted(spec.keys() - settable.keys()):
            raise FaultSpecError(f"unknown {', '.join(unknown)}; known are {', '.join(settable)}")
        if spec.get("kind") not in KINDS:
            raise FaultSpecError(f"kind {spec.get('kind')!r}: one of {', '.join(KINDS)}")
        for name, value in spec.items():
            default = settable[name].default
            allowed = _TYPES.get(name) or (str if default is MISSING else type(default),)
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
        """Refuse a fault that can never strike or has no effect."""
        self._require("when", self.when, moments)
        if self.kind in _STATES:
            of_a_step = self.kind == "cluster_lost" and self.step != ".*"
            self._require("state", self.state, _STEP_STATES if of_a_step else _STATES[self.kind])
        if self.kind in READS and not any(self._matches(*read.split(":")) for read in LAGGING):
            reads = f"service {self.service!r} with operation {self.operation!r}"
            raise FaultSpecError(f"{reads} of {self.kind!r}: must match one of {', '.join(LAGGING)}")
        if self.skip < 0 or (self.times is not None and self.times < 1) or not 0.0 < self.rate <= 1.0:
            counts = f"skip {self.skip}, times {self.times}, rate {self.rate}"
            raise FaultSpecError(f"{counts}: skip is 0 or more, times 1 or more, rate above 0 and at most 1")

    def _require(self, name: str, value: str, allowed: tuple[str, ...]) -> None:
        if value not in allowed:
            raise FaultSpecError(f"{name} {value!r} of {self.kind!r}: one of {', '.join(allowed)}")

    def _matches(self, service: str, operation: str) -> bool:
        return bool(re.fullmatch(self.service, service) and re.fullmatch(self.operation, operation))

    def is_for(self, call: Call) -> bool:
        """Whether the fault is about this request."""
        return (
            self._matches(call.service, call.operation)
            and re.fullmatch(self.bucket, call.bucket) is not None
            and re.fullmatch(self.key, call.key, re.DOTALL) is not None
            and re.search(self.agent, call.header("User-Agent")) is not None
        )

    def is_over(self) -> bool:
        """Whether it has struck for `lasts` seconds."""
        if self.lasts is None or self.first is None:
            return False
        return time.monotonic() - self.first >= self.lasts

    def describe(self) -> dict[str, Any]:
        """Return what the control path shows."""
        return {item.name: getattr(self, item.name) for item in fields(self) if item.name not in _UNSEEN}


class Faults:
    """The armed faults. They draw which matches they strike."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._armed: dict[int, tuple[Fault, random.Random]] = {}
        self._ids = itertools.count(1)

    def arm(self, fault: Fault) -> Fault:
        """Arm a fault."""
        with self._lock:
            fault.id = next(self._ids)
            self._armed[fault.id] = fault, random.Random(fault.seed)
        return fault

    def disarm(self, number: int | None = None) -> int:
        """Disarm a fault or all faults, and release what they hold; return how many there were."""
        with self._lock:
            numbers = list(self._armed) if number is None else self._armed.keys() & {number}
            for disarmed in numbers:
                self._armed.pop(disarmed)[0].released.set()
        return len(numbers)

    def armed(self) -> list[Fault]:
        """Return the armed faults in the order of arming."""
        with self._lock:
            return [fault for fault, _ in self._armed.values()]

    def strike(self, kinds: tuple[str, ...], matches: Callable[[Fault], bool]) -> list[Fault]:
        """Return the faults of some kinds that strike now, and count each match."""
        struck = []
        with self._lock:
            for fault, draw in self._armed.values():
                if fault.kind not in kinds or not matches(fault):
                    continue
                fault.matched += 1
                is_used_up = fault.times is not None and fault.struck >= fault.times
                if fault.matched <= fault.skip or is_used_up or fault.is_over():
                    continue
                if fault.rate < 1.0 and draw.random() >= fault.rate:
                    continue
                fault.struck += 1
                fault.first = time.monotonic() if fault.first is None else fault.first
                struck.append(fault)
        return struck
