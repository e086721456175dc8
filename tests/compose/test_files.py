"""What can be said of the compose file, the Dockerfile and the scripts without an engine."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from compose_spec import PyCompose

from dev.demo.preflight import image_files

REPOSITORY = Path(__file__).resolve().parents[2]
TOOLS = Path(sys.executable).parent
SCRIPTS = sorted([*REPOSITORY.glob("dev/*.sh"), *REPOSITORY.glob("compose/*.sh")])
LISTS = {"airflow": "airflow", "aws": "airflow", "spark": "spark", "model": "spark"}
AIRFLOW = ("api-server", "scheduler", "dag-processor", "triggerer")
STACK = REPOSITORY / "compose" / "stack.sh"
REAL_ACCOUNT = REPOSITORY / "compose" / "real_account.yaml"
ONE_SHOT = ("migrate", "model", "account", "check")


def lines_of(path: Path) -> set[str]:
    return {re.split(r"[=<>]", line)[0].strip() for line in path.read_text().splitlines() if line and line[0] != "#"}


def test_the_compose_file_follows_the_specification(compose):
    PyCompose.from_json(json.dumps(compose)).validate()


def test_the_images_get_every_file_that_their_modules_need():
    copied = set(re.findall(r"dev/[\w.]+", (REPOSITORY / "Dockerfile").read_text()))
    modules = {path.removeprefix("dev/").removesuffix(".py") for path in copied}
    for path in sorted(copied - {"dev/environment.mk"}):
        imported = re.findall(r"^from dev import (.+)$", (REPOSITORY / path).read_text(), re.MULTILINE)
        assert set(", ".join(imported).split(", ")) - {""} <= modules, path
    assert {"dev/environment.py", "dev/environment.mk"} <= copied
    assert {f"!{path}" for path in copied} <= set((REPOSITORY / ".dockerignore").read_text().splitlines())


def test_what_stands_for_no_photos_holds_none():
    assert list((REPOSITORY / "compose" / "empty" / "photos").iterdir())
    assert image_files(REPOSITORY / "compose" / "empty" / "photos") == []


def docker_compose_config(**environ: str) -> dict[str, Any]:
    """What `docker compose` makes of the files, as compose/stack.sh calls it."""
    version = subprocess.run(["docker", "compose", "version"], check=False, capture_output=True)
    if not shutil.which("docker") or version.returncode:
        pytest.skip("no docker compose client here")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "COMPOSE_"))}
    done = subprocess.run(
        [STACK, "config", "--format", "json"],
        check=True,
        capture_output=True,
        env={**kept, "FRUITS_ENV_FILE": ".env.example", **environ},
    )
    services: dict[str, Any] = json.loads(done.stdout)["services"]
    return services


@pytest.mark.parametrize("files", ["docker-compose.yaml", "docker-compose.yaml:compose/private_engine.yaml"])
def test_docker_compose_takes_the_files(files, services):
    assert set(docker_compose_config(COMPOSE_FILE=files)) == set(services) - {"check"}


def test_a_real_account_is_driven_by_its_profile_and_nothing_of_the_laptops(services):
    asked = re.findall(r"\$\{(FRUITS_\w+):\?", REAL_ACCOUNT.read_text())
    given = {name: "given" for name in asked if name != "FRUITS_UID"}
    assert "FRUITS_DEPLOYMENT_ID" in given
    real = docker_compose_config(AWS_PROFILE="sandbox", **given)
    assert set(real) == set(services) - {"aws", "model", "account", "refill", "check"} | {"credentials"}
    assert real["credentials"]["environment"]["AWS_PROFILE"] == "sandbox"
    for name in AIRFLOW:
        environment = real[name]["environment"]
        assert environment["AWS_CONTAINER_CREDENTIALS_FULL_URI"] == "http://127.0.0.1:5601/"
        assert environment["FRUITS_DEPLOYMENT_ID"] == "given"
        assert "AWS_ENDPOINT_URL" not in environment
        # Docker compose may leave a key out or give an empty one, which SDKs pass over.
        assert not environment.get("AWS_ACCESS_KEY_ID")
        assert not environment.get("AWS_SECRET_ACCESS_KEY")
        assert "FRUITS_POLL_S" not in environment


def test_the_home_folder_of_aws_is_seen_by_the_service_of_credentials_only():
    given = dict.fromkeys(re.findall(r"\$\{(FRUITS_\w+):\?", REAL_ACCOUNT.read_text()), "given")
    real = docker_compose_config(AWS_PROFILE="sandbox", **given)
    seen = {
        name: mount.get("bind", {}).get("create_host_path", False)
        for name, service in real.items()
        for mount in service.get("volumes", [])
        if "/.aws" in mount["source"]
    }
    assert seen == {"credentials": False}


def test_hadolint_finds_nothing_in_the_dockerfile():
    subprocess.run([TOOLS / "hadolint", REPOSITORY / "Dockerfile"], check=True)


@pytest.mark.skipif(not (TOOLS / "shellcheck").exists(), reason="no shellcheck for this kind of processor")
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_shellcheck_finds_nothing(script):
    subprocess.run([TOOLS / "shellcheck", script], check=True)


def test_ports_are_on_loopback_only(services):
    ports = [port for service in services.values() for port in service.get("ports", [])]
    assert ports
    assert all(port.startswith("127.0.0.1:") for port in ports), ports


def test_every_service_has_a_memory_limit(services):
    assert [name for name, service in services.items() if "memory" not in _limits(service)] == []


def _limits(service):
    return service.get("deploy", {}).get("resources", {}).get("limits", {})


def test_every_service_that_stays_is_started_again_and_has_a_health_check(services):
    for name, service in services.items():
        if name in ONE_SHOT:
            assert service.get("restart", "no") == "no", name
        else:
            assert service["restart"] == "unless-stopped", name
            assert "healthcheck" in service or name == "pod", name


def test_a_busy_machine_may_start_the_services_for_as_long_as_up_waits(services):
    seconds = re.search(r"UP_SECONDS:-(\d+)", STACK.read_text())
    for name, service in services.items():
        if "healthcheck" in service:
            period = service["healthcheck"]["start_period"]
            assert int(period.removesuffix("m")) * 60 > int(seconds[1]), name


def test_no_service_gets_more_rights_than_it_needs(services):
    for name, service in services.items():
        assert not service.get("privileged"), name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert name == "postgres" or "cap_add" not in service, name


def test_the_code_is_mounted_and_cannot_be_written(services):
    for name in AIRFLOW:
        mounts = services[name]["volumes"]
        for folder in ("dags", "plugins", "include", "spark_jobs"):
            assert f"./{folder}:/opt/fruits/{folder}:ro" in mounts, (name, folder)
    mounts = [mount for service in services.values() for mount in service.get("volumes", [])]
    assert [mount for mount in mounts if mount.startswith((".", "/")) and not mount.endswith(":ro")] == []


def test_what_must_survive_is_in_named_volumes(compose, services):
    assert "postgres:/var/lib/postgresql/data" in services["postgres"]["volumes"]
    assert "logs:/var/lib/fruits/logs" in services["api-server"]["volumes"]
    assert set(compose["volumes"]) == {"postgres", "logs", "models", "deployment"}


def test_airflow_starts_when_the_database_and_the_account_are_ready(services):
    for name in AIRFLOW:
        needs = services[name]["depends_on"]
        assert needs["migrate"]["condition"] == needs["account"]["condition"] == "service_completed_successfully"
    assert services["migrate"]["depends_on"]["postgres"]["condition"] == "service_healthy"
    assert services["account"]["depends_on"]["aws"]["condition"] == "service_started"
    assert services["aws"]["healthcheck"]["test"] == ["CMD", "fruits-healthy", "aws"]  # once it is filled


def test_no_stage_that_runs_is_root():
    stages = re.split(r"^FROM ", (REPOSITORY / "Dockerfile").read_text(), flags=re.MULTILINE)[1:]
    targets = {stage.split()[2]: stage for stage in stages}
    for name in ("airflow", "model", "aws"):
        assert re.findall(r"^USER (.*)$", targets[name], re.MULTILINE) == ["50000:0"], name


def test_no_secret_is_in_a_committed_file(env_example):
    secret = re.compile(r"PASSWORD|SECRET|KEY")
    assert {value for name, value in env_example.items() if secret.search(name)} == {"generate-me"}
    text = (REPOSITORY / "docker-compose.yaml").read_text()
    for name, value in re.findall(r"^ *([A-Z_]*(?:PASSWORD|SECRET|KEY)(?:_ID)?): (.*)$", text, re.MULTILINE):
        assert value.startswith(("${", "*", "&")), name
    for line in (REPOSITORY / "compose" / "laptop.env").read_text().splitlines():
        name, _, value = line.partition("=")
        assert not secret.search(name) or value.startswith("${"), name
    ignored = subprocess.run(["git", "check-ignore", "-q", ".env"], cwd=REPOSITORY, check=False)
    assert ignored.returncode == 0


@pytest.mark.parametrize(("name", "lock"), LISTS.items())
def test_an_image_holds_only_what_the_environments_name(name, lock):
    asked = lines_of(REPOSITORY / "compose" / "packages" / f"{name}.in")
    named = lines_of(REPOSITORY / "requirements" / f"{lock}.in")
    assert asked <= named, f"not in requirements/{lock}.in: {asked - named}"


def test_steps_run_in_an_image_that_holds_what_a_node_has():
    node = lines_of(REPOSITORY / "requirements" / "node.in") - {"-c spark.lock"}
    assert lines_of(REPOSITORY / "compose" / "packages" / "spark.in") == node | {"pyspark"}


def test_the_airflow_image_holds_no_checks():
    asked = lines_of(REPOSITORY / "compose" / "packages" / "airflow.in")
    assert not asked & {"pytest", "ruff", "mypy", "moto", "pre-commit"}


def test_tasks_of_a_killed_scheduler_are_taken_up_within_a_minute(services):
    names = ("ORPHANED_TASKS_CHECK_INTERVAL", "SCHEDULER_HEALTH_CHECK_THRESHOLD")
    environment = services["scheduler"]["environment"]
    assert sum(float(environment[f"AIRFLOW__SCHEDULER__{name}"]) for name in names) < 60


def test_the_laptops_aws_and_airflow_get_the_same_keys():
    services = yaml.safe_load((REPOSITORY / "docker-compose.yaml").read_text())["services"]
    for key in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        served = services["aws"]["environment"][f"LOCAL_{key}"]
        assert served.startswith(f"${{LOCAL_{key}:?")
        for name in (*AIRFLOW, "account"):
            assert services[name]["environment"][key] == served, (name, key)
