"""make notebook-cluster: one cluster for its owner, with what a notebook needs and an end of its own."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from fruits_airflow.config.errors import ClusterRefused
from fruits_airflow.config.settings import Settings
from fruits_airflow.emr.cluster_body import cluster_body, load_profile
from fruits_airflow.emr.clusters import RunKey
from fruits_airflow.emr.code_bundle import build_bundle

from ops.notebook import notebook_cluster
from ops.stack import Deployment
from tests.ops.conftest import Account


@pytest.fixture
def settings(account: Account, deployment_id: str, databases: dict[str, str]) -> Settings:
    deployment = Deployment(account, deployment_id, lambda _: None, lambda _: True, poll_s=0.05)
    outputs = deployment.deploy({"CreateVpc": "true", **databases})
    return Settings(
        deployment_id=deployment_id,
        raw_bucket=outputs["RawBucket"],
        lake_bucket=outputs["LakeBucket"],
        service_role=outputs["ServiceRole"],
        instance_profile=outputs["InstanceProfile"],
        security_configuration=outputs["SecurityConfiguration"],
        subnet_id=outputs["SubnetId"],
        node_environment="preinstalled",
        poll_s=0.1,
        list_consistency_s=0.5,
    )


def test_a_second_call_finds_the_first_cluster(settings: Settings, account: Account) -> None:
    cluster = notebook_cluster(settings, "Ada Lovelace", account)
    again = notebook_cluster(settings, "Ada Lovelace", account)
    other = notebook_cluster(settings, "bob", account)
    assert cluster.job_flow_id == again.job_flow_id != other.job_flow_id
    names = [application["Name"] for application in cluster.description["Applications"]]
    assert names == ["Spark", "Livy", "JupyterEnterpriseGateway"]
    assert cluster.deadline is not None
    left = cluster.deadline - datetime.now(UTC)
    assert timedelta(minutes=115) < left <= timedelta(minutes=120)
    assert cluster.tags["run"] == "notebook__Ada-Lovelace"
    profile = f"fruits-{settings.deployment_id}-notebook-eu-west-1"
    assert cluster.description["Ec2InstanceAttributes"]["IamInstanceProfile"] == profile
    account.client("emr").terminate_job_flows(JobFlowIds=[cluster.job_flow_id, other.job_flow_id])


@pytest.mark.parametrize(("profile", "fleets"), [("demo", 2), ("nightly", 3)])
def test_each_profile_is_taken_by_emr(settings: Settings, account: Account, profile: str, fleets: int) -> None:
    body = cluster_body(
        settings,
        RunKey(settings.deployment_id, "fruits_pipeline", profile),
        load_profile(profile),
        code_digest=build_bundle().digest,
        lake_region="eu-west-1",
        ends_at=datetime.now(UTC) + timedelta(hours=1),
    )
    emr = account.client("emr")
    job_flow_id = emr.run_job_flow(**body)["JobFlowId"]
    listed = emr.list_instance_fleets(ClusterId=job_flow_id)["InstanceFleets"]
    assert len(listed) == fleets
    spot = [fleet for fleet in listed if fleet["TargetSpotCapacity"]]
    assert len(spot) == (profile == "nightly")
    for fleet in spot:
        assert fleet["LaunchSpecifications"]["SpotSpecification"]["TimeoutAction"] == "SWITCH_TO_ON_DEMAND"
    emr.terminate_job_flows(JobFlowIds=[job_flow_id])


def test_a_cluster_that_breaks_a_rule_is_not_asked_for(settings: Settings, account: Account) -> None:
    with pytest.raises(ClusterRefused, match="libraries"):
        notebook_cluster(replace(settings, node_environment=None), "ada", account)
    assert account.server.access_log()[-1]["operation"] != "RunJobFlow"
    calls = [call["operation"] for call in account.server.access_log()[-12:]]
    assert "RunJobFlow" not in calls


def test_a_security_configuration_that_leaves_traffic_open_is_refused(settings: Settings, account: Account) -> None:
    name = f"{settings.deployment_id}-open"
    account.client("emr").create_security_configuration(
        Name=name, SecurityConfiguration='{"EncryptionConfiguration": {"EnableAtRestEncryption": true}}'
    )
    with pytest.raises(ClusterRefused, match=r"encryption.*instance_metadata"):
        notebook_cluster(replace(settings, security_configuration=name), "ada", account)
