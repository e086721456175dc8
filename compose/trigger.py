"""Start a demo run of the pipeline through Airflow's REST API: `make trigger`, inside the api-server's container.

Usage: python compose/trigger.py [--check | --wait] [--dag DAG_ID] [KEY=VALUE ...]; KEY=VALUE is a parameter of the run.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
import time
import urllib.error
import urllib.request
from datetime import datetime
from typing import Any

API = "http://127.0.0.1:8080"
DEMO_LIMIT = 100_000  # any limit makes it a demo run, which writes to the demo tables
PARSE_SECONDS = 120
LAST_LINES = 15
WAIT_SECONDS = 1800


class Refused(Exception):
    """Airflow answered with an error: its status and its text."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(f"Airflow answered {status}: {text}")
        self.status = status


class BrokenDags(Exception):
    """Airflow cannot import a DAG file."""


class Api:
    """Airflow's REST API, logged in."""

    def __init__(self, username: str, password: str) -> None:
        self._token = ""
        answer = self.call("POST", "/auth/token", {"username": username, "password": password})
        self._token = answer["access_token"]

    def call(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        """Send one request, with JSON in and out.

        Raises:
            Refused: any status from 400 on.
        """
        request = urllib.request.Request(  # noqa: S310  API is http
            API + path,
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Content-Type": "application/json", "Authorization": f"Bearer {self._token}"},
        )
        try:
            with urllib.request.urlopen(request, timeout=60) as reply:  # noqa: S310
                return json.load(reply)
        except urllib.error.HTTPError as error:
            raise Refused(error.code, error.read().decode(errors="replace")) from None


def parameter(text: str) -> tuple[str, object]:
    """Return name and value of KEY=VALUE; 0.9, 12, true and null are what they are in JSON, anything else is a string.

    Raises:
        argparse.ArgumentTypeError: `text` has no name or no `=`.
    """
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise argparse.ArgumentTypeError(f"{text!r} is no parameter: write KEY=VALUE, such as limit=50")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def check_imports(api: Api) -> None:
    """Check that Airflow could import every DAG file.

    Raises:
        BrokenDags: It could not; the message holds the end of each traceback.
    """
    errors = api.call("GET", "/api/v2/importErrors")["import_errors"]
    if errors:
        ends = (f"{error['filename']}: {error['stack_trace'].strip().splitlines()[-1]}" for error in errors)
        raise BrokenDags("Airflow cannot import these DAG files:\n" + "\n".join(ends))


def wait_for_dag(api: Api, dag_id: str) -> None:
    """Wait until the DAG is known, which takes seconds after a start.

    Raises:
        BrokenDags: Airflow cannot import a DAG file.
        Refused: The DAG is not known after PARSE_SECONDS.
    """
    deadline = time.monotonic() + PARSE_SECONDS
    while True:
        check_imports(api)
        try:
            api.call("GET", f"/api/v2/dags/{dag_id}")
        except Refused as refused:
            if refused.status != 404 or time.monotonic() > deadline:
                raise
            time.sleep(1)
        else:
            return


def wait_for_run(api: Api, dag_id: str, run_id: str) -> str:
    """Return the run's final state; print each task's state when it changes."""
    deadline = time.monotonic() + WAIT_SECONDS
    printed: dict[str, str] = {}
    run = f"/api/v2/dags/{dag_id}/dagRuns/{run_id}"
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError):
            state = str(api.call("GET", run)["state"])
            for task in api.call("GET", f"{run}/taskInstances?limit=100")["task_instances"]:
                name, now = task["task_id"], str(task["state"])
                if printed.get(name, "None") != now:
                    printed[name] = now
                    print(f"  {datetime.now():%H:%M:%S}  {name}: {now}", flush=True)
            if state in ("success", "failed"):
                return state
        time.sleep(2)
    return f"not done after {WAIT_SECONDS} s"


def print_first_failure(api: Api, dag_id: str, run_id: str) -> None:
    """Print the end of the log of the task that failed first."""
    run = f"/api/v2/dags/{dag_id}/dagRuns/{run_id}"
    failed = [
        task
        for task in api.call("GET", f"{run}/taskInstances?limit=100")["task_instances"]
        if task["state"] == "failed"
    ]
    for task in sorted(failed, key=lambda task: str(task["end_date"]))[:1]:
        print(f"--- the end of {task['task_id']}'s log:")
        log = api.call("GET", f"{run}/taskInstances/{task['task_id']}/logs/{task['try_number']}")
        for entry in log["content"][-LAST_LINES:]:
            causes = [f"{cause['exc_type']}: {cause['exc_value']}" for cause in entry.get("error_detail") or []]
            print("    " + " ".join([str(entry.get("event", "")), *causes]))


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
        api = Api("admin", os.environ["ADMIN_PASSWORD"])
        wait_for_dag(api, options.dag)
        if options.check:
            return 0
        # Microseconds: Airflow refuses a second run of the same id.
        run_id = f"demo__{datetime.now():%Y-%m-%dT%H-%M-%S-%f}"
        api.call("PATCH", f"/api/v2/dags/{options.dag}", {"is_paused": False})
        body = {"dag_run_id": run_id, "logical_date": None, "conf": conf}
        api.call("POST", f"/api/v2/dags/{options.dag}/dagRuns", body)
        page = f"{os.environ['AIRFLOW__API__BASE_URL']}/dags/{options.dag}/runs/{run_id}"
        print(f"{run_id} is queued: {page}", flush=True)
        if not options.wait:
            return 0
        state = wait_for_run(api, options.dag, run_id)
        if state == "failed":
            print_first_failure(api, options.dag, run_id)
    except (Refused, BrokenDags, OSError) as error:
        print(f"ERROR: {error}", file=sys.stderr)
        return 1
    print(f"{run_id}: {state}")
    print(f"What it did: {os.environ['AIRFLOW__API__BASE_URL']}/plugin/fruits-runs/fruits-runs/runs/{run_id}")
    return state != "success"


if __name__ == "__main__":
    sys.exit(main())
