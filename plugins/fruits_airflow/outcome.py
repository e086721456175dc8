"""What went wrong in a run: from the states of its tasks, and from what its stages measured."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from fruits_airflow.run_cluster import PLAN_TASK, UPLOAD_TASK
from fruits_airflow.stages import STAGES

if TYPE_CHECKING:
    from airflow.sdk import Context

WORK_TASKS = (
    *(PLAN_TASK, UPLOAD_TASK, "create_cluster", "cluster_ready"),
    *(f"{stage}.{task}" for stage in STAGES for task in ("add", "wait")),
)


def task_states(context: Context) -> dict[str, str | None]:
    """The states of the run's tasks that work; None for one without a state."""
    ti: Any = context["ti"]
    found = ti.get_task_states(dag_id=ti.dag_id, task_ids=list(WORK_TASKS), run_ids=[ti.run_id])
    states = found.get(ti.run_id, {})
    return {task: None if (state := states.get(task)) is None else str(state) for task in WORK_TASKS}


def problems_of(
    states: Mapping[str, str | None],
    stages: Mapping[str, Mapping[str, Any]],
    failure: Mapping[str, Any] | None = None,
) -> list[str]:
    """Why a run is red, the cause first; empty when it did all its work and published.

    Args:
        states: of the tasks that work.
        stages: the metrics of the stages, by stage.
        failure: the note on what a stage failed of: the step's own ERROR line.
    """
    problems = [f"{task} is {state}" for task, state in states.items() if state != "success"]
    if problems and failure:
        problems.insert(0, f"{failure['stage']}: {failure['cause']}")
    publish = stages.get("publish")
    if publish is not None and not publish.get("published"):
        problems.insert(
            0, f"the quality gate refused: {', '.join(_failed_checks(publish)) or 'no check named'}"
        )
    elif publish is None and not problems:
        problems.append("nothing was published, whatever the tasks say")
    return problems


def gate_refused(stages: Mapping[str, Mapping[str, Any]]) -> bool:
    """Whether the run came to its quality gate, and the gate said no."""
    return stages.get("publish", {}).get("published") is False


def _failed_checks(publish: Mapping[str, Any]) -> list[str]:
    return [name for name, check in publish.get("quality", {}).get("checks", {}).items() if not check["ok"]]
