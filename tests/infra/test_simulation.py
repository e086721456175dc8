"""The roles of the stack, asked: what they must allow, what they must refuse, and the evaluator that answers."""

from __future__ import annotations

from typing import Any

import pytest

from tests.infra.conftest import resolved_stack
from tests.infra.simulation import Names, Request, allowed, requests_of, role_of

HERE = {"aws:RequestedRegion": "eu-west-1"}
ABROAD = {"aws:RequestedRegion": "us-east-1"}
TO_EC2 = {"iam:PassedToService": "ec2.amazonaws.com"}
KEY = "arn:aws:kms:eu-west-1:123456789012:key/11111111-2222-3333-4444-555555555555"
NAMES = Names(
    "test", "eu-west-1", "123456789012", KEY, "arn:aws:iam::123456789012:role/EmrServiceRole",
    "arn:aws:iam::123456789012:role/NodeRole", "fruits",
)  # fmt: skip
RAW, LAKE = "arn:aws:s3:::rawbucket", "arn:aws:s3:::lakebucket"
CLUSTER = NAMES.arn("elasticmapreduce", "cluster/j-1")


def statements(role: str) -> list[dict[str, Any]]:
    properties = resolved_stack()[role]["Properties"]
    return [one for policy in properties["Policies"] for one in policy["PolicyDocument"]["Statement"]]


def via_s3(bucket: str) -> dict[str, str]:
    return HERE | {"kms:ViaService": "s3.eu-west-1.amazonaws.com", "kms:EncryptionContext:aws:s3:arn": bucket}


REFUSED: list[tuple[str, Request]] = [
    ("NodeRole", Request("s3:PutObject", f"{RAW}/images/x.jpg", HERE)),
    ("NodeRole", Request("s3:DeleteObject", f"{RAW}/images/x.jpg", HERE)),
    ("NodeRole", Request("s3:GetObjectVersion", f"{RAW}/images/x.jpg", HERE)),
    ("NodeRole", Request("s3:PutObject", f"{LAKE}/code/c0de/featurize.py", HERE)),
    ("NodeRole", Request("s3:PutObject", f"{LAKE}/models/m/model.tflite", HERE)),
    ("NodeRole", Request("s3:DeleteObject", f"{LAKE}/runs/r/run.json", HERE)),
    ("NodeRole", Request("s3:PutObject", f"{LAKE}/suppression/e.parquet", HERE)),
    ("NodeRole", Request("s3:PutObject", f"{LAKE}/erasures/e/request.json", HERE)),
    ("NodeRole", Request("s3:PutObject", f"{LAKE}/erasures/e/receipt.json", HERE)),
    ("NodeRole", Request("s3:GetObject", f"{LAKE}/erasures/e/receipt.json", HERE)),
    ("NodeRole", Request("s3:GetObject", "arn:aws:s3:::another/x", HERE)),
    ("NodeRole", Request("glue:DeleteDatabase", NAMES.arn("glue", "database/fruits"), HERE)),
    ("NodeRole", Request("glue:GetTable", NAMES.arn("glue", "table/another/t"), HERE)),
    ("NodeRole", Request("glue:CreateDatabase", NAMES.arn("glue", "database/fruits_notebook"), HERE)),
    ("AnalystRole", Request("glue:UpdateTable", NAMES.arn("glue", "table/fruits_notebook/pca"), HERE)),
    ("NodeRole", Request("elasticmapreduce:TerminateJobFlows", CLUSTER, HERE)),
    ("NodeRole", Request("iam:PassRole", NAMES.node_role_arn, HERE)),
    ("AirflowRole", Request("s3:PutObject", f"{RAW}/images/x.jpg", HERE)),
    ("AirflowRole", Request("s3:GetObject", f"{LAKE}/runs/r", {"aws:RequestedRegion": "us-east-1"})),
    ("AirflowRole", Request("elasticmapreduce:RunJobFlow", "*", HERE)),
    (
        "AirflowRole",
        Request("elasticmapreduce:RunJobFlow", "*", HERE | {"aws:RequestTag/deployment": "another"}),
    ),
    (
        "AirflowRole",
        Request(
            "elasticmapreduce:TerminateJobFlows",
            CLUSTER,
            HERE | {"elasticmapreduce:ResourceTag/deployment": "another"},
        ),
    ),
    (
        "AirflowRole",
        Request("iam:PassRole", NAMES.node_role_arn, HERE | {"iam:PassedToService": "lambda.amazonaws.com"}),
    ),
    (
        "AirflowRole",
        Request(
            "iam:PassRole",
            "arn:aws:iam::123456789012:role/Admin",
            HERE | {"iam:PassedToService": "ec2.amazonaws.com"},
        ),
    ),
    ("AirflowRole", Request("s3:DeleteBucket", RAW, HERE)),
    ("AirflowRole", Request("s3:DeleteObject", f"{RAW}/images/x.jpg", HERE)),
    ("AirflowRole", Request("glue:DeleteTable", NAMES.arn("glue", "table/fruits/images"), HERE)),
    ("AnalystRole", Request("s3:GetObject", f"{RAW}/images/x.jpg", HERE)),
    ("AnalystRole", Request("s3:ListBucket", RAW, HERE)),
    ("AnalystRole", Request("s3:PutObject", f"{LAKE}/tables/t", HERE)),
    ("AnalystRole", Request("s3:GetObject", f"{LAKE}/certificates/nodes.zip", HERE)),
    ("AnalystRole", Request("s3:GetObject", f"{LAKE}/logs/j-1/x", HERE)),
    ("AnalystRole", Request("s3:ListBucket", LAKE, HERE | {"s3:prefix": "logs/"})),
    ("AnalystRole", Request("kms:Decrypt", KEY, via_s3(RAW))),
    ("AnalystRole", Request("kms:Decrypt", KEY, HERE)),
    ("EmrServiceRole", Request("kms:CreateGrant", KEY, HERE | {"kms:GrantIsForAWSResource": "false"})),
    (
        "EmrServiceRole",
        Request("iam:PassRole", NAMES.service_role_arn, HERE | {"iam:PassedToService": "ec2.amazonaws.com"}),
    ),
]
# What a notebook does on a cluster (tests/local_aws/test_notebook_step.py), and an erasure in its tables after it: each
# asks for the catalog, the database and the table.
NOTEBOOK = [
    *(
        Request(f"glue:{operation}", NAMES.arn("glue", resource), HERE)
        for operation, level in [("GetDatabase", 2), ("CreateTable", 3), ("GetTable", 3), ("GetTables", 3),
                                 ("UpdateTable", 3), ("DeleteTable", 3)]
        for resource in ("catalog", "database/fruits_notebook", "table/fruits_notebook/images")[:level]
    ),
    *(
        Request(f"s3:{operation}", f"{LAKE}/tables/fruits_notebook.db/images/data/x.parquet", HERE)
        for operation in ("GetObject", "PutObject", "DeleteObject")
    ),
]  # fmt: skip
ALLOWED: list[tuple[str, Request]] = [
    ("NodeRole", Request("s3:GetObject", f"{LAKE}/env/{'e' * 64}/environment.tar.gz", HERE)),
    ("NodeRole", Request("s3:GetObject", f"{LAKE}/certificates/nodes.zip", HERE)),
    ("NodeRole", Request("s3:PutObject", f"{LAKE}/logs/j-1/node/x.gz", HERE)),
    # a night leaves out what was erased; an erasure's steps read what to erase and say what they found
    ("NodeRole", Request("s3:GetObject", f"{LAKE}/suppression/manual__e.parquet", HERE)),
    ("NodeRole", Request("s3:GetObject", f"{LAKE}/erasures/manual__e/request.json", HERE)),
    ("NodeRole", Request("s3:PutObject", f"{LAKE}/erasures/manual__e/fruits/stages/erase_images.json", HERE)),
    *(("NodeRole", request) for request in NOTEBOOK),
    ("AirflowRole", Request("s3:DeleteObjectVersion", f"{RAW}/images/x.jpg", HERE)),
    ("AirflowRole", Request("iam:PassRole", NAMES.node_role_arn, ABROAD | TO_EC2)),
    ("AnalystRole", Request("s3:GetObject", f"{LAKE}/tables/fruits.db/pca/data/x.parquet", HERE)),
    ("AnalystRole", Request("s3:ListBucket", LAKE, HERE | {"s3:prefix": "runs/r"})),
    ("AnalystRole", Request("kms:Decrypt", KEY, via_s3(LAKE))),
    ("AnalystRole", Request("glue:GetTable", NAMES.arn("glue", "table/fruits/pca"), HERE)),
    ("AnalystRole", Request("glue:GetTable", NAMES.arn("glue", "table/fruits_notebook/pca"), HERE)),
    ("EmrServiceRole", Request("kms:CreateGrant", KEY, HERE | {"kms:GrantIsForAWSResource": "true"})),
]  # fmt: skip


@pytest.mark.parametrize(("role", "request_"), REFUSED, ids=lambda one: getattr(one, "action", one))
def test_what_a_role_may_not(role: str, request_: Request) -> None:
    assert not allowed(statements(role), request_)


@pytest.mark.parametrize(("role", "request_"), ALLOWED, ids=lambda one: getattr(one, "action", one))
def test_what_a_role_may(role: str, request_: Request) -> None:
    assert allowed(statements(role), request_)


def allow(**more: Any) -> dict[str, Any]:
    return {"Effect": "Allow", "Action": "s3:Get*", "Resource": f"{LAKE}/a/*", **more}


@pytest.mark.parametrize(
    ("policy", "request_", "answer"),
    [
        ([allow()], Request("s3:getobject", f"{LAKE}/a/x"), True),
        ([allow()], Request("s3:GetObject", f"{LAKE}/b/x"), False),
        ([allow()], Request("s3:PutObject", f"{LAKE}/a/x"), False),
        ([], Request("s3:GetObject", f"{LAKE}/a/x"), False),
        ([allow(), allow(Effect="Deny")], Request("s3:GetObject", f"{LAKE}/a/x"), False),
        (
            [allow(Condition={"StringEquals": {"k": ["v", "w"]}})],
            Request("s3:GetObject", f"{LAKE}/a/x", {"k": "w"}),
            True,
        ),
        ([allow(Condition={"StringEquals": {"k": "v"}})], Request("s3:GetObject", f"{LAKE}/a/x"), False),
        ([allow(Condition={"StringNotEquals": {"k": "v"}})], Request("s3:GetObject", f"{LAKE}/a/x"), True),
        (
            [allow(Condition={"Null": {"k": "true"}})],
            Request("s3:GetObject", f"{LAKE}/a/x", {"k": "v"}),
            False,
        ),
        (
            [allow(Condition={"StringLike": {"k": "v*"}, "Bool": {"b": "true"}})],
            Request("s3:GetObject", f"{LAKE}/a/x", {"k": "vx"}),
            False,
        ),
        (
            [allow(), {"Effect": "Deny", "NotAction": "iam:*", "Resource": "*"}],
            Request("s3:GetObject", f"{LAKE}/a/x"),
            False,
        ),
        ([allow(Resource=f"{LAKE}/a[1]/*")], Request("s3:GetObject", f"{LAKE}/a[1]/x"), True),
    ],
)
def test_the_evaluator(policy: list[dict[str, Any]], request_: Request, answer: bool) -> None:
    assert allowed(policy, request_) is answer


def test_an_operator_that_is_not_known_is_not_guessed() -> None:
    with pytest.raises(NotImplementedError, match="IpAddress"):
        allowed(
            [allow(Condition={"IpAddress": {"k": "v"}})], Request("s3:GetObject", f"{LAKE}/a/x", {"k": "v"})
        )


def call(**more: Any) -> dict[str, Any]:
    base = {"user_agent": "object_store", "service": "s3", "operation": "GetObject", "bucket": "lakebucket",
            "key": "runs/x", "query": "", "region": "eu-west-1", "status": 200}  # fmt: skip
    return base | more


def test_a_call_is_the_roles_whose_client_it_is() -> None:
    assert role_of(call()) == "NodeRole"
    assert role_of(call(user_agent="Boto3/1 Airflow/3.3.2")) == "AirflowRole"
    assert role_of(call(user_agent="Boto3/1")) == "NodeRole"
    assert role_of(call(user_agent="Boto3/1 fruits-demo")) is None
    assert role_of(call(user_agent="Boto3/1 local_aws", operation="CreateBucket", key="")) is None
    assert role_of(call(user_agent="Boto3/1 local_aws", key="code/c/x.py")) == "NodeRole"


def test_a_call_needs_what_it_implies() -> None:
    assert [one.action for one in requests_of(call(status=404), NAMES)] == [
        "s3:GetObject",
        "s3:ListBucket",
        "kms:Decrypt",
    ]
    assert [one.action for one in requests_of(call(operation="PutObject"), NAMES)] == [
        "s3:PutObject",
        "kms:GenerateDataKey",
    ]
    assert next(requests_of(call(query="versionId=1"), NAMES)).action == "s3:GetObjectVersion"
    deleted = [{"key": "a", "version_id": None}, {"key": "b", "version_id": "1"}]
    several = call(operation="DeleteObjects", key="", deleted=deleted)
    assert [(one.action, one.resource) for one in requests_of(several, NAMES)] == [
        ("s3:DeleteObject", f"{LAKE}/a"),
        ("s3:DeleteObjectVersion", f"{LAKE}/b"),
    ]
    made = [one.action for one in requests_of(call(service="emr", operation="RunJobFlow"), NAMES)]
    assert made.count("iam:PassRole") == 2
    assert "elasticmapreduce:PutManagedScalingPolicy" in made
