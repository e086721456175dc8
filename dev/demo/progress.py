"""Report a run on the terminal: a line for each event, with the time since the start."""

from __future__ import annotations

import contextlib
import sys
import time
from typing import Any

import httpx

from dev.demo.airflow_api import AirflowApi

POLL_SECONDS = 0.7
ENDED = ("success", "failed")
UNREPORTED = frozenset({None, "none", "scheduled", "queued", "restarting"})
STAGE_LINES_EVERY_SECONDS = 3.0


class ConsoleReporter:
    """Prints to the terminal; every line carries the time since the demo began."""

    def __init__(self) -> None:
        self._start = time.monotonic()

    @property
    def seconds(self) -> float:
        """Seconds since the demo began."""
        return time.monotonic() - self._start

    def log(self, what: str, text: str) -> None:
        """Print a line: the time, the subject and what happened."""
        minutes, seconds = divmod(int(self.seconds), 60)
        print(f" {minutes:2d}:{seconds:02d}  {what:<18} {text}", flush=True)

    def warn(self, text: str) -> None:
        """Print a prominent warning."""
        strong = ("\033[1;30;43m", "\033[0m") if sys.stdout.isatty() else ("", "")
        print(f"{strong[0]}  !!!!  {text}  {strong[1]}", flush=True)


def watch_run(
    airflow: AirflowApi, dag_id: str, run_id: str, reporter: ConsoleReporter, spark: SparkProgress | None
) -> str:
    """Report each change of a task and the progress of Spark until the run ends; return its state.

    A request without an answer is repeated, since a busy machine may be slow.
    """
    reported: dict[str, str] = {}
    while True:
        with contextlib.suppress(httpx.TransportError):
            state = airflow.run_state(dag_id, run_id)
            for task in sorted(airflow.task_instances(dag_id, run_id), key=_start):
                if task["state"] in UNREPORTED or reported.get(task["task_id"]) == task["state"]:
                    continue
                reported[task["task_id"]] = task["state"]
                reporter.log(task["task_id"], _describe(task))
            if spark and (line := spark.line()):
                reporter.log("  spark", line)
            if state in ENDED:
                return state
        time.sleep(POLL_SECONDS)


def failed_tasks(airflow: AirflowApi, dag_id: str, run_id: str) -> list[dict[str, Any]]:
    """Return the failed task instances, in the order in which they started."""
    failed = [task for task in airflow.task_instances(dag_id, run_id) if task["state"] == "failed"]
    return sorted(failed, key=_start)


class SparkProgress:
    """The running application's stages, from the driver's own REST API.

    Args:
        url: URL of the Spark UI, which answers during a step only.
    """

    def __init__(self, url: str) -> None:
        self._client = httpx.Client(base_url=f"{url}/api/v1", timeout=2)
        self._last = ""
        self._reported_at = 0.0

    def line(self) -> str | None:
        """Return a line about the active stages when it says something new, at most every few seconds."""
        if time.monotonic() - self._reported_at < STAGE_LINES_EVERY_SECONDS:
            return None
        line = self._read()
        if not line or line == self._last:
            return None
        self._last, self._reported_at = line, time.monotonic()
        return line

    def _read(self) -> str | None:
        try:
            (application, *_) = self._client.get("/applications").raise_for_status().json()
            stages = (
                self._client.get(f"/applications/{application['id']}/stages", params={"status": "active"})
                .raise_for_status()
                .json()
            )
        except (httpx.HTTPError, ValueError):
            # No driver is up, or it is ending.
            return None
        # A stage's own name is a place in Spark's code.
        return "; ".join(
            f"{application['name']}, stage {stage['stageId']}: "
            f"{stage['numCompleteTasks']} of {stage['numTasks']} tasks done"
            for stage in stages[:2]
        )


def _start(task: dict[str, Any]) -> str:
    return task["start_date"] or "~"


def _describe(task: dict[str, Any]) -> str:
    duration = f"{task['duration']:.1f} s" if task["state"] not in ("running", "deferred") and task["duration"] else ""
    attempt = f"attempt {task['try_number']}" if task["try_number"] > 1 else ""
    return "  ".join(part for part in (task["state"], duration, attempt) if part)
