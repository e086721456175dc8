"""What an interceptor sees and can do, without a server."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

from local_aws.replies import Reply
from local_aws.requests import Call
from local_aws.web import Application, Interceptor


def environ(method: str = "GET", target: str = "/", **headers: str) -> dict[str, Any]:
    import io

    path, _, query = target.partition("?")
    return {
        "REQUEST_METHOD": method,
        "REQUEST_URI": target,
        "PATH_INFO": path,
        "QUERY_STRING": query,
        "wsgi.input": io.BytesIO(),
    } | {f"HTTP_{name.upper()}": value for name, value in headers.items()}


SIGNED = "AWS4-HMAC-SHA256 Credential=test/20260101/{region}/{service}/aws4_request, SignedHeaders=host, Signature=0"


def call(method: str, target: str, service: str = "s3", **headers: str) -> Call:
    return Call(environ(method, target, authorization=SIGNED.format(region="eu-west-1", service=service), **headers))


class Recorder(Interceptor):
    def __init__(self, name: str, log: list[str], answer: Reply | None = None) -> None:
        self.name, self.log, self.answer = name, log, answer

    def before(self, call: Call) -> Reply | None:
        self.log.append(f"{self.name} before")
        return self.answer

    def after(self, call: Call, reply: Reply) -> Reply:
        self.log.append(f"{self.name} after {reply.status}")
        return reply


def ask(application: Application) -> tuple[str, bytes]:
    seen: list[str] = []
    body = b"".join(application(environ(), lambda status, headers: seen.append(status)))
    return seen[0], body


def service(log: list[str]) -> Any:
    def answer(_environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        log.append("service")
        start_response("200 OK", [])
        return [b"done"]

    return answer


def test_interceptors_see_the_call_before_and_the_reply_after_the_effect() -> None:
    log: list[str] = []
    application = Application(service(log), [Recorder("a", log), Recorder("b", log)])
    assert ask(application) == ("200 OK", b"done")
    assert log == ["a before", "b before", "service", "b after 200", "a after 200"]


def test_an_answer_before_keeps_the_call_from_the_service_and_from_later_interceptors() -> None:
    log: list[str] = []
    refusing = Recorder("b", log, Reply(503, [], b"slow down"))
    application = Application(service(log), [Recorder("a", log), refusing, Recorder("c", log)])
    assert ask(application) == ("503 Service Unavailable", b"slow down")
    assert log == ["a before", "b before", "b after 503", "a after 503"]


def test_a_reply_can_be_replaced_after_the_effect() -> None:
    class Losing(Recorder):
        def after(self, call: Call, reply: Reply) -> Reply:
            return Reply(500, [], b"lost")

    log: list[str] = []
    assert ask(Application(service(log), [Losing("a", log)])) == ("500 Internal Server Error", b"lost")
    assert "service" in log


def test_an_error_in_the_service_is_an_answer() -> None:
    def broken(_environ: dict[str, Any], _start_response: Any) -> Iterable[bytes]:
        raise KeyError("oops")

    status, body = ask(Application(broken, []))
    assert status == "500 Internal Server Error"
    assert b"KeyError" in body


@pytest.mark.parametrize(
    ("method", "target", "operation"),
    [
        ("GET", "/", "ListBuckets"),
        ("PUT", "/b", "CreateBucket"),
        ("GET", "/b?list-type=2&prefix=x", "ListObjectsV2"),
        ("GET", "/b?versions", "ListObjectVersions"),
        ("GET", "/b?location", "GetBucketLocation"),
        ("POST", "/b?delete", "DeleteObjects"),
        ("GET", "/b/k", "GetObject"),
        ("HEAD", "/b/k", "HeadObject"),
        ("PUT", "/b/k", "PutObject"),
        ("DELETE", "/b/k", "DeleteObject"),
        ("POST", "/b/k?uploads", "CreateMultipartUpload"),
        ("PUT", "/b/k?partNumber=1&uploadId=u", "UploadPart"),
        ("POST", "/b/k?uploadId=u", "CompleteMultipartUpload"),
        ("DELETE", "/b/k?uploadId=u", "AbortMultipartUpload"),
    ],
)
def test_the_s3_operation_is_named(method: str, target: str, operation: str) -> None:
    assert call(method, target).operation == operation


def test_service_region_bucket_and_key_are_read_from_the_request() -> None:
    seen = call("GET", "/raw/a%20b/%C3%BC+1.jpg")
    assert (seen.service, seen.region, seen.bucket, seen.key) == ("s3", "eu-west-1", "raw", "a b/ü+1.jpg")
    emr = call("POST", "/", "elasticmapreduce", x_amz_target="ElasticMapReduce.RunJobFlow")
    assert (emr.service, emr.operation, emr.bucket) == ("emr", "RunJobFlow", "")
