"""What compose/stack.sh does before it asks the engine for anything: `docker` only notes its calls here."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
FILES = (".env.example", "docker-compose.yaml", "compose", "dags", "include")
FOLDERS = ("dev", "local_aws", "ops", "plugins", "spark_jobs")
SECRETS = [line.split("=")[0] for line in (REPOSITORY / ".env.example").read_text().splitlines() if "=gen" in line]
DOCKER = """#!/bin/sh
echo "$@" >> "$CALLS"
[ "$1" = ps ] && echo "$RUNNING"
env | grep -E '^(COMPOSE_PROJECT_NAME|FRUITS_SETTINGS|IMAGES|WEIGHTS)=' > "$CALLS.env"
exit 0
"""


class Clone:
    """A clone of the repository, as far as the script looks at it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.calls = folder.with_name(f"{folder.name}.calls")
        (folder / "bin").mkdir(parents=True)
        (folder / "bin" / "docker").write_text(DOCKER)
        (folder / "bin" / "docker").chmod(0o755)
        for name in FILES:
            source, target = REPOSITORY / name, folder / name
            target.parent.mkdir(exist_ok=True)
            (shutil.copytree if source.is_dir() else shutil.copy)(source, target)
        for name in FOLDERS:
            (folder / name).mkdir()

    def __call__(self, *arguments: str, running: str = "", **environ: str) -> subprocess.CompletedProcess[str]:
        """Run the script; `running` is the folder of the clone whose containers have this project's name."""
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("AWS_", "COMPOSE_", "FRUITS_")) and name not in ("IMAGES", "WEIGHTS")
        }
        self.calls.unlink(missing_ok=True)
        path = f"{self.folder / 'bin'}:{os.environ['PATH']}"
        return subprocess.run(
            [self.folder / "compose" / "stack.sh", *arguments],
            check=False,
            capture_output=True,
            text=True,
            env={**kept, "CALLS": str(self.calls), "RUNNING": running, "PATH": path, **environ},
        )

    def refused(self, *arguments: str, running: str = "", **environ: str) -> str:
        """Why the script ends before compose starts, stops or removes anything."""
        done = self(*arguments, running=running, **environ)
        assert done.returncode == 1, done.stdout
        assert not re.search(r"(?m)^compose .* (up|down|run|build|exec)\b", self.calls.read_text())
        return done.stderr

    @property
    def env(self) -> dict[str, str]:
        lines = (self.folder / ".env").read_text().splitlines()
        return dict(line.split("=", 1) for line in lines if re.match(r"\w+=", line))

    def set(self, name: str, value: str) -> None:
        """Write a variable of .env as it stands there."""
        text = (self.folder / ".env").read_text()
        (self.folder / ".env").write_text(re.sub(f"(?m)^{name}=.*$", f"{name}={value}", text))

    @property
    def seen(self) -> dict[str, str]:
        """The variables that docker had in its last call."""
        return dict(line.split("=", 1) for line in Path(f"{self.calls}.env").read_text().splitlines())


@pytest.fixture
def clone(tmp_path) -> Clone:
    return Clone(tmp_path / "clone")


def test_secrets_are_random_and_made_once(clone):
    clone("down")
    first = clone.env
    assert (clone.folder / ".env").stat().st_mode & 0o077 == 0
    values = [first[name] for name in SECRETS]
    assert len(values) == len(set(values)) == 8
    assert all(len(value) >= 24 and value != "generate-me" for value in values)
    clone("down")
    assert clone.env == first
    (clone.folder / ".env").unlink()
    clone("down")
    assert clone.env != first


def test_an_older_file_gets_what_was_added_since(clone):
    (clone.folder / ".env").write_text("POSTGRES_PASSWORD=mine")
    clone("down")
    assert clone.env["POSTGRES_PASSWORD"] == "mine"
    assert len(clone.env["LOCAL_AWS_SECRET_ACCESS_KEY"]) >= 32
    assert "COMPOSE_PROJECT_NAME" in clone.env


def test_each_clone_has_a_project_and_a_port_of_its_own(clone, tmp_path):
    other = Clone(tmp_path / "other")
    for each in (clone, other):
        assert each("up").returncode == 0
    for name in ("COMPOSE_PROJECT_NAME", "AIRFLOW_PORT", "CLONE_FOLDER"):
        assert clone.env[name] != other.env[name], name
    assert clone.seen["COMPOSE_PROJECT_NAME"] == clone.env["COMPOSE_PROJECT_NAME"].strip("'")


def test_a_copied_env_file_does_not_take_over_the_other_clones_stack(clone, tmp_path):
    clone("down")
    other = Clone(tmp_path / "other")
    shutil.copy(clone.folder / ".env", other.folder / ".env")
    assert str(clone.folder) in other.refused("up")
    assert str(clone.folder) in other.refused("down", "--volumes")


def test_a_clone_that_was_moved_keeps_its_stack(clone, tmp_path):
    clone("down")
    before = clone.env["COMPOSE_PROJECT_NAME"]
    clone.folder = clone.folder.rename(tmp_path / "moved")
    assert clone("down", running=str(tmp_path / "clone")).returncode == 0
    assert clone.env["COMPOSE_PROJECT_NAME"] == before


@pytest.mark.parametrize("arguments", [("up",), ("down",), ("trigger",), ("restart", "aws")])
def test_a_stack_of_another_clone_is_never_touched(clone, tmp_path, arguments):
    clone("down")
    other = Clone(tmp_path / "other").folder
    words = clone.refused(*arguments, running=str(other), COMPOSE_PROJECT_NAME="shared")
    assert str(other) in words
    assert "COMPOSE_PROJECT_NAME" in words


def test_the_account_of_a_profile_has_a_project_of_its_own(clone):
    clone("down")
    laptop = clone.seen["COMPOSE_PROJECT_NAME"]
    clone("down", AWS_PROFILE="sandbox")
    assert clone.seen["COMPOSE_PROJECT_NAME"] == f"{laptop}-account"


@pytest.mark.parametrize("value", ["a$b", 'a"b', "a@b", "a/b", "", "a b", "'", "ä"])
@pytest.mark.parametrize("name", ["POSTGRES_PASSWORD", "AIRFLOW_ADMIN_PASSWORD"])
def test_a_secret_that_would_not_arrive_as_written_is_refused_by_name(clone, name, value):
    clone("down")
    clone.set(name, value)
    assert name in clone.refused("up")


@pytest.mark.parametrize("value", ["secret", "generate", ",", "A" * 44, "A" * 43 + "=A", "A" * 43 + "=,"])
def test_a_key_that_airflow_could_not_encrypt_with_is_refused(clone, value):
    clone("down")
    clone.set("AIRFLOW_FERNET_KEY", value)
    assert "AIRFLOW_FERNET_KEY" in clone.refused("up")


def test_a_secret_is_changed_by_asking_for_a_new_one_and_the_key_keeps_the_old_beside_it(clone):
    clone("down")
    before = clone.env
    clone.set("POSTGRES_PASSWORD", "generate-me")
    clone.set("AIRFLOW_FERNET_KEY", f"generate-me,{before['AIRFLOW_FERNET_KEY']}")
    assert clone("up").returncode == 0
    assert clone.env["POSTGRES_PASSWORD"] not in ("generate-me", before["POSTGRES_PASSWORD"])
    new, old = clone.env["AIRFLOW_FERNET_KEY"].split(",")
    assert old == before["AIRFLOW_FERNET_KEY"] != new


def test_arguments_of_up_are_refused_and_not_dropped(clone):
    assert "up takes no arguments" in clone("up", "--detach", "postgres").stderr
    assert not clone.calls.exists()


def test_line_ends_of_windows_do_not_become_part_of_values(clone):
    clone("down")
    before = clone.env
    path = clone.folder / ".env"
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    assert "line ends" in clone("down").stdout
    assert clone.env == before
    path.write_bytes((REPOSITORY / ".env.example").read_bytes().replace(b"\n", b"\r\n"))
    clone("down")
    assert "generate-me" not in clone.env.values()


@pytest.mark.parametrize("path", ["plugins", "compose/entrypoint.sh"])
def test_what_the_containers_may_not_read_is_named(clone, path):
    (clone.folder / path).chmod(0o750)
    words = clone.refused("up")
    assert path in words
    assert "chmod -R o+rX" in words


def test_a_port_that_another_program_has_is_named(clone):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = str(server.getsockname()[1])
        assert f"AIRFLOW_PORT={port}" in clone.refused("up", AIRFLOW_PORT=port)


def test_each_setting_of_the_file_and_of_the_shell_reaches_airflow(clone):
    clone("down")
    with (clone.folder / ".env").open("a") as file:
        file.write("FRUITS_MAX_COST_EUR=3\nFRUITS_NOTIFY=log\n")
    clone("down", FRUITS_NOTIFY="mail", FRUITS_SCHEDULE="0 2 * * *", FRUITS_SHARED="/shared")
    lines = Path(clone.seen["FRUITS_SETTINGS"]).read_text().splitlines()
    last = dict(line.split("=", 1) for line in lines)
    assert last == {
        "FRUITS_REGION": "eu-west-1",
        "FRUITS_MAX_COST_EUR": "3",
        "FRUITS_NOTIFY": "'mail'",
        "FRUITS_SCHEDULE": "'0 2 * * *'",
    }


def test_photos_stay_until_others_are_named_or_none(clone, tmp_path):
    photos = tmp_path / "my photos"
    photos.mkdir()
    for environ in ({"IMAGES": str(photos)}, {}):
        assert clone("up", **environ).returncode == 0
        assert clone.seen["IMAGES"] == str(photos)
    photos.rmdir()
    assert f"IMAGES={photos} does not exist" in clone.refused("up")
    assert clone("up", IMAGES="").returncode == 0
    assert "IMAGES" not in clone.seen
    assert "IMAGES" not in clone.env


def test_a_profile_without_a_folder_of_aws_is_named_and_no_folder_is_made(clone, tmp_path):
    clone("down")
    assert "nosuch" in clone.refused("up", AWS_PROFILE="nosuch", HOME=str(tmp_path))
    assert not (tmp_path / ".aws").exists()


def test_all_that_a_real_account_needs_is_named_at_once(clone, tmp_path):
    clone("down")
    (tmp_path / ".aws").mkdir()
    text = clone.refused("up", AWS_PROFILE="sandbox", HOME=str(tmp_path), FRUITS_SUBNET_ID="subnet-1")
    asked = set(re.findall(r"(FRUITS_\w+):\?name", (REPOSITORY / "compose" / "real_account.yaml").read_text()))
    assert set(re.findall(r"FRUITS_\w+", text)) == asked - {"FRUITS_SUBNET_ID"}


def test_arguments_of_down_reach_compose(clone):
    clone("down", "--volumes")
    assert re.search(r"^compose .* down .*--volumes$", clone.calls.read_text(), re.MULTILINE)
