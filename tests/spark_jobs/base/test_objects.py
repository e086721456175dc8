from __future__ import annotations

import os
from pathlib import Path

import pytest
from fruits.base import objects
from fruits.base.errors import InputError, ObjectAccessError
from fruits.base.objects import ObjectPath

from tests.spark_jobs.scripted_s3 import scripted_s3


@pytest.fixture
def bucket(monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "local")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "local")
    monkeypatch.setenv("AWS_REGION", "eu-west-3")
    with scripted_s3() as served:
        monkeypatch.setenv("AWS_ENDPOINT_URL", served.location.endpoint)
        objects.find_s3.cache_clear()
        yield served
    objects.find_s3.cache_clear()


@pytest.mark.parametrize(
    ("uri", "path"),
    [
        ("s3://raw/a/b c.jpg", ObjectPath("raw", "a/b c.jpg")),
        ("s3://raw", ObjectPath("raw", "")),
        ("s3a://raw/a", ObjectPath("raw", "a")),
        ("s3://raw/a%2Fb?c#d", ObjectPath("raw", "a%2Fb?c#d")),
        ("file:///tmp/a%20b", ObjectPath(None, "/tmp/a b")),
        ("/tmp/a%20b", ObjectPath(None, "/tmp/a%20b")),
    ],
)
def test_a_uri_is_read_as_written(uri, path):
    assert objects.parse_uri(uri) == path


@pytest.mark.parametrize("uri", ["https://raw/a", "gs://raw/a", "s3:///a"])
def test_another_scheme_or_no_bucket_is_a_named_error(uri):
    with pytest.raises(InputError, match="cannot use"):
        objects.parse_uri(uri)


def test_the_endpoint_and_region_are_found_as_boto3_finds_them(bucket):
    assert objects.find_s3() == objects.S3Location(bucket.location.endpoint, "eu-west-3")


def test_no_region_is_a_named_error(monkeypatch):
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    objects.find_s3.cache_clear()
    with pytest.raises(InputError, match="AWS_REGION"):
        objects.find_s3()


@pytest.mark.parametrize("uri", ["s3://raw/deep/er/x", "{tmp}/deep/er/x"])
def test_what_is_written_is_read_back_and_replaced(bucket, tmp_path, uri):
    uri = uri.format(tmp=tmp_path)
    for data in (b"first", b"second"):
        objects.write_bytes(uri, data)
        assert objects.read_bytes(uri) == data


def test_nothing_appears_when_writing_fails(tmp_path):
    target = tmp_path / "x"

    def write_half():
        with objects.writer(str(target), None) as out:
            out.write(b"half")
            raise OSError

    with pytest.raises(OSError):  # noqa: PT011 - the one raised above
        write_half()
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_leaves_no_half_file(tmp_path, monkeypatch):
    def no_space(self, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", no_space)
    with pytest.raises(OSError, match="No space"):
        objects.write_bytes(str(tmp_path / "x"), b"data")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("uri", ["s3://raw/none", "{tmp}/none"])
def test_a_missing_object_is_file_not_found(bucket, tmp_path, uri):
    with pytest.raises(FileNotFoundError):
        objects.read_bytes(uri.format(tmp=tmp_path))


def test_denied_access_is_a_named_error(bucket):
    bucket.failures["x"] = 403
    with pytest.raises(ObjectAccessError, match="could not read s3://raw/x"):
        objects.read_bytes("s3://raw/x")
