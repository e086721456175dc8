"""The tasks of every DAG that has a cluster: ship the code, make the cluster, wait for it, give it a step, end it.

Called inside a `with DAG`. None calls AWS or opens a file until its task runs.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.sdk import TaskGroup, get_current_context, task

from fruits_airflow.config.settings import Settings
from fruits_airflow.operators.emr import AddStepOperator, CreateClusterOperator, TerminateClusterOperator
from fruits_airflow.operators.sensors import ClusterReadySensor, StepSensor
from fruits_airflow.runs import preparation

RETRIES: dict[str, Any] = {
    "retries": 2,
    "retry_delay": timedelta(minutes=1),
    "retry_exponential_backoff": True,
}
# Of what ends a cluster and gives back a lock: half an hour without AWS must not leave either behind.
NO_LEAK: dict[str, Any] = {
    "retries": 8,
    "retry_delay": timedelta(seconds=30),
    "max_retry_delay": timedelta(minutes=5),
}


def upload_code(settings: Settings) -> Any:
    """The task `upload_code`; its result is the code's digest, from which steps take their names."""

    @task
    def upload_code() -> str:
        """Ships fruits.zip, the job files and bootstrap.sh under the digest of their content."""
        return preparation.upload_code(settings, get_current_context())

    return upload_code()


def create_cluster(settings: Settings, owner: str) -> CreateClusterOperator:
    """The task `create_cluster`; `owner` is what the DAG calls a run of its own."""
    return CreateClusterOperator(
        task_id="create_cluster",
        settings=settings,
        doc_md=f"Makes or adopts the {owner}'s cluster; waits for nothing.",
    )


def cluster_ready(settings: Settings) -> ClusterReadySensor:
    """The task `cluster_ready`."""
    return ClusterReadySensor(
        task_id="cluster_ready",
        settings=settings,
        doc_md="Waits until the cluster takes steps, without a worker slot.",
    )


def stage_group(settings: Settings, stage: str) -> TaskGroup:
    """What hands the step of `stage` to the cluster, and what waits for it: clear both together."""
    with TaskGroup(stage) as group:
        add = AddStepOperator(
            task_id="add",
            settings=settings,
            stage=stage,
            doc_md=f"Hands the step {stage} to the run's cluster.",
        )
        wait = StepSensor(
            task_id="wait",
            settings=settings,
            stage=stage,
            add_task_id=add.task_id,
            doc_md=f"Waits for the step {stage}, without a worker slot; shows its output should it fail.",
        )
        add >> wait
    return group


def terminate_cluster(settings: Settings, owner: str) -> Any:
    """The teardown `terminate_cluster`; `owner` as in `create_cluster`."""
    return TerminateClusterOperator(
        task_id="terminate_cluster",
        settings=settings,
        **NO_LEAK,
        doc_md=f"Ends every cluster of this {owner}, found by name and tags, and watches until it is gone.",
    ).as_teardown()  # tied to no setup: it must run also when create_cluster failed
