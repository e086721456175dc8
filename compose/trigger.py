"""Start a demo run of the pipeline through Airflow's REST API: `make trigger`, inside the api-server's container.

Usage: python -m compose.trigger [--check | --wait] [--dag DAG_ID] [KEY=VALUE ...]; KEY=VALUE is a parameter of the run.
"""

import argparse
import os
import sys
import time
from datetime import datetime

import httpx

from dev.demo.airflow_api import AirflowApi, AirflowFailed
from dev.demo.preflight import from_json
from dev.demo.progress import ConsoleReporter, print_failures, watch_run

API = "http://127.0.0.1:8080"
DEMO_LIMIT = 100_000  # any limit makes it a demo run, which writes to the demo tables
PARSE_SECONDS = 120


def parameter(text: str) -> tuple[str, object]:
    """Return name and value of KEY=VALUE; 0.9, 12, true and null are what they are in JSON, anything else is a string.

    Raises:
        argparse.ArgumentTypeError: `text` has no name or no `=`.
    """
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise argparse.ArgumentTypeError(f"{text!r} is no parameter: write KEY=VALUE, such as limit=50")
    return name, from_json(value)


def wait_for_dag(api: AirflowApi, dag_id: str) -> None:
    """Wait until the DAG is known, which takes seconds after a start.

    Raises:
        AirflowFailed: Airflow cannot import a DAG file, or does not know the DAG after PARSE_SECONDS.
    """
    deadline = time.monotonic() + PARSE_SECONDS
    api.check_imports()
    while not api.is_parsed(dag_id):
        if time.monotonic() > deadline:
            raise AirflowFailed(f"Airflow knows no DAG {dag_id!r} after {PARSE_SECONDS} s")
        time.sleep(1)


def main() -> int:
    """Run the command line; return 0 when the run is queued, with --wait when it has succeeded."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dag", default="fruits_pipeline")
    parser.add_argument("--check", action="store_true", help="wait for the DAG and start no run")
    parser.add_argument("--wait", action="store_true", help="until the run has ended")
    parser.add_argument("parameters", nargs="*", metavar="KEY=VALUE", type=parameter)
    options = parser.parse_args()
    conf = dict(options.parameters) or {"limit": DEMO_LIMIT}
    try:
        api = AirflowApi(API)
        api.log_in("admin", os.environ["ADMIN_PASSWORD"])
        wait_for_dag(api, options.dag)
        if options.check:
            return 0
        # Microseconds: Airflow refuses a second run of the same id.
        run_id = f"demo__{datetime.now():%Y-%m-%dT%H-%M-%S-%f}"
        api.trigger(options.dag, run_id, conf)
        page = f"{os.environ['AIRFLOW__API__BASE_URL']}/dags/{options.dag}/runs/{run_id}"
        print(f"{run_id} is queued: {page}", flush=True)
        if not options.wait:
            return 0
        state = watch_run(api, options.dag, run_id, ConsoleReporter())
        if state == "failed":
            print_failures(api, options.dag, run_id)
    except (AirflowFailed, httpx.HTTPError) as error:
        print(f"ERROR: {error}", file=sys.stderr)
        return 1
    print(f"{run_id}: {state}")
    print(f"What it did: {os.environ['AIRFLOW__API__BASE_URL']}/plugin/fruits-runs/fruits-runs/runs/{run_id}")
    return state != "success"


if __name__ == "__main__":
    sys.exit(main())
