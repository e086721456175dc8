"""Figures out of Spark's event log, a process tree, and single runs."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

pytest.importorskip("numpy")
pytest.importorskip("psutil")

from bench import eventlog, measure

pytestmark = pytest.mark.slow


def task(stage: int, launched: int, finished: int, ran: int) -> dict[str, object]:
    return {
        "Event": "SparkListenerTaskEnd",
        "Stage ID": stage,
        "Task Info": {"Launch Time": launched, "Finish Time": finished},
        "Task Metrics": {"Executor Run Time": ran},
    }


def test_an_event_log_gives_the_seconds_of_tasks_and_the_longest_stage(tmp_path: Path) -> None:
    events = [
        {"Event": "SparkListenerApplicationStart", "App Name": "featurize", "Timestamp": 1_000},
        task(0, 4_000, 4_500, 400),
        task(1, 5_000, 9_000, 3_900),
        task(1, 5_100, 9_500, 4_300),
    ]
    (tmp_path / "local-1").write_text("\n".join(map(json.dumps, events)))
    (found,) = eventlog.read(tmp_path)
    assert found.name == "featurize"
    assert found.longest_stage_s == 4.5
    assert found.executor_s == pytest.approx(8.6)


def test_a_log_in_progress_is_no_run(tmp_path: Path) -> None:
    (tmp_path / "local-1.inprogress").write_text("")
    assert eventlog.read(tmp_path) == []


def test_memory_of_children_is_counted(tmp_path: Path) -> None:
    child = "x = bytearray(200_000_000); import time; time.sleep(1.5)"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}]); print('{{\"seconds\": 1}}')"
    found = measure.run([sys.executable, "-c", parent], tmp_path / "log", os.environ, tmp_path)
    assert found.answer == {"seconds": 1}
    assert found.memory.total > 200


def test_a_failing_contestant_is_an_error_with_its_last_words(tmp_path: Path) -> None:
    with pytest.raises(measure.RunFailed, match="out of fruit"):
        measure.run(
            [sys.executable, "-c", "raise SystemExit('out of fruit')"], tmp_path / "log", os.environ, tmp_path
        )


def test_the_answer_is_the_last_line_of_json() -> None:
    assert measure.last_json('noise\n{"seconds": 1}\n{"seconds": 2}\nbye') == {"seconds": 2}
    assert measure.last_json("noise") == {}
