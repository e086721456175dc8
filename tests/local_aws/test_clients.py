"""The S3 clients that the product and its users have: each signs in its own way, and each is understood.

boto3, aiobotocore (tests/plugins/operators/test_sensors.py), Iceberg's Java SDK (test_emr_spark.py) and Spark's S3A
(tests/e2e/test_yarn.py) are used too.
"""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.aws_keys import KEYS
from tests.local_aws.server import Server, environment_without

FROM_PYTHON = """
import json, os
import obstore
import pyarrow.fs
from obstore.store import S3Store

endpoint, body = os.environ["AWS_ENDPOINT_URL"], os.urandom(12_000_000)
arrow = pyarrow.fs.S3FileSystem(endpoint_override=endpoint, region="eu-west-1")
with arrow.open_output_stream("clients/arrow/a b+ü=1.bin") as sink:
    sink.write(body)
with arrow.open_input_file("clients/arrow/a b+ü=1.bin") as source:
    assert source.read() == body
place, http = {"aws_endpoint": endpoint, "aws_region": "eu-west-1"}, {"allow_http": True}
store = S3Store("clients", config=place, client_options=http)
store.put("rust/a b+ü=1.bin", body, use_multipart=True, chunk_size=5 * 1024 * 1024)
assert bytes(store.get("rust/a b+ü=1.bin").bytes()) == body
unsigned = S3Store("clients", config={**place, "aws_unsigned_payload": "true"}, client_options=http)
unsigned.put("rust/unsigned", b"1", use_multipart=False)
assert bytes(unsigned.get("rust/unsigned").bytes()) == b"1"
print(json.dumps(sorted(item["path"] for page in store.list() for item in page)))
"""

FROM_SQL = """
import os
import duckdb
from duckdb_extensions import import_extension

import_extension("httpfs")  # from its wheel, into the home folder: tests fetch nothing
sql = duckdb.connect()
sql.execute("LOAD httpfs")
sql.execute(f"CREATE SECRET (TYPE s3, KEY_ID '{os.environ['AWS_ACCESS_KEY_ID']}', REGION 'eu-west-1', USE_SSL false, "
            f"SECRET '{os.environ['AWS_SECRET_ACCESS_KEY']}', URL_STYLE 'path', "
            f"ENDPOINT '{os.environ['AWS_ENDPOINT_URL'].removeprefix('http://')}')")
sql.execute("COPY (SELECT range AS n FROM range(1000)) TO 's3://clients/sql/a b+ü.parquet'")
assert sql.execute("SELECT sum(n) FROM 's3://clients/sql/*.parquet'").fetchone() == (499500,)
"""


@pytest.fixture(scope="module", autouse=True)
def bucket_of_clients(aws: Server) -> None:
    aws.make_bucket("clients")


def run(python: str, code: str, aws: Server, **environment: str) -> subprocess.CompletedProcess[str]:
    keys = {"AWS_ENDPOINT_URL": aws.endpoint, "AWS_EC2_METADATA_DISABLED": "true", **KEYS.environment}
    env = environment_without("PYTHONPATH", "AWS_PROFILE", "AWS_SESSION_TOKEN") | keys | environment
    return subprocess.run([python, "-c", code], env=env, capture_output=True, text=True, timeout=120, check=False)


def test_arrow_and_rust_are_understood(aws: Server, spark_python: str) -> None:
    done = run(spark_python, FROM_PYTHON, aws)
    assert done.returncode == 0, done.stderr[-3000:]
    assert json.loads(done.stdout) == ["arrow/a b+ü=1.bin", "rust/a b+ü=1.bin", "rust/unsigned"]


def test_duckdb_is_understood(aws: Server, tmp_path: Path) -> None:
    done = run(sys.executable, FROM_SQL, aws, HOME=str(tmp_path))
    assert done.returncode == 0, done.stderr[-3000:]


def test_boto3_uploads_in_parts_with_every_checksum(aws: Server) -> None:
    s3, body = aws.client("s3"), bytes(range(256)) * 40_000
    for algorithm in ("CRC32", "SHA256"):
        s3.upload_fileobj(
            io.BytesIO(body), "clients", f"python/{algorithm}", ExtraArgs={"ChecksumAlgorithm": algorithm}
        )
        assert s3.get_object(Bucket="clients", Key=f"python/{algorithm}")["Body"].read() == body
    copied = {"Bucket": "clients", "Key": "python/ü &=+.bin"}
    s3.copy_object(CopySource={"Bucket": "clients", "Key": "python/CRC32"}, **copied)
    assert s3.head_object(**copied)["ContentLength"] == len(body)
