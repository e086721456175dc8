"""The tasks of every DAG with a cluster: upload the code, create the cluster, wait for it, run a step, end it.

Call the functions inside a `with DAG`. None calls AWS or opens a file until its task runs.
"""

from datetime import timedelta
from typing import Any

from airflow.sdk import TaskGroup, get_current_context, task

from fruits_airflow.config.settings import Settings
from fruits_airflow.operators.emr import AddStepOperator, CreateClusterOperator, TerminateClusterOperator
from fruits_airflow.operators.sensors import ClusterReadySensor, StepSensor
from fruits_airflow.runs import preparation

RETRIES: dict[str, Any] = {"retries": 2, "retry_delay": timedelta(minutes=1), "retry_exponential_backoff": True}
# For tasks that end a cluster or release a lock: half an hour without AWS must not leave either behind.
CLEANUP_RETRIES: dict[str, Any] = {
    "retries": 8,
    "retry_delay": timedelta(seconds=30),
    "max_retry_delay": timedelta(minutes=5),
}


def upload_code(settings: Settings) -> Any:
    """Return the task `upload_code`; its result is the code's digest, which is part of the steps' names."""

    @task
    def upload_code() -> str:
        """Upload fruits.zip, the job files and bootstrap.sh below the digest of their content."""
        return preparation.upload_code(settings, get_current_context())

    return upload_code()


def create_cluster(settings: Settings, owner: str) -> CreateClusterOperator:
    """Return the task `create_cluster`; `owner` is the DAG's name for its runs."""
    return CreateClusterOperator(
        task_id="create_cluster",
        settings=settings,
        doc_md=f"Finds or creates the {owner}'s cluster, without waiting until it is ready.",
    )


def cluster_ready(settings: Settings) -> ClusterReadySensor:
    """Return the task `cluster_ready`."""
    return ClusterReadySensor(
        task_id="cluster_ready",
        settings=settings,
        doc_md="Waits until the cluster accepts steps, without a worker slot.",
    )


def stage_group(settings: Settings, stage: str) -> TaskGroup:
    """Return the tasks that add the step of `stage` and wait for it: clear both together."""
    with TaskGroup(stage) as group:
        doc_md = f"Adds the step {stage} to the run's cluster."
        add = AddStepOperator(task_id="add", settings=settings, stage=stage, doc_md=doc_md)
        wait = StepSensor(
            task_id="wait",
            settings=settings,
            stage=stage,
            add_task_id=add.task_id,
            doc_md=f"Waits for the step {stage}, without a worker slot; shows its output if it fails.",
        )
        add >> wait
    return group


def terminate_cluster(settings: Settings, owner: str) -> Any:
    """Return the teardown `terminate_cluster`; `owner` as in `create_cluster`."""
    return TerminateClusterOperator(
        task_id="terminate_cluster",
        settings=settings,
        **CLEANUP_RETRIES,
        doc_md=f"Ends every cluster of this {owner}, found by name and tags, and waits until each has ended.",
    ).as_teardown()  # without a setup: it must also run when create_cluster failed
