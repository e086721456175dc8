"""What `make trigger` makes of the answers of Airflow's REST API."""

from __future__ import annotations

import json
from functools import partial

import httpx
import pytest

from compose import trigger
from dev.demo import airflow_api


@pytest.fixture
def run(monkeypatch):
    """Run the command line on an API that has these import errors; return its exit status and the posted runs."""
    monkeypatch.setenv("ADMIN_PASSWORD", "p")
    monkeypatch.setenv("AIRFLOW__API__BASE_URL", "http://localhost")

    def start(*arguments: str, errors: list[dict[str, str]] | None = None) -> tuple[int, list[dict[str, object]]]:
        runs: list[dict[str, object]] = []

        def answer(request: httpx.Request) -> httpx.Response:
            if request.url.path.endswith("/dagRuns"):
                runs.append(json.loads(request.content))
            body = {"access_token": "t", "import_errors": errors or [], "state": "success", "task_instances": []}
            return httpx.Response(200, json=body)

        client = partial(httpx.Client, transport=httpx.MockTransport(answer))
        monkeypatch.setattr(airflow_api.httpx, "Client", client)
        monkeypatch.setattr("sys.argv", ["trigger.py", *arguments])
        status = trigger.main()
        return status, runs

    return start


@pytest.mark.parametrize("arguments", [(), ("--check",)])
def test_a_dag_file_that_cannot_be_imported_is_shown_and_ends_non_zero(run, capsys, arguments):
    errors = [{"filename": "fruits_pipeline.py", "stack_trace": "Traceback\n  …\nConfigError: schedule: 'nightly'"}]
    status, runs = run(*arguments, errors=errors)
    assert status == 1
    assert runs == []
    assert "fruits_pipeline.py: ConfigError: schedule: 'nightly'" in capsys.readouterr().err


def test_check_starts_no_run(run):
    status, runs = run("--check")
    assert (status, runs) == (0, [])


def test_two_triggers_in_one_second_have_two_ids(run):
    ids = {run("limit=3")[1][0]["dag_run_id"] for _ in range(2)}
    assert len(ids) == 2


def test_a_run_that_is_waited_for_ends_with_its_state(run, capsys):
    status, runs = run("--wait", "limit=3", "variance=0.9")
    assert status == 0
    assert runs[0]["conf"] == {"limit": 3, "variance": 0.9}
    assert f"{runs[0]['dag_run_id']}: success" in capsys.readouterr().out


def test_parameters_have_the_types_of_json(run):
    _, runs = run("limit=3", "variance=0.9", "k=null", "force=true", "engine=litert", "input_prefix=")
    conf = {"limit": 3, "variance": 0.9, "k": None, "force": True, "engine": "litert", "input_prefix": ""}
    assert runs[0]["conf"] == conf


@pytest.mark.parametrize("text", ["limit", "=5", "limit:5"])
def test_what_is_no_parameter_is_named_and_starts_no_run(run, capsys, text):
    with pytest.raises(SystemExit, match="2"):
        run(text)
    assert f"'{text}' is no parameter: write KEY=VALUE" in capsys.readouterr().err
