"""What happens in the nights of a seed: photos, runs, what people do, what dies, and two to five faults of AWS.

A history is drawn whole before it is played, and is JSON: what is printed can be replayed, and shrunk by leaving parts
out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from random import Random
from typing import Any

from tests.emulator.armed import CLUSTERS, READS, WIRE

NIGHT_S = 2000.0
"""A night without faults takes about as long; what happens, begins within it."""
PIPELINE_TASKS = (
    *("plan", "upload_code", "create_cluster", "cluster_ready"),
    *(f"{stage}.{task}" for stage in ("load_images", "featurize", "reduce_pca", "publish") for task in ("add", "wait")),
    *("terminate_cluster", "report", "verdict"),
)
STEPS = ("load_images", "featurize", "reduce_pca", "publish")
DISRUPTIONS = ("kill_attempt", "stop_airflow", "restart_triggerer", "clear_task", "clear_failed", "mark_failed")
CONFS: tuple[dict[str, Any], ...] = ({}, {}, {}, {"force": True}, {"full_refresh": True}, {"limit": 3})

_EMR = (
    *("RunJobFlow", "AddJobFlowSteps", "TerminateJobFlows", "DescribeCluster", "DescribeStep", "ListClusters"),
    *("ListSteps", "ListInstances", "CancelSteps", "(Describe|List).*", "(Describe|List).*", ".*", ".*"),
)
_S3 = ("PutObject", "GetObject", "DeleteObject", "ListObjectsV2", "(Get|Put)Object", ".*")
_KEYS = (
    ".*",
    ".*",
    "locks/.*",
    "state/.*",
    "runs/.*/journal/.*",
    "runs/.*/run.json",
    "runs/.*",
    "tables/.*",
    "code/.*",
)
_ERRORS = ("Throttling", "AccessDenied", "ExpiredToken", "InternalError", "Unavailable")

Event = dict[str, Any]


@dataclass(frozen=True)
class Night:
    """One night.

    Attributes:
        put: Photos that come or change before it, by number; the value becomes their pixels.
        removed: Photos that go before it, by number.
        conf: Of the run.
        events: What happens, each with `at`, seconds after the beginning of the night.
    """

    put: dict[int, int]
    removed: list[int]
    conf: dict[str, Any]
    events: list[Event]


@dataclass(frozen=True)
class History:
    """The nights of a seed."""

    seed: int
    nights: list[Night]


def draw_history(seed: int) -> History:
    """Draw the history of a seed."""
    draw = Random(f"history {seed}")
    nights = 7 if seed % 50 == 0 else draw.choice((1, 1, 2))
    photos, newest = set(range(12)), 11
    drawn = []
    for number in range(nights):
        put = dict.fromkeys(photos, 0) if number == 0 else {}
        removed: list[int] = []
        if number and draw.random() < 0.7:
            new = list(range(newest + 1, newest + 1 + draw.randint(1, 3)))
            newest = new[-1]
            put = {n: draw.randint(1, 200) for n in [*new, *draw.sample(sorted(photos), draw.randint(0, 2))]}
            photos |= set(new)
        if number and draw.random() < 0.3 and len(photos) > 8:
            removed = draw.sample(sorted(photos - put.keys()), draw.choice((1, 1, 3)))
            photos -= set(removed)
        conf = dict(draw.choice(CONFS))
        events = [_fault(draw) for _ in range(draw.randint(2, 5))]
        events += [_disruption(draw) for _ in range(draw.choice((0, 0, 1, 1, 2)))]
        if draw.random() < 0.2:
            events.append({"do": "run", "at": draw.uniform(0, NIGHT_S), "conf": dict(draw.choice(CONFS))})
        if draw.random() < 0.25 and len(photos) > 8:
            gone = draw.choice(sorted(photos))
            photos.discard(gone)
            events.append({"do": "erase", "at": draw.uniform(0, NIGHT_S), "photo": gone})
        drawn.append(Night(put, removed, conf, sorted(events, key=lambda event: float(event["at"]))))
    return History(seed, drawn)


def _fault(draw: Random) -> Event:
    group = draw.choice((WIRE, WIRE, WIRE, READS, CLUSTERS, CLUSTERS))
    kind = draw.choice(group)
    at = draw.choice((0.0, draw.uniform(0, NIGHT_S)))
    return {"do": "fault", "at": at, "for_s": draw.choice((120.0, 900.0, 7200.0)), "spec": _spec(draw, kind)}


def _spec(draw: Random, kind: str) -> dict[str, Any]:
    """Draw the specification of a fault of a kind."""
    spec: dict[str, Any] = {"kind": kind, "seed": draw.randrange(1000)}
    if kind in WIRE:
        return spec | _wire(draw, kind)
    if kind == "stale":  # within the window that list_consistency_s promises
        operation = draw.choice(("ListClusters", "ListSteps", "DescribeStep", "DescribeCluster"))
        return spec | {"service": "emr", "operation": operation, "seconds": draw.uniform(1, 25), "rate": 0.7}
    if kind == "backward":
        operation = draw.choice(("DescribeStep", "DescribeCluster", "ListSteps"))
        return spec | {"service": "emr", "operation": operation, "rate": draw.uniform(0.1, 0.5), "times": 20}
    step = f"{draw.choice(STEPS)}/.*"
    times = draw.choice((1, 1, 2, None))
    own = {"cluster": "fruits/simulated/.*"}
    if kind == "stays":
        return spec | own | {"state": draw.choice(("STARTING", "BOOTSTRAPPING", "TERMINATING")), "times": 10_000}
    if kind == "bootstrap_fails":
        return spec | own | {"times": times}
    if kind == "cluster_lost" and draw.random() < 0.5:
        state = draw.choice(("RUNNING", "COMPLETED", "FAILED"))
        return spec | own | {"step": step, "state": state, "seconds": draw.uniform(0, 120), "times": times or 1}
    if kind == "cluster_lost":
        state = draw.choice(("STARTING", "BOOTSTRAPPING", "RUNNING", "WAITING"))
        return spec | own | {"state": state, "seconds": draw.uniform(0, 200), "times": times or 1}
    if kind == "step_hangs":
        return spec | own | {"step": step, "when": draw.choice(("before", "after")), "times": 1}
    if kind == "step_killed":
        return spec | own | {"step": step, "seconds": draw.uniform(1, 420), "times": times}
    if kind == "logs_late":
        return spec | own | {"step": ".*", "seconds": draw.uniform(60, 900)}
    return spec | own | {"step": step, "times": 1}  # disk_full


def _wire(draw: Random, kind: str) -> dict[str, Any]:
    spec: dict[str, Any] = {"service": "emr", "operation": draw.choice(_EMR), "skip": draw.choice((0, 0, 0, 1, 2))}
    if draw.random() < 0.5:
        spec |= {"service": "s3", "operation": draw.choice(_S3), "key": draw.choice(_KEYS)}
    spec["times"] = draw.choice((1, 2, 4, 9, None))
    if spec["times"] is None:
        spec |= {"rate": draw.uniform(0.03, 0.3)}
    if kind == "lost":
        spec |= {"when": draw.choice(("before", "during", "after")), "seconds": draw.uniform(1, 60)}
        spec |= {"reset": draw.random() < 0.5}
    elif kind == "cut":
        spec |= {"when": "after"}
    else:
        spec |= {"when": draw.choice(("before", "after"))}
    if kind == "delayed":
        spec |= {"seconds": draw.uniform(1, 90)}
    if kind == "held":
        spec |= {"times": draw.choice((1, 2))}
    if kind == "refused":
        spec |= {"error": draw.choice(_ERRORS)}
        if spec["service"] == "s3" and draw.random() < 0.4:
            spec |= {"error": "Conflict", "operation": "PutObject", "key": draw.choice(("locks/.*", "(state|runs)/.*"))}
        if spec["service"] == "emr" and draw.random() < 0.2:
            spec |= {"error": "Protected", "operation": "TerminateJobFlows", "when": "before"}
    return spec


def _disruption(draw: Random) -> Event:
    do = draw.choice(DISRUPTIONS)
    event: Event = {"do": do, "at": draw.uniform(0, NIGHT_S)}
    if do == "kill_attempt":
        calls, moment = draw.randint(1, 25), draw.choice(("before", "after"))
        event |= {"at": 0.0, "task": draw.choice(PIPELINE_TASKS), "call": calls, "moment": moment}
    elif do == "stop_airflow":
        event |= {"for_s": draw.choice((60.0, 1200.0, 10_800.0))}
    elif do == "clear_task":
        event |= {"task": draw.choice(PIPELINE_TASKS[2:-1])}
    elif do == "clear_failed":
        event |= {"at": draw.uniform(NIGHT_S, 5 * NIGHT_S)}
    return event


def shrink(history: History, fails: Callable[[History], bool], tries: int = 60) -> History:
    """Leave out nights, events and photos while the history fails; play it at most `tries` times."""
    is_shorter = True
    while is_shorter:
        is_shorter = False
        for candidate in _shorter(history):
            if tries <= 0:
                return history
            tries -= 1
            if fails(candidate):
                history, is_shorter = candidate, True
                break
    return history


def _shorter(history: History) -> Iterator[History]:
    nights = history.nights
    for number in range(len(nights) - 1, 0, -1):
        yield replace(history, nights=nights[:number])
    for number, night in enumerate(nights):
        for index in range(len(night.events)):
            events = night.events[:index] + night.events[index + 1 :]
            yield _with(history, number, events=events)
        if night.conf:
            yield _with(history, number, conf={})
        if night.removed:
            yield _with(history, number, removed=[])


def _with(history: History, number: int, **changed: object) -> History:
    nights = list(history.nights)
    nights[number] = replace(nights[number], **changed)  # type: ignore[arg-type]
    return replace(history, nights=nights)
