"""A compose stack under test: its script, its REST API and its lake, all from outside the containers."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[2]
DAG = "/api/v2/dags/fruits_pipeline"

REQUEST = """
import json, sys, urllib.error, urllib.request
method, path, token, body = json.load(sys.stdin)
request = urllib.request.Request(
    "http://127.0.0.1:8080" + path, method=method, data=json.dumps(body).encode() if body else None,
    headers={"Content-Type": "application/json"} | ({"Authorization": f"Bearer {token}"} if token else {}))
try:
    with urllib.request.urlopen(request, timeout=60) as reply:
        answer = reply.read().decode()
        print(json.dumps([reply.status, json.loads(answer) if "json" in reply.headers["Content-Type"] else answer]))
except urllib.error.HTTPError as error:
    print(json.dumps([error.code, None]))
"""

RUNS = """
import boto3, json, os
lake = boto3.resource("s3").Bucket(os.environ["FRUITS_LAKE_BUCKET"])
records = (record for record in lake.objects.filter(Prefix="runs/") if record.key.endswith("/run.json"))
print(json.dumps({record.key: json.load(record.get()["Body"]) for record in records}))
"""


class Stack:
    """The stack of one clone."""

    def __init__(self, clone: Path) -> None:
        self.clone = clone
        self.env_file = clone / ".env"
        names = (name for name in os.environ if not name.startswith(("AWS_", "FRUITS_")))
        self.env = {**{name: os.environ[name] for name in names}, "UP_SECONDS": "1800"}

    def run(self, *arguments: str, given: str | None = None, **environ: str) -> subprocess.CompletedProcess[str]:
        """Call compose/stack.sh."""
        return subprocess.run(
            [self.clone / "compose" / "stack.sh", *arguments],
            env={**self.env, **environ},
            input=given,
            capture_output=True,
            text=True,
            check=False,
        )

    def __call__(self, *arguments: str, given: str | None = None) -> str:
        """Call compose/stack.sh, which must succeed; return what it prints."""
        done = self.run(*arguments, given=given)
        assert done.returncode == 0, f"{arguments}:\n{done.stdout}{done.stderr}"
        return done.stdout

    def start(self, *arguments: str, **environ: str) -> subprocess.Popen[str]:
        """Call compose/stack.sh and do not wait for its end."""
        return subprocess.Popen(
            [self.clone / "compose" / "stack.sh", *arguments],
            env={**self.env, **environ},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def refusal(self, *arguments: str, **environ: str) -> str:
        """Return why compose/stack.sh refuses."""
        done = self.run(*arguments, **environ)
        assert done.returncode == 1, done.stdout
        return done.stdout + done.stderr

    @property
    def settings(self) -> dict[str, str]:
        """Each variable of .env."""
        lines = self.env_file.read_text().splitlines()
        pairs = (line.split("=", 1) for line in lines if re.match(r"\w+=", line))
        return {name: value.strip("'") for name, value in pairs}

    def set(self, **settings: str) -> None:
        """Write variables to .env, as a person does."""
        kept = [line for line in self.env_file.read_text().splitlines() if line.split("=", 1)[0] not in settings]
        self.env_file.write_text("\n".join([*kept, *(f"{name}={value}" for name, value in settings.items()), ""]))

    def docker(self, *arguments: str) -> list[str]:
        """Return the lines that `docker LISTING --filter` prints about what carries this project's label."""
        label = f"label=com.docker.compose.project={self.settings['COMPOSE_PROJECT_NAME']}"
        command = ["docker", *arguments, "--filter", label]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()

    def containers(self) -> list[str]:
        """Return name and id of each container that runs."""
        return sorted(self.docker("ps", "--no-trunc", "--format", "{{.Names}} {{.ID}}"))

    def request(self, method: str, path: str, token: str = "", body: object = None) -> tuple[int, Any]:
        """Send one request to the API server, from inside the stack."""
        words = self("exec", "-T", "api-server", "python", "-c", REQUEST, given=json.dumps([method, path, token, body]))
        status, answer = json.loads(words)
        return status, answer

    def login(self, user: str) -> str:
        """Return the token of a user with the password of .env."""
        body = {"username": user, "password": self.settings[f"AIRFLOW_{user.upper()}_PASSWORD"]}
        status, answer = self.request("POST", "/auth/token", body=body)
        assert status == 201
        return str(answer["access_token"])

    def runs(self) -> dict[str, dict[str, Any]]:
        """Return each run.json in the lake, by its key."""
        settings = 'set -a; . /var/lib/fruits/deployment/settings.env; exec python -c "$0"'
        records: dict[str, dict[str, Any]] = json.loads(self("exec", "-T", "scheduler", "bash", "-c", settings, RUNS))
        return records

    def history(self) -> dict[str, str]:
        """Return the state of each DAG run that Airflow remembers, by its id."""
        _, answer = self.request("GET", f"{DAG}/dagRuns?limit=100", self.login("admin"))
        return {run["dag_run_id"]: run["state"] for run in answer["dag_runs"]}

    def tasks(self, run_id: str) -> dict[str, tuple[str, str]]:
        """Return state and start of each task of a run."""
        _, answer = self.request("GET", f"{DAG}/dagRuns/{run_id}/taskInstances?limit=100", self.login("admin"))
        return {task["task_id"]: (task["state"], task["start_date"]) for task in answer["task_instances"]}

    def has_task(self, run_id: str, state: str) -> bool:
        return state in {task_state for task_state, _ in self.tasks(run_id).values()}

    def kill(self, service: str) -> None:
        """End a service's processes, as the kernel does when memory runs out; `docker kill` would count as a stop."""
        self.run("exec", "-T", service, "python", "-S", "-c", "import os; os.kill(-1, 9)")

    def is_healthy(self) -> bool:
        states = self("ps", "--all", "--format", "{{.State}} {{.ExitCode}} {{.Health}}").splitlines()
        return all(state in ("running 0 healthy", "exited 0 ", "exited 0") for state in states)

    def remove(self) -> None:
        """Remove containers, volumes and images, whatever state they are in."""
        self.run("down", "--volumes")
        images = [f"{self.settings['COMPOSE_PROJECT_NAME']}-{name}" for name in ("airflow", "aws", "model")]
        subprocess.run(["docker", "image", "rm", *images], check=False, capture_output=True)


def outputs(processes: list[subprocess.Popen[str]]) -> list[str]:
    """Wait for calls that were started together, which must all succeed; return what each prints."""
    texts = [process.communicate()[0] for process in processes]
    for process, text in zip(processes, texts, strict=True):
        assert process.returncode == 0, text
    return texts


def run_id(words: str) -> str:
    """Return the id of the run that `make trigger` has queued."""
    match = re.search(r"^(demo__\S+) is queued", words, re.MULTILINE)
    assert match, words
    return match[1]


def until(condition: Callable[[], object], seconds: float) -> None:
    """Wait until the condition holds; requests that fail while a service restarts are tried again."""
    deadline = time.monotonic() + seconds
    while True:
        cause = ""
        try:
            if condition():
                return
        except (AssertionError, KeyError, TypeError, ValueError) as error:
            cause = f": {error}"
        assert time.monotonic() < deadline, f"not after {seconds} s{cause}"
        time.sleep(1)


def missing_engine() -> str | None:
    """Return why no stack can be started here; None when one can."""
    if reason := os.environ.get("NO_ENGINE"):
        return reason
    for words in (["docker", "info"], ["docker", "compose", "version"]):
        if not shutil.which("docker") or subprocess.run(words, check=False, capture_output=True).returncode:
            return "no Docker engine with compose here; `make test-compose` starts one of its own where it can"
    return None
