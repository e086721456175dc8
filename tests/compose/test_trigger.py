"""What `make trigger` makes of the answers of Airflow's REST API."""

from __future__ import annotations

import pytest

from compose import trigger


class Answers:
    """An API whose answers are set by path, and which keeps the bodies that were posted."""

    def __init__(self, errors: list[dict[str, str]]) -> None:
        self.errors = errors
        self.bodies: list[dict[str, object]] = []

    def call(self, method: str, path: str, body: dict[str, object] | None = None) -> object:
        if path == "/api/v2/importErrors":
            return {"import_errors": self.errors}
        if method == "POST":
            self.bodies.append(body or {})
        return {}


@pytest.fixture
def run(monkeypatch):
    """Run the command line on an API that has these import errors; return its exit status and the API."""
    monkeypatch.setenv("ADMIN_PASSWORD", "p")
    monkeypatch.setenv("AIRFLOW__API__BASE_URL", "http://localhost")

    def start(*arguments: str, errors: list[dict[str, str]] | None = None) -> tuple[int, Answers]:
        api = Answers(errors or [])
        monkeypatch.setattr(trigger, "Api", lambda *_: api)
        monkeypatch.setattr("sys.argv", ["trigger.py", *arguments])
        return trigger.main(), api

    return start


@pytest.mark.parametrize("arguments", [(), ("--check",)])
def test_a_dag_file_that_cannot_be_imported_is_shown_and_ends_non_zero(run, capsys, arguments):
    errors = [{"filename": "fruits_pipeline.py", "stack_trace": "Traceback\n  …\nConfigError: schedule: 'nightly'"}]
    status, api = run(*arguments, errors=errors)
    assert status == 1
    assert api.bodies == []
    assert "fruits_pipeline.py: ConfigError: schedule: 'nightly'" in capsys.readouterr().err


def test_check_starts_no_run(run):
    status, api = run("--check")
    assert (status, api.bodies) == (0, [])


def test_two_triggers_in_one_second_have_two_ids(run):
    ids = {run("limit=3")[1].bodies[0]["dag_run_id"] for _ in range(2)}
    assert len(ids) == 2


def test_parameters_have_the_types_of_json(run):
    _, api = run("limit=3", "variance=0.9", "k=null", "force=true", "engine=litert", "input_prefix=")
    conf = {"limit": 3, "variance": 0.9, "k": None, "force": True, "engine": "litert", "input_prefix": ""}
    assert api.bodies[0]["conf"] == conf


@pytest.mark.parametrize("text", ["limit", "=5", "limit:5"])
def test_what_is_no_parameter_is_named_and_starts_no_run(run, capsys, text):
    with pytest.raises(SystemExit, match="2"):
        run(text)
    assert f"'{text}' is no parameter: write KEY=VALUE" in capsys.readouterr().err
