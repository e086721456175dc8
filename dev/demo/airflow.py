"""A real Airflow for the length of a demo: its four processes, and its REST API."""

from __future__ import annotations

import json
import os
import secrets
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx

from dev.demo.processes import Processes

REPOSITORY = Path(__file__).resolve().parents[2]
START_SECONDS = 180
USER = "admin"
PASSWORDS = "passwords.json"
# Servers of logs would listen on every address of the machine, and the API server reads the same files.
COMPONENTS = {
    "scheduler": ["scheduler", "--skip-serve-logs"],
    "dag-processor": ["dag-processor"],
    "triggerer": ["triggerer", "--skip-serve-logs"],
}
HEALTH = ("metadatabase", "scheduler", "triggerer", "dag_processor")


class AirflowFailed(Exception):
    """Airflow did not start, or did not take the DAG."""


class Airflow:
    """API server, scheduler, dag-processor and triggerer as processes on SQLite, on loopback.

    Its one user is `admin`, with a random password: other users of this machine reach the API server, too.

    Args:
        processes: what starts and ends them.
        folder: becomes AIRFLOW_HOME.
        port: of the API server.
        env: what the tasks see besides Airflow's own settings.

    Attributes:
        password: Of the user `admin`; PASSWORDS below the folder has it, too.
    """

    def __init__(self, processes: Processes, folder: Path, port: int, env: Mapping[str, str]) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self._processes = processes
        self._port = port
        self.password = secrets.token_urlsafe(12)
        self._passwords = folder.resolve() / PASSWORDS
        self._env = {**env, **_settings(folder.resolve(), self.url)}
        self._client = httpx.Client(base_url=self.url, timeout=30)

    def migrate(self) -> None:
        """Make the metadata database and the file of passwords, for this user only."""
        self._passwords.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._passwords.touch(mode=0o600)
        self._passwords.write_text(json.dumps({USER: self.password}))
        self._processes.run("airflow-db", [*_airflow(), "db", "migrate"], self._env)

    def start(self) -> None:
        """Start the four processes; `wait` returns when they are up."""
        api = ["api-server", "--host", "127.0.0.1", "--port", str(self._port), "--workers", "1"]
        for name, command in (("api-server", api), *COMPONENTS.items()):
            self._processes.start(f"airflow-{name}", [*_airflow(), *command], self._env)

    def wait(self, dag_id: str) -> None:
        """Wait until all are healthy and the DAG can be triggered.

        Raises:
            AirflowFailed: after START_SECONDS, or when the DAG does not import.
            ProcessEnded: one of the processes ended.
        """
        deadline = time.monotonic() + START_SECONDS
        while not self._healthy():
            self._pause(deadline, "Airflow's processes to be healthy")
        login = self._client.post("/auth/token", json={"username": USER, "password": self.password})
        self._client.headers["Authorization"] = f"Bearer {login.raise_for_status().json()['access_token']}"
        while self._client.get(f"/api/v2/dags/{dag_id}").status_code != httpx.codes.OK:
            errors = self._client.get("/api/v2/importErrors").raise_for_status().json()["import_errors"]
            if errors:
                raise AirflowFailed(f"{errors[0]['filename']} does not import:\n{errors[0]['stack_trace']}")
            self._pause(deadline, f"the DAG {dag_id} to be parsed")

    def trigger(self, dag_id: str, run_id: str, conf: Mapping[str, Any]) -> None:
        """Unpause the DAG and start a manual run.

        Raises:
            AirflowFailed: Airflow refused it, with Airflow's words.
        """
        self._client.patch(f"/api/v2/dags/{dag_id}", json={"is_paused": False}).raise_for_status()
        reply = self._client.post(
            f"/api/v2/dags/{dag_id}/dagRuns",
            json={"dag_run_id": run_id, "logical_date": None, "conf": dict(conf)},
        )
        if reply.is_error:
            raise AirflowFailed(f"Airflow did not take the run: {reply.text}")

    def run_state(self, dag_id: str, run_id: str) -> str:
        """Return the state: queued, running, success or failed."""
        self._processes.check()
        reply = self._client.get(f"/api/v2/dags/{dag_id}/dagRuns/{run_id}").raise_for_status()
        return str(reply.json()["state"])

    def task_instances(self, dag_id: str, run_id: str) -> list[dict[str, Any]]:
        """Return the run's task instances as the REST API describes them."""
        reply = self._client.get(
            f"/api/v2/dags/{dag_id}/dagRuns/{run_id}/taskInstances", params={"limit": 100}
        ).raise_for_status()
        instances: list[dict[str, Any]] = reply.json()["task_instances"]
        return instances

    def task_log(self, dag_id: str, run_id: str, task_id: str, try_number: int) -> list[str]:
        """Return the lines of one attempt's log."""
        reply = self._client.get(
            f"/api/v2/dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}/logs/{try_number}",
            headers={"Accept": "application/json"},
        ).raise_for_status()
        return [_log_line(entry) for entry in reply.json()["content"]]

    def _healthy(self) -> bool:
        try:
            health = self._client.get("/api/v2/monitor/health").raise_for_status().json()
        except (httpx.HTTPError, ValueError):
            return False
        return all(health.get(part, {}).get("status") == "healthy" for part in HEALTH)

    def _pause(self, deadline: float, what: str) -> None:
        self._processes.check()
        if time.monotonic() > deadline:
            raise AirflowFailed(f"waited {START_SECONDS} s for {what}; see logs/airflow-*.log")
        time.sleep(0.3)


def _airflow() -> list[str]:
    return [sys.executable, "-m", "airflow"]


def _log_line(entry: Any) -> str:
    if isinstance(entry, str):
        return entry
    event = str(entry.get("event", ""))
    details = "; ".join(
        f"{detail.get('exc_type')}: {detail.get('exc_value')}" for detail in entry.get("error_detail") or []
    )
    return f"{event} {details}".rstrip()


def _settings(home: Path, url: str) -> dict[str, str]:
    """Airflow's own settings, by environment; the secrets live as long as the demo."""
    return {
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__DAGS_FOLDER": str(REPOSITORY / "dags"),
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(REPOSITORY / "plugins"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__PARALLELISM": "4",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(home / PASSWORDS),
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": f"{USER}:admin",
        # The execution API does not follow [api] port: tasks would be refused, with an empty log.
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{url}/execution/",
        "AIRFLOW__API__BASE_URL": url,
        "AIRFLOW__API__SECRET_KEY": secrets.token_hex(16),
        "AIRFLOW__API_AUTH__JWT_SECRET": secrets.token_hex(32),
        "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "30",
        "AIRFLOW__LOGGING__BASE_LOG_FOLDER": str(home / "logs"),
        "AIRFLOW__LOGGING__COLORED_CONSOLE_LOG": "False",
        "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.5",
        "AIRFLOW__TRIGGERER__JOB_HEARTBEAT_SEC": "2",
        # A trigger holds back its first look until Airflow has noticed the deferral: twice this interval.
        "AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL": "1",
        "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
        "PYTHONUNBUFFERED": "1",
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]),
        "HOME": os.environ.get("HOME", str(home)),
    }
