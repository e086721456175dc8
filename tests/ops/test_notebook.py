"""make notebook-cluster: one cluster for its owner, with what a notebook needs and an end of its own."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from fruits_airflow.config.errors import ClusterRefused
from fruits_airflow.config.settings import Settings
from fruits_airflow.emr.cluster_body import cluster_body, load_profile
from fruits_airflow.emr.clusters import Cluster, RunKey
from fruits_airflow.emr.code_bundle import build_bundle

from local_aws.emr.validation import MANAGED_GROUPS
from ops.notebook import notebook_cluster
from ops.stack import Deployment
from tests.emr_rules import TAG
from tests.local_aws.server import Server
from tests.ops.conftest import Account


@pytest.fixture
def settings(account: Account, deployment_id: str, databases: dict[str, str]) -> Settings:
    return deployed(account, deployment_id, {"CreateVpc": "true", **databases})


def deployed(account: Account, deployment_id: str, parameters: dict[str, str]) -> Settings:
    deployment = Deployment(account, deployment_id, lambda _: None, lambda _: True, poll_s=0.05)
    outputs = deployment.deploy(parameters)
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


def test_to_repair_tables_it_has_the_role_and_the_groups_of_a_nights_nodes(
    settings: Settings, account: Account
) -> None:
    cluster = notebook_cluster(settings, "ada", account)
    repair = notebook_cluster(settings, "ada", account, repair=True)
    assert repair.job_flow_id != cluster.job_flow_id
    assert repair.tags["run"] == "repair__ada"
    assert repair.description["Ec2InstanceAttributes"]["IamInstanceProfile"] == settings.instance_profile
    assert groups_of(repair, account) == []
    account.client("emr").terminate_job_flows(JobFlowIds=[cluster.job_flow_id])


def groups_of(cluster: Cluster, account: Account) -> list[str]:
    """Logical names of the security groups of a cluster; EMR's default groups have none."""
    attributes = cluster.description["Ec2InstanceAttributes"]
    account.client("emr").terminate_job_flows(JobFlowIds=[cluster.job_flow_id])
    groups = [attributes[member] for member in MANAGED_GROUPS if attributes.get(member)]
    named = account.client("ec2").describe_security_groups(GroupIds=groups)["SecurityGroups"] if groups else []
    tags = [{tag["Key"]: tag["Value"] for tag in group["Tags"]} for group in named]
    assert all(group[TAG] == "true" for group in tags), "else EMR's service role may not use them"
    return sorted(group["aws:cloudformation:logical-id"] for group in tags)


def test_a_notebook_has_security_groups_of_its_own(settings: Settings, account: Account) -> None:
    cluster = notebook_cluster(settings, "ada", account)
    assert groups_of(cluster, account) == ["NotebookCoreGroup", "NotebookPrimaryGroup"]


def test_in_a_private_subnet_it_has_the_third_group_that_emr_asks_for(
    account: Account, deployment_id: str, databases: dict[str, str]
) -> None:
    settings = deployed(account, deployment_id, {"CreateVpc": "private", **databases})
    cluster = notebook_cluster(settings, "ada", account)
    assert groups_of(cluster, account) == ["NotebookCoreGroup", "NotebookPrimaryGroup", "NotebookServiceGroup"]


def other_subnet(account: Account) -> str:
    ec2 = account.client("ec2")
    vpc_id = ec2.create_vpc(CidrBlock="10.9.0.0/24")["Vpc"]["VpcId"]
    subnet_id = ec2.create_subnet(VpcId=vpc_id, CidrBlock="10.9.0.0/25")["Subnet"]["SubnetId"]
    ec2.create_tags(Resources=[vpc_id, subnet_id], Tags=[{"Key": TAG, "Value": "true"}])
    return str(subnet_id)


def test_in_another_vpc_than_the_nights_it_has_the_groups_of_emr(settings: Settings, account: Account) -> None:
    cluster = notebook_cluster(replace(settings, subnet_id=other_subnet(account)), "ada", account)
    assert groups_of(cluster, account) == []


def test_where_it_would_share_groups_with_the_nights_it_is_refused(
    account: Account, deployment_id: str, databases: dict[str, str], aws: Server
) -> None:
    subnet_id = other_subnet(account)
    settings = deployed(account, deployment_id, {"CreateVpc": "false", "SubnetId": subnet_id, **databases})
    with pytest.raises(ClusterRefused, match="FRUITS_SUBNET_ID to a subnet of another VPC"):
        notebook_cluster(settings, "ada", account)
    assert "RunJobFlow" not in {call["operation"] for call in aws.access_log()[-12:]}


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
    nodes = emr.list_instances(ClusterId=job_flow_id)["Instances"]
    assert len({node["InstanceFleetId"] for node in nodes}) == fleets
    assert len({node["InstanceFleetId"] for node in nodes if node["Market"] == "SPOT"}) == (profile == "nightly")
    for fleet in body["Instances"]["InstanceFleets"]:
        if fleet.get("TargetSpotCapacity"):
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
