"""Report a run on the terminal: a line for each event, with the time since the start."""

import contextlib
import sys
import time
from typing import Any

import httpx

from dev.demo.airflow_api import AirflowApi

LOG_LINES = 25
POLL_SECONDS = 0.7
ENDED = ("success", "failed")
UNREPORTED = frozenset({None, "none", "scheduled", "queued", "restarting"})


class ConsoleReporter:
    """Prints to the terminal; every line carries the time since the start."""

    def __init__(self) -> None:
        self._start = time.monotonic()

    @property
    def seconds(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._start

    def log(self, what: str, text: str) -> None:
        """Print a line: the time, the subject and what happened."""
        minutes, seconds = divmod(int(self.seconds), 60)
        print(f" {minutes:2d}:{seconds:02d}  {what:<18} {text}", flush=True)

    def warn(self, text: str) -> None:
        """Print a prominent warning."""
        strong = ("\033[1;30;43m", "\033[0m") if sys.stdout.isatty() else ("", "")
        print(f"{strong[0]}  !!!!  {text}  {strong[1]}", flush=True)


def watch_run(airflow: AirflowApi, dag_id: str, run_id: str, reporter: ConsoleReporter) -> str:
    """Report each change of a task until the run ends; return its state.

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
            if state in ENDED:
                return state
        time.sleep(POLL_SECONDS)


def print_failures(airflow: AirflowApi, dag_id: str, run_id: str) -> None:
    """Print the end of the log of each failed task, in the order in which they started."""
    for task in sorted(airflow.task_instances(dag_id, run_id), key=_start):
        if task["state"] == "failed":
            print(f"\n--- {task['task_id']} failed; the end of its log:", file=sys.stderr)
            lines = airflow.task_log(dag_id, run_id, task["task_id"], task["try_number"])
            print("\n".join(lines[-LOG_LINES:]), file=sys.stderr, flush=True)


def _start(task: dict[str, Any]) -> str:
    return task["start_date"] or "~"


def _describe(task: dict[str, Any]) -> str:
    duration = f"{task['duration']:.1f} s" if task["state"] not in ("running", "deferred") and task["duration"] else ""
    attempt = f"attempt {task['try_number']}" if task["try_number"] > 1 else ""
    return "  ".join(part for part in (task["state"], duration, attempt) if part)
