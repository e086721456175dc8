"""What EMR refuses, with AWS's errors, and that nothing is left of what was refused."""

from __future__ import annotations

from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.local_aws.server import PRIMARY, Server, step

BAD_REQUESTS: dict[str, tuple[dict[str, Any], str, str]] = {
    "label": (
        {"ReleaseLabel": "emr-0.0.0"},
        "ValidationException",
        "The supplied release label is invalid: emr-0.0.0.",
    ),
    "no label": ({"ReleaseLabel": None}, "ValidationException", "release label must be specified"),
    "service role": ({"ServiceRole": "nobody"}, "ValidationException", "Invalid ServiceRole: nobody"),
    "no service role": ({"ServiceRole": None}, "ValidationException", "ServiceRole is required for creating cluster."),
    "profile": ({"JobFlowRole": "nobody"}, "ValidationException", "Invalid InstanceProfile: nobody"),
    "no profile": ({"JobFlowRole": None}, "ValidationException", "InstanceProfile is required for creating cluster."),
    "instance type": (
        {"Instances": {"InstanceFleets": [PRIMARY | {"InstanceTypeConfigs": [{"InstanceType": "m5.huge"}]}]}},
        "ValidationException",
        "Instance type 'm5.huge' is not supported.",
    ),
    "no instance type": (
        {"Instances": {"InstanceFleets": [PRIMARY | {"InstanceTypeConfigs": []}]}},
        "ValidationException",
        "at least one instance type",
    ),
    "no capacity": (
        {"Instances": {"InstanceFleets": [PRIMARY | {"TargetOnDemandCapacity": 0}]}},
        "ValidationException",
        "target capacity of at least one unit",
    ),
    "no instances": ({"Instances": {"InstanceFleets": []}}, "ValidationException", "Instances must name"),
    "two masters": ({"Instances": {"InstanceFleets": [PRIMARY, PRIMARY]}}, "ValidationException", "Exactly one master"),
    "subnet": ({"Instances": {"Ec2SubnetId": "subnet-0"}}, "InvalidRequestException", "subnet-0"),
    "application": ({"Applications": [{"Name": "Sparkle"}]}, "ValidationException", "Sparkle"),
    "security": ({"SecurityConfiguration": "none"}, "InvalidRequestException", "'none' does not exist"),
    "log uri": ({"LogUri": "/var/log"}, "ValidationException", "/var/log"),
    "idle too short": ({"AutoTerminationPolicy": {"IdleTimeout": 59}}, "ValidationException", "between 60 and 604800"),
    "idle too long": ({"AutoTerminationPolicy": {"IdleTimeout": 604_801}}, "ValidationException", "604800"),
    "concurrency": ({"StepConcurrencyLevel": 257}, "ValidationException", "between 1 and 256"),
    "action": (
        {"Steps": [step("true", on_failure="PANIC")]},
        "ValidationException",
        "Value 'PANIC' at 'steps.1.member.actionOnFailure' failed to satisfy constraint",
    ),
    "steps": ({"Steps": [step("true")] * 257}, "ValidationException", "Maximum number of active steps"),
    "tag": ({"Tags": [{"Key": "aws:x", "Value": "y"}]}, "ValidationException", "aws:x"),
    "long tag": ({"Tags": [{"Key": "x", "Value": "y" * 257}]}, "ValidationException", "too long"),
}


@pytest.mark.parametrize("name", BAD_REQUESTS)
def test_a_bad_run_job_flow_is_refused_and_registers_nothing(aws: Server, name: str) -> None:
    changes, code, message = BAD_REQUESTS[name]
    before = {cluster["Id"] for page in clusters(aws) for cluster in page}
    with pytest.raises(ClientError) as caught:
        aws.run_job_flow(**changes)
    error = caught.value.response["Error"]
    assert error["Code"] == code
    assert message in error["Message"]
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 400
    assert {cluster["Id"] for page in clusters(aws) for cluster in page} == before


def clusters(aws: Server) -> list[list[dict[str, Any]]]:
    return [page["Clusters"] for page in aws.client("emr").get_paginator("list_clusters").paginate()]


def test_the_ami_version_of_old_is_refused_beside_a_label(aws: Server) -> None:
    with pytest.raises(ClientError, match="Only one AMI version and release label may be specified"):
        aws.run_job_flow(AmiVersion="3.0")


def test_a_v2_service_role_wants_the_tag_on_cluster_subnet_and_vpc(aws: Server) -> None:
    iam, ec2 = aws.client("iam"), aws.client("ec2")
    iam.create_role(RoleName="v2", AssumeRolePolicyDocument="{}")
    iam.attach_role_policy(RoleName="v2", PolicyArn="arn:aws:iam::aws:policy/service-role/AmazonEMRServicePolicy_v2")
    tag = {"Key": "for-use-with-amazon-emr-managed-policies", "Value": "true"}
    vpc_id = ec2.create_vpc(CidrBlock="10.9.0.0/24")["Vpc"]["VpcId"]
    subnet_id = ec2.create_subnet(VpcId=vpc_id, CidrBlock="10.9.0.0/25")["Subnet"]["SubnetId"]
    own = {"Instances": {"Ec2SubnetIds": [subnet_id]}}

    def refused(**request: Any) -> str:
        cluster_id = aws.run_job_flow(ServiceRole="v2", **request)
        reason = aws.reach(cluster_id, "TERMINATED_WITH_ERRORS")["StateChangeReason"]
        assert reason["Code"] == "VALIDATION_ERROR"
        return str(reason["Message"])

    assert "true on the cluster" in refused(**own)
    assert "true on the subnet default" in refused(Tags=[tag])
    assert f"true on the subnet {subnet_id}" in refused(Tags=[tag], **own)
    ec2.create_tags(Resources=[subnet_id], Tags=[tag])
    assert f"true on the VPC of the subnet {subnet_id}" in refused(Tags=[tag], **own)
    ec2.create_tags(Resources=[vpc_id], Tags=[tag])
    tagged = aws.run_job_flow(ServiceRole="v2", Tags=[tag], **own)
    aws.reach(tagged, "WAITING")
    aws.client("emr").terminate_job_flows(JobFlowIds=[tagged])


@pytest.mark.parametrize(
    ("operation", "parameters", "code", "message"),
    [
        ("describe_cluster", {"ClusterId": "j-NONE"}, "InvalidRequestException", "Cluster id 'j-NONE' is not valid."),
        ("list_steps", {"ClusterId": "j-NONE"}, "InvalidRequestException", "Cluster id 'j-NONE' is not valid."),
        ("list_instances", {"ClusterId": "j-NONE"}, "InvalidRequestException", "is not valid."),
        ("cancel_steps", {"ClusterId": "j-NONE", "StepIds": ["s-1"]}, "InvalidRequestException", "is not valid."),
        ("add_tags", {"ResourceId": "j-NONE", "Tags": []}, "InvalidRequestException", "is not valid."),
        (
            "terminate_job_flows",
            {"JobFlowIds": ["j-NONE"]},
            "ValidationException",
            "Specified job flow ID does not exist.",
        ),
        ("add_job_flow_steps", {"JobFlowId": "j-NONE", "Steps": []}, "ValidationException", "does not exist."),
    ],
)
def test_an_unknown_cluster_is_an_error(
    aws: Server, operation: str, parameters: dict[str, Any], code: str, message: str
) -> None:
    with pytest.raises(ClientError) as caught:
        getattr(aws.client("emr"), operation)(**parameters)
    assert caught.value.response["Error"]["Code"] == code
    assert message in caught.value.response["Error"]["Message"]


def test_terminating_a_known_and_an_unknown_cluster_ends_neither(aws: Server) -> None:
    cluster_id = aws.run_job_flow()
    with pytest.raises(ClientError):
        aws.client("emr").terminate_job_flows(JobFlowIds=[cluster_id, "j-NONE"])
    aws.reach(cluster_id, "WAITING")
    aws.client("emr").terminate_job_flows(JobFlowIds=[cluster_id])


def test_a_cluster_that_has_ended_takes_no_step(aws: Server) -> None:
    cluster_id = aws.run_job_flow()
    aws.client("emr").terminate_job_flows(JobFlowIds=[cluster_id])
    for _ in range(2):
        with pytest.raises(ClientError, match="shutting down, terminated, or finished may not be modified") as caught:
            aws.add_step(cluster_id, "true")
        assert caught.value.response["Error"]["Code"] == "ValidationException"
        aws.reach(cluster_id, "TERMINATED")
    assert aws.client("emr").list_steps(ClusterId=cluster_id)["Steps"] == []


def test_more_than_256_active_steps_are_refused_as_a_whole(aws: Server) -> None:
    emr = aws.client("emr")
    cluster_id = aws.run_job_flow(Steps=[step("sleep", "600")] + [step("true")] * 250)
    with pytest.raises(ClientError, match="Maximum number of active steps"):
        emr.add_job_flow_steps(JobFlowId=cluster_id, Steps=[step("true")] * 6)
    pages = emr.get_paginator("list_steps").paginate(ClusterId=cluster_id)
    assert sum(len(page["Steps"]) for page in pages) == 251
    emr.terminate_job_flows(JobFlowIds=[cluster_id])
    aws.reach(cluster_id, "TERMINATED")


def test_a_bad_step_leaves_none_of_its_call(aws: Server, waiting: str) -> None:
    emr = aws.client("emr")
    before = len(emr.list_steps(ClusterId=waiting)["Steps"])
    with pytest.raises(ClientError, match=r"steps\.2\.member\.actionOnFailure"):
        emr.add_job_flow_steps(JobFlowId=waiting, Steps=[step("true"), step("true", on_failure="PANIC")])
    assert len(emr.list_steps(ClusterId=waiting)["Steps"]) == before


def test_steps_side_by_side_must_continue_on_failure(aws: Server) -> None:
    cluster_id = aws.run_job_flow(StepConcurrencyLevel=2)
    with pytest.raises(ClientError, match="ActionOnFailure must be CONTINUE"):
        aws.add_step(cluster_id, "true", on_failure="TERMINATE_CLUSTER")
    aws.client("emr").terminate_job_flows(JobFlowIds=[cluster_id])


def test_security_configurations_are_created_described_and_deleted(aws: Server) -> None:
    emr = aws.client("emr")
    emr.create_security_configuration(Name="sec", SecurityConfiguration='{"a": 1}')
    assert emr.describe_security_configuration(Name="sec")["SecurityConfiguration"] == '{"a": 1}'
    with pytest.raises(ClientError, match="already exists"):
        emr.create_security_configuration(Name="sec", SecurityConfiguration="{}")
    with pytest.raises(ClientError, match="not valid JSON"):
        emr.create_security_configuration(Name="bad", SecurityConfiguration="{")
    emr.delete_security_configuration(Name="sec")
    with pytest.raises(ClientError, match="does not exist"):
        emr.describe_security_configuration(Name="sec")


@pytest.mark.parametrize(
    ("operation", "parameters", "message"),
    [
        ("list_instance_groups", {}, "local_aws has no emr:ListInstanceGroups"),
        ("get_managed_scaling_policy", {}, "local_aws has no emr:GetManagedScalingPolicy"),
        ("list_instances", {"InstanceStates": ["RUNNING"]}, "filters InstanceStates"),
        ("list_steps", {"StepStates": ["FAILED"]}, "filters StepStates"),
    ],
)
def test_what_the_emulator_lacks_is_not_implemented(
    aws: Server, waiting: str, operation: str, parameters: dict[str, Any], message: str
) -> None:
    with pytest.raises(ClientError) as caught:
        getattr(aws.client("emr"), operation)(ClusterId=waiting, **parameters)
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 501
    assert caught.value.response["Error"]["Code"] == "NotImplemented"
    assert message in caught.value.response["Error"]["Message"]


def test_instance_groups_are_not_implemented(aws: Server) -> None:
    group = {"InstanceRole": "MASTER", "InstanceType": "m5.xlarge", "InstanceCount": 1}
    with pytest.raises(ClientError, match="request instance fleets") as caught:
        aws.run_job_flow(Instances={"InstanceGroups": [group]})
    assert caught.value.response["Error"]["Code"] == "NotImplemented"
