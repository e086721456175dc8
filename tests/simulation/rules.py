"""What must never happen, looked at from outside when a night is over: names are those of docs/reliability.md.

The rules of a run are those of `tests/faults/invariants.py`. The rules here are of what lies between runs.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow.parquet as pq

from tests.faults import invariants
from tests.faults.world import CANARY, RAW_PREFIX, Run
from tests.simulation.cloud import LAKE, RAW, Cloud
from tests.simulation.product import DEPLOYMENT
from tests.simulation.scheduler import DagRun

PIPELINE, ERASURE = "fruits_pipeline", "erase_images"
MOST_CLUSTERS = 12
"""Clusters of a run, one after the other: four tasks, each with three attempts, may each need another one."""
MARGIN_EUR = 0.5
"""What a cluster may cost between the moment at which it is to end and its end."""

Broken = Iterator[str]


_NO_ANSWER = r"onnection|imeout|timed out|did not answer|StorageFailed|not ended|Incomplete"
_CHANGED_HANDS = r"LockHeld|RunOvertaken|has worked on the database|is locked|Waiting|overtaken|too many|no longer in"
_TASKS = r"is failed|is skipped|is None|is upstream_failed|is removed|left no metrics|planned nothing|no event from"
PATTERNS = {
    "lost": _NO_ANSWER,
    "cut": _NO_ANSWER,
    "delayed": _NO_ANSWER,
    "held": _NO_ANSWER + "|deadline",
    "refused": (
        "AccessDenied|AccessRefused|Forbidden|Throttl|SlowDown|Expired|Internal|Unavailable|Conflict|reached max|"
        "status 5|protected"
    ),
    "stale": "ClusterLost|does not know|TERMINATED|shutting down",
    "backward": "ClusterLost|does not know|TERMINATED|shutting down",
    "stays": r"STARTING|BOOTSTRAPPING|TERMINATING|minutes \(start_timeout",
    "bootstrap_fails": "bootstrap|BOOTSTRAP_FAILURE",
    "cluster_lost": r"INSTANCE_FAILURE|master node|TERMINATED|shutting down",
    "step_hangs": r"deadline|cancelled|CANCELLED",
    "step_killed": r"is FAILED|exit",
    "disk_full": "No space left",
    "logs_late": r"is FAILED",
    "kill_attempt": _TASKS,
    "stop_airflow": _TASKS + "|deadline|auto-terminated|cancelled|TERMINATED|shutting down",
    "restart_triggerer": _TASKS,
    "clear_task": _TASKS + "|" + _CHANGED_HANDS + "|CANCELLED|USER_REQUEST|changed while",
    "clear_failed": _TASKS + "|" + _CHANGED_HANDS,
    "mark_failed": _TASKS,
    "run": _CHANGED_HANDS,
    "erase": _CHANGED_HANDS,
    "removed": "no longer in|RunRefused",
}
"""What each kind of disturbance leaves in the reason of run.json, as regular expressions."""


@dataclass
class SimulatedDeployment:
    """The deployment, as the checks of `tests/faults/invariants.py` look at it."""

    aws: Cloud
    photos: dict[str, bytes]
    database: str = "fruits"
    name: str = DEPLOYMENT
    lake: str = LAKE
    raw: str = RAW
    cluster_prefix: str = f"fruits/{DEPLOYMENT}/"
    airflow_homes: tuple[Any, ...] = ()
    metadata_databases: tuple[str, ...] = ()
    outputs: dict[str, str] = field(default_factory=dict)

    def photo_bodies(self) -> dict[str, bytes]:
        """Return the photos by key."""
        return self.photos

    def live_clusters(self) -> Iterator[tuple[str, Any]]:
        """Yield region and description of each cluster that is alive."""
        for cluster in self.aws.live_clusters(self.cluster_prefix):
            yield "its region", cluster

    def record(self, run_id: str) -> dict[str, Any] | None:
        """Return run.json."""
        content = self.aws.read(LAKE, f"runs/{run_id}/run.json")
        return None if content is None else dict(json.loads(content))


def tables_of(deployment: SimulatedDeployment) -> dict[str, list[Any]]:
    """Return the tables of the deployment's database."""
    return invariants.scripted_tables(deployment)  # type: ignore[arg-type]  # what it reads is there


def check_run(deployment: SimulatedDeployment, run: DagRun, *, is_last: bool) -> list[str]:
    """Return each broken rule of a run that is over; of the last one of its database, those of the tables too."""
    tables = tables_of(deployment)
    ended = Run(run.run_id, run.state, {name: str(task.state) for name, task in run.tasks.items()})
    aftermath = invariants.Aftermath(
        deployment=deployment,  # type: ignore[arg-type]  # what the checks read is there
        run=ended,
        tables=tables,
        clusters=MOST_CLUSTERS,
        listed=listed_keys(deployment, run.run_id),
        red_though_published=True,
    )
    name = f"{deployment.cluster_prefix}{PIPELINE}/{run.run_id}"
    aftermath.own_clusters = [c for c in deployment.aws.clusters(deployment.cluster_prefix) if c["Name"] == _name(name)]
    checks = [invariants.the_run_tells_the_truth, _steps_once]
    if is_last:
        checks += [
            check
            for check in invariants.CHECKS
            if check not in (*checks, invariants.nothing_was_done_twice, invariants.no_metadata_is_anywhere)
        ]
    broken = [f"{check.__name__.strip('_')}: {sentence}" for check in checks for sentence in check(aftermath)]
    return broken + [f"money: {sentence}" for sentence in _money(deployment, run, aftermath.own_clusters)]


def _name(text: str) -> str:
    return text[:256]


def _steps_once(aftermath: invariants.Aftermath) -> Broken:
    """At most one cluster at a time, and one good attempt per stage and cluster."""
    for sentence in invariants.nothing_was_done_twice(aftermath):
        if "times" not in sentence:
            yield sentence
    for cluster in aftermath.own_clusters:
        names = [step["Name"] for step in cluster["Steps"] if step["Status"]["State"] == "COMPLETED"]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            yield f"{', '.join(twice)} completed more than once on {cluster['Id']}"


def _money(deployment: SimulatedDeployment, run: DagRun, clusters: Sequence[Any]) -> Broken:
    """A run's clusters cost no more than its ceiling."""
    plan = run.tasks["plan"].xcom
    if not plan:
        return
    hours = 0.0
    for cluster in clusters:
        states = deployment.aws.states_of(cluster["Id"])
        ends = [moment for moment, state in states if state == "TERMINATING"]
        if ends:
            hours += (ends[0] - states[0][0]) / 3600
    spent = hours * plan["eur_per_hour"]
    if spent > plan["max_cost_eur"] + MARGIN_EUR:
        yield f"{spent:.2f} EUR of {plan['max_cost_eur']:.2f}"


def listed_keys(deployment: SimulatedDeployment, run_id: str) -> list[str]:
    """Return the keys in a run's listing."""
    content = deployment.aws.read(LAKE, f"runs/{run_id}/listing.parquet")
    if content is None:
        return []
    return [str(key) for key in pq.read_table(io.BytesIO(content), columns=["key"]).column(0).to_pylist()]


def check_rest(deployment: SimulatedDeployment, erased: Sequence[str]) -> list[str]:
    """Return each broken rule of what lies between runs, when nothing is at work."""
    return [
        *(f"erased_is_gone: {sentence}" for sentence in _erased(deployment, erased)),
        *(f"nothing_stays: {sentence}" for sentence in _leftovers(deployment)),
        *(f"no_metadata_is_anywhere: {sentence}" for sentence in _metadata(deployment)),
    ]


def _erased(deployment: SimulatedDeployment, erased: Sequence[str]) -> Broken:
    """A photo whose erasure has ended well is in no table, no listing and no version."""
    if not erased:
        return
    ids = {hashlib.sha256(key.encode()).hexdigest(): key for key in erased}
    for name, rows in tables_of(deployment).items():
        for row in rows:
            if row.get("image_id") in ids:
                yield f"{name} has {ids[row['image_id']]}"
    for key, _ in deployment.aws.versions(RAW):
        if key in erased:
            yield f"{key} has a version"
    for stored in deployment.aws.keys(LAKE):
        if not stored.startswith("tables/"):
            content = deployment.aws.read(LAKE, stored) or b""
            named = [key for key in erased if key.encode() in content]
            if named or (stored.endswith("listing.parquet") and set(_keys_in(content)) & set(erased)):
                yield f"{stored} names an erased photo"


def _keys_in(content: bytes) -> list[str]:
    return [str(key) for key in pq.read_table(io.BytesIO(content), columns=["key"]).column(0).to_pylist()]


def _leftovers(deployment: SimulatedDeployment) -> Broken:
    """Outside of the runs' folders and logs, nothing grows with the number of nights."""
    known = ("runs/", "logs/", "models/", "code/", "tables/", "erasures/", "suppression/")
    for key in deployment.aws.keys(LAKE):
        if not key.startswith(known) and key not in ("state/fruits.json", "state/fruits_demo.json"):
            yield f"{key} is left"
    for cluster in deployment.aws.live_clusters(deployment.cluster_prefix):
        yield f"{cluster['Id']} is {cluster['Status']['State']}"


def _metadata(deployment: SimulatedDeployment) -> Broken:
    needle = CANARY.encode()
    for key in deployment.aws.keys(LAKE):
        if needle in (deployment.aws.read(LAKE, key) or b""):
            yield f"{key} holds metadata"


def photo_key(number: int) -> str:
    """Return the key of a photo."""
    return f"{RAW_PREFIX}Training/Apple {number % 3}/{number}.jpg"


def photo_body(number: int, pixel: int) -> bytes:
    """Return the bytes of a photo."""
    return json.dumps({"pixels": [number, pixel], "exif": CANARY}).encode()


def unexplained(reason: str, causes: Collection[str]) -> str | None:
    """Return what is wrong with the reason of a red run, given the kinds of what disturbed it; None for nothing."""
    if any(re.search(PATTERNS[cause], reason) for cause in causes):
        return None
    return f"{reason!r} names none of {', '.join(sorted(causes)) or 'nothing that disturbed it'}"
