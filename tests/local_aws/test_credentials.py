"""The key pair: where a server takes it from, and who can read it."""

from __future__ import annotations

import os
import stat
import subprocess
from pathlib import Path

import pytest

from local_aws.credentials import Credentials
from local_aws.settings import SettingsError
from tests.aws_keys import FOR_CLIENT, FOR_SERVER, read_keys
from tests.local_aws.server import REPOSITORY, Server, command


def test_a_server_without_keys_makes_random_ones_that_only_its_user_can_read(tmp_path: Path) -> None:
    seen = []
    for name in ("a", "b"):
        server = Server(tmp_path / name, environment=dict.fromkeys(FOR_SERVER, ""))
        path = server.state_dir / "credentials"
        try:
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
            assert stat.S_IMODE(server.state_dir.stat().st_mode) == 0o700
            seen.append(read_keys(path))
            assert server.client("sts", keys=seen[-1]).get_caller_identity()["Account"]
        finally:
            server.stop()
        assert not path.exists()
    assert seen[0] != seen[1]
    assert all(len(keys["aws_secret_access_key"]) == 40 for keys in seen)


def test_a_credentials_file_of_somebody_else_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "credentials"
    path.write_text("old")
    path.chmod(0o666)
    Credentials.random().write(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_keys_of_the_environment_are_taken(aws: Server) -> None:
    assert read_keys(aws.state_dir / "credentials") == FOR_CLIENT


def test_the_developers_own_keys_are_not_taken() -> None:
    mine = {"AWS_ACCESS_KEY_ID": "A" * 20, "AWS_SECRET_ACCESS_KEY": "s" * 40}
    assert Credentials.from_environment(mine).environment != mine


@pytest.mark.parametrize(
    ("key_id", "secret", "name"),
    [
        ("local", "s" * 40, "LOCAL_AWS_ACCESS_KEY_ID"),
        ("", "s" * 40, "LOCAL_AWS_ACCESS_KEY_ID"),
        ("A/B" * 8, "s" * 40, "LOCAL_AWS_ACCESS_KEY_ID"),
        ("A" * 20, "local", "LOCAL_AWS_SECRET_ACCESS_KEY"),
        ("A" * 20, "", "LOCAL_AWS_SECRET_ACCESS_KEY"),
    ],
)
def test_keys_that_are_easy_to_guess_are_refused(key_id: str, secret: str, name: str, tmp_path: Path) -> None:
    keys = dict(zip(FOR_SERVER, (key_id, secret), strict=True))
    with pytest.raises(SettingsError, match=name):
        Credentials.from_environment(keys)
    if secret == "local":
        ended = subprocess.run(
            command(tmp_path / "state"),
            cwd=REPOSITORY,
            env={**os.environ, **keys},
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        assert (ended.returncode, len(ended.stderr.splitlines())) == (2, 1)


def test_a_secret_is_not_shown() -> None:
    keys = Credentials.random()
    assert keys.secret_access_key not in repr(keys)
