from __future__ import annotations

import errno
import os
import resource
import time
import traceback
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

import pytest
from fruits.base.errors import ObjectAccessError
from fruits.base.keys import image_id
from fruits.images import fetching
from fruits.images.decoding import MAX_BYTES
from fruits.images.fetching import MAX_REQUESTS, ListedObject, Source, fetch, local_etag
from fruits.images.rejects import RETRIED_CODES, ImageRejected, RejectCode

from tests.spark_jobs.scripted_s3 import Bucket, scripted_s3


@pytest.fixture
def bucket(monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "local")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "local")
    with scripted_s3() as served:
        yield served


def source(bucket: Bucket) -> Source:
    return Source("raw", "", bucket.location)


def fetched(bucket: Bucket, *objects: ListedObject) -> list[bytes | RejectCode]:
    outcomes = fetch(objects, source(bucket))
    return [outcome.code if isinstance(outcome, ImageRejected) else outcome for _, outcome in outcomes]


@pytest.mark.parametrize(
    "key",
    [
        "a/b.jpg",
        "a b/é😀.jpg",
        "a%2Fb+c=d.jpg",
        "_a/.b.jpg",
        "a//b.jpg",
        "/a.jpg",
        "a/b.jpg/",
        "a/../b",
        "a/./b",
        "a\tb",
    ],
)
def test_any_key_is_asked_for_exactly_as_listed_in_one_request(bucket, key):
    bucket.objects[key] = (key.encode(), "tag")
    assert fetched(bucket, ListedObject(key, "tag", 5)) == [key.encode()]
    assert bucket.requests == [("GET", key)]


def test_objects_come_in_the_order_listed(bucket):
    keys = [f"{i}.jpg" for i in range(100)]
    bucket.objects = {key: (key.encode(), "tag") for key in keys}
    assert fetched(bucket, *(ListedObject(key, "tag", 5) for key in keys)) == [key.encode() for key in keys]


def test_many_requests_are_in_flight_but_not_more_than_allowed(bucket):
    keys = [f"{i}.jpg" for i in range(3 * MAX_REQUESTS)]
    bucket.objects = dict.fromkeys(keys, (b"x", "tag"))
    bucket.delay_s = 0.1
    started = time.monotonic()
    fetched(bucket, *(ListedObject(key, "tag", 1) for key in keys))
    assert 8 < bucket.busiest <= MAX_REQUESTS
    assert time.monotonic() - started < len(keys) * bucket.delay_s / 4


def test_large_objects_do_not_add_up(bucket):
    keys = [f"{i}.jpg" for i in range(8)]
    bucket.objects = dict.fromkeys(keys, (b"x", "tag"))
    bucket.delay_s = 0.05
    fetched(bucket, *(ListedObject(key, "tag", MAX_BYTES) for key in keys))
    assert bucket.busiest == 1


@pytest.mark.parametrize("key", ["a.jpg", "a//b.jpg"])
def test_an_object_that_changed_since_the_listing_is_a_reject(bucket, key):
    bucket.objects[key] = (b"x", "other")
    assert fetched(bucket, ListedObject(key, "tag", 1)) == [RejectCode.CHANGED]


@pytest.mark.parametrize("key", ["a.jpg", "a//b.jpg"])
def test_an_object_that_is_gone_is_a_reject(bucket, key):
    assert fetched(bucket, ListedObject(key, "tag", 1)) == [RejectCode.GONE]


def test_empty_and_huge_objects_are_not_even_asked_for(bucket):
    codes = fetched(
        bucket,
        ListedObject("a", "tag", 0),
        ListedObject("b", "tag", MAX_BYTES + 1),
        ListedObject("c", "tag", 3 * 2**30),
    )
    assert codes == [RejectCode.EMPTY, RejectCode.TOO_MANY_BYTES, RejectCode.TOO_MANY_BYTES]
    assert bucket.requests == []


@pytest.mark.parametrize("code", ["", "400", "InvalidURI"])
def test_a_key_that_s3_does_not_take_is_a_reject(bucket, code):
    bucket.failures["a/../b"], bucket.codes["a/../b"] = 400, code
    assert fetched(bucket, ListedObject("a/../b", "tag", 1)) == [RejectCode.KEY_NOT_FETCHABLE]


@pytest.mark.parametrize("key", ["a.jpg", "a//b.jpg"])
@pytest.mark.parametrize(
    ("status", "code"),
    [
        (400, "InvalidRequest"),
        (400, "InvalidArgument"),
        (400, "KeyTooLongError"),
        (405, "MethodNotAllowed"),
        (410, "Gone"),
    ],
)
def test_an_object_that_nobody_gets_is_a_reject_and_its_neighbour_is_fetched(bucket, key, status, code):
    bucket.failures[key], bucket.codes[key] = status, code
    bucket.objects["next"] = (b"x", "tag")
    (_, rejected), (_, neighbour) = fetch([ListedObject(key, "tag", 1), ListedObject("next", "tag", 1)], source(bucket))
    assert isinstance(rejected, ImageRejected)
    assert rejected.code is RejectCode.KEY_NOT_FETCHABLE
    assert rejected.code not in RETRIED_CODES
    assert f"{status} {code}" in rejected.detail
    assert neighbour == b"x"


@pytest.mark.parametrize("key", ["a.jpg", "a//b.jpg"])
def test_an_archived_object_is_a_reject_that_is_tried_again_and_says_when(bucket, key):
    bucket.failures[key], bucket.codes[key] = 403, "InvalidObjectState"
    ((_, rejected),) = fetch([ListedObject(key, "tag", 1)], source(bucket))
    assert isinstance(rejected, ImageRejected)
    assert rejected.code is RejectCode.NOT_READABLE_NOW
    assert rejected.code in RETRIED_CODES
    assert "archived" in rejected.detail
    assert "the next run that has other work" in rejected.detail
    assert "`force`" in rejected.detail


@pytest.mark.parametrize("key", ["a.jpg", "a//b.jpg"])
@pytest.mark.parametrize(
    ("status", "code"),
    [
        (400, "ExpiredToken"),
        (400, "InvalidToken"),
        (400, "AuthorizationHeaderMalformed"),
        (400, "KMS.DisabledException"),
        (400, "BadRequest"),
        (400, "InvalidBucketName"),
        (400, "RequestExpired"),
        (400, "InvalidAccessKeyId"),
        (400, "NeverHeardOf"),
        (403, "AccessDenied"),
        (403, "SignatureDoesNotMatch"),
    ],
)
def test_what_s3_does_not_say_about_the_object_is_an_error_and_no_photo_is_rejected_for_it(bucket, key, status, code):
    bucket.failures[key], bucket.codes[key] = status, code
    with pytest.raises(ObjectAccessError, match=f"could not fetch the photo with image id {image_id(key)}: .*{code}"):
        fetched(bucket, ListedObject(key, "tag", 1))


def test_a_refusal_without_a_code_is_an_error_where_the_key_is_none_that_s3_may_not_take(bucket):
    bucket.failures["a.jpg"], bucket.codes["a.jpg"] = 400, ""
    with pytest.raises(ObjectAccessError, match="could not fetch the photo with image id"):
        fetched(bucket, ListedObject("a.jpg", "tag", 1))


@pytest.mark.parametrize("key", ["a.jpg", "a//b.jpg"])
def test_denied_access_is_an_error_and_no_photo_is_rejected_for_it(bucket, key):
    bucket.failures[key] = 403
    with pytest.raises(ObjectAccessError, match="could not fetch the photo with image id"):
        fetched(bucket, ListedObject(key, "tag", 1))


@pytest.mark.parametrize("key", ["a/Zoé's.jpg", "a//Zoé's.jpg"], ids=["obstore", "boto3"])
@pytest.mark.parametrize("failure", ["denied", "no answer", "unreadable"])
def test_an_error_names_the_photo_by_its_id_and_no_spelling_of_its_key(bucket, key, failure, tmp_path, monkeypatch):
    bucket.failures[key] = 403
    place = source(bucket)
    if failure == "no answer":
        place = Source("raw", "", replace(bucket.location, endpoint="http://127.0.0.1:9"))
    if failure == "unreadable":
        place = Source(None, str(tmp_path), None)

        def broken(path: Path) -> os.stat_result:
            raise OSError(errno.EIO, "Input/output error", str(path))

        monkeypatch.setattr(Path, "stat", broken)
    with pytest.raises(ObjectAccessError) as caught:
        list(fetch([ListedObject(key, "tag", 1)], place))
    shown = "".join(traceback.format_exception(caught.value))
    assert image_id(key) in shown
    assert "Zo" not in shown


def test_only_as_much_of_the_listing_is_read_as_is_in_flight(bucket):
    bucket.objects = {"a": (b"x", "tag")}
    read = 0

    def listing():
        nonlocal read
        for _ in range(1000):
            read += 1
            yield ListedObject("a", "tag", 1)

    outcomes = fetch(listing(), source(bucket))
    next(outcomes)
    assert read <= MAX_REQUESTS + 1


def test_a_folder_is_read_with_the_same_verdicts(tmp_path):
    for name in ("same", "changed", "gone", "%2F é"):
        (tmp_path / name).write_bytes(name.encode())
    listed = [
        ListedObject(name, local_etag(tmp_path / name), len(name.encode()))
        for name in ("same", "changed", "gone", "%2F é")
    ]
    (tmp_path / "changed").write_bytes(b"longer than before")
    (tmp_path / "gone").unlink()
    outcomes = [outcome for _, outcome in fetch(listed, Source(None, str(tmp_path), None))]
    assert outcomes[0] == b"same"
    assert [outcome.code for outcome in outcomes[1:3]] == [RejectCode.CHANGED, RejectCode.GONE]
    assert outcomes[3] == "%2F é".encode()


def from_folder(folder: Path, *listed: ListedObject) -> list[bytes | RejectCode]:
    outcomes = fetch(listed, Source(None, str(folder), None))
    return [outcome.code if isinstance(outcome, ImageRejected) else outcome for _, outcome in outcomes]


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def test_a_file_that_grew_after_the_listing_is_not_read(tmp_path):
    path = tmp_path / "grown"
    path.write_bytes(b"as listed")
    listed = ListedObject("grown", local_etag(path), 9)
    with path.open("r+b") as file:
        file.truncate(1500 * 1024 * 1024)
    before = peak_mb()
    assert from_folder(tmp_path, listed) == [RejectCode.CHANGED]
    assert peak_mb() - before < 100


def test_a_file_that_grows_while_it_is_read_is_read_no_further_than_listed(tmp_path, monkeypatch):
    path = tmp_path / "growing"
    path.write_bytes(b"as listed")
    listed = ListedObject("growing", local_etag(path), 9)
    with path.open("r+b") as file:
        file.truncate(1500 * 1024 * 1024)
    monkeypatch.setattr(fetching, "local_etag", lambda _: listed.etag)
    before = peak_mb()
    assert from_folder(tmp_path, listed) == [RejectCode.CHANGED]
    assert peak_mb() - before < 100


def test_a_path_that_became_a_folder_or_lost_its_folder_is_a_reject(tmp_path, monkeypatch):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_bytes(b"x")
    listed = [ListedObject("folder", "0-1", 1), ListedObject("file/x.jpg", "0-1", 1)]
    assert from_folder(tmp_path, *listed) == [RejectCode.CHANGED, RejectCode.GONE]
    monkeypatch.setattr(fetching, "local_etag", lambda _: "0-1")  # it became one after it was looked at
    assert from_folder(tmp_path, listed[0]) == [RejectCode.CHANGED]


def test_a_pipe_in_a_files_place_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    assert from_folder(tmp_path, ListedObject("pipe", "0-1", 1)) == [RejectCode.CHANGED]


def test_a_file_that_may_not_be_read_is_a_reject_and_its_neighbour_is_read(tmp_path, monkeypatch):
    for name in ("secret", "open"):
        (tmp_path / name).write_bytes(b"x")
    listed = [ListedObject(name, local_etag(tmp_path / name), 1) for name in ("secret", "open")]
    opened = Path.open

    def denied(path: Path, *arguments: str) -> IO[Any]:
        """What chmod 000 does, to root too."""
        if path.name == "secret":
            raise PermissionError(13, "Permission denied", str(path))
        return opened(path, *arguments)

    monkeypatch.setattr(Path, "open", denied)
    assert from_folder(tmp_path, *listed) == [RejectCode.NOT_READABLE_NOW, b"x"]
