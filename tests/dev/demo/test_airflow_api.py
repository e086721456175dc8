from __future__ import annotations

import httpx
import pytest

from dev.demo.airflow_api import AirflowApi, AirflowFailed


@pytest.fixture
def api_of():
    """An API that answers each path as given: status and JSON."""

    def create(**answers):
        def answer(request):
            status, body = answers[request.url.path.rsplit("/", 1)[-1]]
            return httpx.Response(status, json=body)

        api = AirflowApi("http://airflow")
        api._client = httpx.Client(base_url="http://airflow", transport=httpx.MockTransport(answer))
        return api

    return create


def test_a_dag_is_parsed_once_airflow_knows_it(api_of):
    assert api_of(dag=(200, {})).is_parsed("dag")
    assert not api_of(dag=(404, {}), importErrors=(200, {"import_errors": []})).is_parsed("dag")


def test_a_dag_file_that_does_not_import_is_named(api_of):
    error = {"filename": "dag.py", "stack_trace": "Traceback\nSyntaxError"}
    api = api_of(dag=(404, {}), importErrors=(200, {"import_errors": [error]}))
    with pytest.raises(AirflowFailed, match="dag.py: SyntaxError"):
        api.is_parsed("dag")


def test_a_refused_run_is_told_in_airflows_words(api_of):
    api = api_of(dag=(200, {}), dagRuns=(409, {"detail": "the run exists"}))
    with pytest.raises(httpx.HTTPStatusError, match="409 to POST .*the run exists"):
        api.trigger("dag", "run", {})


def test_a_log_line_carries_the_error_that_it_reports(api_of):
    entry = {"event": "Task failed", "error_detail": [{"exc_type": "ValueError", "exc_value": "no"}]}
    api = api_of(**{"1": (200, {"content": ["plain", entry]})})
    assert api.task_log("dag", "run", "task", 1) == ["plain", "Task failed ValueError: no"]
