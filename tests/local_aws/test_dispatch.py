"""Throughput: what must not happen per request, and the figure itself."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.aws_keys import KEYS
from tests.local_aws.server import REPOSITORY, Server, environment_without

GETS = """
import asyncio, json, sys, time
import obstore
from obstore.store import S3Store

endpoint, key_id, secret = sys.argv[1:]
store = S3Store("speed", endpoint=endpoint, region="eu-west-1", access_key_id=key_id, secret_access_key=secret,
                client_options={"allow_http": True})

async def main(count):
    gate = asyncio.Semaphore(16)
    async def get(number):
        async with gate:
            return len(await (await obstore.get_async(store, f"k/{number % 100}")).bytes_async())
    started = time.perf_counter()
    sizes = await asyncio.gather(*[get(number) for number in range(count)])
    assert set(sizes) == {5000}
    return count / (time.perf_counter() - started)

asyncio.run(main(200))
print(json.dumps(max(asyncio.run(main(2000)) for _ in range(3))))
"""


def test_services_are_not_looked_up_again_for_each_request() -> None:
    code = """
import moto.backends, moto.moto_server.werkzeug_app
listings = []
real = moto.backends.list_of_moto_modules
moto.backends.list_of_moto_modules = lambda: listings.append(1) or real()
import local_aws.dispatch as dispatch
dispatch.list_of_moto_modules = moto.backends.list_of_moto_modules
dispatcher = dispatch.Dispatcher(lambda service: None)
for _ in range(3):
    environ = {"PATH_INFO": "/", "REQUEST_METHOD": "POST", "HTTP_AUTHORIZATION":
               "AWS4-HMAC-SHA256 Credential=a/20260101/eu-west-1/sts/aws4_request, SignedHeaders=host, Signature=0"}
    dispatcher.get_application(environ)
    print(len(listings))
"""
    ended = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    first, *later = ended.stdout.split()
    assert set(later) == {first}


@pytest.mark.slow
def test_500_gets_of_5_kb_per_second(aws: Server, spark_python: str) -> None:
    """Of an otherwise idle machine with two cores; the client takes its share of them."""
    aws.make_bucket("speed")
    for number in range(100):
        aws.client("s3").put_object(Bucket="speed", Key=f"k/{number}", Body=b"x" * 5000)
    ended = subprocess.run(
        [spark_python, "-c", GETS, aws.endpoint, KEYS.access_key_id, KEYS.secret_access_key],
        env=environment_without("PYTHONPATH"),
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert json.loads(ended.stdout) >= 500
