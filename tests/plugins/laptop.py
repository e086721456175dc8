"""A local_aws of our own for the tests: started once, on a free port, with an account that EMR accepts."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config

from tests.aws_keys import FOR_SERVER, KEYS, signing

REPOSITORY = Path(__file__).resolve().parents[2]
REGION = "eu-west-1"
SERVICE_ROLE = "test-emr-service"
INSTANCE_PROFILE = "test-emr-node"
SECURITY_CONFIGURATION = "test-emr-security"
SECURITY = {
    "EncryptionConfiguration": {
        "EnableAtRestEncryption": True,
        "EnableInTransitEncryption": True,
        "AtRestEncryptionConfiguration": {"LocalDiskEncryptionConfiguration": {"EnableEbsEncryption": True}},
    },
    "InstanceMetadataServiceConfiguration": {"MinimumInstanceMetadataServiceVersion": 2},
}


@contextmanager
def local_aws(state_dir: Path) -> Iterator[str]:
    """Runs `python -m local_aws`; gives its URL, and ends it."""
    command = [sys.executable, "-m", "tests.emulator", "--port", "0", "--state-dir", str(state_dir)]
    command += ["--spark-python", sys.executable, "--start-seconds", "0.4", "--bootstrap-seconds", "0.1"]
    command += ["--terminate-seconds", "0.2", "--kill-seconds", "1"]
    with (state_dir / "local_aws.log").open("w") as log:
        process = subprocess.Popen(
            command, cwd=REPOSITORY, env={**os.environ, **FOR_SERVER}, stdout=subprocess.PIPE, stderr=log, text=True
        )
    try:
        assert process.stdout is not None
        for line in process.stdout:
            if "ready on" in line:
                break
        else:
            raise RuntimeError((state_dir / "local_aws.log").read_text())
        yield line.split()[-1]
    finally:
        process.terminate()
        process.wait(30)


def aws_environment(endpoint: str) -> dict[str, str]:
    """What points boto3 at the endpoint, and at nothing else."""
    return {
        "AWS_ENDPOINT_URL": endpoint,
        **KEYS.environment,
        "AWS_DEFAULT_REGION": REGION,
        "AWS_EC2_METADATA_DISABLED": "true",
    }


def client(service: str) -> Any:
    """A boto3 client at the endpoint of the environment."""
    return _client(service, os.environ["AWS_ENDPOINT_URL"])


@cache
def _client(service: str, endpoint: str) -> Any:
    config = Config(**signing(service))
    return boto3.client(service, region_name=REGION, endpoint_url=endpoint, config=config)


def kms_of(_region: str) -> Any:
    """The KMS client of every region."""
    return client("kms")


def make_roles() -> None:
    """The two roles and the security configuration that RunJobFlow asks for."""
    iam = client("iam")
    trust = json.dumps({"Version": "2012-10-17", "Statement": []})
    for role in (SERVICE_ROLE, INSTANCE_PROFILE):
        iam.create_role(RoleName=role, AssumeRolePolicyDocument=trust)
    iam.create_instance_profile(InstanceProfileName=INSTANCE_PROFILE)
    iam.add_role_to_instance_profile(InstanceProfileName=INSTANCE_PROFILE, RoleName=INSTANCE_PROFILE)
    client("emr").create_security_configuration(Name=SECURITY_CONFIGURATION, SecurityConfiguration=json.dumps(SECURITY))


def subnet_id() -> str:
    """A subnet of the account."""
    return str(client("ec2").describe_subnets()["Subnets"][0]["SubnetId"])


def make_bucket(name: str, region: str = REGION) -> None:
    """A bucket in `region`."""
    s3 = boto3.client("s3", region_name=region, endpoint_url=os.environ["AWS_ENDPOINT_URL"])
    s3.create_bucket(Bucket=name, CreateBucketConfiguration={"LocationConstraint": region})
    block = dict.fromkeys(("BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets"), True)
    s3.put_public_access_block(Bucket=name, PublicAccessBlockConfiguration=block)


def put_model(lake: str, model_id: str, **facts: Any) -> None:
    """A model's folder, without a model in it worth the name."""
    model = {"model_id": model_id, "engine": "litert", "file": "model.tflite", "weights": "path", **facts}
    s3 = client("s3")
    s3.put_object(Bucket=lake, Key=f"models/{model_id}/model.json", Body=json.dumps(model).encode())
    s3.put_object(Bucket=lake, Key=f"models/{model_id}/{model['file']}", Body=b"weights")


def put_photos(raw: str, keys: list[str]) -> None:
    """Objects that a listing shows."""
    s3 = client("s3")
    for key in keys:
        s3.put_object(Bucket=raw, Key=key, Body=key.encode())
