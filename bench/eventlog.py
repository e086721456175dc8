"""What Spark wrote about itself: one application's event log, uncompressed, in one file."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass
class Application:
    """One Spark application.

    Attributes:
        name: Its name; for our jobs the stage.
        started_ms: When its context was begun, epoch milliseconds.
        ready_ms: When its executors were there: from then on it could work.
        ended_ms: When it stopped.
        executor_s: Seconds that its tasks ran, summed.
        stage_s: Of each Spark stage that ran tasks: (seconds of tasks, seconds on the wall, tasks).
    """

    name: str = ""
    started_ms: int = 0
    ready_ms: int = 0
    ended_ms: int = 0
    executor_s: float = 0.0
    stage_s: dict[int, tuple[float, float, int]] = field(default_factory=dict)

    @property
    def work_s(self) -> float:
        """From ready to stopped: the window that `bench.peers.contract.Clock` measures for peers."""
        return (self.ended_ms - self.ready_ms) / 1000

    @property
    def start_s(self) -> float:
        """From the context's beginning to ready."""
        return (self.ready_ms - self.started_ms) / 1000

    @property
    def longest_stage_s(self) -> float:
        """Wall seconds of the stage whose tasks ran longest in all: inference, in featurize."""
        return max(self.stage_s.values(), default=(0.0, 0.0, 0))[1]


def read(folder: Path) -> list[Application]:
    """The applications that logged into `folder`, by start."""
    logs = [
        parse(path) for path in folder.iterdir() if path.is_file() and not path.name.endswith(".inprogress")
    ]
    return sorted(logs, key=lambda application: application.started_ms)


def parse(path: Path) -> Application:
    """Reads one event log."""
    application = Application()
    tasks: dict[int, list[int]] = {}
    with path.open() as lines:
        for line in lines:
            _apply(json.loads(line), application, tasks)
    for stage, (total_ms, first, last, count) in tasks.items():
        application.stage_s[stage] = (total_ms / 1000, (last - first) / 1000, count)
    application.executor_s = sum(seconds for seconds, _, _ in application.stage_s.values())
    application.ended_ms = application.ended_ms or application.ready_ms
    return application


def _apply(event: dict[str, Any], application: Application, tasks: dict[int, list[int]]) -> None:
    kind = event["Event"]
    if kind == "SparkListenerApplicationStart":
        application.name, application.started_ms = event["App Name"], event["Timestamp"]
    elif kind == "SparkListenerExecutorAdded":
        application.ready_ms = max(application.ready_ms, event["Timestamp"])
    elif kind == "SparkListenerApplicationEnd":
        application.ended_ms = event["Timestamp"]
    elif kind == "SparkListenerTaskEnd" and event.get("Task Metrics"):
        info = event["Task Info"]
        total, first, last, count = tasks.get(event["Stage ID"], [0, info["Launch Time"], 0, 0])
        tasks[event["Stage ID"]] = [
            total + event["Task Metrics"]["Executor Run Time"],
            min(first, info["Launch Time"]),
            max(last, info["Finish Time"]),
            count + 1,
        ]
