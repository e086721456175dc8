"""Signatures: those of botocore's signer and of AWS's own examples are accepted, all others are refused."""

from __future__ import annotations

import hashlib
import hmac
import io
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

import pytest
from botocore import auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials as Signer

from local_aws.credentials import Credentials
from local_aws.requests import Call
from local_aws.signatures import Keys, RequestRefused, verify
from tests.local_aws.server import REGION

HOST = "127.0.0.1:5600"
NOW = datetime(2026, 11, 30, 12, tzinfo=UTC).timestamp()
KEY = Credentials("EXAMPLEKEY123456", "x" * 40)


@pytest.fixture(autouse=True)
def _clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make botocore sign at NOW."""
    monkeypatch.setattr(auth, "get_current_datetime", lambda *_, **__: datetime.fromtimestamp(NOW, UTC))


def call_of(request: AWSRequest) -> Call:
    """Return a signed request as it arrives."""
    parts = urlsplit(request.url)
    headers = {"Host": parts.netloc, **dict(request.headers.items())}
    body = request.data or b""
    environ: dict[str, Any] = {
        "REQUEST_METHOD": request.method,
        "REQUEST_URI": parts.path + (f"?{parts.query}" if parts.query else ""),
        "QUERY_STRING": parts.query,
        "CONTENT_LENGTH": str(len(body)),
        "wsgi.input": io.BytesIO(body),
    }
    for name, value in headers.items():
        text = value.decode("latin-1") if isinstance(value, bytes) else str(value)
        key = name.upper().replace("-", "_")
        environ[key if key in ("CONTENT_TYPE", "CONTENT_LENGTH") else f"HTTP_{key}"] = text
    return Call(environ)


def signed(
    method: str = "GET", target: str = "/raw/a.jpg", body: bytes = b"", service: str = "s3", **headers: str
) -> Call:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    request = AWSRequest(method, f"http://{HOST}{target}", named, body)
    signer = auth.S3SigV4Auth if service == "s3" else auth.SigV4Auth
    signer(Signer(KEY.access_key_id, KEY.secret_access_key), service, REGION).add_auth(request)
    return call_of(request)


def presigned(target: str = "/raw/a.jpg", expires: int = 600) -> Call:
    request = AWSRequest("GET", f"http://{HOST}{target}")
    key = Signer(KEY.access_key_id, KEY.secret_access_key)
    auth.S3SigV4QueryAuth(key, "s3", REGION, expires=expires).add_auth(request)
    return call_of(request)


def check(call: Call, now: float = NOW) -> None:
    verify(call, Keys(KEY), now)


def refusal(call: Call, now: float = NOW) -> str:
    with pytest.raises(RequestRefused) as caught:
        check(call, now)
    return caught.value.name


@pytest.mark.parametrize(
    "target",
    [
        "/",
        "/raw",
        "/raw/a%20b/%C3%BC%2B1~_-.jpg",
        "/raw//double/../x%0Ay%252F",
        "/raw/it%27s%281%29%21%2A%2C%3A%3D%40%26%24.jpg",
        "/raw?list-type=2&prefix=a%20b%2Fc&continuation-token=x%2B%3D%3D&delimiter=%2F",
        "/raw?uploads",
        "/raw/k?partNumber=2&uploadId=a%3Db&empty=",
        "/raw/k?b=2&a=2&a=1&A=3",
    ],
)
def test_what_botocore_signs_for_s3_is_taken(target: str) -> None:
    check(signed(target=target))
    check(presigned(target))


def test_what_botocore_signs_for_other_services_is_taken() -> None:
    target = {"X_Amz_Target": "ElasticMapReduce.RunJobFlow", "Content_Type": "application/x-amz-json-1.1"}
    check(signed("POST", "/", b'{"Name": "x"}', "elasticmapreduce", **target))
    check(signed("POST", "/", b"Action=GetCallerIdentity", "sts"))
    check(signed("GET", "/a%20b/c?x=1%202", service="batch"))


def test_headers_with_spaces_and_letters_beyond_ascii_are_taken() -> None:
    check(signed("PUT", body=b"1", x_amz_meta_a="  two   spaces ", x_amz_meta_b="fr%C3%BCchte"))
    call = signed("PUT", body=b"1", x_amz_meta_c="ok")
    call.environ["HTTP_X_AMZ_META_C"] = "ük"
    assert refusal(call) == "SignatureDoesNotMatch"


def test_a_body_can_be_read_after_it_was_verified() -> None:
    call = signed("PUT", body=b"12345")
    check(call)
    assert call.environ["wsgi.input"].read() == b"12345"


@pytest.mark.parametrize(
    ("part", "value"),
    [
        ("REQUEST_METHOD", "DELETE"),
        ("REQUEST_URI", "/raw/b.jpg?versionId=1"),
        ("QUERY_STRING", "versionId=2"),
        ("QUERY_STRING", "versionId=1&response-content-type=text/html"),
        ("HTTP_HOST", "localhost:5600"),
        ("HTTP_X_AMZ_META_OWNER", "other"),
        ("HTTP_X_AMZ_DATE", "20261130T120001Z"),
    ],
)
def test_nothing_that_is_signed_can_be_changed(part: str, value: str) -> None:
    call = signed("PUT", "/raw/a.jpg?versionId=1", b"1", x_amz_meta_owner="me")
    check(call)
    call.environ["wsgi.input"].seek(0)
    call.environ[part] = value
    assert refusal(Call(call.environ)) == "SignatureDoesNotMatch"


def test_a_body_that_is_another_one_is_refused() -> None:
    call = signed("PUT", body=b"12345")
    call.environ["wsgi.input"] = io.BytesIO(b"54321")
    assert refusal(call) == "ContentMismatch"
    call = signed("POST", "/", b"Action=GetCallerIdentity", "sts")
    call.environ["wsgi.input"] = io.BytesIO(b"Action=DeleteUser&Id=123")
    assert refusal(call) == "SignatureDoesNotMatch"


def test_a_plus_in_a_query_is_the_space_that_the_service_reads() -> None:
    call = signed(target="/raw?prefix=a%2Bb")
    call.environ["QUERY_STRING"] = "prefix=a+b"
    assert refusal(call) == "SignatureDoesNotMatch"


def test_a_header_of_amazons_that_is_not_signed_is_refused() -> None:
    call = signed()
    call.environ["HTTP_X_AMZ_COPY_SOURCE"] = "/raw/secret.jpg"
    assert refusal(call) == "AccessDenied"


@pytest.mark.parametrize("target", [f"http://{HOST}/raw/a.jpg", "/raw/a.jpg?#?versionId=1", "/raw/a.jpg#"])
def test_a_whole_url_and_a_fragment_are_refused(target: str) -> None:
    call = signed()
    call.environ["REQUEST_URI"] = target
    assert refusal(call) == "SignatureDoesNotMatch"


@pytest.mark.parametrize(
    "authorization",
    [
        "",
        "AWS EXAMPLEKEY123456:c2lnbmF0dXJl",
        "AWS4-HMAC-SHA256 Credential=EXAMPLEKEY123456/20261130/eu-west-1/s3/aws4_request",
        "AWS4-HMAC-SHA256 Credential=EXAMPLEKEY123456/20261130/eu-west-1/s3/aws4_request, SignedHeaders=host, "
        "Signature=0",
        "AWS4-ECDSA-P256-SHA256 Credential=EXAMPLEKEY123456/20261130/s3/aws4_request, SignedHeaders=host, "
        f"Signature={'0' * 64}",
    ],
)
def test_what_is_not_signed_or_signed_otherwise_is_refused(authorization: str) -> None:
    call = signed()
    call.environ["HTTP_AUTHORIZATION"] = authorization
    assert refusal(call) in ("MissingAuthentication", "SignatureDoesNotMatch")


def test_a_request_that_is_signed_twice_is_refused() -> None:
    call = presigned()
    call.environ["HTTP_AUTHORIZATION"] = signed().header("Authorization")
    assert refusal(call) == "AccessDenied"


@pytest.mark.parametrize("seconds", [901, -901])
def test_a_request_more_than_15_minutes_off_is_refused(seconds: int) -> None:
    check(signed(), NOW + seconds - (1 if seconds > 0 else -1))
    assert refusal(signed(), NOW + seconds) == "RequestTimeTooSkewed"


def test_a_presigned_url_works_until_it_expires() -> None:
    check(presigned(expires=3600), NOW + 3600)
    assert refusal(presigned(expires=3600), NOW + 3601) == "AccessDenied"
    assert refusal(presigned(expires=3600), NOW - 901) == "AccessDenied"
    assert refusal(presigned(expires=604801)) == "AccessDenied"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("X-Amz-Expires=600", "X-Amz-Expires=6000"),
        ("X-Amz-Expires=600", "X-Amz-Expires=600&response-content-type=text%2Fhtml"),
        ("X-Amz-Expires=600", "X-Amz-Expires=600&X-Amz-Expires=6000"),
        ("X-Amz-Algorithm=AWS4-HMAC-SHA256", "X-Amz-Algorithm=none"),
        ("X-Amz-SignedHeaders=host", "X-Amz-SignedHeaders="),
    ],
)
def test_a_presigned_url_cannot_be_changed(before: str, after: str) -> None:
    call = presigned()
    assert before in call.query_string
    call.environ["QUERY_STRING"] = call.query_string.replace(before, after)
    assert refusal(call) in ("SignatureDoesNotMatch", "AccessDenied")


# ---- chunked uploads: AWS's own example, "Signature Calculations for the Authorization Header: Transferring Payload
# in Multiple Chunks"

EXAMPLE = Credentials("AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY")
EXAMPLE_TIME = datetime(2013, 5, 24, tzinfo=UTC).timestamp()
CHUNKS = (
    (65536, b"ad80c730a21e5b8d04586a2213dd63b9a0e99e0e2307b0ade35a65485a288648"),
    (1024, b"0055627c9e194cb4542bae2aa5492e3c1575bbb81b612b7d234b86a503ef5497"),
    (0, b"b6c6ea8a5354eaf15b3cb7646744f4275b71ea724fed81ceb9323e279d449df9"),
)


def example_upload(body: bytes | None = None) -> Call:
    if body is None:
        body = b"".join(b"%x;chunk-signature=%s\r\n%s\r\n" % (size, mark, b"a" * size) for size, mark in CHUNKS)
    names = (
        "content-encoding;content-length;host;x-amz-content-sha256;x-amz-date;x-amz-decoded-content-length;"
        "x-amz-storage-class"
    )
    return Call(
        {
            "REQUEST_METHOD": "PUT",
            "REQUEST_URI": "/examplebucket/chunkObject.txt",
            "HTTP_HOST": "s3.amazonaws.com",
            "HTTP_X_AMZ_DATE": "20130524T000000Z",
            "HTTP_X_AMZ_STORAGE_CLASS": "REDUCED_REDUNDANCY",
            "HTTP_X_AMZ_CONTENT_SHA256": "STREAMING-AWS4-HMAC-SHA256-PAYLOAD",
            "HTTP_CONTENT_ENCODING": "aws-chunked",
            "HTTP_X_AMZ_DECODED_CONTENT_LENGTH": "66560",
            "CONTENT_LENGTH": "66824",
            "HTTP_AUTHORIZATION": "AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request,"
            f"SignedHeaders={names},"
            "Signature=4f232c4386841ef735655705268965c44a0e4690baa4adea153f7db9fa80a0a9",
            "wsgi.input": io.BytesIO(body),
        }
    )


def test_the_chunked_upload_of_amazons_own_example_is_taken() -> None:
    verify(example_upload(), Keys(EXAMPLE), EXAMPLE_TIME)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"aaaa\r\n400;", b"aaab\r\n400;"),
        (b"\r\n0;chunk", b"\r\n1;chunk"),
        (CHUNKS[2][1] + b"\r\n\r\n", CHUNKS[2][1] + b"\r\nx-amz-tagging:a\r\n\r\n"),
        (CHUNKS[2][1] + b"\r\n\r\n", CHUNKS[2][1] + b"\r\n\r\nmore"),
        (b"0;chunk-signature=" + CHUNKS[2][1], b"0;chunk-signature=" + b"0" * 64),
        (b"400;chunk-signature=" + CHUNKS[1][1], b"400"),
    ],
)
def test_no_chunk_can_be_changed(old: bytes, new: bytes) -> None:
    body = example_upload().environ["wsgi.input"].read()
    assert body.count(old) == 1
    with pytest.raises(RequestRefused):
        verify(example_upload(body.replace(old, new)), Keys(EXAMPLE), EXAMPLE_TIME)


def test_no_chunk_can_be_left_out() -> None:
    body = example_upload().environ["wsgi.input"].read()
    start = body.index(b"400;")
    with pytest.raises(RequestRefused):
        verify(example_upload(body[:start] + body[start + 1024 + 88 :]), Keys(EXAMPLE), EXAMPLE_TIME)
    with pytest.raises(RequestRefused):
        verify(example_upload(body[:start]), Keys(EXAMPLE), EXAMPLE_TIME)


def with_trailer(checksum: bytes = b"", mark: bytes = b"") -> Call:
    """Return an upload of one chunk with a signed trailer; botocore has no such signer."""
    streaming = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER"
    request = AWSRequest("PUT", f"http://{HOST}/raw/a.jpg", {"x-amz-trailer": "x-amz-checksum-crc32"}, b"")
    request.context["payload_signing_enabled"] = True
    signer = auth.S3SigV4Auth(Signer(KEY.access_key_id, KEY.secret_access_key), "s3", REGION)
    signer.payload = lambda _request: streaming
    signer.add_auth(request)
    call = call_of(request)
    scope = f"20261130/{REGION}/s3/aws4_request"
    key = f"AWS4{KEY.secret_access_key}".encode()
    for part in scope.split("/"):
        key = hmac.digest(key, part.encode(), "sha256")
    previous = call.header("Authorization")[-64:]
    body = b""
    empty = hashlib.sha256().hexdigest()
    for data in (b"12345", b""):
        digest = hashlib.sha256(data).hexdigest()
        text = f"AWS4-HMAC-SHA256-PAYLOAD\n20261130T120000Z\n{scope}\n{previous}\n{empty}\n{digest}"
        previous = hmac.digest(key, text.encode(), "sha256").hex()
        body += b"%x;chunk-signature=%s\r\n" % (len(data), previous.encode()) + (data + b"\r\n" if data else b"")
    line = b"x-amz-checksum-crc32:y/U6HA==\n"
    text = f"AWS4-HMAC-SHA256-TRAILER\n20261130T120000Z\n{scope}\n{previous}\n{hashlib.sha256(line).hexdigest()}"
    mark = mark or hmac.digest(key, text.encode(), "sha256").hex().encode()
    body += (checksum or line.strip()) + b"\r\nx-amz-trailer-signature:" + mark + b"\r\n\r\n"
    call.environ["wsgi.input"] = io.BytesIO(body)
    return call


def test_a_signed_trailer_is_taken_and_no_other() -> None:
    check(with_trailer())
    assert refusal(with_trailer(checksum=b"x-amz-checksum-crc32:AAAAAA==")) == "SignatureDoesNotMatch"
    assert refusal(with_trailer(mark=b"0" * 64)) == "SignatureDoesNotMatch"


def test_keys_that_its_sts_has_issued_expire() -> None:
    import moto.sts.models as sts

    backend = sts.sts_backends["123456789012"]["aws"]
    role = backend.assume_role(REGION, "test", "arn:aws:iam::123456789012:role/x", "", 900, "")
    soon = datetime.now(UTC).timestamp()
    keys = Keys(KEY)
    assert keys.secret_of(role.access_key_id, role.session_token, soon) == role.secret_access_key
    with pytest.raises(RequestRefused, match="ExpiredToken"):
        keys.secret_of(role.access_key_id, role.session_token, soon + 901)
