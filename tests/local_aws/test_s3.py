"""S3: keys, conditions, ranges, and many clients at once."""

from __future__ import annotations

import hashlib
import os
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from botocore.exceptions import ClientError

from tests.local_aws.server import Server

KEYS = [
    "plain.jpg",
    "with space.jpg",
    "a+b.jpg",
    "100%.jpg",
    "%2Fencoded%20.jpg",
    "Pommes/Äpfel é 苹果 🍎.jpg",
    "scheduled__2026-01-01T00:00:00+00:00/run.json",
    "line\nbreak.jpg",
    "a//b.jpg",
    "/leading.jpg",
    "trailing/",
    "?query=no&x#fragment",
    "~tilde'quote\"*()!;,",
]


@pytest.mark.parametrize("key", KEYS)
def test_a_key_is_kept_as_it_is(aws: Server, bucket: str, key: str) -> None:
    s3, body = aws.client("s3"), key.encode()
    s3.put_object(Bucket=bucket, Key=key, Body=body)
    assert s3.get_object(Bucket=bucket, Key=key)["Body"].read() == body
    assert s3.head_object(Bucket=bucket, Key=key)["ContentLength"] == len(body)
    listed = (
        s3.list_objects_v2(Bucket=bucket, EncodingType="url") if "\n" not in key else s3.list_objects_v2(Bucket=bucket)
    )
    assert listed["KeyCount"] == 1
    s3.delete_object(Bucket=bucket, Key=key)
    assert s3.list_objects_v2(Bucket=bucket)["KeyCount"] == 0


@pytest.mark.parametrize("key", [key for key in KEYS if "\n" not in key])
def test_a_listing_gives_the_key_back(aws: Server, bucket: str, key: str) -> None:
    aws.client("s3").put_object(Bucket=bucket, Key=key, Body=b"x")
    assert [item["Key"] for item in aws.client("s3").list_objects_v2(Bucket=bucket)["Contents"]] == [key]


def test_an_empty_object_can_be_put(aws: Server, bucket: str) -> None:
    aws.client("s3").put_object(Bucket=bucket, Key="empty", Body=b"")
    assert aws.client("s3").get_object(Bucket=bucket, Key="empty")["Body"].read() == b""


def test_a_large_object_comes_back_whole(aws: Server, bucket: str) -> None:
    s3, body = aws.client("s3"), os.urandom(20_000_000)
    s3.put_object(Bucket=bucket, Key="large", Body=body)
    got = s3.get_object(Bucket=bucket, Key="large")["Body"].read()
    assert hashlib.sha256(got).digest() == hashlib.sha256(body).digest()


def test_an_upload_in_parts_comes_back_whole(aws: Server, bucket: str) -> None:
    s3 = aws.client("s3")
    upload = s3.create_multipart_upload(Bucket=bucket, Key="parts")["UploadId"]
    bodies = [os.urandom(5 * 1024 * 1024), b"end"]
    parts = []
    for number, body in enumerate(bodies, start=1):
        part = s3.upload_part(Bucket=bucket, Key="parts", UploadId=upload, PartNumber=number, Body=body)
        parts.append({"PartNumber": number, "ETag": part["ETag"]})
    s3.complete_multipart_upload(Bucket=bucket, Key="parts", UploadId=upload, MultipartUpload={"Parts": parts})
    assert s3.get_object(Bucket=bucket, Key="parts")["Body"].read() == b"".join(bodies)


def test_a_range_is_a_part(aws: Server, bucket: str) -> None:
    s3 = aws.client("s3")
    s3.put_object(Bucket=bucket, Key="k", Body=b"0123456789")
    got = s3.get_object(Bucket=bucket, Key="k", Range="bytes=2-4")
    assert got["Body"].read() == b"234"
    assert got["ContentRange"] == "bytes 2-4/10"
    assert got["ResponseMetadata"]["HTTPStatusCode"] == 206
    assert s3.get_object(Bucket=bucket, Key="k", Range="bytes=-3")["Body"].read() == b"789"


def test_a_get_of_another_version_than_asked_for_is_refused(aws: Server, bucket: str) -> None:
    s3 = aws.client("s3")
    etag = s3.put_object(Bucket=bucket, Key="k", Body=b"1")["ETag"]
    assert s3.get_object(Bucket=bucket, Key="k", IfMatch=etag)["Body"].read() == b"1"
    s3.put_object(Bucket=bucket, Key="k", Body=b"2")
    with pytest.raises(ClientError) as caught:
        s3.get_object(Bucket=bucket, Key="k", IfMatch=etag)
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 412


def test_put_if_none_match_refuses_what_is_there(aws: Server, bucket: str) -> None:
    s3 = aws.client("s3")
    s3.put_object(Bucket=bucket, Key="lock", Body=b"mine", IfNoneMatch="*")
    with pytest.raises(ClientError) as caught:
        s3.put_object(Bucket=bucket, Key="lock", Body=b"yours", IfNoneMatch="*")
    assert caught.value.response["Error"]["Code"] == "PreconditionFailed"
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 412
    assert s3.get_object(Bucket=bucket, Key="lock")["Body"].read() == b"mine"


@pytest.mark.parametrize("change", ["put_object", "delete_object"])
def test_a_change_of_another_version_than_was_read_is_refused(aws: Server, bucket: str, change: str) -> None:
    s3 = aws.client("s3")
    read = s3.put_object(Bucket=bucket, Key="lock", Body=b"mine")["ETag"]
    s3.put_object(Bucket=bucket, Key="lock", Body=b"yours", IfMatch=read)
    with pytest.raises(ClientError) as caught:
        getattr(s3, change)(Bucket=bucket, Key="lock", IfMatch=read)
    assert caught.value.response["Error"]["Code"] == "PreconditionFailed"
    assert s3.get_object(Bucket=bucket, Key="lock")["Body"].read() == b"yours"
    s3.delete_object(Bucket=bucket, Key="lock")
    with pytest.raises(ClientError) as caught:
        getattr(s3, change)(Bucket=bucket, Key="lock", IfMatch=read)
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 404


def test_of_many_conditional_puts_at_once_one_wins(aws: Server, bucket: str) -> None:
    s3 = aws.client("s3")

    def take(owner: int) -> bool:
        try:
            s3.put_object(Bucket=bucket, Key=f"lock-{owner // 8}", Body=str(owner).encode(), IfNoneMatch="*")
        except ClientError:
            return False
        return True

    with ThreadPoolExecutor(16) as pool:
        won = list(pool.map(take, range(160)))
    assert [sum(won[at : at + 8]) for at in range(0, 160, 8)] == [1] * 20


def test_a_versioned_bucket_keeps_what_was_replaced(aws: Server, bucket: str) -> None:
    s3 = aws.client("s3")
    s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    first = s3.put_object(Bucket=bucket, Key="k", Body=b"1")["VersionId"]
    s3.put_object(Bucket=bucket, Key="k", Body=b"2")
    assert s3.get_object(Bucket=bucket, Key="k", VersionId=first)["Body"].read() == b"1"
    assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == b"2"


def test_metadata_names_keep_their_underscores(aws: Server, bucket: str) -> None:
    s3 = aws.client("s3")
    s3.put_object(Bucket=bucket, Key="k", Body=b"", Metadata={"run_id": "a", "plain": "c"})
    assert s3.head_object(Bucket=bucket, Key="k")["Metadata"] == {"run_id": "a", "plain": "c"}
    s3.put_object(Bucket=bucket, Key="k", Body=b"", Metadata={"run-id": "b"})
    assert s3.head_object(Bucket=bucket, Key="k")["Metadata"] == {"run-id": "b"}


def test_reading_listing_replacing_and_deleting_at_once_is_no_error(aws: Server, bucket: str) -> None:
    s3 = aws.client("s3")
    for number in range(50):
        s3.put_object(Bucket=bucket, Key=f"still/{number}", Body=b"x")
    s3.put_object(Bucket=bucket, Key="hot", Body=b"a" * 5000)
    stop = threading.Event()

    def change(worker: int) -> None:
        while not stop.is_set():
            s3.put_object(Bucket=bucket, Key="hot", Body=bytes([97 + worker]) * 5000)
            s3.put_object(Bucket=bucket, Key=f"gone/{worker}", Body=b"x")
            s3.delete_object(Bucket=bucket, Key=f"gone/{worker}")

    def read(_worker: int) -> int:
        for _ in range(15):
            body = s3.get_object(Bucket=bucket, Key="hot")["Body"].read()
            assert body == body[:1] * 5000
            assert s3.list_objects_v2(Bucket=bucket, Prefix="still/")["KeyCount"] == 50
            s3.list_objects_v2(Bucket=bucket)
        return 0

    with ThreadPoolExecutor(6) as pool:
        changing = [pool.submit(change, worker) for worker in range(3)]
        try:
            assert list(pool.map(read, range(3))) == [0, 0, 0]
        finally:
            stop.set()
        for change in changing:
            change.result()


@pytest.mark.parametrize("name", ["get_object", "head_object"])
def test_a_key_that_is_not_there_is_404(aws: Server, bucket: str, name: str) -> None:
    with pytest.raises(ClientError) as caught:
        getattr(aws.client("s3"), name)(Bucket=bucket, Key="none")
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 404


def test_a_policy_that_asks_for_tls_lets_the_loopback_pass(aws: Server, bucket: str) -> None:
    policy = """{"Version": "2012-10-17", "Statement": [{"Effect": "Deny", "Principal": "*", "Action": "s3:*",
      "Resource": "arn:aws:s3:::%s/*", "Condition": {"Bool": {"aws:SecureTransport": "false"}}}]}"""
    s3 = aws.client("s3")
    s3.put_bucket_policy(Bucket=bucket, Policy=policy % bucket)
    s3.put_object(Bucket=bucket, Key="k", Body=b"1")
    assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == b"1"


def test_a_policy_that_denies_outright_denies(aws: Server, bucket: str) -> None:
    policy = """{"Version": "2012-10-17", "Statement": [{"Effect": "Deny", "Principal": "*", "Action": "s3:PutObject",
      "Resource": "arn:aws:s3:::%s/*"}]}"""
    aws.client("s3").put_bucket_policy(Bucket=bucket, Policy=policy % bucket)
    with pytest.raises(ClientError) as caught:
        aws.client("s3").put_object(Bucket=bucket, Key="k", Body=b"1")
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 403
