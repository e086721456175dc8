"""Small objects in the lake: read whole or not at all, and with patience."""

from __future__ import annotations

import json
import socketserver
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError, IncompleteReadError, ResponseStreamingError
from fruits_airflow.aws.clients import kms_client
from fruits_airflow.aws.endpoints import CALLED
from fruits_airflow.config.settings import Settings
from fruits_airflow.runs.run_context import open_lake
from fruits_airflow.storage.lake import Lake

from tests.plugins import laptop
from tests.plugins.doubles import ClosingServer, Double

REPLY = b'HTTP/1.1 200 OK\r\nETag: "1"\r\nContent-Length: 12\r\n\r\n{"whole": 1}'


@pytest.fixture(autouse=True)
def no_pause_and_no_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "sleep", lambda _: None)
    monkeypatch.setattr(CALLED, "seen", {})


@contextmanager
def breaking_off(times: int) -> Iterator[tuple[Lake, list[bytes]]]:
    """A lake whose server breaks off in the middle of the body, so many times; and the requests that it got."""
    requests: list[bytes] = []

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            requests.append(self.request.recv(65536))
            self.request.sendall(REPLY[:-6] if len(requests) <= times else REPLY)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        credentials = {"aws_access_key_id": "x", "aws_secret_access_key": "x", "region_name": "eu-west-1"}
        url = f"http://127.0.0.1:{server.server_address[1]}"
        try:
            yield Lake(boto3.client("s3", endpoint_url=url, **credentials), "lake"), requests
        finally:
            server.shutdown()


def test_a_body_that_breaks_off_is_asked_for_again() -> None:
    with breaking_off(times=2) as (lake, requests):
        assert lake.read_json("state/fruits.json") == {"whole": 1}
    assert len(requests) == 3


def test_a_body_that_always_breaks_off_is_an_error_in_the_end() -> None:
    with breaking_off(times=99) as (lake, requests), pytest.raises((IncompleteReadError, ResponseStreamingError)):
        lake.read("state/fruits.json")
    assert len(requests) == 4


def unanswered(server: ClosingServer, call: Any) -> int:
    with pytest.raises(Exception, match=r"[Cc]onnection|closed"):
        call()
    return server.requests


def test_s3_and_kms_are_asked_as_patiently_as_emr(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "x")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "x")
    with ClosingServer() as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
        lake = open_lake(settings)
        assert unanswered(server, lambda: lake.client.head_object(Bucket="lake", Key="x")) == 8
    with ClosingServer() as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
        kms = kms_client(settings, "eu-west-1")
        assert unanswered(server, lambda: kms.describe_key(KeyId="x")) == 8


def test_what_the_connection_says_of_the_client_stays(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    extra = {"config_kwargs": {"proxies": {"https": "http://proxy:3128"}, "retries": {"total_max_attempts": 2}}}
    connection = {"conn_type": "aws", "login": "x", "password": "x", "extra": extra}
    monkeypatch.setenv("AIRFLOW_CONN_FRUITS_PROXIED", json.dumps(connection))
    client = kms_client(replace(settings, aws_conn_id="fruits_proxied"), "eu-west-1")
    assert client.meta.config.proxies == {"https": "http://proxy:3128"}
    assert client.meta.config.connect_timeout == 10


CONFLICT = ClientError({"Error": {"Code": "ConditionalRequestConflict", "Message": ""}}, "PutObject")


def conflicting(account: Settings, call: str, times: int) -> tuple[Lake, list[dict[str, Any]]]:
    """A lake in which a call meets another operation so many times; and the requests."""
    client, requests = laptop.client("s3"), list[dict[str, Any]]()

    def send(**request: Any) -> Any:
        requests.append(request)
        if len(requests) <= times:
            raise CONFLICT
        return getattr(client, call)(**request)

    return Lake(Double(client, **{call: send}), account.lake_bucket), requests


def test_a_conditional_write_that_meets_another_operation_is_sent_again(account: Settings) -> None:
    lake, requests = conflicting(account, "put_object", times=2)
    assert lake.write_once("state/x.json", b"1")
    assert (len(requests), lake.read("state/x.json")) == (3, b"1")
    lake, requests = conflicting(account, "put_object", times=1)
    assert not lake.write_once("state/x.json", b"2"), "the object is there"
    assert len(requests) == 2


def test_a_replacement_and_a_removal_that_meet_another_operation_are_sent_again(account: Settings) -> None:
    lake, _ = conflicting(account, "put_object", times=1)
    laptop.client("s3").put_object(Bucket=account.lake_bucket, Key="state/x.json", Body=b"1")
    version = lake.read_version("state/x.json")
    assert version is not None
    assert lake.replace_version("state/x.json", b"2", version[1])
    assert not lake.replace_version("state/x.json", b"3", version[1])
    current = lake.read_version("state/x.json")
    assert current is not None
    lake, requests = conflicting(account, "delete_object", times=1)
    assert lake.remove_version("state/x.json", current[1])
    assert (len(requests), lake.read("state/x.json")) == (2, None)


def test_a_conflict_that_does_not_end_is_an_error_and_not_a_refusal(account: Settings) -> None:
    lake, requests = conflicting(account, "put_object", times=99)
    with pytest.raises(ClientError, match="ConditionalRequestConflict"):
        lake.write_once("state/x.json", b"1")
    assert len(requests) == 4
