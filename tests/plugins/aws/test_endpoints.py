"""Where a request may go, and how it is noted that it went there."""

from __future__ import annotations

from typing import Any

import boto3
import pytest
from botocore.config import Config
from fruits_airflow.aws import endpoints
from fruits_airflow.aws.endpoints import LOCAL, EndpointLog, called_endpoints, place_of
from fruits_airflow.config.errors import ResidencyError
from fruits_airflow.config.settings import Settings
from fruits_airflow.storage.lake import Lake, run_key

from tests.plugins.doubles import Double


@pytest.mark.parametrize(
    ("host", "region"),
    [
        ("s3.eu-west-1.amazonaws.com", "eu-west-1"),
        ("my-bucket.s3.eu-north-1.amazonaws.com", "eu-north-1"),
        ("my.us-east-1x.bucket.s3.dualstack.eu-west-3.amazonaws.com", "eu-west-3"),
        ("eu-central-1.elasticmapreduce.amazonaws.com", "eu-central-1"),
        ("elasticmapreduce.eu-south-2.amazonaws.com", "eu-south-2"),
        ("vpce-1-x.s3.eu-west-1.vpce.amazonaws.com", "eu-west-1"),
        ("s3.eusc-de-east-1.amazonaws.eu", "eusc-de-east-1"),
        ("glue.eusc-de-east-1.api.amazonwebservices.eu", "eusc-de-east-1"),
        ("kms.eu-south-1.api.aws", "eu-south-1"),
    ],
)
def test_an_endpoint_of_the_union_is_placed_by_its_name(host: str, region: str) -> None:
    assert place_of(host) == region


@pytest.mark.parametrize(
    ("host", "message"),
    [
        ("s3.us-east-1.amazonaws.com", "not a region in an EU member state"),
        ("elasticmapreduce.eu-west-2.amazonaws.com", "United Kingdom"),
        ("s3.amazonaws.com", "names no region"),
        ("iam.amazonaws.com", "names no region"),
        ("s3.cn-north-1.amazonaws.com.cn", "not a region in an EU member state"),
        ("8.8.8.8", "its region is unknown"),
        ("s3.nowhere.invalid", "cannot be resolved"),
    ],
)
def test_an_endpoint_elsewhere_or_nowhere_is_refused(host: str, message: str) -> None:
    with pytest.raises(ResidencyError, match=message):
        place_of(host)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "10.1.2.3"])
def test_an_endpoint_of_this_machine_or_network_is_told_as_what_it_is(host: str) -> None:
    assert place_of(host) == LOCAL


def test_a_name_is_private_only_if_every_address_of_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    addresses = [(2, 1, 6, "", (ip, 0)) for ip in ("10.0.0.1", "8.8.8.8")]
    monkeypatch.setattr(endpoints.socket, "getaddrinfo", lambda *_: addresses)
    with pytest.raises(ResidencyError, match="its region is unknown"):
        place_of("both.example")


@pytest.fixture
def called() -> EndpointLog:
    return EndpointLog()


@pytest.fixture
def lake(account: Settings, called: EndpointLog) -> Lake:
    client = boto3.client("s3", region_name="eu-west-1")
    return Lake(called.watch(client), account.lake_bucket)


def test_each_endpoint_is_noted_once_at_its_first_call(lake: Lake, called: EndpointLog) -> None:
    called.keep(lake, run_key("r1"))
    assert called_endpoints(lake, "r1") == [called.seen["s3", "127.0.0.1"]]
    emr = called.watch(boto3.client("emr", region_name="eu-west-1"))
    for _ in range(3):
        emr.list_clusters()
    notes = called_endpoints(lake, "r1")
    assert [(note["service"], note["region"]) for note in notes] == [("emr", LOCAL), ("s3", LOCAL)]


def test_the_first_call_of_a_run_is_that_of_its_first_task(lake: Lake, called: EndpointLog) -> None:
    called.keep(lake, run_key("r1"))
    first = called_endpoints(lake, "r1")
    later = EndpointLog({("s3", "127.0.0.1"): first[0] | {"first_called_at": "2999-01-01T00:00:00+00:00"}})
    later.keep(lake, run_key("r1"))
    assert called_endpoints(lake, "r1") == first


def test_what_was_called_before_the_run_was_known_is_noted_too(lake: Lake, called: EndpointLog) -> None:
    lake.read("nothing")
    called.keep(lake, run_key("r1"))
    assert len(called_endpoints(lake, "r1")) == 1


def test_a_client_watched_twice_is_looked_at_once(lake: Lake, called: EndpointLog) -> None:
    called.watch(lake.client)
    looked: list[str] = []
    lake.client.meta.events.register("before-send", lambda event_name, **_: looked.append(event_name))
    lake.read("nothing")
    assert looked == ["before-send.s3.GetObject"]


def test_another_run_of_the_same_process_gets_notes_of_its_own(lake: Lake, called: EndpointLog) -> None:
    lake.read("nothing")
    for run_id in ("r1", "r2"):
        called.keep(lake, run_key(run_id))
    assert [len(called_endpoints(lake, run_id)) for run_id in ("r1", "r2")] == [1, 1]


def test_a_note_that_cannot_be_written_stops_no_task_and_is_written_later(lake: Lake, called: EndpointLog) -> None:
    def refused(*_: Any, **__: Any) -> None:
        raise lake.client.exceptions.ClientError({"Error": {"Code": "SlowDown"}}, "PutObject")

    lake.read("nothing")
    called.keep(Lake(Double(lake.client, put_object=refused), lake.bucket), run_key("r1"))
    assert called_endpoints(lake, "r1") == []
    called.keep(lake, run_key("r1"))
    assert len(called_endpoints(lake, "r1")) == 1


def test_a_request_out_of_the_union_does_not_leave(called: EndpointLog) -> None:
    client = called.watch(
        boto3.client(
            "s3",
            region_name="us-east-1",
            endpoint_url="https://s3.us-east-1.amazonaws.com",
            aws_access_key_id="none",
            aws_secret_access_key="none",
            config=Config(connect_timeout=1, retries={"total_max_attempts": 1}),
        )
    )
    with pytest.raises(ResidencyError, match="us-east-1"):
        client.list_buckets()
    assert called.seen == {}
