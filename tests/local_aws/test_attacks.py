"""Attacks on the server from this machine: by another user, by a web page, by an object that a browser shows."""

from __future__ import annotations

import http.client
import socket
from typing import Any
from urllib.parse import parse_qs

import boto3
import pytest
from botocore.auth import S3SigV4Auth, SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials as Signer
from botocore.exceptions import ClientError

from tests.aws_keys import FOR_CLIENT, KEYS
from tests.local_aws.server import REGION, Server


def code_of(call: Any, **arguments: Any) -> str:
    with pytest.raises(ClientError) as caught:
        call(**arguments)
    return str(caught.value.response["Error"]["Code"])


def client(aws: Server, service: str, **changes: str) -> Any:
    keys = FOR_CLIENT | changes
    return boto3.client(service, endpoint_url=aws.endpoint, region_name=REGION, **keys)  # type: ignore[call-overload]


def ask(aws: Server, target: str, method: str = "GET", body: bytes = b"", **headers: str) -> Any:
    connection = http.client.HTTPConnection("127.0.0.1", aws.port, timeout=10)
    connection.request(method, target, body, {name.replace("_", "-"): value for name, value in headers.items()})
    reply = connection.getresponse()
    reply.content = reply.read()  # type: ignore[attr-defined]
    return reply


def test_another_user_of_this_machine_who_has_no_key_gets_nothing(aws: Server) -> None:
    wrong = {"aws_secret_access_key": "guessed" * 8}
    assert code_of(client(aws, "s3", **wrong).list_buckets) == "SignatureDoesNotMatch"
    assert code_of(client(aws, "emr", **wrong).list_clusters) == "InvalidSignatureException"
    assert code_of(client(aws, "iam", **wrong).list_roles) == "SignatureDoesNotMatch"
    other = {"aws_access_key_id": "local", "aws_secret_access_key": "local"}
    assert code_of(client(aws, "s3", **other).list_buckets) == "InvalidAccessKeyId"
    assert code_of(client(aws, "emr", **other).list_clusters) == "UnrecognizedClientException"
    assert code_of(client(aws, "iam", **other).list_roles) == "InvalidClientTokenId"
    assert ask(aws, "/").status == 403
    assert ask(aws, "/_local_aws/faults").status == 403
    unsigned = b"Action=AssumeRoleWithWebIdentity&RoleArn=x&RoleSessionName=y&WebIdentityToken=z"
    assert ask(aws, "/", "POST", unsigned, Content_Type="application/x-www-form-urlencoded").status == 403
    assert aws.state_dir.stat().st_mode & 0o077 == 0


def test_keys_that_its_sts_has_issued_are_taken_with_their_token_only(aws: Server) -> None:
    role = "arn:aws:iam::123456789012:role/emr-node"
    issued = aws.client("sts").assume_role(RoleArn=role, RoleSessionName="test")["Credentials"]
    keys = {"aws_access_key_id": issued["AccessKeyId"], "aws_secret_access_key": issued["SecretAccessKey"]}
    token = issued["SessionToken"]
    arn = client(aws, "sts", **keys, aws_session_token=token).get_caller_identity()["Arn"]
    assert "emr-node/test" in arn
    assert code_of(client(aws, "s3", **keys).list_buckets) == "InvalidToken"
    assert code_of(client(aws, "s3", **keys, aws_session_token=token[:-1]).list_buckets) == "InvalidToken"
    assert code_of(client(aws, "s3", aws_session_token=token).list_buckets) == "InvalidToken"


def test_a_poisoned_photo_is_no_page(aws: Server, bucket: str) -> None:
    """The attack: an object that holds HTML, fetched as text/html, whose script starts a cluster."""
    aws.client("s3").put_object(Bucket=bucket, Key="photo.jpg", Body=b"<script>fetch('/', {method: 'POST'})</script>")
    forged = ask(aws, f"/{bucket}/photo.jpg?response-content-type=text/html&Signature=x&X-Amz-Signature=x")
    assert forged.status == 403
    request = {"Bucket": bucket, "Key": "photo.jpg", "ResponseContentType": "text/html"}
    link = aws.client("s3").generate_presigned_url("get_object", request, ExpiresIn=60)
    target = link.removeprefix(aws.endpoint)
    page = ask(aws, target)
    assert page.status == 200
    assert (page.headers["Content-Security-Policy"], page.headers["X-Content-Type-Options"]) == ("sandbox", "nosniff")
    # a browser says so of what a page asks for, its own origin included
    assert ask(aws, target, Sec_Fetch_Site="same-origin").status == 403
    assert ask(aws, target, Origin=aws.endpoint).status == 403
    assert ask(aws, target, Sec_Fetch_Site="none").status == 200
    run = {"Origin": aws.endpoint, "X-Amz-Target": "ElasticMapReduce.RunJobFlow"}
    assert ask(aws, "/", "POST", b"{}", **run).status == 403
    run = {"Sec-Fetch-Site": "same-origin", "X-Amz-Target": "ElasticMapReduce.RunJobFlow"}
    assert ask(aws, "/", "POST", b"{}", **run).status == 403
    last = aws.access_log()[-1]
    assert (last["status"], last["operation"]) == (403, "")


SCOPE = "20261201/eu-west-1/s3/aws4_request"
FORGED = f"Authorization: AWS4-HMAC-SHA256 Credential=AKIA0123456789ABCDEF/{SCOPE}, SignedHeaders=host, Signature=0"


@pytest.mark.parametrize(
    ("query", "line"),
    [
        ("", "Origin: https://attacker.example"),
        ("", "Accept: */*"),
        ("", "Authorization: Basic Og=="),
        ("", FORGED),
        (f"?X-Amz-Credential=AKIA0123456789ABCDEF/{SCOPE}&X-Amz-Signature=0", "Accept: */*"),
    ],
    ids=["page", "unsigned", "other scheme", "forged", "forged link"],
)
@pytest.mark.parametrize("body", ["Content-Length: 5000000000", "Transfer-Encoding: chunked"])
def test_the_body_of_a_page_or_without_a_key_is_refused_before_it_is_sent(
    aws: Server, body: str, query: str, line: str
) -> None:
    head = f"PUT /b/k{query} HTTP/1.1\r\nHost: 127.0.0.1:{aws.port}\r\n{line}\r\n{body}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", aws.port), timeout=30) as page:
        page.sendall(head.encode())
        assert page.recv(65_536).startswith(b"HTTP/1.1 403 Forbidden")


def test_a_presigned_url_in_the_access_log_opens_nothing(aws: Server, bucket: str) -> None:
    aws.client("s3").put_object(Bucket=bucket, Key="a", Body=b"1")
    link = aws.client("s3").generate_presigned_url("get_object", {"Bucket": bucket, "Key": "a"}, ExpiresIn=60)
    assert ask(aws, link.removeprefix(aws.endpoint)).status == 200
    logged = aws.access_log()[-1]["query"]
    assert parse_qs(logged)["X-Amz-Signature"] == ["…"]
    assert ask(aws, f"/{bucket}/a?{logged}".encode().decode("latin-1").replace("â\x80¦", "%E2%80%A6")).status == 403


@pytest.mark.parametrize("service", ["sts", "iam", "elasticmapreduce"])
def test_a_url_that_is_presigned_for_another_service_reads_nothing_of_s3(aws: Server, service: str) -> None:
    """A presigned GetCallerIdentity is handed to others as a proof of identity."""
    request = AWSRequest("GET", f"{aws.endpoint}/")
    SigV4QueryAuth(Signer(KEYS.access_key_id, KEYS.secret_access_key), service, REGION).add_auth(request)
    reply = ask(aws, str(request.prepare().url).removeprefix(aws.endpoint))
    assert reply.status == 403
    assert b"<Bucket>" not in reply.content


@pytest.mark.parametrize("target", ["/", "/_local_aws/health", "/raw/a.jpg", "/moto-api/"])
def test_every_reply_forbids_a_browser_to_run_it(aws: Server, target: str) -> None:
    reply = ask(aws, target)
    assert (reply.headers["Content-Security-Policy"], reply.headers["X-Content-Type-Options"]) == ("sandbox", "nosniff")


def test_an_answer_to_what_is_no_request_forbids_it_too(aws: Server) -> None:
    reply = ask(aws, "/", Content_Length="none of a number")
    assert reply.status == 400
    assert (reply.headers["Content-Security-Policy"], reply.headers["X-Content-Type-Options"]) == ("sandbox", "nosniff")


def test_motos_own_pages_are_gone(aws: Server) -> None:
    assert ask(aws, "/moto-api/").status == 403
    before = aws.client("s3").list_buckets()["Buckets"]
    for method, path in (("POST", "/moto-api/reset"), ("GET", "/moto-api/data.json"), ("GET", "/moto-api/")):
        request = AWSRequest(method, f"{aws.endpoint}{path}")
        key = Signer(KEYS.access_key_id, KEYS.secret_access_key)
        S3SigV4Auth(key, "s3", REGION).add_auth(request)
        reply = ask(aws, path, method, **dict(request.headers))
        assert reply.status >= 400, "there is no bucket of that name"
    assert aws.client("s3").list_buckets()["Buckets"] == before != []
