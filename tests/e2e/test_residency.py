"""Where a demo's jobs say that they called, held against what the endpoint saw."""

from __future__ import annotations

import json

import boto3
import pytest

from tests.infra.simulation import role_of

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1800)]

STAGES = {"load_images", "featurize", "reduce_pca", "publish"}


@pytest.fixture(scope="module")
def evidence(demo):
    """residency.json of the run that published."""
    s3 = boto3.client(
        "s3", endpoint_url=demo["endpoint"], region_name="eu-west-1", **demo["keys"]
    )  # fmt: skip
    lake = next(one["Name"] for one in s3.list_buckets()["Buckets"] if "-lake-" in one["Name"])
    run_id = json.loads((demo["folder"] / "run.json").read_text())["run_id"]
    return json.loads(s3.get_object(Bucket=lake, Key=f"runs/{run_id}/residency.json")["Body"].read())


def test_every_stage_tells_where_it_called(evidence):
    assert evidence["stages"].keys() == STAGES
    for told in evidence["stages"].values():
        assert {one["client"] for one in told} == {"obstore", "Iceberg's catalog", "Iceberg's files"}


def test_the_jobs_called_nothing_but_what_they_told(demo, evidence):
    told = {(one["service"], one["region"], one["host"]) for stage in evidence["stages"].values() for one in stage}
    called = {
        (call["service"], call["region"], call["host"].partition(":")[0])
        for call in demo["calls"]
        if role_of(call) == "NodeRole" and not call["user_agent"].endswith("local_aws")
    }
    assert {service for service, _, _ in called} == {"s3", "glue"}
    assert called == told
