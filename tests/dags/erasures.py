"""Run the real DAG erase_images with `dag.test()` against local_aws, with steps of a second instead of Spark.

Started as a program of its own: Airflow reads its environment when it is imported. A scenario is
`{"conf": {...}, "fail": stage or null}`, or has `"unvalidated"` in the place of `"conf"`: then the trigger takes what
the schemas refuse. Prints one JSON line for each.
"""

from __future__ import annotations

import json
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest import mock

from airflow.dag_processing.dagbag import DagBag
from airflow.providers.amazon.aws.hooks.emr import EmrHook
from airflow.providers.amazon.aws.hooks.s3 import S3Hook
from airflow.serialization.definitions.param import SerializedParamsDict
from fruits_airflow.emr.code_bundle import CodeBundle
from fruits_airflow.emr.stage_steps import JOBS, step_for
from fruits_airflow.runs import preparation, run_context

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from tests.dags.scenarios import cached

# Stands for the Spark job: leaves the metrics that it would, or fails.
STEP = """
import json, sys, boto3
folder, behaviour, request = sys.argv[1:]
place = lambda uri: dict(zip(("Bucket", "Key"), uri.removeprefix("s3://").split("/", 1)))
s3 = boto3.client("s3")
meant = json.loads(s3.get_object(**place(request))["Body"].read())
if behaviour == "fail":
    sys.exit("ERROR CommitFailed: nothing was removed; run the job again")
found = {"seconds": 1.0, "rows": {"images": len(meant["image_ids"])}}
s3.put_object(**place(folder + "/stages/erase_images.json"), Body=json.dumps(found).encode())
"""


def main() -> None:
    """Run the scenarios given as JSON on the command line, one after the other."""
    really_sleep = time.sleep
    time.sleep = lambda seconds: really_sleep(min(seconds, 0.05))  # dag.test() sleeps at each level
    bag = DagBag(str(Path(__file__).resolve().parents[2] / "dags" / "erase_images.py"))
    if bag.import_errors:
        raise SystemExit(str(bag.import_errors))
    for kind in (EmrHook, S3Hook):
        kind.get_conn = cached(kind.get_conn)  # type: ignore[method-assign]
    code = CodeBundle(dict.fromkeys((*(f"{job}.py" for job in JOBS), "bootstrap.sh", "fruits.zip"), b"code"))
    preparation.build_bundle = lambda: code  # type: ignore[attr-defined]
    for scenario in json.loads(sys.argv[1]):
        failing = scenario.get("fail")

        def step(stage: str, plan: Any, digest: str, failing: str | None = failing) -> dict[str, Any]:
            real = step_for(stage, plan, digest)
            arguments = real["HadoopJarStep"]["Args"]
            folder = arguments[arguments.index("--run-folder") + 1]
            request = arguments[arguments.index("--erasure") + 1]
            behaviour = "fail" if stage == failing else "work"
            command = [sys.executable, "-c", STEP, folder, behaviour, request]
            return {**real, "HadoopJarStep": {"Jar": "command-runner.jar", "Args": command}}

        run_context.step_for = step  # type: ignore[attr-defined]
        with ExitStack() as stack:
            if "unvalidated" in scenario:
                stack.enter_context(mock.patch.object(SerializedParamsDict, "validate", dict))
            conf = scenario.get("conf") or scenario.get("unvalidated") or {}
            run = bag.dags["erase_images"].test(run_conf=conf)
        tasks = {ti.task_id: str(ti.state) for ti in run.get_task_instances()}
        access = {
            role: {kind: sorted(rights) for kind, rights in kinds.items()}
            for role, kinds in (bag.dags["erase_images"].access_control or {}).items()
        }
        result = {"run_id": run.run_id, "state": str(run.state), "tasks": tasks, "access": access}
        sys.stdout.write(f"RESULT {json.dumps(result)}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
