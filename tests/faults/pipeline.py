"""Runs of the real DAG with `dag.test()`, one after the other, in one process that imports Airflow once.

Reads a JSON object per line, `{"dag": "...", "conf": {...}, "at": "2026-01-02T03:04:05+00:00"}`, and answers each
with one line `RESULT {"run_id", "state", "tasks"}`; the same `at` runs the same run again. Everything else it prints
is the log.
"""

from __future__ import annotations

import copy
import json
import sys
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

from airflow.dag_processing.dagbag import DagBag
from airflow.providers.amazon.aws.hooks.emr import EmrHook
from airflow.providers.amazon.aws.hooks.s3 import S3Hook

REPOSITORY = Path(__file__).resolve().parents[2]


def cached(make: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """`make`, called once for each kind of client; making them would be most of the time."""
    made: dict[str, Any] = {}

    def once(hook: Any) -> Any:
        key = f"{hook.client_type} {hook.region_name} {hook.config.retries}"
        if key not in made:
            made[key] = make(hook)
        return made[key]

    return once


def main() -> None:
    """Serves until its input ends."""
    really_sleep = time.sleep
    # dag.test() sleeps a second whenever no task can run yet, and that is its only sleep of whole seconds
    time.sleep = lambda seconds: really_sleep(0.05 if seconds == 1 else seconds)
    for kind in (EmrHook, S3Hook):
        kind.get_conn = cached(kind.get_conn)  # type: ignore[method-assign]
    bags: dict[str, DagBag] = {}
    sys.stdout.write("READY\n")
    sys.stdout.flush()
    for line in sys.stdin:
        asked = json.loads(line)
        name = asked["dag"]
        if name not in bags:
            bags[name] = DagBag(str(REPOSITORY / "dags" / f"{name}.py"))
        if bags[name].import_errors:
            raise SystemExit(str(bags[name].import_errors))
        moment = datetime.fromisoformat(asked["at"])  # both: the run id is made of one, and found by the other
        dag = bags[name].dags[name]
        # A run's conf changes them for the next run of the process.
        params = [(owner, copy.deepcopy(owner.params)) for owner in (dag, *dag.tasks)]
        run = dag.test(run_after=moment, logical_date=moment, run_conf=asked["conf"])
        for owner, kept in params:
            owner.params = kept
        tasks = {ti.task_id: str(ti.state) for ti in run.get_task_instances()}
        tries = {ti.task_id: ti.try_number for ti in run.get_task_instances()}
        result = {"run_id": run.run_id, "state": str(run.state), "tasks": tasks, "tries": tries}
        sys.stdout.write(f"RESULT {json.dumps(result)}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
