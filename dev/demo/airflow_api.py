"""Airflow's REST API, as the demo and `make trigger` call it."""

from collections.abc import Mapping
from typing import Any

import httpx


class AirflowFailed(Exception):
    """Airflow did not start, or does not know the DAG."""


class AirflowApi:
    """A client of an API server's REST API; an error status raises `httpx.HTTPStatusError` with Airflow's words."""

    def __init__(self, url: str) -> None:
        self._client = httpx.Client(base_url=url, timeout=60, trust_env=False)  # no proxy: it is on this machine

    def log_in(self, username: str, password: str) -> None:
        """Get a token for the requests that follow."""
        token = self._call("POST", "/auth/token", json={"username": username, "password": password})
        self._client.headers["Authorization"] = f"Bearer {token['access_token']}"

    def is_parsed(self, dag_id: str) -> bool:
        """Tell whether Airflow knows the DAG.

        Raises:
            AirflowFailed: It does not, and a DAG file does not import.
        """
        if self._client.get(f"/api/v2/dags/{dag_id}").status_code == httpx.codes.OK:
            return True
        self.check_imports()
        return False

    def check_imports(self) -> None:
        """Check that Airflow could import every DAG file.

        Raises:
            AirflowFailed: It could not; the message holds the end of each traceback.
        """
        if errors := self._call("GET", "/api/v2/importErrors")["import_errors"]:
            ends = (f"{error['filename']}: {error['stack_trace'].strip().splitlines()[-1]}" for error in errors)
            raise AirflowFailed("Airflow cannot import these DAG files:\n" + "\n".join(ends))

    def trigger(self, dag_id: str, run_id: str, conf: Mapping[str, Any]) -> None:
        """Unpause the DAG and start a manual run.

        Raises:
            httpx.HTTPStatusError: Airflow refuses the run; the message has its reason.
        """
        self._call("PATCH", f"/api/v2/dags/{dag_id}", json={"is_paused": False})
        run = {"dag_run_id": run_id, "logical_date": None, "conf": dict(conf)}
        self._call("POST", f"/api/v2/dags/{dag_id}/dagRuns", json=run)

    def knows(self, dag_id: str, run_id: str) -> bool:
        """Whether the run exists."""
        return self._client.get(_run_path(dag_id, run_id)).is_success

    def run_state(self, dag_id: str, run_id: str) -> str:
        """Return the state: queued, running, success or failed."""
        return str(self._call("GET", _run_path(dag_id, run_id))["state"])

    def task_instances(self, dag_id: str, run_id: str) -> list[dict[str, Any]]:
        """Return the run's task instances as the REST API describes them."""
        reply = self._call("GET", f"{_run_path(dag_id, run_id)}/taskInstances", params={"limit": 100})
        instances: list[dict[str, Any]] = reply["task_instances"]
        return instances

    def task_log(self, dag_id: str, run_id: str, task_id: str, try_number: int) -> list[str]:
        """Return the lines of one attempt's log."""
        path = f"{_run_path(dag_id, run_id)}/taskInstances/{task_id}/logs/{try_number}"
        reply = self._call("GET", path, headers={"Accept": "application/json"})
        return [_log_line(entry) for entry in reply["content"]]

    def _call(self, method: str, path: str, **arguments: Any) -> Any:
        reply = self._client.request(method, path, **arguments)
        if reply.is_error:
            text = f"Airflow answered {reply.status_code} to {method} {path}: {reply.text}"
            raise httpx.HTTPStatusError(text, request=reply.request, response=reply)
        return reply.json()


def _run_path(dag_id: str, run_id: str) -> str:
    return f"/api/v2/dags/{dag_id}/dagRuns/{run_id}"


def _log_line(entry: Any) -> str:
    if isinstance(entry, str):
        return entry
    event = str(entry.get("event", ""))
    details = "; ".join(
        f"{detail.get('exc_type')}: {detail.get('exc_value')}" for detail in entry.get("error_detail") or []
    )
    return f"{event} {details}".rstrip()
