"""How a demo ends: its exit status and the line that says why."""

from __future__ import annotations

import errno
import signal
import socket

import pytest
from fruits_airflow.config.errors import ResidencyError

from dev.demo import __main__ as entry
from dev.demo.account import AccountFailed
from dev.demo.airflow_api import AirflowFailed
from dev.demo.preflight import CannotStart, read_options


@pytest.fixture(autouse=True)
def _a_demo_apart(tmp_path, monkeypatch):
    monkeypatch.setattr(entry, "FOLDER", tmp_path)
    monkeypatch.setattr(entry, "read_options", lambda _environ: None)
    monkeypatch.setattr(entry, "check_space", lambda _folder: None)
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = [signal.getsignal(number) for number in numbers]
    yield
    for number, handler in zip(numbers, before, strict=True):
        signal.signal(number, handler)


@pytest.mark.parametrize(
    ("error", "status", "words"),
    [
        (CannotStart("port 1 is in use"), 2, "ERROR: port 1 is in use"),
        (ResidencyError("eu-west-2 is not in the EU"), 2, "ERROR: eu-west-2"),
        (AirflowFailed("no DAG"), 1, "ERROR: no DAG\nLogs are in "),
        (OSError(errno.ENOSPC, "No space left on device", "x.jpg"), 1, "ERROR: x.jpg: No space left on device"),
        (entry.Interrupted(), 130, "Interrupted: everything"),
    ],
)
def test_each_end_has_its_status_and_its_line(monkeypatch, capsys, error, status, words):
    def fail(_wishes):
        raise error

    monkeypatch.setattr(entry, "_demo", fail)
    assert entry.main() == status
    assert capsys.readouterr().err.startswith(words)


@pytest.mark.parametrize("status", [0, 1])
def test_the_status_is_that_of_the_run_whose_failure_is_printed_already(monkeypatch, capsys, status):
    monkeypatch.setattr(entry, "_demo", lambda _wishes: status)
    assert entry.main() == status
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_each_way_to_end_a_demo_interrupts_it_and_stops_its_processes(monkeypatch, number):
    stopped = []
    monkeypatch.setattr(entry, "read_options", lambda _environ: read_options({}))
    monkeypatch.setattr(entry, "_convert", lambda *_: {})
    monkeypatch.setattr(entry.Processes, "stop", lambda _processes: stopped.append(True))
    monkeypatch.setattr(entry, "_run", lambda *_: signal.raise_signal(number))
    assert entry.main() == 130
    assert stopped == [True]


def _refuse_weights(*_):
    raise AccountFailed("w.h5: not a Keras weights file")


def test_a_refused_demo_keeps_the_results_of_the_one_before(tmp_path, monkeypatch, capsys):
    (tmp_path / "run.json").write_text("{}")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        monkeypatch.setattr(entry, "read_options", lambda _environ: read_options({"AWS_PORT": str(port)}))
        assert entry.main() == 2
    monkeypatch.setattr(entry, "read_options", lambda _environ: read_options({}))
    monkeypatch.setattr(entry, "make_model", _refuse_weights)
    assert entry.main() == 1
    assert [line for line in capsys.readouterr().err.splitlines() if line.startswith("ERROR")] == [
        f"ERROR: port {port} is in use or not allowed (Address already in use): choose another with AWS_PORT=…, "
        "or leave it out for any free one",
        "ERROR: w.h5: not a Keras weights file",
    ]
    assert (tmp_path / "run.json").exists()


def test_what_an_earlier_demo_left_is_cleared_but_for_the_lock(tmp_path):
    (tmp_path / "logs").mkdir()
    for name in (".lock", "run.json", "logs/a.log"):
        (tmp_path / name).write_text("")
    entry._clear(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]


@pytest.mark.parametrize(("environ", "environment"), [({}, ".venv-node"), ({"ENGINE": "tensorflow"}, ".venv-spark")])
def test_steps_run_in_the_python_of_a_node_unless_the_engine_needs_tensorflow(environ, environment):
    python = entry._steps_python(read_options(environ))
    command = entry._local_aws(1, python)
    assert command[command.index("--spark-python") + 1] == entry.REPOSITORY / environment / "bin" / "python"
