"""A run that goes on, as Airflow's database shows it: its plan and the states of its tasks."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from airflow.models.taskinstance import TaskInstance
from airflow.models.xcom import XComModel
from airflow.utils.session import create_session
from sqlalchemy import select

from fruits_airflow.report.archive import RunArchive

RUNS_COMPARED = 20


def read_live(archive: RunArchive, dag_id: str, run_id: str) -> dict[str, Any]:
    """Return what is known of a run before it leaves a record, in the form of run.json.

    Beside the plan's facts it has `tasks`, the state of each task, and in `seconds` the time so far (`total`) and the
    time `left`, by the median of the last good runs of the same mode.
    """
    with create_session() as session:
        of_run = (TaskInstance.dag_id == dag_id, TaskInstance.run_id == run_id)
        tasks = dict(session.execute(select(TaskInstance.task_id, TaskInstance.state).where(*of_run)).tuples().all())
        xcoms: Any = session.scalars(XComModel.get_many(run_id=run_id, key="return_value", dag_ids=dag_id))
        results = {xcom.task_id: XComModel.deserialize_value(xcom) for xcom in xcoms}
    record: dict[str, Any] = {"tasks": {task: str(state) for task, state in tasks.items() if state}}
    plan = results.get("plan")
    if not isinstance(plan, Mapping) or "planned_at" not in plan:
        return record
    total = (datetime.now(UTC) - datetime.fromisoformat(plan["planned_at"])).total_seconds()
    return record | {
        "mode": plan.get("mode"),
        "region": plan.get("region"),
        "cluster": {"id": results.get("create_cluster")},
        "images": plan.get("images"),
        "bytes": {"input": plan.get("input_bytes")},
        "features": {name: plan.get(name) for name in ("engine", "weights", "model_id")},
        "seconds": {"total": total, "left": _seconds_left(archive, plan.get("mode"), total)},
        "cost": {"forecast_eur": plan.get("forecast_eur"), "ceiling_eur": plan.get("max_cost_eur")},
    }


def _seconds_left(archive: RunArchive, mode: object, total: float) -> float | None:
    records = [run.record for run in archive.records(archive.run_ids()[:RUNS_COMPARED]) if run.record]
    totals = [record.seconds.total for record in records if record.state == "succeeded" and record.mode == mode]
    return max(0.0, statistics.median(totals) - total) if totals else None
