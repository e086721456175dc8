from __future__ import annotations

import os
import subprocess
import sys
import time

import psutil
import pytest

from dev.demo.processes import MARKER, ProcessEnded, Processes, end_leftovers

SLEEP = [sys.executable, "-c", "import time; time.sleep(60)"]
DEAF = [
    sys.executable,
    "-c",
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); time.sleep(60)",
]
PARENT = [
    sys.executable,
    "-c",
    "import subprocess, sys, time;"
    "print(subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'], start_new_session=True).pid,"
    " flush=True); time.sleep(60)",
]


@pytest.fixture
def processes(tmp_path):
    running = Processes(tmp_path)
    yield running
    running.stop()


def first_line(processes, name):
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        text = processes.log_path(name).read_text()
        if "\n" in text:
            return text.splitlines()[0]
        time.sleep(0.05)
    raise AssertionError(f"{name} wrote nothing")


def test_stop_ends_a_grandchild_in_a_session_of_its_own(processes):
    processes.start("parent", PARENT, os.environ)
    grandchild = int(first_line(processes, "parent"))
    processes.stop()
    assert not psutil.pid_exists(grandchild)


def test_stop_ends_a_process_that_ignores_sigterm(processes, monkeypatch):
    monkeypatch.setattr("dev.demo.processes.STOP_SECONDS", 1)
    processes.start("deaf", DEAF, os.environ)
    first_line(processes, "deaf")
    processes.stop()
    assert end_leftovers(processes._folder) == 0


def test_leftovers_of_a_killed_demo_are_found_and_others_left_alone(tmp_path):
    mine = subprocess.Popen(SLEEP, env={**os.environ, MARKER: str(tmp_path)})
    other = subprocess.Popen(SLEEP, env={**os.environ, MARKER: str(tmp_path / "elsewhere")})
    try:
        assert end_leftovers(tmp_path) == 1
        assert not psutil.pid_exists(mine.pid)
        assert other.poll() is None
    finally:
        other.kill()
        other.wait()


def test_a_process_that_ended_is_said_with_its_last_words(processes):
    processes.start("short", [sys.executable, "-c", "raise SystemExit('no such port')"], os.environ)
    processes._running["short"].wait()
    with pytest.raises(ProcessEnded, match="no such port"):
        processes.check()


def test_a_command_that_fails_is_said_with_its_last_words(processes):
    with pytest.raises(ProcessEnded, match="database is gone"):
        processes.run("db", [sys.executable, "-c", "raise SystemExit('database is gone')"], os.environ)


def test_ctrl_c_in_the_terminal_reaches_only_the_demo_itself(processes):
    processes.start("child", SLEEP, os.environ)
    assert os.getsid(processes._running["child"].pid) != os.getsid(0)


def test_a_command_that_did_its_work_is_not_missed(processes):
    processes.run("db", [sys.executable, "-c", ""], os.environ)
    processes.check()


def test_a_demo_started_from_within_another_does_not_end_itself(tmp_path):
    code = (
        f"import pathlib; from dev.demo.processes import end_leftovers; end_leftovers(pathlib.Path({str(tmp_path)!r}))"
    )
    inner = subprocess.run([sys.executable, "-c", code], check=False, env={**os.environ, MARKER: str(tmp_path)})
    assert inner.returncode == 0
