from __future__ import annotations

import httpx
import pytest

from dev.demo.progress import print_failures, watch_run

DONE = {"task_id": "plan", "state": "success", "start_date": "1", "duration": 1.25, "try_number": 1}
AGAIN = {"task_id": "report", "state": "failed", "start_date": "3", "duration": 2.0, "try_number": 2}
WAITING = {"task_id": "verdict", "state": "scheduled", "start_date": None, "duration": None, "try_number": 0}
DEFERRED = {"task_id": "wait", "state": "deferred", "start_date": "2", "duration": 9.0, "try_number": 1}


class Scripted:
    """A reporter that keeps its lines, and an Airflow with an answer for each request; None is a lost one."""

    def __init__(self, *answers):
        self.lines = []
        self._answers = list(answers)

    def log(self, what, text):
        self.lines.append((what, text))

    def run_state(self, *_):
        return "running" if len(self._answers) > 1 else "failed"

    def task_instances(self, *_):
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        if answer is None:
            raise httpx.ReadTimeout("busy")
        return answer


@pytest.fixture(autouse=True)
def _at_once(monkeypatch):
    monkeypatch.setattr("dev.demo.progress.POLL_SECONDS", 0)


def test_each_change_of_a_task_is_reported_once_in_the_order_of_their_starts():
    run = Scripted([WAITING, DONE], [WAITING, DEFERRED, DONE], None, [AGAIN, DEFERRED, DONE])
    assert watch_run(run, "dag", "run", run) == "failed"
    assert run.lines == [("plan", "success  1.2 s"), ("wait", "deferred"), ("report", "failed  2.0 s  attempt 2")]


def test_the_logs_of_failed_tasks_come_in_the_order_in_which_they_started(capsys):
    first = AGAIN | {"task_id": "add", "start_date": "0"}
    run = Scripted([AGAIN, DONE, first])
    run.task_log = lambda _dag, _run, task_id, attempt: [f"{task_id} attempt {attempt} line {n}" for n in range(30)]
    print_failures(run, "dag", "run")
    lines = capsys.readouterr().err.splitlines()
    assert [line for line in lines if line.startswith("---")] == [
        "--- add failed; the end of its log:",
        "--- report failed; the end of its log:",
    ]
    assert lines[2] == "add attempt 2 line 5"
    assert lines[-1] == "report attempt 2 line 29"
