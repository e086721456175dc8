"""What parts of the suite found adds up to one list."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from tests.faults.results import keep, stamp


def test_a_result_takes_the_place_of_the_same_test_s_and_of_no_other(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    keep([{"test": "a", "held": False}], path)
    keep([{"test": "b", "held": True}], path)
    keep([{"test": "a", "held": True}], path)
    assert json.loads(path.read_text()) == [{"test": "b", "held": True}, {"test": "a", "held": True}]


def test_two_processes_at_once_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    program = (
        "import pathlib, sys; from tests.faults.results import keep\n"
        "for n in range(60): keep([{'test': f'{sys.argv[1]}{n}'}], pathlib.Path(sys.argv[2]))"
    )
    both = [subprocess.Popen([sys.executable, "-c", program, name, str(path)]) for name in "xy"]
    assert [one.wait(60) for one in both] == [0, 0]
    assert len(json.loads(path.read_text())) == 120


def test_a_stamp_names_moment_and_commit() -> None:
    found = stamp()
    assert found["when"].endswith("+00:00")
    assert len(found["commit"].rstrip("+")) == 10
