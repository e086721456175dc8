"""What Spark wrote about itself: one application's event log, uncompressed, in one file."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass
class Application:
    """One Spark application."""

    name: str = ""  # its name; for our jobs the stage
    started_ms: int = 0  # when its context was begun, epoch milliseconds
    # Of each Spark stage that ran tasks: (seconds of tasks, seconds on the wall).
    stage_s: dict[int, tuple[float, float]] = field(default_factory=dict)

    @property
    def executor_s(self) -> float:
        """Seconds that its tasks ran, summed."""
        return sum(seconds for seconds, _ in self.stage_s.values())

    @property
    def longest_stage_s(self) -> float:
        """Wall seconds of the stage whose tasks ran longest in all: inference, in featurize."""
        return max(self.stage_s.values(), default=(0.0, 0.0))[1]


def read(folder: Path) -> list[Application]:
    """Return the applications that logged into `folder`, by start."""
    logs = [parse(path) for path in folder.iterdir() if path.is_file() and not path.name.endswith(".inprogress")]
    return sorted(logs, key=lambda application: application.started_ms)


def parse(path: Path) -> Application:
    """Read one event log."""
    application = Application()
    tasks: dict[int, tuple[int, int, int]] = {}
    with path.open() as lines:
        for line in lines:
            _apply(json.loads(line), application, tasks)
    application.stage_s = {
        stage: (total_ms / 1000, (last - first) / 1000) for stage, (total_ms, first, last) in tasks.items()
    }
    return application


def _apply(event: dict[str, Any], application: Application, tasks: dict[int, tuple[int, int, int]]) -> None:
    kind = event["Event"]
    if kind == "SparkListenerApplicationStart":
        application.name, application.started_ms = event["App Name"], event["Timestamp"]
    elif kind == "SparkListenerTaskEnd" and event.get("Task Metrics"):
        info = event["Task Info"]
        total, first, last = tasks.get(event["Stage ID"], (0, info["Launch Time"], 0))
        tasks[event["Stage ID"]] = (
            total + event["Task Metrics"]["Executor Run Time"],
            min(first, info["Launch Time"]),
            max(last, info["Finish Time"]),
        )
