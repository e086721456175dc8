"""A real Airflow while a demo lasts: its four processes, and its REST API."""

import json
import os
import secrets
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import httpx

from dev.demo.airflow_api import AirflowApi, AirflowFailed
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


class Airflow(AirflowApi):
    """API server, scheduler, dag-processor and triggerer as processes on SQLite, on loopback.

    Its one user is `admin`, with a random `password`, which PASSWORDS has, too: other users of this machine reach the
    API server. `folder` becomes AIRFLOW_HOME; `env` is for the tasks, besides Airflow's own settings.
    """

    def __init__(self, processes: Processes, folder: Path, port: int, env: Mapping[str, str]) -> None:
        self.url = f"http://127.0.0.1:{port}"
        super().__init__(self.url)
        self._processes = processes
        self._port = port
        self.password = secrets.token_urlsafe(12)
        self._passwords = folder.resolve() / PASSWORDS
        self._env = {**env, **_settings(folder.resolve(), self.url)}

    def migrate(self) -> None:
        """Create the metadata database and the file of passwords, which only this user can read."""
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
            AirflowFailed: START_SECONDS have passed, or the DAG does not import.
            ProcessEnded: One of the processes ended.
        """
        deadline = time.monotonic() + START_SECONDS
        while not self._healthy():
            self._pause(deadline, "Airflow's processes to be healthy")
        self.log_in(USER, self.password)
        while not self.is_parsed(dag_id):
            self._pause(deadline, f"the DAG {dag_id} to be parsed")

    def run_state(self, dag_id: str, run_id: str) -> str:
        """Return the state of a run.

        Raises:
            ProcessEnded: One of the processes ended.
        """
        self._processes.check()
        return super().run_state(dag_id, run_id)

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


def _settings(home: Path, url: str) -> dict[str, str]:
    """Return Airflow's own settings besides airflow.cfg's; the secrets last as long as the demo."""
    return {
        "AIRFLOW_HOME": str(home),
        "AIRFLOW_CONFIG": str(Path(__file__).with_name("airflow.cfg")),
        # A busy machine can keep SQLite's only writer for longer than the default of 5 s, and a request would fail.
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home}/airflow.db?timeout=60",
        "AIRFLOW__CORE__DAGS_FOLDER": str(REPOSITORY / "dags"),
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(REPOSITORY / "plugins"),
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(home / PASSWORDS),
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": f"{USER}:admin",
        # The execution API does not follow [api] port: tasks would be refused, with an empty log.
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{url}/execution/",
        "AIRFLOW__API__BASE_URL": url,
        "AIRFLOW__API__SECRET_KEY": secrets.token_hex(16),
        "AIRFLOW__API_AUTH__JWT_SECRET": secrets.token_hex(32),
        "AIRFLOW__LOGGING__BASE_LOG_FOLDER": str(home / "logs"),
        "PYTHONUNBUFFERED": "1",
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]),
    }
