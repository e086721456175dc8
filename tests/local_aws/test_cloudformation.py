"""CloudFormation creates what a template says, or the stack fails."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError
from cfnlint.schema import PROVIDER_SCHEMA_MANAGER

from local_aws.cloudformation.models import RegionalResourceMap
from ops.template import read_template
from tests.local_aws.server import REPOSITORY, Server

TEMPLATE = (REPOSITORY / "include" / "stack.yaml").read_text()


def deploy(aws: Server, deployment_id: str, region: str = "eu-west-1", **more: str) -> dict[str, str]:
    formation = aws.client("cloudformation", region)
    parameters = {"DeploymentId": deployment_id, **more}
    formation.create_stack(
        StackName=f"fruits-{deployment_id}",
        TemplateBody=TEMPLATE,
        Parameters=[{"ParameterKey": key, "ParameterValue": value} for key, value in parameters.items()],
        Capabilities=["CAPABILITY_NAMED_IAM"],
    )
    [stack] = formation.describe_stacks(StackName=f"fruits-{deployment_id}")["Stacks"]
    assert stack["StackStatus"] == "CREATE_COMPLETE", stack.get("StackStatusReason")
    return {output["OutputKey"]: output["OutputValue"] for output in stack["Outputs"]}


@pytest.fixture(scope="module")
def stack(aws: Server) -> Iterator[dict[str, str]]:
    yield deploy(aws, "test", CreateVpc="true", AlarmEmail="accounts@example.org")
    aws.client("cloudformation").delete_stack(StackName="fruits-test")


def test_the_stack_gives_its_names(stack: dict[str, str]) -> None:
    assert stack["RawBucket"] == "fruits-test-raw-123456789012-eu-west-1"
    assert stack["LakeBucket"] == "fruits-test-lake-123456789012-eu-west-1"
    assert stack["KeyArn"].startswith("arn:aws:kms:eu-west-1:123456789012:key/")
    assert stack.keys() >= {"ServiceRole", "InstanceProfile", "SecurityConfiguration", "AirflowRole"}


def test_every_resource_of_the_template_is_there(aws: Server, stack: dict[str, str]) -> None:
    resources = aws.client("cloudformation").describe_stack_resources(StackName="fruits-test")["StackResources"]
    declared = TEMPLATE.count("\n    Type: AWS::") - TEMPLATE.count("\n    Condition: IsPrivate\n    Properties:")
    assert len(resources) == declared
    assert all(resource["PhysicalResourceId"] for resource in resources)


def test_what_was_made_last_is_deleted_first() -> None:
    names = [f"Resource{number}" for number in range(12)]
    template = {"Resources": {name: {"Type": "AWS::S3::Bucket"} for name in names}}
    resources = RegionalResourceMap("id", "stack", {}, {}, "eu-west-1", "123456789012", template, {})
    gone: list[str] = []

    class Made:
        def __init__(self, name: str) -> None:
            self.name = name

        def delete(self, account_id: str, region: str) -> None:
            if self.name == "Resource5" and "Resource5" not in gone:
                gone.append(self.name)
                raise RuntimeError("not empty")
            gone.append(self.name)

    resources._parsed_resources |= {name: Made(name) for name in names}
    with pytest.raises(RuntimeError, match="not empty"):
        resources.delete()
    assert gone == names[::-1]
    resources.delete()
    assert gone == [*names[::-1], "Resource5"]


@pytest.mark.parametrize("name", ["RawBucket", "LakeBucket"])
def test_both_buckets_are_private_encrypted_and_tls_only(aws: Server, stack: dict[str, str], name: str) -> None:
    s3, bucket = aws.client("s3"), stack[name]
    block = s3.get_public_access_block(Bucket=bucket)["PublicAccessBlockConfiguration"]
    assert set(block.values()) == {True}
    assert len(block) == 4
    [rule] = s3.get_bucket_encryption(Bucket=bucket)["ServerSideEncryptionConfiguration"]["Rules"]
    assert rule["BucketKeyEnabled"] is True
    assert rule["ApplyServerSideEncryptionByDefault"] == {"SSEAlgorithm": "aws:kms", "KMSMasterKeyID": stack["KeyArn"]}
    [statement, kms_only] = json.loads(s3.get_bucket_policy(Bucket=bucket)["Policy"])["Statement"]
    assert (kms_only["Effect"], kms_only["Action"]) == ("Deny", "s3:PutObject")
    assert (statement["Effect"], statement["Condition"]) == ("Deny", {"Bool": {"aws:SecureTransport": "false"}})
    assert statement["Resource"] == [f"arn:aws:s3:::{bucket}", f"arn:aws:s3:::{bucket}/*"]
    ownership = s3.get_bucket_ownership_controls(Bucket=bucket)["OwnershipControls"]["Rules"]
    assert ownership == [{"ObjectOwnership": "BucketOwnerEnforced"}]


def test_photos_are_versioned_and_the_lake_is_not(aws: Server, stack: dict[str, str]) -> None:
    s3 = aws.client("s3")
    assert s3.get_bucket_versioning(Bucket=stack["RawBucket"])["Status"] == "Enabled"
    assert "Status" not in s3.get_bucket_versioning(Bucket=stack["LakeBucket"])


def test_lifecycles_are_set(aws: Server, stack: dict[str, str]) -> None:
    s3 = aws.client("s3")
    raw, lake = (
        {rule["ID"]: rule for rule in s3.get_bucket_lifecycle_configuration(Bucket=stack[name])["Rules"]}
        for name in ("RawBucket", "LakeBucket")
    )
    assert raw["forget-replaced-photos"]["NoncurrentVersionExpiration"] == {"NoncurrentDays": 30}
    assert raw["abort-uploads"]["AbortIncompleteMultipartUpload"] == {"DaysAfterInitiation": 2}
    assert raw["forget-old-photos"]["Expiration"] == {"Days": 730}
    assert lake["expire-staging"]["Expiration"] == {"Days": 7}
    assert (lake["expire-logs"]["Filter"], lake["expire-logs"]["Expiration"]) == ({"Prefix": "logs/"}, {"Days": 90})


def test_objects_can_be_written_and_read_under_the_policies(aws: Server, stack: dict[str, str]) -> None:
    s3 = aws.client("s3")
    s3.put_object(Bucket=stack["LakeBucket"], Key="k", Body=b"1")
    assert s3.get_object(Bucket=stack["LakeBucket"], Key="k")["Body"].read() == b"1"


def test_the_key_rotates_and_has_an_alias(aws: Server, stack: dict[str, str]) -> None:
    kms = aws.client("kms")
    assert kms.get_key_rotation_status(KeyId=stack["KeyArn"])["KeyRotationEnabled"] is True
    assert kms.describe_key(KeyId="alias/fruits-test")["KeyMetadata"]["Arn"] == stack["KeyArn"]
    tags = kms.list_resource_tags(KeyId=stack["KeyArn"])["Tags"]
    assert {"TagKey": "deployment", "TagValue": "test"} in tags


def test_the_databases_are_there(aws: Server, stack: dict[str, str]) -> None:
    for name in ("fruits", "fruits_demo"):
        database = aws.client("glue").get_database(Name=name)["Database"]
        assert database["LocationUri"] == f"s3://{stack['LakeBucket']}/tables/{name}.db"


def test_the_service_role_has_the_v2_policy(aws: Server, stack: dict[str, str]) -> None:
    attached = aws.client("iam").list_attached_role_policies(RoleName=stack["ServiceRole"])["AttachedPolicies"]
    assert [policy["PolicyArn"] for policy in attached] == [
        "arn:aws:iam::aws:policy/service-role/AmazonEMRServicePolicy_v2"
    ]


def node_statements(aws: Server, stack: dict[str, str]) -> list[dict[str, Any]]:
    iam = aws.client("iam")
    [role] = iam.get_instance_profile(InstanceProfileName=stack["InstanceProfile"])["InstanceProfile"]["Roles"]
    document = iam.get_role_policy(RoleName=role["RoleName"], PolicyName="jobs")["PolicyDocument"]
    return list(document["Statement"])


def actions(statement: dict[str, Any]) -> list[str]:
    return [statement["Action"]] if isinstance(statement["Action"], str) else statement["Action"]


def test_jobs_can_change_no_photo(aws: Server, stack: dict[str, str]) -> None:
    on_raw = {
        action
        for statement in node_statements(aws, stack)
        for action in actions(statement)
        if stack["RawBucket"] in json.dumps(statement["Resource"])
    }
    assert on_raw == {"s3:GetObject", "s3:ListBucket"}


def test_jobs_may_do_nothing_to_everything(aws: Server, stack: dict[str, str]) -> None:
    for statement in node_statements(aws, stack):
        assert statement["Resource"] != "*"
        assert not [action for action in actions(statement) if "*" in action]


def test_a_cluster_can_be_started_with_the_outputs(aws: Server, stack: dict[str, str]) -> None:
    cluster_id = aws.run_job_flow(
        ServiceRole=stack["ServiceRole"],
        JobFlowRole=stack["InstanceProfile"],
        SecurityConfiguration=stack["SecurityConfiguration"],
        Instances={"Ec2SubnetIds": [stack["SubnetId"]]},
        Tags=[{"Key": "for-use-with-amazon-emr-managed-policies", "Value": "true"}],
    )
    aws.reach(cluster_id, "WAITING")
    aws.client("emr").terminate_job_flows(JobFlowIds=[cluster_id])


def test_the_sovereign_cloud_is_another_partition(aws: Server) -> None:
    there = deploy(aws, "eusc", "eusc-de-east-1")
    assert there["KeyArn"].startswith("arn:aws-eusc:kms:eusc-de-east-1:")
    iam = aws.client("iam", "eusc-de-east-1")
    attached = iam.list_attached_role_policies(RoleName=there["ServiceRole"])["AttachedPolicies"]
    assert attached[0]["PolicyArn"] == "arn:aws-eusc:iam::aws:policy/service-role/AmazonEMRServicePolicy_v2"


def test_the_template_names_no_partition() -> None:
    assert "arn:aws" not in TEMPLATE


def test_deleting_the_stack_keeps_buckets_and_key_and_removes_the_rest(aws: Server) -> None:
    region = "eu-north-1"
    names = deploy(aws, "gone", region)
    aws.client("cloudformation", region).delete_stack(StackName="fruits-gone")
    buckets = {bucket["Name"] for bucket in aws.client("s3").list_buckets()["Buckets"]}
    assert {names["RawBucket"], names["LakeBucket"]} <= buckets
    assert aws.client("glue", region).get_databases()["DatabaseList"] == []
    with pytest.raises(ClientError, match="InvalidRequestException"):
        aws.client("emr", region).describe_security_configuration(Name=names["SecurityConfiguration"])
    with pytest.raises(ClientError, match="NoSuchEntity"):
        aws.client("iam", region).get_role(RoleName=names["ServiceRole"])


@pytest.fixture
def bucket_that_fails(aws: Server, bucket: str) -> dict[str, Any]:
    """Return the template of a resource that cannot be created: the bucket exists."""
    return {"Type": "AWS::S3::Bucket", "DependsOn": "Kept", "Properties": {"BucketName": bucket}}


@pytest.mark.parametrize(
    ("policy", "after_failure", "after_deletion"),
    [("Delete", False, False), ("RetainExceptOnCreate", False, True), ("Retain", True, True)],
)
def test_what_a_deletion_policy_keeps(
    aws: Server, bucket_that_fails: dict[str, Any], policy: str, after_failure: bool, after_deletion: bool
) -> None:
    formation, s3 = aws.client("cloudformation"), aws.client("s3")
    name = f"kept-{policy.lower()}"
    kept = {"Type": "AWS::S3::Bucket", "DeletionPolicy": policy, "Properties": {"BucketName": name}}

    def is_there(resources: dict[str, Any]) -> bool:
        formation.create_stack(StackName=name, TemplateBody=json.dumps({"Resources": resources}))
        formation.delete_stack(StackName=name)
        return name in [bucket["Name"] for bucket in s3.list_buckets()["Buckets"]]

    assert is_there({"Kept": kept, "Fails": bucket_that_fails}) is after_failure
    if after_failure:
        s3.delete_bucket(Bucket=name)
    assert is_there({"Kept": kept}) is after_deletion


def test_a_change_set_is_executed_after_the_call_has_returned(aws: Server) -> None:
    formation = aws.client("cloudformation")
    template = {"Resources": {"A": {"Type": "AWS::S3::Bucket", "Properties": {"BucketName": "later"}}}}
    change_set = formation.create_change_set(
        StackName="later", ChangeSetName="c", ChangeSetType="CREATE", TemplateBody=json.dumps(template)
    )
    formation.execute_change_set(ChangeSetName=change_set["Id"])
    with pytest.raises(ClientError, match="cannot be executed"):
        formation.execute_change_set(ChangeSetName=change_set["Id"])

    def status() -> str:
        return str(formation.describe_change_set(ChangeSetName=change_set["Id"])["ExecutionStatus"])

    states = [status()]
    while states[-1] == "EXECUTE_IN_PROGRESS":
        states.append(status())
    assert states[-1] == "EXECUTE_COMPLETE"
    [stack] = formation.describe_stacks(StackName="later")["Stacks"]
    assert (stack["StackStatus"], stack["StackId"]) == ("CREATE_COMPLETE", change_set["StackId"])


@pytest.mark.parametrize("kind", sorted({resource["Type"] for resource in read_template()["Resources"].values()}))
def test_system_tags_are_added_where_the_types_schema_says(aws: Server, stack: dict[str, str], kind: str) -> None:
    schema = PROVIDER_SCHEMA_MANAGER.get_resource_schema("us-east-1", kind).schema
    tagged = schema.get("tagging", {}).get("cloudFormationSystemTags", False)
    if kind == "AWS::Budgets::Budget":
        pytest.skip("moto's budgets have no tags, and nothing reads them")
    resources = aws.client("cloudformation").describe_stack_resources(StackName="fruits-test")
    of_kind = [listed for listed in resources["StackResources"] if listed["ResourceType"] == kind]
    if not of_kind:
        pytest.skip("the network of this stack has none")
    resource = of_kind[0]
    physical, s3 = resource["PhysicalResourceId"], aws.client("s3")
    if kind == "AWS::S3::Bucket":
        listed = s3.get_bucket_tagging(Bucket=physical)["TagSet"]
    else:
        filters = [{"Name": "resource-id", "Values": [physical]}]
        listed = aws.client("ec2").describe_tags(Filters=filters)["Tags"]
    system_tags = {tag["Key"]: tag["Value"] for tag in listed if tag["Key"].startswith("aws:")}
    expected = {
        "aws:cloudformation:logical-id": resource["LogicalResourceId"],
        "aws:cloudformation:stack-id": resource["StackId"],
        "aws:cloudformation:stack-name": "fruits-test",
    }
    assert system_tags == (expected if tagged else {})


@pytest.mark.parametrize("kind", ["AWS::Athena::WorkGroup", "AWS::EMR::Cluster", "AWS::No::Such"])
def test_a_type_that_is_not_there_fails_the_call(aws: Server, kind: str) -> None:
    template = json.dumps({"Resources": {"A": {"Type": kind, "Properties": {}}}})
    with pytest.raises(ClientError, match="Unrecognized resource types") as caught:
        aws.client("cloudformation").create_stack(StackName="unknown", TemplateBody=template)
    assert kind in str(caught.value)
    with pytest.raises(ClientError, match="does not exist"):
        aws.client("cloudformation").describe_stacks(StackName="unknown")


def test_a_resource_that_cannot_be_made_rolls_the_stack_back(aws: Server, bucket: str) -> None:
    template = json.dumps(
        {
            "Resources": {
                "First": {
                    "Type": "AWS::Glue::Database",
                    "Properties": {"CatalogId": "1", "DatabaseInput": {"Name": "undone"}},
                },
                "Second": {"Type": "AWS::S3::Bucket", "DependsOn": "First", "Properties": {"BucketName": bucket}},
            },
            "Outputs": {"Name": {"Value": {"Ref": "Second"}}},
        }
    )
    formation = aws.client("cloudformation")
    formation.create_stack(StackName="undone", TemplateBody=template)
    [stack] = formation.describe_stacks(StackName="undone")["Stacks"]
    assert stack["StackStatus"] == "ROLLBACK_COMPLETE"
    events = formation.describe_stack_events(StackName="undone")["StackEvents"]
    assert any("BucketAlreadyOwnedByYou" in event.get("ResourceStatusReason", "") for event in events)
    assert "undone" not in [database["Name"] for database in aws.client("glue").get_databases()["DatabaseList"]]


def test_a_property_that_is_not_handled_is_not_left_out(aws: Server) -> None:
    properties = {"BucketName": "website", "WebsiteConfiguration": {"IndexDocument": "x"}}
    template = json.dumps({"Resources": {"A": {"Type": "AWS::S3::Bucket", "Properties": properties}}})
    formation = aws.client("cloudformation")
    formation.create_stack(StackName="website", TemplateBody=template)
    [stack] = formation.describe_stacks(StackName="website")["Stacks"]
    assert stack["StackStatus"] == "ROLLBACK_COMPLETE"
    assert "WebsiteConfiguration" in stack["StackStatusReason"]
