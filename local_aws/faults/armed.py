"""The faults that are armed: what each is, which requests or clusters it is for, and how often it has struck."""

from __future__ import annotations

import itertools
import random
import re
import threading
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, field, fields
from typing import Any

from local_aws.requests import Call

WIRE = ("lost", "cut", "refused", "delayed", "held")
READS = ("stale", "backward")
CLUSTERS = ("stays", "bootstrap_fails", "cluster_lost", "step_hangs", "step_killed", "disk_full", "logs_late")
KINDS = (*WIRE, *READS, *CLUSTERS)
MOMENTS = ("before", "during", "after")


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
        when: before, during or after the effect.
        error: for `refused`: the error's name, see `local_aws.faults.errors`.
        seconds: how long it takes, by kind.
        kib: for `disk_full`: size of the node's disk, KiB.
        skip: how many matches are let pass first.
        times: how many matches it strikes; None for all.
        rate: share of the matches it strikes, drawn with `seed`.
        seed: of the generator that draws.
        reset: whether a lost connection is reset instead of closed.
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
    id: int = 0
    matched: int = 0
    struck: int = 0
    holding: int = 0
    released: threading.Event = field(default_factory=threading.Event, repr=False)

    @classmethod
    def parse(cls, spec: Mapping[str, Any]) -> Fault:
        """A fault from JSON.

        Raises:
            FaultSpecError: an unknown name, kind or moment, a value of a wrong type, or a bad expression.
        """
        settable = {one.name: one for one in fields(cls)[:-5]}
        if unknown := sorted(spec.keys() - settable.keys()):
            raise FaultSpecError(f"unknown {', '.join(unknown)}; known are {', '.join(settable)}")
        if spec.get("kind") not in KINDS:
            raise FaultSpecError(f"kind {spec.get('kind')!r}: one of {', '.join(KINDS)}")
        for name, value in spec.items():
            default = settable[name].default
            allowed: tuple[type, ...] = (str,) if default is MISSING else (type(default),)
            allowed = (int, float) if default is not MISSING and isinstance(default, float) else allowed
            if name == "times":
                allowed = (int, type(None))
            if not isinstance(value, allowed) or (isinstance(value, bool) and bool not in allowed):
                raise FaultSpecError(f"{name} {value!r}: of a wrong type")
        fault = cls(**spec)
        if fault.when not in MOMENTS:
            raise FaultSpecError(f"when {fault.when!r}: one of {', '.join(MOMENTS)}")
        for name in ("service", "operation", "bucket", "key", "agent", "cluster", "step"):
            try:
                re.compile(getattr(fault, name))
            except re.error as error:
                raise FaultSpecError(f"{name}: {error}") from None
        return fault

    def is_for(self, call: Call) -> bool:
        """Whether the fault is about this request."""
        return (
            re.fullmatch(self.service, call.service) is not None
            and re.fullmatch(self.operation, call.operation) is not None
            and re.fullmatch(self.bucket, call.bucket) is not None
            and re.fullmatch(self.key, call.key, re.DOTALL) is not None
            and re.search(self.agent, call.header("User-Agent")) is not None
        )

    def describe(self) -> dict[str, Any]:
        """What the control path shows."""
        return {one.name: getattr(self, one.name) for one in fields(self) if one.name != "released"}


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
                if fault.rate < 1.0 and draw.random() >= fault.rate:
                    continue
                fault.struck += 1
                struck.append(fault)
        return struck
