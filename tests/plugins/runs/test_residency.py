"""residency.json: what it holds, and what is refused because it is elsewhere or unknown."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from botocore.exceptions import ClientError
from fruits_airflow.aws.endpoints import CALLED, LOCAL
from fruits_airflow.config.errors import ConfigError, ResidencyError
from fruits_airflow.config.settings import Settings
from fruits_airflow.emr.clusters import Cluster, describe_cluster
from fruits_airflow.runs.residency import BLOCKS, EVIDENCE, complete, survey
from fruits_airflow.runs.run_context import RunContext
from fruits_airflow.storage.lake import Lake, run_key

from tests.plugins import laptop
from tests.plugins.doubles import Double

KEY = "arn:aws:kms:eu-west-1:123456789012:key/1"


def look(settings: Settings, client: Any = None, kms_of: Any = laptop.kms_of) -> dict[str, Any]:
    return survey(settings, settings.region, client or laptop.client("s3"), kms_of)


def saying(code: str) -> Callable[..., Any]:
    """Return a call that AWS answers with an error."""

    def refused(*_: Any, **__: Any) -> Any:
        raise ClientError({"Error": {"Code": code, "Message": "no"}}, "Call")

    return refused


def encrypt(bucket: str, key: str) -> None:
    rule = {"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "aws:kms", "KMSMasterKeyID": key}}
    laptop.client("s3").put_bucket_encryption(Bucket=bucket, ServerSideEncryptionConfiguration={"Rules": [rule]})


def test_buckets_keys_catalog_logs_and_model_are_placed(account: Settings) -> None:
    encrypt(account.lake_bucket, KEY)
    evidence = look(account)
    lake, raw = evidence["buckets"]["lake_bucket"], evidence["buckets"]["raw_bucket"]
    assert (lake["region"], lake["encryption"]["key"], lake["encryption"]["region"]) == ("eu-west-1", KEY, "eu-west-1")
    assert raw["encryption"] == {"algorithm": "AES256", "key": "AWS's own", "region": "eu-west-1"}
    places = ("cluster_region", "catalog", "model", "logs")
    assert {json.dumps(evidence[place]).count("eu-west-1") for place in places} == {1}


def test_the_policy_in_force_is_named_by_its_digest(account: Settings) -> None:
    assert look(account)["buckets"]["lake_bucket"]["policy_sha256"] is None
    digests = []
    for effect in ("Deny", "Deny", "Allow"):
        statement = {"Effect": effect, "Principal": "*", "Action": "s3:*", "Resource": "*"}
        policy = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
        laptop.client("s3").put_bucket_policy(Bucket=account.lake_bucket, Policy=policy)
        digests.append(look(account)["buckets"]["lake_bucket"]["policy_sha256"])
    assert len(digests[0]) == 64
    assert digests[0] == digests[1] != digests[2]


def test_a_policy_that_may_not_be_read_refuses_and_names_its_bucket(account: Settings) -> None:
    denied = Double(laptop.client("s3"), get_bucket_policy=saying("AccessDenied"))
    with pytest.raises(ConfigError, match=f"raw_bucket: the policy of '{account.raw_bucket}' cannot be read"):
        look(account, denied)


def test_a_local_endpoint_is_told_as_what_it_is(account: Settings) -> None:
    assert look(account)["endpoint"] == {"service": "s3", "region": LOCAL}


@pytest.mark.parametrize("setting", ["raw_bucket", "lake_bucket"])
def test_a_key_outside_the_union_is_refused(account: Settings, setting: str) -> None:
    encrypt(getattr(account, setting), KEY.replace("eu-west-1", "us-east-1"))
    with pytest.raises(ResidencyError, match=rf"{setting}: the key 'arn:aws:kms:us-east-1"):
        look(account)


def test_a_key_that_is_no_arn_is_looked_up(account: Settings) -> None:
    kms = laptop.client("kms")
    key_id = kms.create_key()["KeyMetadata"]["KeyId"]
    encrypt(account.lake_bucket, key_id)
    evidence = look(account)
    assert evidence["buckets"]["lake_bucket"]["encryption"]["key"].endswith(key_id)


def test_a_key_that_nobody_can_place_is_refused(account: Settings) -> None:
    encrypt(account.lake_bucket, "11111111-2222-3333-4444-555555555555")
    with pytest.raises(ResidencyError, match="where the key"):
        look(account)


@pytest.mark.parametrize("way", BLOCKS)
def test_a_bucket_that_may_become_public_is_refused(account: Settings, way: str) -> None:
    block = {name: name != way for name in BLOCKS}
    laptop.client("s3").put_public_access_block(Bucket=account.raw_bucket, PublicAccessBlockConfiguration=block)
    with pytest.raises(ConfigError, match=rf"raw_bucket: '{account.raw_bucket}' may become public \({way} off\)"):
        look(account)


def test_a_bucket_without_any_block_is_refused(account: Settings) -> None:
    laptop.client("s3").delete_public_access_block(Bucket=account.lake_bucket)
    with pytest.raises(ConfigError, match="lake_bucket.*may become public"):
        look(account)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ("get_public_access_block", "whether 'raw-.*' is public cannot be read"),
        ("get_bucket_encryption", "the encryption of 'raw-.*' cannot be read"),
        ("get_bucket_location", "cannot read 'raw-"),
    ],
)
def test_what_may_not_be_read_is_unknown_and_refused(account: Settings, call: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        look(account, Double(laptop.client("s3"), **{call: saying("AccessDenied")}))


@pytest.mark.parametrize("code", ["SlowDown", "ExpiredToken", "InternalError", "ServiceUnavailable"])
@pytest.mark.parametrize("call", ["get_public_access_block", "get_bucket_encryption", "get_bucket_location"])
def test_what_s3_does_not_tell_now_is_for_another_attempt(account: Settings, call: str, code: str) -> None:
    with pytest.raises(ClientError, match=code):
        look(account, Double(laptop.client("s3"), **{call: saying(code)}))


def test_a_key_that_kms_does_not_place_now_is_for_another_attempt(account: Settings) -> None:
    encrypt(account.lake_bucket, "11111111-2222-3333-4444-555555555555")
    with pytest.raises(ClientError, match="ThrottlingException"):
        look(account, kms_of=lambda _: Double(laptop.client("kms"), describe_key=saying("ThrottlingException")))


def test_a_cluster_outside_the_union_is_refused(account: Settings) -> None:
    with pytest.raises(ResidencyError, match="us-west-2"):
        survey(account, "us-west-2", laptop.client("s3"), laptop.kms_of)


def test_after_the_run_its_cluster_and_the_endpoints_it_called_are_in(make_run: Callable[..., RunContext]) -> None:
    CALLED.seen.clear()  # of the tests before, in the same process
    run = make_run("manual__of_this_test")  # a process notes what it calls once for each run
    run_id = run.identity.run_id
    run.lake.write_json(run_key(run_id, EVIDENCE), look(run.settings))
    CALLED.keep(run.lake, run_key(run_id))
    cluster = run.find_or_create()
    complete(run.lake, run_id, [cluster])
    evidence = run.lake.read_json(run_key(run_id, EVIDENCE)) or {}
    assert evidence["clusters"][cluster.job_flow_id]["region"] == "eu-west-1"
    assert f"//{run.settings.lake_bucket}/logs/" in evidence["clusters"][cluster.job_flow_id]["log_uri"]
    assert {(endpoint["service"], endpoint["region"]) for endpoint in evidence["endpoints"]} == {
        ("emr", LOCAL),
        ("s3", LOCAL),
    }


@pytest.mark.parametrize(("arn", "message"), [("arn:aws:x:us-east-1:1:c/j", "us-east-1"), ("", "unknown")])
def test_a_cluster_that_was_elsewhere_turns_the_run_red_with_the_evidence_written(
    account: Settings, arn: str, message: str
) -> None:
    lake = Lake(laptop.client("s3"), account.lake_bucket)
    lake.write_json(run_key("r1", EVIDENCE), look(account))
    described: dict[str, Any] = {"ClusterArn": arn}
    cluster = Cluster("j-1", "n", "TERMINATED", describe_cluster.__doc__, {}, "s3://x/", "", described)  # type: ignore[arg-type]
    with pytest.raises(ResidencyError, match=message):
        complete(lake, "r1", [cluster])
    assert (lake.read_json(run_key("r1", EVIDENCE)) or {})["clusters"]["j-1"]["region"] == message


def metrics_with(host: str, region: str) -> dict[str, Any]:
    return {"endpoints": [{"client": "obstore", "service": "s3", "host": host, "region": region}]}


def test_what_the_jobs_called_is_in_by_stage(account: Settings) -> None:
    lake = Lake(laptop.client("s3"), account.lake_bucket)
    lake.write_json(run_key("r1", EVIDENCE), look(account))
    lake.write_json(run_key("r1", "stages/load_images.json"), metrics_with("s3.eu-west-1.amazonaws.com", "eu-west-1"))
    complete(lake, "r1", [])
    stages = (lake.read_json(run_key("r1", EVIDENCE)) or {})["stages"]
    assert stages == {"load_images": metrics_with("s3.eu-west-1.amazonaws.com", "eu-west-1")["endpoints"]}


@pytest.mark.parametrize(
    ("host", "region", "message"),
    [
        ("s3.us-east-1.amazonaws.com", "us-east-1", "load_images: obstore signed for a region that"),
        ("127.0.0.1", "unknown", "load_images: obstore signed for a region that"),
        ("s3.us-east-1.amazonaws.com", "eu-west-1", "us-east-1"),
        ("s3.amazonaws.com", "eu-west-1", "names no region"),
    ],
)
def test_a_job_that_called_elsewhere_turns_the_run_red_with_the_evidence_written(
    account: Settings, host: str, region: str, message: str
) -> None:
    lake = Lake(laptop.client("s3"), account.lake_bucket)
    lake.write_json(run_key("r1", EVIDENCE), look(account))
    lake.write_json(run_key("r1", "stages/load_images.json"), metrics_with(host, region))
    with pytest.raises(ResidencyError, match=message):
        complete(lake, "r1", [])
    assert (lake.read_json(run_key("r1", EVIDENCE)) or {})["stages"]["load_images"][0]["host"] == host


def test_a_run_that_was_stopped_before_it_looked_has_no_evidence(account: Settings) -> None:
    lake = Lake(laptop.client("s3"), account.lake_bucket)
    complete(lake, "r1", [])
    assert lake.read(run_key("r1", EVIDENCE)) is None


def test_a_bucket_in_another_region_of_the_union_is_placed_where_it_is(account: Settings) -> None:
    name = f"paris-{account.deployment_id}"
    laptop.make_bucket(name, "eu-west-3")
    evidence = look(replace(account, lake_bucket=name))
    assert evidence["catalog"]["region"] == evidence["logs"]["region"] == "eu-west-3"
