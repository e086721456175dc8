"""Races that threads seldom run into, with the moment between check and effect held open; in this process."""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from moto.core.exceptions import JsonRESTError
from moto.glue.models import FakeTable
from moto.s3.models import FakeKey, S3Backend
from moto.s3.utils import _VersionedKeyStore

from local_aws.dispatch import Dispatcher
from local_aws.glue.models import StrictGlueBackend
from local_aws.requests import STARTED
from local_aws.s3 import storage


def slowly(method: Callable[..., Any]) -> Callable[..., Any]:
    """Return the method with time for other threads before it returns."""

    def slow(*args: Any, **kwargs: Any) -> Any:
        value = method(*args, **kwargs)
        time.sleep(0.05)
        return value

    return slow


def test_of_commits_that_read_one_version_at_once_one_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    backend = StrictGlueBackend("eu-west-1", "123456789012")
    backend.create_database("d", {"Name": "d"})
    backend.create_table("d", "t", {"Name": "t"})
    monkeypatch.setattr(FakeTable, "as_dict", slowly(FakeTable.as_dict))

    def commit(_writer: int) -> bool:
        try:
            backend.commit_table("d", {"Name": "t"}, "1", skip_archive=False)
        except JsonRESTError:
            return False
        return True

    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(commit, range(4))) == 1


def request(dispatcher: Dispatcher, method: str, path: str, came: float | None = None, **headers: str) -> int:
    """Send a request, which came at a moment of `time.perf_counter`, to the dispatcher itself; return the status."""
    seen: list[str] = []
    environ = {
        "REQUEST_METHOD": method,
        "PATH_INFO": path,
        "RAW_URI": path,
        "REQUEST_URI": path,
        "QUERY_STRING": "",
        "SERVER_NAME": "127.0.0.1",
        "SERVER_PORT": "80",
        "HTTP_HOST": "127.0.0.1",
        "HTTP_AUTHORIZATION": "AWS4-HMAC-SHA256 Credential=a/20260101/us-east-1/s3/aws4_request, SignedHeaders=host",
        "CONTENT_LENGTH": "0",
        "wsgi.input": io.BytesIO(),
        "wsgi.url_scheme": "http",
        STARTED: (0.0, time.perf_counter() if came is None else came),
    } | {f"HTTP_{name.upper()}": value for name, value in headers.items()}
    list(dispatcher(environ, lambda status, _headers: seen.append(status)))
    return int(seen[0].split()[0])


def test_of_conditional_puts_that_see_nothing_at_once_one_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    dispatcher = Dispatcher(lambda _service: None)
    assert request(dispatcher, "PUT", "/races") == 200
    monkeypatch.setattr(S3Backend, "get_object", slowly(S3Backend.get_object))

    def put(_owner: int) -> int:
        return request(dispatcher, "PUT", "/races/lock", if_none_match="*")

    with ThreadPoolExecutor(4) as pool:
        assert sorted(pool.map(put, range(4))) == [200, 412, 412, 412]


@pytest.mark.parametrize("condition", [{"if_none_match": "*"}, {"if_match": '"x"'}])
def test_a_conditional_write_that_was_in_flight_when_its_key_was_deleted_is_a_conflict(condition: Any) -> None:
    dispatcher, bucket = Dispatcher(lambda _service: None), "/" + "-".join(condition).replace("_", "-")
    request(dispatcher, "PUT", bucket)
    request(dispatcher, "PUT", f"{bucket}/lock")
    came = time.perf_counter()
    assert request(dispatcher, "DELETE", f"{bucket}/lock") == 204
    assert request(dispatcher, "PUT", f"{bucket}/lock", came, **condition) == 409
    assert request(dispatcher, "PUT", f"{bucket}/other", came, if_none_match="*") == 200
    assert request(dispatcher, "PUT", f"{bucket}/lock", if_none_match="*") == 200
    assert request(dispatcher, "PUT", f"{bucket}/lock", came) == 200


@pytest.mark.parametrize("listing", ["items", "values", "lists"])
def test_a_listing_goes_on_although_a_key_is_deleted_meanwhile(listing: str) -> None:
    storage.install()
    store = _VersionedKeyStore()
    for name in "abc":
        store[name] = FakeKey(name, b"", "123456789012", "eu-west-1")
    going = iter(getattr(store, listing)())
    next(going)
    store.pop("b")
    assert len(list(going)) == 2


def test_objects_that_are_gone_are_not_kept_in_memory() -> None:
    storage.install()
    tracked: Any = FakeKey
    FakeKey("a", b"", "123456789012", "eu-west-1")
    assert len(tracked.instances_tracked) == 0
