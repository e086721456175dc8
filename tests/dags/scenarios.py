"""Runs the real DAG with `dag.test()` against local_aws, with steps that take a second instead of Spark.

Started as a program of its own: Airflow reads its environment when it is imported. Prints one JSON line per run.

A scenario is `{"conf": {...}, "stages": {stage: behaviour}}`; the behaviours are those of `step.py`. With `"dag"` it
is a run of another DAG; with `"orphan_of": n` the run of scenario n has left a cluster, and so has a run nobody knows;
with `"locked_s": n` an erasure holds the database until the run has found it held, and n seconds longer; with
`"unvalidated"` in the place of `"conf"` the trigger takes what the schemas refuse, as it does with a NaN, which tasks
get as null.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from unittest import mock

import boto3
from airflow.dag_processing.dagbag import DagBag
from airflow.providers.amazon.aws.hooks.emr import EmrHook
from airflow.providers.amazon.aws.hooks.s3 import S3Hook
from airflow.serialization.definitions.param import SerializedParamsDict
from fruits_airflow.config.errors import LockHeld
from fruits_airflow.config.settings import load_settings
from fruits_airflow.emr.clusters import RunKey
from fruits_airflow.emr.code_bundle import CodeBundle
from fruits_airflow.emr.stage_steps import JOBS, step_for
from fruits_airflow.locking.database_lock import DatabaseLock
from fruits_airflow.runs import planning, preparation, run_context
from fruits_airflow.storage.lake import Lake

HERE = Path(__file__).resolve().parent
CODE = CodeBundle(dict.fromkeys((*(f"{job}.py" for job in JOBS), "bootstrap.sh", "fruits.zip"), b"code"))


def cached(make: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """`make`, called once for each kind of client."""
    clients: dict[str, Any] = {}

    def once(hook: Any) -> Any:
        key = f"{hook.client_type} {hook.region_name} {hook.config.retries}"
        if key not in clients:
            clients[key] = make(hook)
        return clients[key]

    return once


def leave_clusters(run_id: str) -> list[str]:
    """Create two clusters like the one that a run had: one in its name, one in the name of a run nobody knows."""
    emr = boto3.client("emr")
    had = next(c for c in emr.list_clusters()["Clusters"] if c["Name"].endswith(run_id))
    cluster = emr.describe_cluster(ClusterId=had["Id"])["Cluster"]
    types = [{"InstanceType": "m5.xlarge"}]
    primary = {"InstanceFleetType": "MASTER", "TargetOnDemandCapacity": 1, "InstanceTypeConfigs": types}
    ids = []
    for name in (run_id, "manual__unknown"):
        request = {key: cluster[key] for key in ("ReleaseLabel", "ServiceRole", "LogUri")}
        request["JobFlowRole"] = cluster["Ec2InstanceAttributes"]["IamInstanceProfile"]
        request["Name"] = cluster["Name"].replace(run_id, name)
        request["Tags"] = [{**tag, "Value": tag["Value"].replace(run_id, name)} for tag in cluster["Tags"]]
        request["Instances"] = {"InstanceFleets": [primary], "KeepJobFlowAliveWhenNoSteps": True}
        ids.append(emr.run_job_flow(**request)["JobFlowId"])
    return ids


def lock_for(seconds: float) -> None:
    """Hold the nightly database in the name of an erasure until a run has found it held, and `seconds` longer."""
    settings = load_settings()
    owner = RunKey(settings.deployment_id, "erase_images", "manual__erasure")
    lake = Lake(boto3.client("s3"), settings.lake_bucket)
    lock = DatabaseLock(lake, settings.database, owner, settings.region, lambda _: False)
    lock.take(datetime.now(UTC) + timedelta(hours=1))
    take = DatabaseLock.take

    def take_and_see(self: DatabaseLock, *arguments: Any) -> None:
        try:
            take(self, *arguments)
        except LockHeld:  # on a busy machine the run asks for the lock late, and must find it held
            DatabaseLock.take = take  # type: ignore[method-assign]
            threading.Timer(seconds, lambda: lock.release(lock.read())).start()
            raise

    DatabaseLock.take = take_and_see  # type: ignore[method-assign]


def states_of(clusters: list[str]) -> dict[str, str]:
    """Whether each is still alive; then ends them."""
    emr = boto3.client("emr")
    states = {id_: emr.describe_cluster(ClusterId=id_)["Cluster"]["Status"]["State"] for id_ in clusters}
    if clusters:
        emr.terminate_job_flows(JobFlowIds=clusters)
    return states


def main() -> None:
    """Run the scenarios of the command line, JSON, one after the other."""
    really_sleep = time.sleep
    # dag.test() sleeps a second for each level of tasks that it marks upstream_failed or skipped
    time.sleep = lambda seconds: really_sleep(min(seconds, 0.05))
    dags = {}
    for name in ("fruits_pipeline", "cluster_janitor", "publication_check"):
        bag = DagBag(str(HERE.parents[1] / "dags" / f"{name}.py"))
        if bag.import_errors:
            raise SystemExit(str(bag.import_errors))
        dags |= bag.dags
    for kind in (EmrHook, S3Hook):
        # a client of its own for each task would be most of the time
        kind.get_conn = cached(kind.get_conn)  # type: ignore[method-assign]
    for module in (planning, preparation):
        module.build_bundle = lambda: CODE  # type: ignore[attr-defined]
    done: list[str] = []
    for scenario in json.loads(sys.argv[1]):
        left = leave_clusters(done[scenario["orphan_of"]]) if "orphan_of" in scenario else []
        if "locked_s" in scenario:
            lock_for(scenario["locked_s"])
        behaviours = scenario.get("stages", {})

        def step(stage: str, plan: Any, digest: str, behaviours: dict[str, str] = behaviours) -> dict[str, Any]:
            real = step_for(stage, plan, digest)
            command = [sys.executable, str(HERE / "step.py"), stage, plan["run_folder"], behaviours.get(stage, "work")]
            return {**real, "HadoopJarStep": {"Jar": "command-runner.jar", "Args": command}}

        run_context.step_for = step  # type: ignore[attr-defined]
        conf = scenario.get("conf", {})
        with ExitStack() as stack:
            if "unvalidated" in scenario:
                conf = scenario["unvalidated"]
                stack.enter_context(mock.patch.object(SerializedParamsDict, "validate", dict))
            run = dags[scenario.get("dag", "fruits_pipeline")].test(run_conf=conf)
        done.append(run.run_id)
        tasks = {ti.task_id: str(ti.state) for ti in run.get_task_instances()}
        result = {"run_id": run.run_id, "state": str(run.state), "tasks": tasks, "left": states_of(left)}
        sys.stdout.write(f"RESULT {json.dumps(result)}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
