"""Start a run of the pipeline through Airflow's REST API: `make trigger`, inside the api-server's container.

Usage: python docker/trigger.py [--wait] [--dag DAG_ID] [KEY=VALUE ...]; a KEY=VALUE is a parameter of the run.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from datetime import datetime

import httpx

from dev.demo.airflow_api import AirflowApi, AirflowFailed
from dev.demo.progress import ConsoleReporter, failed_tasks, watch_run

API = "http://127.0.0.1:8080"
DEMO_LIMIT = 100_000  # any limit makes it a demo run, which writes to the demo tables
PARSE_SECONDS = 120
LAST_LINES = 15
WAIT_SECONDS = 1800


def value_of(text: str) -> object:
    """Parse 0.9, 12, true and null as JSON; return anything else as it is."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def wait_for_dag(api: AirflowApi, dag_id: str) -> None:
    """Wait until the DAG is known, which takes seconds after a start.

    Raises:
        AirflowFailed: It is not known after PARSE_SECONDS.
    """
    deadline = time.monotonic() + PARSE_SECONDS
    while not api.is_parsed(dag_id):
        if time.monotonic() > deadline:
            raise AirflowFailed(f"Airflow does not know the DAG {dag_id} after {PARSE_SECONDS} s")
        time.sleep(1)


def print_first_failure(api: AirflowApi, dag_id: str, run_id: str) -> None:
    """Print the end of the log of the task that failed first."""
    for task in failed_tasks(api, dag_id, run_id)[:1]:
        print(f"--- the end of {task['task_id']}'s log:")
        for line in api.task_log(dag_id, run_id, task["task_id"], task["try_number"])[-LAST_LINES:]:
            print(f"    {line}")


def main() -> int:
    """Run the command line; return 0 when the run has started, with --wait when it has succeeded."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dag", default="fruits_pipeline")
    parser.add_argument("--wait", action="store_true", help="until the run has ended")
    parser.add_argument("parameters", nargs="*", metavar="KEY=VALUE")
    options = parser.parse_args()
    pairs = (parameter.partition("=") for parameter in options.parameters)
    conf = {key: value_of(value) for key, _, value in pairs} or {"limit": DEMO_LIMIT}
    site = os.environ["AIRFLOW__API__BASE_URL"]
    run_id = f"demo__{datetime.now():%Y-%m-%dT%H-%M-%S}"
    try:
        api = AirflowApi(API)
        api.log_in("admin", os.environ["ADMIN_PASSWORD"])
        wait_for_dag(api, options.dag)
        api.trigger(options.dag, run_id, conf)
        print(f"{run_id} is running: {site}/dags/{options.dag}/runs/{run_id}", flush=True)
        if not options.wait:
            return 0
        state = watch_run(api, options.dag, run_id, ConsoleReporter(), timeout_s=WAIT_SECONDS)
        if state == "failed":
            print_first_failure(api, options.dag, run_id)
    except (AirflowFailed, httpx.HTTPError) as error:
        print(f"ERROR: {error}", file=sys.stderr)
        return 1
    print(f"{run_id}: {state}")
    print(f"What it did: {site}/plugin/fruits-runs/fruits-runs/runs/{run_id}")
    return state != "success"


if __name__ == "__main__":
    sys.exit(main())
