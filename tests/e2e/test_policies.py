"""Every call that a demo made, asked of the roles that its stack has made: all allowed, and little else."""

from __future__ import annotations

import json

import boto3
import pytest

from tests.infra.simulation import Names, actions_of, allowed, requests_of, role_of

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1800)]

# What a role may and a demo does not do, each with what needs it.
STATED = {
    "NodeRole": {
        "glue:DeleteTable": "a table that an interrupted creation left is made anew",
        "kms:DescribeKey": "disks, by EMR's guide: local_aws has none",
        "kms:Encrypt": "disks, by EMR's guide",
        "kms:ReEncryptFrom": "disks, by EMR's guide",
        "kms:ReEncryptTo": "disks, by EMR's guide",
        "s3:AbortMultipartUpload": "an upload that a dying task has begun",
        "s3:DeleteObject": "files of tables, at upkeep and erasure",
        "s3:ListBucket": "S3 answers 403 for 404 without it",
    },
    "AirflowRole": {
        "elasticmapreduce:CancelSteps": "a run that is stopped, or a step that takes too long",
        "elasticmapreduce:SetTerminationProtection": "a cluster that somebody has protected",
        "kms:DescribeKey": "evidence of residency",
        "s3:AbortMultipartUpload": "an upload that a dying task, or a phone, has begun",
        "s3:DeleteObject": "what a cleared attempt has left",
        "s3:DeleteObjectVersion": "a photo that is erased",
        "s3:GetLifecycleConfiguration": "photos are missing: which of them expired by rule",
        "s3:GetObjectVersion": "an access request is answered with every version",
        "s3:ListBucketMultipartUploads": "an erasure finds unfinished uploads",
        "s3:ListBucketVersions": "an erasure finds every version",
    },
}


@pytest.fixture(scope="session")
def names(demo):
    formation = boto3.client("cloudformation", **account(demo))
    resources = formation.describe_stack_resources(StackName="fruits-demo")["StackResources"]
    physical = {one["LogicalResourceId"]: one["PhysicalResourceId"] for one in resources}
    iam = boto3.client("iam", **account(demo))
    role = {name: iam.get_role(RoleName=physical[name])["Role"]["Arn"] for name in ("EmrServiceRole", "NodeRole")}
    account_id = role["NodeRole"].split(":")[4]
    key = f"arn:aws:kms:eu-west-1:{account_id}:key/{physical['Key']}"
    return Names(
        "demo", "eu-west-1", account_id, key, role["EmrServiceRole"], role["NodeRole"], physical["DemoGlueDatabase"]
    )


@pytest.fixture(scope="session")
def policies(demo):
    """Statements by role, as IAM has them."""
    iam = boto3.client("iam", **account(demo))
    found = {}
    for role, name in (("NodeRole", "node"), ("AirflowRole", "airflow")):
        made = f"fruits-demo-{name}-eu-west-1"
        documents = [
            iam.get_role_policy(RoleName=made, PolicyName=policy)["PolicyDocument"]
            for policy in iam.list_role_policies(RoleName=made)["PolicyNames"]
        ]
        found[role] = [statement for document in documents for statement in document["Statement"]]
    return found


@pytest.fixture(scope="session")
def of_resources(demo, names):
    """Statements of the policies of buckets and key, by ARN of the resource."""
    s3 = boto3.client("s3", **account(demo))
    buckets = [one["Name"] for one in s3.list_buckets()["Buckets"] if "-access-" not in one["Name"]]
    documents = {f"arn:aws:s3:::{name}": s3.get_bucket_policy(Bucket=name)["Policy"] for name in buckets}
    kms = boto3.client("kms", **account(demo))
    documents[names.key_arn] = kms.get_key_policy(KeyId=names.key_arn, PolicyName="default")["Policy"]
    return {arn: json.loads(document)["Statement"] for arn, document in documents.items()}


@pytest.fixture(scope="session")
def calls(demo):
    """The recorded calls of each role."""
    found = {"NodeRole": [], "AirflowRole": []}
    for call in demo["calls"]:
        if role := role_of(call):
            found[role].append(call)
    return found


def looks_abroad(call, names):
    """The janitor asks every region that a run may choose, and takes the refusal of its role for an answer."""
    return call["operation"] == "ListClusters" and call["region"] != names.region


def policy_of(resource, of_resources):
    """The statements of the bucket's policy, for its objects too, or of the key's."""
    return of_resources.get(resource) or of_resources.get(resource.partition("/")[0], ())


def account(demo):
    return {"endpoint_url": demo["endpoint"], "region_name": "eu-west-1", **demo["keys"]}


@pytest.mark.parametrize("role", ["NodeRole", "AirflowRole"])
def test_every_call_is_allowed_to_its_role(calls, policies, of_resources, names, role):
    assert len(calls[role]) > 50
    denied = {
        (call["operation"], request.action, request.resource)
        for call in calls[role]
        if not looks_abroad(call, names)
        for request in requests_of(call, names)
        if not allowed(policies[role], request, policy_of(request.resource, of_resources))
    }
    assert denied == set()


@pytest.mark.parametrize("role", ["NodeRole", "AirflowRole"])
def test_what_a_role_may_beyond_that_is_stated(calls, policies, names, role):
    used = {request.action for call in calls[role] for request in requests_of(call, names)}
    assert actions_of(policies[role]) - used - STATED[role].keys() == set()


def test_nothing_is_stated_that_no_role_may(policies):
    for role, stated in STATED.items():
        assert stated.keys() <= actions_of(policies[role])
