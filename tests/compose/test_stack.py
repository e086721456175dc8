"""The stack as a developer uses it: `make up`, `make trigger`, `make down`, on a real engine (`make test-compose`)."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
SHARED = Path(os.environ.get("FRUITS_SHARED", REPOSITORY.parent / "shared"))
PHOTOS = SHARED / "images" / "fruits360_sample" / "Test"
WEIGHTS = SHARED / "weights" / "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_224_no_top.h5"
STACK = REPOSITORY / "compose" / "stack.sh"
SERVICES = ("api-server", "scheduler", "dag-processor", "triggerer", "aws")
LIMIT = 40

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
found = {o.key: json.load(o.get()["Body"]) for o in lake.objects.filter(Prefix="runs/") if o.key.endswith("/run.json")}
print(json.dumps(found))
"""

START = """
from pathlib import Path
from dev import class_archive
options = class_archive.options(Path("/opt/jars"))
insisting = "spark.driver.extraJavaOptions=-Xshare:on"
print("spark.jsa" in options[-1], class_archive._submit(*options, "--conf", insisting, "--version").returncode)
"""

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1800)]


class Stack:
    """One stack of its own: project, ports, secrets and volumes that no other uses."""

    def __init__(self, folder: Path) -> None:
        self.env_file = folder / "env"
        self.env = {
            **{name: value for name, value in os.environ.items() if not name.startswith("AWS_")},
            "FRUITS_ENV_FILE": str(self.env_file),
            "COMPOSE_PROJECT_NAME": f"fruits-test-{os.getpid()}",
            "AIRFLOW_PORT": str(free_port()),
            "UP_SECONDS": "900",
            "IMAGES": str(PHOTOS) if PHOTOS.is_dir() else "",
            "WEIGHTS": str(WEIGHTS) if WEIGHTS.is_file() else "",
        }

    def __call__(self, *arguments: str, given: str | None = None, check: bool = True) -> str:
        """compose/stack.sh, whose words are the failure's message."""
        done = subprocess.run(
            [STACK, *arguments], env=self.env, input=given, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0 or not check, f"{arguments}:\n{done.stdout}{done.stderr}"
        return done.stdout

    def password(self, user: str) -> str:
        found = re.search(rf"^AIRFLOW_{user.upper()}_PASSWORD=(.+)$", self.env_file.read_text(), re.MULTILINE)
        assert found
        return found[1]

    def request(self, method: str, path: str, token: str = "", body: object = None) -> tuple[int, object]:
        """One request to the API server, from inside the stack."""
        words = self("exec", "-T", "api-server", "python", "-c", REQUEST, given=json.dumps([method, path, token, body]))
        status, answer = json.loads(words)
        return status, answer

    def runs(self) -> dict[str, dict[str, object]]:
        """Each run.json in the lake, by its key."""
        settings = 'set -a; . /var/lib/fruits/deployment/settings.env; exec python -c "$0"'
        found: dict[str, dict[str, object]] = json.loads(self("exec", "-T", "scheduler", "bash", "-c", settings, RUNS))
        return found

    def login(self, user: str) -> str:
        body = {"username": user, "password": self.password(user)}
        status, answer = self.request("POST", "/auth/token", body=body)
        assert status == 201
        return answer["access_token"]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def until(condition: Callable[[], object], seconds: float) -> None:
    """Wait until the condition holds; requests that fail while a service restarts are tried again."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            if condition():
                return
        except (AssertionError, KeyError, TypeError, ValueError):
            pass
        assert time.monotonic() < deadline, f"not after {seconds} s"
        time.sleep(1)


def kill(stack: Stack, service: str) -> None:
    """End a service's processes, as the kernel does when memory runs out; `docker kill` would count as a stop."""
    stack("exec", "-T", service, "python", "-S", "-c", "import os; os.kill(-1, 9)", check=False)


def all_healthy(stack: Stack) -> bool:
    states = stack("ps", "--all", "--format", "{{.State}} {{.ExitCode}} {{.Health}}").splitlines()
    return all(state in ("running 0 healthy", "exited 0 ", "exited 0") for state in states)


def why_not() -> str | None:
    """Why no stack can be started here; None when one can."""
    if reason := os.environ.get("NO_ENGINE"):
        return reason
    for words in (["docker", "info"], ["docker", "compose", "version"]):
        if not shutil.which("docker") or subprocess.run(words, check=False, capture_output=True).returncode:
            return "no Docker engine with compose here; `make test-compose` starts one of its own where it can"
    return None


@pytest.fixture(scope="module")
def stack(tmp_path_factory) -> Iterator[Stack]:
    if reason := why_not():
        pytest.skip(reason)
    stack = Stack(tmp_path_factory.mktemp("stack"))
    try:
        yield stack
    finally:
        project = stack.env["COMPOSE_PROJECT_NAME"]
        stack("down", "--volumes", check=False)
        images = [f"{project}-{name}" for name in ("airflow", "aws", "model")]
        subprocess.run(["docker", "image", "rm", *images], check=False, capture_output=True)


@pytest.fixture(scope="module")
def said(stack) -> str:
    """What `make up` says once everything is healthy."""
    return stack("up")


@pytest.fixture(scope="module")
def run_id(stack, said) -> str:
    """A run that `make trigger` has started, and that has succeeded."""
    limit = f"limit={LIMIT}"
    words = stack("trigger", "--wait", limit)
    found = re.search(r"^(demo__\S+): success$", words, re.MULTILINE)
    assert found, words
    return found[1]


def test_up_says_where_it_is_and_how_to_log_in(stack, said):
    assert f"http://localhost:{stack.env['AIRFLOW_PORT']}" in said
    assert f"admin / {stack.password('admin')}" in said


def test_the_deployment_is_made_of_the_photos_and_weights_that_were_given(said):
    assert ("drawn" in said) == (not PHOTOS.is_dir())
    assert f"weights: {'path' if WEIGHTS.is_file() else ''}" in said


@pytest.mark.parametrize("service", SERVICES)
def test_no_service_runs_as_root(stack, said, service):
    assert stack("exec", "-T", service, "id", "-u").strip() == "50000"


def test_spark_starts_from_the_images_archive_of_classes(stack, said):
    python = ("env", "PYTHONPATH=/locks", "/opt/spark/bin/python")
    assert stack("exec", "-T", "aws", *python, "-c", START).split() == ["True", "0"]


def test_whoever_is_not_logged_in_gets_nothing(stack, said):
    assert stack.request("GET", "/api/v2/dags")[0] == 401
    body = {"username": "admin", "password": "admin"}
    assert stack.request("POST", "/auth/token", body=body)[0] == 401


def test_a_viewer_may_look_and_not_touch(stack, said):
    token = stack.login("viewer")
    assert stack.request("GET", "/api/v2/dags", token)[0] == 200
    body = {"logical_date": None, "conf": {}}
    assert stack.request("POST", "/api/v2/dags/fruits_pipeline/dagRuns", token, body)[0] == 403


def test_no_dag_is_broken(stack, said):
    _, errors = stack.request("GET", "/api/v2/importErrors", stack.login("admin"))
    assert errors["import_errors"] == []


def test_a_triggered_run_publishes_what_it_read(stack, run_id):
    run = stack.runs()[f"runs/{run_id}/run.json"]
    assert run["state"] == "succeeded"
    assert run["images"]["loaded"] + run["images"]["rejected"] == LIMIT
    assert run["cluster"]["state"] == "TERMINATED"


def test_the_pages_of_the_runs_are_for_those_who_are_logged_in(stack, run_id):
    token = stack.login("viewer")
    for path in ("/fruits-runs/", f"/fruits-runs/runs/{quote(run_id, safe='')}"):
        assert stack.request("GET", path) == (401, None)
        status, page = stack.request("GET", path, token)
        assert status == 200
        assert run_id in page
        assert "Succeeded" in page


def test_two_triggers_at_once_are_both_queued(stack, run_id):
    runs = [
        subprocess.Popen([STACK, "trigger", f"limit={LIMIT}"], env=stack.env, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    words = [process.communicate()[0] for process in runs]
    assert [process.returncode for process in runs] == [0, 0], words
    assert len({re.search(r"demo__\S+", each)[0] for each in words}) == 2
    token = stack.login("admin")
    for each in words:
        path = f"/api/v2/dags/fruits_pipeline/dagRuns/{re.search(r'demo__[^ ]+', each)[0]}"
        until(lambda path=path: stack.request("GET", path, token)[1]["state"] == "success", 900)


def test_a_task_of_a_killed_scheduler_is_taken_up_within_a_minute(stack, run_id):
    words = stack("trigger", f"limit={LIMIT}")
    path = f"/api/v2/dags/fruits_pipeline/dagRuns/{re.search(r'demo__[^ ]+', words)[0]}"
    token = stack.login("admin")

    def tasks() -> dict[str, tuple[str, str]]:
        _, answer = stack.request("GET", f"{path}/taskInstances?limit=100", token)
        return {task["task_id"]: (task["state"], task["start_date"]) for task in answer["task_instances"]}

    until(lambda: "running" in {state for state, _ in tasks().values()}, 120)
    kill(stack, "scheduler")
    left = {name: facts for name, facts in tasks().items() if facts[0] == "running"}
    # Within a minute on a machine with time to spare; without the settings only after five.
    until(lambda: not left.items() & tasks().items(), 150)
    until(lambda: stack.request("GET", path, token)[1]["state"] == "success", 900)


@pytest.mark.parametrize("killed", ["aws", "pod"])
def test_what_is_killed_comes_back_by_itself_and_filled(stack, run_id, killed):
    kill(stack, killed)
    until(lambda: not all_healthy(stack), 60)
    until(lambda: all_healthy(stack), 400)
    # All are in one network again, and Airflow has the ids of the new account.
    # Its services may still be on their way to them, so that a trigger is tried again.
    until(lambda: "success" in stack("trigger", "--wait", f"limit={LIMIT}"), 900)


def test_photos_stay_when_none_are_named(stack, run_id):
    environ, stack.env = stack.env, {name: value for name, value in stack.env.items() if name != "IMAGES"}
    try:
        assert ("drawn" in stack("up")) == (not PHOTOS.is_dir())
    finally:
        stack.env = environ


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("FRUITS_SCHEDULE", "nightly"),
        ("FRUITS_DEPLOYMENT_ID", "t"),
        ("FRUITS_REGION", "us-east-1"),
        ("FRUITS_NO_SUCH", "1"),
    ],
)
def test_a_wrong_setting_is_named_before_anything_starts(stack, said, name, value):
    before = stack("ps", "--format", "{{.ID}} {{.RunningFor}}").split("\n")[0].split()[0]
    done = subprocess.run([STACK, "up"], env={**stack.env, name: value}, check=False, capture_output=True, text=True)
    assert done.returncode == 1
    assert name.removeprefix("FRUITS_").lower() in (done.stdout + done.stderr).lower()
    # The value of an unknown variable may be a secret, so that it is not printed.
    words = "no such setting" if name == "FRUITS_NO_SUCH" else value
    assert words in done.stdout + done.stderr
    assert before in stack("ps", "--format", "{{.ID}}")


def test_airflows_history_survives_down_and_up_and_the_laptops_aws_does_not(stack, run_id):
    stack("down")
    stack("up")
    token = stack.login("admin")
    path = f"/api/v2/dags/fruits_pipeline/dagRuns/{run_id}"
    status, run = stack.request("GET", path, token)
    assert (status, run["state"]) == (200, "success")
    status, log = stack.request("GET", f"{path}/taskInstances/plan/logs/1", token)
    assert status == 200
    assert f"/var/lib/fruits/logs/dag_id=fruits_pipeline/run_id={run_id}" in json.dumps(log)  # where it was read
    assert stack.runs() == {}


def test_down_leaves_no_container_and_with_volumes_nothing(stack, run_id):
    stack("down")
    assert stack("ps", "--all", "--quiet") == ""
    project = f"label=com.docker.compose.project={stack.env['COMPOSE_PROJECT_NAME']}"
    for left in (True, False):
        volumes = subprocess.run(
            ["docker", "volume", "ls", "--quiet", "--filter", project], check=True, capture_output=True
        )
        assert bool(volumes.stdout) == left
        stack("down", "--volumes")
