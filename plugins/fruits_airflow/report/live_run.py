"""A run that goes on, as Airflow's database shows it: its plan and the states of its tasks."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from airflow.models.taskinstance import TaskInstance
from airflow.models.xcom import XComModel
from airflow.utils.session import create_session
from sqlalchemy import select

from fruits_airflow.emr.stage_steps import STAGES


def read_live(dag_id: str, run_id: str) -> dict[str, Any]:
    """Return what is known of a run before it leaves a record, in the form of run.json.

    Beside the plan's facts it has `tasks`, the state of each task; in `seconds` the time so far of the run (`total`)
    and of a stage that goes on, and from the first task of a finished stage to its last; in `left` the seconds that
    what goes on still takes, by `typical_s` of the plan.
    """
    with create_session() as session:
        of_run = (TaskInstance.dag_id == dag_id, TaskInstance.run_id == run_id)
        columns = (TaskInstance.task_id, TaskInstance.state, TaskInstance.start_date, TaskInstance.end_date)
        tasks = session.execute(select(*columns).where(*of_run)).tuples().all()
        xcoms: Any = session.scalars(XComModel.get_many(run_id=run_id, key="return_value", dag_ids=dag_id))
        results = {xcom.task_id: xcom.value for xcom in xcoms}  # `deserialize_value` would make objects of any class
    record: dict[str, Any] = {"tasks": (states := {task: str(state) for task, state, *_ in tasks if state})}
    plan = results.get("plan")
    if not isinstance(plan, Mapping) or "planned_at" not in plan:
        return record
    begins = {"total": datetime.fromisoformat(plan["planned_at"])}
    going = {name for name in STAGES if states.get(f"{name}.add") == "success" != states.get(f"{name}.wait")}
    begins |= {stage: begin for task, _, begin, _ in tasks if begin and (stage := task.removesuffix(".add")) in going}
    seconds = {part: (datetime.now(UTC) - begin).total_seconds() for part, begin in begins.items()}
    spans = {task: (begin, end) for task, _, begin, end in tasks if begin and end and states.get(task) == "success"}
    stages = ((stage, f"{stage}.add", f"{stage}.wait") for stage in STAGES)
    for part, first, last in (("cluster_start", "create_cluster", "cluster_ready"), *stages):
        if first in spans and last in spans:
            seconds[part] = (spans[last][1] - spans[first][0]).total_seconds()
    typical_s = plan.get("typical_s") or {}
    return record | {
        "mode": plan.get("mode"),
        "region": plan.get("region"),
        "cluster": {"id": results.get("create_cluster")},
        "images": dict(plan.get("images") or {}),
        "bytes": {"input": plan.get("input_bytes")},
        "features": {name: plan.get(name) for name in ("engine", "weights", "model_id", "network")},
        "seconds": seconds,
        "left": {part: max(0.0, whole - seconds[part]) for part, whole in typical_s.items() if part in begins},
        "cost": {"forecast_eur": plan.get("forecast_eur"), "ceiling_eur": plan.get("max_cost_eur")},
    }
