"""What went wrong in a run: from the states of its tasks, and from what its stages measured."""

from collections.abc import Mapping, Sequence
from typing import Any

from airflow.sdk import Context

from fruits_airflow.emr.stage_steps import STAGES
from fruits_airflow.records.models import StageMetrics
from fruits_airflow.runs.plan import RunPlan
from fruits_airflow.runs.run_context import PLAN_TASK, UPLOAD_TASK

WORK_TASKS = (
    *(PLAN_TASK, UPLOAD_TASK, "create_cluster", "cluster_ready"),
    *(f"{stage}.{task}" for stage in STAGES for task in ("add", "wait")),
)

# Each listed photo has one, in the counts of spark_jobs/load_images.py.
_FATES = ("loaded", "rejected", "unchanged", "suppressed")


def task_states(context: Context, tasks: Sequence[str] = WORK_TASKS) -> dict[str, str | None]:
    """Return the states of the tasks that work; None for a task without a state."""
    ti: Any = context["ti"]
    by_run = ti.get_task_states(dag_id=ti.dag_id, task_ids=list(tasks), run_ids=[ti.run_id])
    states = by_run.get(ti.run_id, {})
    return {task: None if (state := states.get(task)) is None else str(state) for task in tasks}


def problems_of(
    states: Mapping[str, str | None],
    stages: Mapping[str, StageMetrics],
    plan: RunPlan | None,
    failure: Mapping[str, Any] | None = None,
) -> list[str]:
    """List why a run is red, the cause first; empty when it did all its work and published.

    The plan is None when the task `plan` returned nothing; `failure` is the recorded one that Airflow does not retry.
    """
    problems = list_unfinished(states)
    if problems and failure:
        problems.insert(0, f"{failure['stage']}: {failure['cause']}")
    publish = stages.get("publish")
    if publish is not None and not publish.published:
        problems.insert(0, f"the quality gate refused: {', '.join(publish.quality.failed) or 'no check named'}")
    return problems or _unproven(stages, plan)


def list_unfinished(states: Mapping[str, str | None]) -> list[str]:
    """List the tasks that did not do their work; those that only follow a failed one are left out."""
    unfinished = {task: state for task, state in states.items() if state != "success"}
    causes = {task: state for task, state in unfinished.items() if state != "upstream_failed"}
    return [f"{task} is {state}" for task, state in (causes or unfinished).items()]


def failed_task(states: Mapping[str, str | None]) -> str:
    """Return the task whose log has the cause: the first that failed; the verdict's when none has."""
    return next((task for task, state in states.items() if state == "failed"), "verdict")


def gate_refused(stages: Mapping[str, StageMetrics]) -> bool:
    """Tell whether the quality gate refused what the run computed."""
    return "publish" in stages and stages["publish"].published is False


def _unproven(stages: Mapping[str, StageMetrics], plan: RunPlan | None) -> list[str]:
    """List what no metrics show to be done, whatever the task states are: a person may have set them.

    Metrics last as long as the run's listing: a resumed run has those of the attempt that did the work, and `plan`
    removes them when it lists again. Where a load finds its work committed, all photos are unchanged.
    """
    if not plan:
        return [f"{PLAN_TASK} has planned nothing, whatever its state is; trigger a new run"]
    if missing := [stage for stage in STAGES if stage not in stages]:
        return [
            f"{', '.join(missing)} left no metrics, whatever the task states are; clear add and wait of {missing[0]}, "
            "with what comes after them"
        ]
    images, listed = stages["load_images"].images, plan.images.seen
    counts = {fate: getattr(images, fate) for fate in _FATES}
    if sum(counts.values()) != listed:
        parts = ", ".join(f"{count} {fate}" for fate, count in counts.items())
        return [
            f"load_images counts {sum(counts.values())} photos ({parts}), and plan has listed {listed}; "
            "clear add and wait of load_images, with what comes after them"
        ]
    return []
