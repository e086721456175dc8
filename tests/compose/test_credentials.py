"""The service that gives short-lived credentials of one profile to Airflow's containers, as their SDK asks for them."""

from __future__ import annotations

import json
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import boto3
import botocore.session
import pytest
from botocore.exceptions import CredentialRetrievalError

from compose import credentials


@pytest.fixture
def profile(tmp_path, monkeypatch):
    """Write the profile `sandbox` and return a session of it."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))

    def write(text: str) -> boto3.Session:
        (tmp_path / "config").write_text(f"[profile sandbox]\nregion = eu-west-1\n{text}\n")
        return boto3.Session(profile_name="sandbox")

    return write


def process(path, token="t", expiration="2099-01-01T00:00:00Z") -> str:
    keys = {"AccessKeyId": "ASIA1", "SecretAccessKey": "s", "SessionToken": token, "Expiration": expiration}
    path.write_text(json.dumps({"Version": 1, **keys}))
    return f"credential_process = cat {path}"


@contextmanager
def served(session: boto3.Session) -> Iterator[str]:
    server = credentials.make_server(session, ("127.0.0.1", 0))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        server.server_close()


def as_a_container(monkeypatch, tmp_path, url: str) -> botocore.session.Session:
    """A session with what compose/real_account.yaml sets, and no ~/.aws."""
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "absent"))
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "")
    monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", url)
    return botocore.session.Session()


def test_a_container_gets_the_profiles_credentials_and_renews_them(profile, monkeypatch, tmp_path):
    file = tmp_path / "process.json"
    soon = (datetime.now(UTC) + timedelta(minutes=5)).isoformat()
    with served(profile(process(file, token="first", expiration=soon))) as url:
        received = as_a_container(monkeypatch, tmp_path, url).get_credentials()
        assert received.method == "container-role"
        assert received.get_frozen_credentials().token == "first"
        process(file, token="second")
        frozen = received.get_frozen_credentials()
    assert (frozen.access_key, frozen.token) == ("ASIA1", "second")
    assert str(received._expiry_time) == "2099-01-01 00:00:00+00:00"


def test_keys_of_a_user_are_not_handed_out(profile, monkeypatch, tmp_path):
    session = profile("aws_access_key_id = AKIA1\naws_secret_access_key = secret-of-a-user")
    with pytest.raises(credentials.LongLivedKeys, match="role_arn"):
        credentials.short_lived(session)
    with served(session) as url, pytest.raises(CredentialRetrievalError, match="short-lived") as refusal:
        as_a_container(monkeypatch, tmp_path, url).get_credentials()
    assert "secret-of-a-user" not in str(refusal.value)


def test_a_session_token_that_the_profile_holds_is_asked_for_again_within_the_hour(profile):
    session = profile("aws_access_key_id = ASIA1\naws_secret_access_key = s\naws_session_token = t")
    answer = credentials.short_lived(session)
    assert answer["Token"] == "t"
    assert answer["Expiration"].endswith("Z")


@pytest.mark.parametrize(("name", "words"), [("nosuch", "nosuch"), ("sandbox", "role_arn")])
def test_check_names_a_profile_that_gives_nothing(profile, monkeypatch, name, words):
    profile("")
    monkeypatch.setenv("AWS_PROFILE", name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setattr("sys.argv", ["credentials", "--check"])
    with pytest.raises(SystemExit, match=words):
        credentials.main()


def test_why_there_are_no_credentials_reaches_the_caller_as_json(profile, tmp_path):
    session = profile(f"credential_process = cat {tmp_path / 'absent.json'}")
    with served(session) as url, pytest.raises(urllib.error.HTTPError) as refusal:
        urllib.request.urlopen(url)
    assert json.load(refusal.value)["code"] == "CredentialRetrievalError"
