"""The key pair that tests start `local_aws` with and sign with; random in each process of tests."""

from __future__ import annotations

import json
import urllib.request
from typing import Any

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.configloader import raw_config_parse
from botocore.credentials import Credentials as Signer

from local_aws.credentials import ACCESS_KEY_ID, SECRET_ACCESS_KEY, Credentials

KEYS = Credentials.random()
FOR_SERVER = {ACCESS_KEY_ID: KEYS.access_key_id, SECRET_ACCESS_KEY: KEYS.secret_access_key}
"""Environment of a server that shall take the key pair."""
FOR_CLIENT = {"aws_access_key_id": KEYS.access_key_id, "aws_secret_access_key": KEYS.secret_access_key}
"""Arguments of a boto3 client."""
FOR_TABLES = {"region": "eu-west-1", "access-key-id": KEYS.access_key_id, "secret-access-key": KEYS.secret_access_key}
"""Properties of pyiceberg, each to be prefixed with `s3.` or `glue.`."""


def signing(service: str) -> dict[str, str]:
    """Options of a botocore Config: for S3 it presigns with version 2 by default, which new buckets of AWS refuse."""
    return {"signature_version": "s3v4"} if service == "s3" else {}


def read_keys(path: Any) -> dict[str, str]:
    """Arguments of a boto3 client, from the credentials file of a server that made its own."""
    parsed: dict[str, str] = raw_config_parse(str(path))["default"]
    return parsed


def control_faults(endpoint: str, method: str, path: str = "", body: object = None) -> Any:
    """A signed request of the private path over which faults are armed; gives the answer."""
    data = b"" if body is None else json.dumps(body).encode()
    request = AWSRequest(method, f"{endpoint}/_local_aws/faults{path}", data=data)
    SigV4Auth(Signer(KEYS.access_key_id, KEYS.secret_access_key), "local-aws", "eu-west-1").add_auth(request)
    signed = urllib.request.Request(request.url, data or None, dict(request.headers), method=method)
    with urllib.request.urlopen(signed, timeout=30) as reply:
        return json.load(reply)
