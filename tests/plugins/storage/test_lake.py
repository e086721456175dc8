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
from botocore.exceptions import IncompleteReadError, ResponseStreamingError
from fruits_airflow.aws.clients import kms_client
from fruits_airflow.aws.endpoints import CALLED
from fruits_airflow.config.settings import Settings
from fruits_airflow.runs.run_context import open_lake
from fruits_airflow.storage.lake import Lake

from tests.plugins.doubles import ClosingServer

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
