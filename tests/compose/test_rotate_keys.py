"""What Airflow's database holds is encrypted under the first key, waits that it stores unencrypted included."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.fernet import Fernet

REPOSITORY = Path(__file__).resolve().parents[2]
FILL = """
from airflow.models import Connection, Trigger
from airflow.utils.session import create_session
with create_session() as session:
    plain = Trigger("a.Trigger", {})
    plain.encrypted_kwargs = '{"poll_s": 30}'
    session.add_all([Connection("team", "http", password="secret-of-the-team"), Trigger("b.Trigger", {}), plain])
"""
SHOW = """
import json
from airflow.models import Connection, Trigger
from airflow.utils.session import create_session
with create_session() as session:
    secrets = [session.query(Connection).one().password, *sorted(str(row.kwargs) for row in session.query(Trigger))]
print(json.dumps(secrets))
"""


@pytest.fixture
def run(tmp_path):
    def start(keys: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        env = {**os.environ, "AIRFLOW_HOME": str(tmp_path), "AIRFLOW__CORE__FERNET_KEY": keys}
        command = [sys.executable, *arguments]
        return subprocess.run(command, cwd=REPOSITORY, env=env, capture_output=True, text=True, check=False)

    return start


def test_everything_is_readable_under_the_new_key_alone(run):
    old, new = Fernet.generate_key().decode(), Fernet.generate_key().decode()
    assert run(old, "-m", "airflow", "db", "migrate").returncode == 0
    assert run(old, "-c", FILL).returncode == 0
    refused = run(new, "-m", "compose.rotate_keys")
    assert refused.returncode != 0
    assert "InvalidToken" in refused.stderr
    done = run(f"{new},{old}", "-m", "compose.rotate_keys")
    assert done.returncode == 0, done.stderr
    shown = run(new, "-c", SHOW).stdout.splitlines()[-1]
    assert json.loads(shown) == ["secret-of-the-team", "{'poll_s': 30}", "{}"]
