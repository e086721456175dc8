"""Runs the real DAG with `dag.test()` against local_aws, with steps that take a second instead of Spark.

Started as a program of its own: Airflow reads its environment when it is imported. Prints one JSON line per run.

A scenario is `{"conf": {...}, "stages": {stage: behaviour}}`; the behaviours are those of `step.py`.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from airflow.dag_processing.dagbag import DagBag
from airflow.providers.amazon.aws.hooks.emr import EmrHook
from airflow.providers.amazon.aws.hooks.s3 import S3Hook
from fruits_airflow import planning, run_cluster, run_control
from fruits_airflow.code_bundle import CodeBundle
from fruits_airflow.stages import STAGES, step_for

HERE = Path(__file__).resolve().parent
CODE = CodeBundle(dict.fromkeys((*(f"{s}.py" for s in STAGES), "bootstrap.sh", "fruits.zip"), b"code"))


def cached(make: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """`make`, called once for each kind of client."""
    made: dict[str, Any] = {}

    def once(hook: Any) -> Any:
        key = f"{hook.client_type} {hook.region_name} {hook.config.retries}"
        if key not in made:
            made[key] = make(hook)
        return made[key]

    return once


def main() -> None:
    """Runs the scenarios given as JSON on the command line, one after the other."""
    really_sleep = time.sleep
    # dag.test() sleeps a second for each level of tasks that it marks upstream_failed or skipped
    time.sleep = lambda seconds: really_sleep(min(seconds, 0.05))
    bag = DagBag(str(HERE.parents[1] / "dags" / "fruits_pipeline.py"))
    if bag.import_errors:
        raise SystemExit(str(bag.import_errors))
    for kind in (EmrHook, S3Hook):
        # a client of its own for each task would be most of the time
        kind.get_conn = cached(kind.get_conn)  # type: ignore[method-assign]
    for module in (planning, run_control):
        module.build_bundle = lambda: CODE  # type: ignore[attr-defined]
    for scenario in json.loads(sys.argv[1]):
        behaviours = scenario.get("stages", {})

        def step(
            stage: str, plan: Any, digest: str, behaviours: dict[str, str] = behaviours
        ) -> dict[str, Any]:
            real = step_for(stage, plan, digest)
            command = [
                sys.executable,
                str(HERE / "step.py"),
                stage,
                plan["run_folder"],
                behaviours.get(stage, "work"),
            ]
            return {**real, "HadoopJarStep": {"Jar": "command-runner.jar", "Args": command}}

        run_cluster.step_for = step  # type: ignore[attr-defined]
        run = bag.dags["fruits_pipeline"].test(run_conf=scenario.get("conf", {}))
        tasks = {ti.task_id: str(ti.state) for ti in run.get_task_instances()}
        result = {"run_id": run.run_id, "state": str(run.state), "tasks": tasks}
        sys.stdout.write(f"RESULT {json.dumps(result)}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
