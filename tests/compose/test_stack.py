"""The stack as a team uses it: two clones with a stack each, on a real engine (`make test-compose`).

The tests follow a week of three people: two of them own a clone, the third only looks.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import quote

import pytest

from dev.demo.drawing import draw_fruits
from tests.compose.stacks import DAG, REPOSITORY, Stack, missing_engine, outputs, run_id, until

SHARED = Path(os.environ.get("FRUITS_SHARED", REPOSITORY.parent / "shared"))
WEIGHTS = SHARED / "weights" / "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_224_no_top.h5"
SERVICES = ("api-server", "scheduler", "dag-processor", "triggerer", "aws")
SECRETS = [line.split("=")[0] for line in (REPOSITORY / ".env.example").read_text().splitlines() if "=gen" in line]
CONNECTIONS = ("exec", "-T", "api-server", "airflow", "connections")

START = """
from pathlib import Path
from dev import class_archive
options = class_archive.options(Path("/opt/jars"))
insisting = "spark.driver.extraJavaOptions=-Xshare:on"
print("spark.jsa" in options[-1], class_archive._submit(*options, "--conf", insisting, "--version").returncode)
"""

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(3600)]


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("inputs") / "photos"  # the folder of mktemp is its owner's only
    draw_fruits(folder, per_label=2)
    return folder


@pytest.fixture(scope="module")
def clones(tmp_path_factory) -> Iterator[tuple[Stack, Stack]]:
    """Two clones of the repository as it is here, uncommitted changes included."""
    if reason := missing_engine():
        pytest.skip(reason)
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    files = subprocess.run(command, cwd=REPOSITORY, check=True, capture_output=True, text=True).stdout.splitlines()
    folders = [tmp_path_factory.mktemp(name) for name in ("ana", "ben")]
    for folder in folders:
        for file in filter(lambda file: (REPOSITORY / file).is_file(), files):
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(REPOSITORY / file, folder / file)
    ana, ben = map(Stack, folders)
    try:
        yield ana, ben
    finally:
        for stack in (ana, ben):
            stack.remove()


@pytest.fixture(scope="module")
def words(clones, photos) -> list[str]:
    """What `make up` prints in each clone, when both are called at the same time."""
    weights = {"WEIGHTS": str(WEIGHTS) if WEIGHTS.is_file() else ""}
    ana = clones[0].start("up", **weights, IMAGES=str(photos), FRUITS_SCHEDULE="0 2 * * *")
    return outputs([ana, clones[1].start("up", **weights)])


@pytest.fixture(scope="module")
def ana(clones, words) -> Stack:
    return clones[0]


@pytest.fixture(scope="module")
def ben(clones, words) -> Stack:
    return clones[1]


@pytest.fixture(scope="module")
def started(ben) -> list[str]:
    """The containers of Ben's stack, once all are up."""
    return ben.containers()


@pytest.fixture(scope="module")
def finished(ana, ben, started) -> str:
    """The id of Ana's first run, which has succeeded, as has Ben's at the same time."""
    words = outputs([ana.start("trigger", "--wait"), ben.start("trigger", "--wait", "limit=20")])
    return run_id(words[0])


def test_up_says_where_it_is_and_how_to_log_in(ana, words):
    assert f"http://localhost:{ana.settings['AIRFLOW_PORT']}" in words[0]
    assert f"admin / {ana.settings['AIRFLOW_ADMIN_PASSWORD']}" in words[0]


def test_the_deployment_is_made_of_the_photos_and_weights_that_are_named(photos, words):
    assert f"photos: {len(list(photos.glob('*/*')))} in s3://" in words[0]
    assert f"weights: {'path' if WEIGHTS.is_file() else ''}" in words[0]
    assert "drawn in s3://" in words[1]


def test_each_clone_has_a_stack_of_its_own(ana, ben):
    for name in ("COMPOSE_PROJECT_NAME", "AIRFLOW_PORT", *SECRETS):
        assert ana.settings[name] != ben.settings[name], name
    assert not set(ana.containers()) & set(ben.containers())


@pytest.mark.parametrize("service", SERVICES)
def test_no_service_runs_as_root(ana, service):
    assert ana("exec", "-T", service, "id", "-u").strip() == "50000"


def test_spark_starts_from_the_images_archive_of_classes(ana):
    python = ("env", "PYTHONPATH=/locks", "/opt/spark/bin/python")
    assert ana("exec", "-T", "aws", *python, "-c", START).split() == ["True", "0"]


def test_whoever_is_not_logged_in_gets_nothing(ana, ben):
    assert ana.request("GET", "/api/v2/dags")[0] == 401
    for password in ("admin", ben.settings["AIRFLOW_ADMIN_PASSWORD"]):
        assert ana.request("POST", "/auth/token", body={"username": "admin", "password": password})[0] == 401


def test_a_viewer_may_look_and_not_touch(ana):
    token = ana.login("viewer")
    assert ana.request("GET", "/api/v2/dags", token)[0] == 200
    assert ana.request("POST", f"{DAG}/dagRuns", token, {"logical_date": None, "conf": {}})[0] == 403


def test_no_dag_is_broken(ana):
    assert ana.request("GET", "/api/v2/importErrors", ana.login("admin"))[1]["import_errors"] == []


def test_a_triggered_run_publishes_what_it_read(ana, photos, finished):
    run = ana.runs()[f"runs/{finished}/run.json"]
    assert run["state"] == "succeeded"
    assert run["images"]["loaded"] + run["images"]["rejected"] == len(list(photos.glob("*/*")))
    assert run["cluster"]["state"] == "TERMINATED"


def test_the_pages_of_the_runs_are_for_those_who_are_logged_in(ana, finished):
    token = ana.login("viewer")
    for path in ("/fruits-runs/", f"/fruits-runs/runs/{quote(finished, safe='')}"):
        assert ana.request("GET", path) == (401, None)
        status, page = ana.request("GET", path, token)
        assert status == 200
        assert finished in page
        assert "Succeeded" in page


def test_a_wrong_setting_is_named_before_anything_starts(ana):
    before = ana.containers()
    assert "us-east-1" in ana.refusal("up", FRUITS_REGION="us-east-1")
    assert ana.containers() == before


@pytest.mark.slow
def test_nights_run_and_earlier_ones_are_filled_in(ana, finished):
    noon = datetime.now(UTC).replace(hour=12, minute=0, second=0, microsecond=0)
    body = {
        "dag_id": "fruits_pipeline",
        "from_date": (noon - timedelta(days=4)).isoformat(),
        "to_date": (noon - timedelta(days=2)).isoformat(),
    }
    assert ana.request("POST", "/api/v2/backfills", ana.login("admin"), body)[0] == 200
    until(
        lambda: sorted(name.split("__")[0] for name in ana.history()) == ["backfill"] * 2 + ["demo", "scheduled"], 300
    )
    until(lambda: not {"queued", "running"} & set(ana.history().values()), 1800)
    assert set(ana.history().values()) == {"success"}


@pytest.mark.slow
def test_secrets_change_while_a_run_waits_and_history_and_photos_stay(ana, photos, finished):
    ana(*CONNECTIONS, "add", "team_slack", "--conn-type", "slack", "--conn-password", "token-of-the-team")
    before, history = ana.settings, ana.history()
    waiting = run_id(ana("trigger", "force=true"))
    until(lambda: ana.has_task(waiting, "deferred"), 600)
    ana("down")
    assert ana.containers() == []

    ana.set(**dict.fromkeys(SECRETS, "generate-me"))
    assert "AIRFLOW_FERNET_KEY=NEW,OLD" in ana.refusal("up")
    ana.set(AIRFLOW_FERNET_KEY=f"generate-me,{before['AIRFLOW_FERNET_KEY']}")
    assert f"photos: {len(list(photos.glob('*/*')))} in s3://" in ana("up")
    assert not {ana.settings[name] for name in SECRETS} & {before[name] for name in SECRETS}
    ana.set(AIRFLOW_FERNET_KEY=ana.settings["AIRFLOW_FERNET_KEY"].split(",")[0])
    ana("run", "--rm", "--no-deps", "-T", "migrate")
    assert "token-of-the-team" in ana(*CONNECTIONS, "get", "team_slack", "--output", "json")
    old = {"username": "admin", "password": before["AIRFLOW_ADMIN_PASSWORD"]}
    assert ana.request("POST", "/auth/token", body=old)[0] == 401

    assert ana.history().items() >= history.items()
    path = f"{DAG}/dagRuns/{finished}/taskInstances/plan/logs/1"
    status, log = ana.request("GET", path, ana.login("admin"))
    assert status == 200
    assert f"/var/lib/fruits/logs/dag_id=fruits_pipeline/run_id={finished}" in json.dumps(log)  # where it was read
    assert f"runs/{finished}/run.json" not in ana.runs()  # the emulator forgets
    # The wait hears of a new account that it does not know the cluster, and does not go on until its deadline.
    until(lambda: ana.history()[waiting] in ("success", "failed"), 1800)


@pytest.mark.slow
def test_two_triggers_at_once_are_both_queued_and_outlive_a_killed_scheduler(ana, finished):
    run_ids = {run_id(words) for words in outputs([ana.start("trigger") for _ in range(2)])}
    assert len(run_ids) == 2

    def running() -> set[tuple[str, str, str]]:
        tasks = ((name, task, *facts) for name in run_ids for task, facts in ana.tasks(name).items())
        return {(name, task, start) for name, task, state, start in tasks if state == "running"}

    until(running, 300)
    ana.kill("scheduler")
    left = running()
    until(lambda: not left & running(), 280)  # Airflow's own settings leave them for five minutes
    until(lambda: {ana.history()[name] for name in run_ids} == {"success"}, 1800)


@pytest.mark.slow
@pytest.mark.parametrize("killed", ["aws", "pod"])
def test_what_is_killed_comes_back_by_itself_and_filled(ana, finished, killed):
    ana.kill(killed)
    until(lambda: not ana.is_healthy(), 60)
    until(ana.is_healthy, 600)
    # All are in one network again, and Airflow has the ids of the new account.
    # Its services may still be on their way to them, so that a trigger is tried again.
    until(lambda: "success" in ana("trigger", "--wait"), 1800)


def test_down_leaves_no_container_and_with_volumes_nothing(ana, ben, started, finished):
    for arguments, volumes in ((("down",), 4), (("down", "--volumes"), 0)):
        ana(*arguments)
        assert ana.docker("ps", "--all", "--quiet") == ana.docker("network", "ls", "--quiet") == []
        assert len(ana.docker("volume", "ls", "--quiet")) == volumes
    assert ben.containers() == started


def test_nothing_of_the_other_clone_was_touched(ben, started, finished):
    assert ben.containers() == started
    assert set(ben.history().values()) == {"success"}
    assert len(ben.history()) == len(ben.runs()) == 1
