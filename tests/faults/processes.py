"""A whole Airflow on PostgreSQL whose processes can be killed and started again, one by one."""

from __future__ import annotations

import contextlib
import socket
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import psutil

from dev.demo.airflow import COMPONENTS, Airflow
from dev.demo.processes import Processes
from tests.faults.postgres import Postgres
from tests.faults.world import Deployment, Run, airflow_environment, until

DAG = "fruits_pipeline"
ENDED = ("success", "failed")
# Airflow's own patience, as short as its settings allow: a death is noticed within seconds instead of minutes.
IMPATIENT = {
    "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
    "AIRFLOW__CORE__DAGBAG_IMPORT_TIMEOUT": "120",
    "AIRFLOW__SCHEDULER__JOB_HEARTBEAT_SEC": "1",
    "AIRFLOW__SCHEDULER__SCHEDULER_HEARTBEAT_SEC": "1",
    "AIRFLOW__SCHEDULER__SCHEDULER_HEALTH_CHECK_THRESHOLD": "8",
    "AIRFLOW__SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL": "3",
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_SEC": "1",
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "15",
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "2",
    "AIRFLOW__SCHEDULER__TRIGGER_TIMEOUT_CHECK_INTERVAL": "2",
    "AIRFLOW__TRIGGERER__TRIGGERER_HEALTH_CHECK_THRESHOLD": "8",
    "AIRFLOW__DATABASE__SQL_ALCHEMY_POOL_PRE_PING": "True",
}


class RealAirflow(Airflow):
    """API server, scheduler, dag-processor and triggerer of a deployment.

    Args:
        deployment: whose DAGs run.
        database: for the metadata.
        folder: for AIRFLOW_HOME and the processes' logs.
    """

    def __init__(self, deployment: Deployment, database: Postgres, folder: Path) -> None:
        self.deployment, self.database, self._folder = deployment, database, folder
        self._own = Processes(folder)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        own = airflow_environment(deployment, folder / "home", database.url)
        environment = deployment.environment() | own | IMPATIENT | {"FRUITS_SCHEDULE": ""}
        environment |= {"FAULTS_RETRY_SECONDS": "1", "FAULTS_SECONDS_PER_MINUTE": "6"}
        super().__init__(self._own, folder / "home", port, environment)
        self.migrate()
        self.start()
        self.wait(DAG)

    def begin(self, run_id: str, **conf: Any) -> None:
        """Starts a run."""
        self.trigger(DAG, run_id, conf)

    def kill(self, name: str) -> None:
        """SIGKILL to a component and all its children, as when its container is killed."""
        process = self._own._running.pop(f"airflow-{name}")
        family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
        for one in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                one.kill()
        process.wait(20)

    def start_one(self, name: str) -> None:
        """Starts a component again."""
        assert name in COMPONENTS
        self._own.start(f"airflow-{name}", [*_airflow(), name], self._env)

    def revive(self) -> None:
        """Starts what has ended by itself, as a container's restart policy does."""
        pause(3)  # what cannot live without its database ends within its next heartbeat
        for name in COMPONENTS:
            process = self._own._running.get(f"airflow-{name}")
            if process is None or process.poll() is not None:
                self.start_one(name)

    def task(self, run_id: str, task_id: str) -> dict[str, Any]:
        """A task instance."""
        return next(one for one in self.task_instances(DAG, run_id) if one["task_id"] == task_id)

    def reaches(self, run_id: str, task_id: str, *states: str, seconds: float = 120) -> None:
        """Waits until a task is in one of the states."""
        until(lambda: self.task(run_id, task_id)["state"] in states, f"{task_id} to be {states}", seconds, 0.3)

    def watched(self, run_id: str, task_id: str) -> None:
        """Waits until a deferred task's trigger looks at its step: only then can it be told of what a person does."""
        until(lambda: self.task(run_id, task_id)["triggerer_job"], f"{task_id} to have a triggerer", 60, 0.3)
        before = self._looks()
        until(lambda: self._looks() > before + 1, f"the trigger of {task_id} to look", 60, 0.3)
        pause(4)

    def _looks(self) -> int:
        return sum(one["operation"] == "DescribeStep" for one in self.deployment.aws.requests())

    def kill_task(self, run_id: str, task_id: str) -> None:
        """SIGKILL to the process that runs a task."""
        pid = until(lambda: self.task(run_id, task_id)["pid"], f"{task_id} to have a process")
        psutil.Process(int(pid)).kill()

    def clear(self, run_id: str, *task_ids: str) -> None:
        """Clears tasks with what comes after them, or, without names, all that failed."""
        body: dict[str, Any] = {"dry_run": False, "dag_run_id": run_id, "include_downstream": True}
        body |= {"task_ids": list(task_ids), "only_failed": False} if task_ids else {"only_failed": True}
        self._client.post(f"/api/v2/dags/{DAG}/clearTaskInstances", json=body).raise_for_status()

    def mark_failed(self, run_id: str) -> None:
        """Marks the run failed by hand."""
        self._client.patch(f"/api/v2/dags/{DAG}/dagRuns/{run_id}", json={"state": "failed"}).raise_for_status()

    def mark_task(self, run_id: str, task_id: str, state: str) -> None:
        """Marks a task, and none beside it, `success` or `failed` by hand."""
        self._client.patch(
            f"/api/v2/dags/{DAG}/dagRuns/{run_id}/taskInstances/{task_id}", json={"new_state": state}
        ).raise_for_status()

    def ends(self, run_id: str, seconds: float = 200) -> Run:
        """Waits for the end of a run and of all its tasks."""

        def over() -> bool:
            try:
                busy = [one for one in self.task_instances(DAG, run_id) if one["state"] in _UNFINISHED]
                return self.run_state(DAG, run_id) in ENDED and not busy
            except httpx.HTTPError:
                return False  # the database is away for a moment

        until(over, f"{run_id} to end", seconds, 0.5)
        tasks = {one["task_id"]: str(one["state"]) for one in self.task_instances(DAG, run_id)}
        return Run(run_id, self.run_state(DAG, run_id), tasks, deployment=self.deployment.name)

    def tail(self) -> str:
        """The end of each component's log."""
        return "\n".join(f"== {n}\n{self._own.log_tail(n, 25)}" for n in self._own._running)

    def close(self) -> None:
        """Ends everything."""
        self._own.stop()


_UNFINISHED = (None, "queued", "scheduled", "running", "deferred", "up_for_retry", "restarting")


def _airflow() -> list[str]:
    return [sys.executable, "-m", "airflow"]


def pause(seconds: float) -> None:
    """Lets a moment pass that nothing announces."""
    time.sleep(seconds)
