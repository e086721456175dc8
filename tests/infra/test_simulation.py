"""The roles of the stack, asked: what they must allow, what they must refuse, and the evaluator that answers."""

from __future__ import annotations

from typing import Any

import pytest

from tests.infra.conftest import resolved_stack
from tests.infra.simulation import Names, Request, allowed, requests_of, require_known, role_of

HERE = {"aws:RequestedRegion": "eu-west-1"}
ABROAD = {"aws:RequestedRegion": "us-east-1"}
TO_EC2 = {"iam:PassedToService": "ec2.amazonaws.com"}
KEY = "arn:aws:kms:eu-west-1:123456789012:key/11111111-2222-3333-4444-555555555555"
NAMES = Names(
    "test", "eu-west-1", "123456789012", KEY, "arn:aws:iam::123456789012:role/EmrServiceRole",
    "arn:aws:iam::123456789012:role/NodeRole", "fruits",
)  # fmt: skip
RAW, LAKE = "arn:aws:s3:::rawbucket", "arn:aws:s3:::lakebucket"
FOREIGN = {"elasticmapreduce:ResourceTag/deployment": "another"}
CLUSTER = NAMES.arn("elasticmapreduce", "cluster/j-1")


def statements(role: str) -> list[dict[str, Any]]:
    properties = resolved_stack()[role]["Properties"]
    return [statement for policy in properties["Policies"] for statement in policy["PolicyDocument"]["Statement"]]


def policy_of(resource: str) -> list[dict[str, Any]]:
    """The statements of a bucket's, key's or endpoint's own policy."""
    properties = resolved_stack()[resource]["Properties"]
    document = properties["KeyPolicy" if resource == "Key" else "PolicyDocument"]
    return list(document["Statement"])


def policy_at(resource: str) -> list[dict[str, Any]]:
    """The statements of the policy of a bucket, for its objects too, or of the key; none of another resource."""
    names = {RAW: "RawBucketPolicy", LAKE: "LakeBucketPolicy", KEY: "Key"}
    name = names.get(resource) or names.get(resource.partition("/")[0])
    return policy_of(name) if name else []


def via_s3(bucket: str) -> dict[str, str]:
    return HERE | {"kms:ViaService": "s3.eu-west-1.amazonaws.com", "kms:EncryptionContext:aws:s3:arn": bucket}


REFUSED: list[tuple[str, Request]] = [
    ("NodeRole", Request("s3:PutObject", f"{RAW}/images/x.jpg", HERE)),
    ("NodeRole", Request("s3:DeleteObject", f"{RAW}/images/x.jpg", HERE)),
    ("NodeRole", Request("s3:GetObjectVersion", f"{RAW}/images/x.jpg", HERE)),
    ("NodeRole", Request("s3:PutObject", f"{LAKE}/code/c0de/featurize.py", HERE)),
    ("NodeRole", Request("s3:PutObject", f"{LAKE}/models/m/model.tflite", HERE)),
    ("NodeRole", Request("s3:GetObject", f"{RAW}/hr/passport.jpg", HERE)),
    ("NodeRole", Request("s3:DeleteObject", f"{LAKE}/runs/r/run.json", HERE)),
    # the control plane's files: a compromised node forges none of them
    *(
        ("NodeRole", Request("s3:PutObject", f"{LAKE}/runs/r/{name}", HERE))
        for name in (
            "run.json",
            "residency.json",
            "report.html",
            "listing.parquet",
            "report.pdf",
            "stages/x.html",
            "journal/create_cluster.json",
            "stages/publish.json.html",
        )
    ),
    ("NodeRole", Request("s3:PutObject", f"{LAKE}/erasures/e/stages/receipt.html", HERE)),
    ("NodeRole", Request("s3:PutObject", f"{LAKE}/state/fruits.json", HERE)),
    ("NodeRole", Request("s3:GetObject", f"{LAKE}/runs/r/run.json", HERE)),
    # a notebook: no raw photo, nothing of production's
    ("NotebookRole", Request("s3:GetObject", f"{RAW}/images/x.jpg", HERE)),
    ("NotebookRole", Request("s3:ListBucket", RAW, HERE)),
    ("NotebookRole", Request("kms:Decrypt", KEY, via_s3(RAW))),
    *(
        ("NotebookRole", Request(f"s3:{action}", f"{LAKE}/{key}", HERE))
        for action in ("PutObject", "DeleteObject")
        for key in (
            "tables/fruits.db/pca/data/x.parquet",
            "runs/scheduled__r/stages/publish.json",
            "runs/notebook__r/run.json",
            "suppression/e.parquet",
            "code/c/x.py",
            "models/m/model.json",
            "staging/x.jpg",
        )
    ),
    *(
        ("NotebookRole", Request(f"glue:{action}", NAMES.arn("glue", "table/fruits/images"), HERE))
        for action in ("CreateTable", "UpdateTable", "DeleteTable")
    ),
    ("NotebookRole", Request("s3:GetObject", f"{LAKE}/erasures/e/request.json", HERE)),
    ("NotebookRole", Request("elasticmapreduce:TerminateJobFlows", CLUSTER, HERE)),
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
    # clusters of others: neither changed, nor made its own by a tag
    *(
        ("AirflowRole", Request(f"elasticmapreduce:{action}", CLUSTER, HERE | more | FOREIGN))
        for action, more in [
            ("PutAutoTerminationPolicy", {}),
            ("PutManagedScalingPolicy", {}),
            ("AddTags", {"aws:RequestTag/deployment": "test"}),
        ]
    ),
    ("AirflowRole", Request("elasticmapreduce:RunJobFlow", "*", HERE | {"aws:RequestTag/deployment": "another"})),
    (
        "AirflowRole",
        Request(
            "elasticmapreduce:TerminateJobFlows", CLUSTER, HERE | {"elasticmapreduce:ResourceTag/deployment": "another"}
        ),
    ),
    (
        "AirflowRole",
        Request("iam:PassRole", NAMES.node_role_arn, HERE | {"iam:PassedToService": "lambda.amazonaws.com"}),
    ),
    (
        "AirflowRole",
        Request(
            "iam:PassRole", "arn:aws:iam::123456789012:role/Admin", HERE | {"iam:PassedToService": "ec2.amazonaws.com"}
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
    ("AnalystRole", Request("kms:Decrypt", KEY, via_s3(f"{RAW}/images/x.jpg"))),
    ("AnalystRole", Request("kms:Decrypt", KEY, HERE)),
    ("EmrServiceRole", Request("kms:CreateGrant", KEY, HERE | {"kms:GrantIsForAWSResource": "false"})),
    (
        "EmrServiceRole",
        Request("iam:PassRole", NAMES.service_role_arn, HERE | {"iam:PassedToService": "ec2.amazonaws.com"}),
    ),
]
# What a notebook does on a cluster (tests/local_aws/test_notebook_step.py), and an erasure in its tables after it: each
# request needs the right on the catalog, the database and the table.
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
    *(
        ("NodeRole", Request(f"s3:{action}", f"{LAKE}/runs/scheduled__r/{name}", HERE))
        for action, name in [
            ("GetObject", "listing.parquet"), ("GetObject", "pca_model.npz"), ("GetObject", "stages/reduce_pca.json"),
            ("PutObject", "pca_model.npz"), ("PutObject", "pca.parquet"), ("PutObject", "sample.parquet"),
            ("PutObject", "stages/load_images.json"), ("AbortMultipartUpload", "pca.parquet"),
        ]
    ),
    ("NodeRole", Request("s3:GetObject", f"{RAW}/images/2026/x.jpg", HERE)),
    *((role, request) for role in ("NodeRole", "NotebookRole") for request in NOTEBOOK),
    *(
        ("NotebookRole", Request(f"s3:{action}", f"{LAKE}/{key}", HERE))
        for action, key in [
            ("GetObject", "staging/photos/x.jpg"), ("GetObject", "tables/fruits.db/pca/data/x.parquet"),
            ("GetObject", "suppression/e.parquet"), ("GetObject", "runs/notebook__r/pca_model.npz"),
            ("PutObject", "runs/notebook__r/listing.parquet"), ("PutObject", "runs/notebook__r/stages/publish.json"),
            ("PutObject", "logs/j-1/node/x.gz"),
        ]
    ),
    *(
        (role, Request("kms:Decrypt", KEY, via_s3(object_)))
        for role in ("AnalystRole", "NotebookRole")
        for object_ in (LAKE, f"{LAKE}/tables/t")
    ),
    ("NotebookRole", Request("kms:GenerateDataKey", KEY, HERE)),  # of its disks
    ("NotebookRole", Request("glue:GetTable", NAMES.arn("glue", "table/fruits/pca"), HERE)),
    ("EmrServiceRole", Request("iam:PassRole", "arn:aws:iam::123456789012:role/NotebookRole", HERE | TO_EC2)),
    # with and without the tags of a cluster that is being created
    *(
        ("AirflowRole", Request(f"elasticmapreduce:{action}", CLUSTER, HERE | more | tags))
        for action, more in [("PutAutoTerminationPolicy", {}), ("PutManagedScalingPolicy", {}),
                             ("AddTags", {"aws:RequestTag/deployment": "test"})]
        for tags in ({}, {"elasticmapreduce:ResourceTag/deployment": "test"})
    ),
    ("AirflowRole", Request("s3:DeleteObjectVersion", f"{RAW}/images/x.jpg", HERE)),
    ("AirflowRole", Request("iam:PassRole", NAMES.node_role_arn, ABROAD | TO_EC2)),
    ("AnalystRole", Request("s3:GetObject", f"{LAKE}/tables/fruits.db/pca/data/x.parquet", HERE)),
    ("AnalystRole", Request("s3:ListBucket", LAKE, HERE | {"s3:prefix": "runs/r"})),
    ("AnalystRole", Request("glue:GetTable", NAMES.arn("glue", "table/fruits/pca"), HERE)),
    ("AnalystRole", Request("glue:GetTable", NAMES.arn("glue", "table/fruits_notebook/pca"), HERE)),
    ("EmrServiceRole", Request("kms:CreateGrant", KEY, HERE | {"kms:GrantIsForAWSResource": "true"})),
]  # fmt: skip


@pytest.mark.parametrize(("role", "request_"), REFUSED, ids=lambda case: getattr(case, "action", case))
def test_what_a_role_may_not(role: str, request_: Request) -> None:
    require_known(request_)
    assert not allowed(statements(role), request_, policy_at(request_.resource))


@pytest.mark.parametrize(("role", "request_"), ALLOWED, ids=lambda case: getattr(case, "action", case))
def test_what_a_role_may(role: str, request_: Request) -> None:
    require_known(request_)
    assert allowed(statements(role), request_, policy_at(request_.resource))


# ---- policies of buckets, key and endpoints ------------------------------------------------------------------------

ENCRYPTION = "s3:x-amz-server-side-encryption"


@pytest.mark.parametrize(
    ("key", "header", "accepted"),
    [
        ("logs/j-1/steps/s-1/stdout.gz", None, True),
        ("logs/j-1/steps/s-1/stdout.gz", "aws:kms", True),
        ("logs/j-1/steps/s-1/stdout.gz", "AES256", True),
        ("tables/fruits.db/pca/data/x.parquet", None, True),
        ("tables/fruits.db/pca/data/x.parquet", "aws:kms", True),
        ("tables/fruits.db/pca/data/x.parquet", "AES256", False),
    ],
)
def test_logs_arrive_whatever_encryption_is_named(key: str, header: str | None, accepted: bool) -> None:
    request_ = Request("s3:PutObject", f"{LAKE}/{key}", HERE | ({ENCRYPTION: header} if header else {}))
    require_known(request_)
    assert allowed(statements("NodeRole"), request_, policy_of("LakeBucketPolicy")) is accepted


SPOT = "arn:aws:iam::123456789012:role/aws-service-role/spot.amazonaws.com/AWSServiceRoleForEC2Spot"
GRANT = {"kms:GrantIsForAWSResource": "true"}


@pytest.mark.parametrize(
    ("action", "principal", "more", "answer"),
    [
        ("GenerateDataKeyWithoutPlaintext", SPOT, {}, True),
        ("Decrypt", SPOT, {}, True),
        ("CreateGrant", SPOT, GRANT, True),
        ("CreateGrant", SPOT, {"kms:GrantIsForAWSResource": "false"}, False),
        ("ScheduleKeyDeletion", SPOT, {}, False),
        ("Decrypt", SPOT.replace("123456789012", "999999999999"), {}, False),
        ("Decrypt", "arn:aws:iam::123456789012:role/another", {}, False),
    ],
)
def test_the_key_lets_ec2_encrypt_the_disks_of_spot_nodes(
    action: str, principal: str, more: dict[str, str], answer: bool
) -> None:
    request_ = Request(f"kms:{action}", KEY, HERE | {"aws:PrincipalArn": principal} | more)
    require_known(request_)
    assert allowed([], request_, policy_of("Key")) is answer  # no policy of ours is attached to EC2's role


def test_the_key_is_opened_by_the_policies_of_roles() -> None:
    assert allowed(statements("AnalystRole"), Request("kms:Decrypt", KEY, via_s3(LAKE)), policy_of("Key"))
    assert not allowed(statements("AnalystRole"), Request("kms:Decrypt", KEY, via_s3(LAKE)), policy_of("Key")[1:])


def test_nothing_is_sent_in_clear_text() -> None:
    open_ = Request("s3:GetObject", f"{LAKE}/tables/t", HERE | {"aws:SecureTransport": "false"})
    assert not allowed(statements("NodeRole"), open_, policy_of("LakeBucketPolicy"))


OTHER = "arn:aws:s3:::another-bucket"
ACCOUNT = {"aws:PrincipalAccount": "123456789012", "aws:ResourceAccount": "123456789012"}


@pytest.mark.parametrize(
    ("endpoint", "request_", "answer"),
    [
        ("S3Endpoint", Request("s3:PutObject", f"{LAKE}/tables/t", HERE), True),
        ("S3Endpoint", Request("s3:GetObject", f"{RAW}/images/x.jpg", HERE), True),
        ("S3Endpoint", Request("s3:PutObject", f"{OTHER}/x", HERE), False),
        ("S3Endpoint", Request("s3:GetObject", f"{OTHER}/x", HERE), False),
        ("S3Endpoint", Request("s3:GetObject", "arn:aws:s3:::al2023-repos-eu-west-1-evil/x", HERE), False),
        ("S3Endpoint", Request("s3:PutObject", "arn:aws:s3:::repo.eu-west-1.emr.amazonaws.com/x", HERE), False),
        ("GlueEndpoint", Request("glue:GetTable", NAMES.arn("glue", "table/fruits/pca"), HERE | ACCOUNT), True),
        (
            "GlueEndpoint",
            Request("glue:UpdateTable", NAMES.arn("glue", "table/theirs/t"),
                    HERE | ACCOUNT | {"aws:ResourceAccount": "999999999999"}),
            False,
        ),
        (
            "GlueEndpoint",
            Request("glue:UpdateTable", NAMES.arn("glue", "table/fruits/pca"),
                    HERE | ACCOUNT | {"aws:PrincipalAccount": "999999999999"}),
            False,
        ),
        ("KmsEndpoint", Request("kms:GenerateDataKey", KEY, HERE), True),
        ("KmsEndpoint", Request("kms:Encrypt", KEY.replace("1111", "2222"), HERE), False),
    ],
)  # fmt: skip
def test_an_endpoint_leads_to_what_is_ours(endpoint: str, request_: Request, answer: bool) -> None:
    require_known(request_)
    assert allowed([], request_, policy_of(endpoint)) is answer


# What EMR's guide lists for emr-spark-8 ("Sample policies for private subnets that access Amazon S3").
NEEDED_BY_EMR = [
    ("GetObject", "al2023-repos-eu-west-1-de612dc2"),
    ("GetObject", "repo.eu-west-1.emr.amazonaws.com"),
    ("GetObject", "aws157-instance-data-0-prod-eu-west-1"),
    ("GetObject", "aws157-instance-data-1-prod-eu-west-1"),
    ("PutObject", "aws157-logs-prod-eu-west-1"),
    ("PutObject", "prod.eu-west-1.appinfo.src"),
    ("GetObject", "prod.eu-west-1.appinfo.src"),
    ("AbortMultipartUpload", "prod.eu-west-1.appinfo.src"),
    ("ListMultipartUploadParts", "prod.eu-west-1.appinfo.src"),
]


@pytest.mark.parametrize(("action", "bucket"), NEEDED_BY_EMR)
def test_the_s3_endpoint_leads_to_what_emr_lists(action: str, bucket: str) -> None:
    request_ = Request(f"s3:{action}", f"arn:aws:s3:::{bucket}/x", HERE)
    require_known(request_)
    assert allowed([], request_, policy_of("S3Endpoint"))


# ---- the evaluators themselves ---------------------------------------------------------------------------------------

TAG, SECURE = "aws:PrincipalTag/k", "aws:SecureTransport"


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
            [allow(Condition={"StringEquals": {TAG: ["v", "w"]}})],
            Request("s3:GetObject", f"{LAKE}/a/x", {TAG: "w"}),
            True,
        ),
        ([allow(Condition={"StringEquals": {TAG: "v"}})], Request("s3:GetObject", f"{LAKE}/a/x"), False),
        ([allow(Condition={"StringNotEquals": {TAG: "v"}})], Request("s3:GetObject", f"{LAKE}/a/x"), True),
        ([allow(Condition={"Null": {TAG: "true"}})], Request("s3:GetObject", f"{LAKE}/a/x", {TAG: "v"}), False),
        (
            [allow(Condition={"StringLike": {TAG: "v*"}, "Bool": {SECURE: "true"}})],
            Request("s3:GetObject", f"{LAKE}/a/x", {TAG: "vx"}),
            False,
        ),
        (
            [allow(), {"Effect": "Deny", "NotAction": "iam:*", "Resource": "*"}],
            Request("s3:GetObject", f"{LAKE}/a/x"),
            False,
        ),
        ([allow(Resource=f"{LAKE}/a[1]/*")], Request("s3:GetObject", f"{LAKE}/a[1]/x"), True),
        ([allow(Condition={"StringEqualsIfExists": {TAG: "v"}})], Request("s3:GetObject", f"{LAKE}/a/x"), True),
        (
            [allow(Condition={"StringEqualsIfExists": {TAG: "v"}})],
            Request("s3:GetObject", f"{LAKE}/a/x", {TAG: "w"}),
            False,
        ),
        (
            [allow(), {"Effect": "Deny", "Action": "s3:*", "NotResource": f"{LAKE}/b/*"}],
            Request("s3:GetObject", f"{LAKE}/a/x"),
            False,
        ),
    ],
)
def test_the_evaluator(policy: list[dict[str, Any]], request_: Request, answer: bool) -> None:
    assert allowed(policy, request_) is answer


def test_an_operator_that_is_not_known_is_not_guessed() -> None:
    with pytest.raises(NotImplementedError, match="IpAddress"):
        allowed([allow(Condition={"IpAddress": {"k": "v"}})], Request("s3:GetObject", f"{LAKE}/a/x", {"k": "v"}))


@pytest.mark.parametrize(
    ("request_", "why"),
    [
        (
            Request("elasticmapreduce:PutAutoTerminationPolicy", CLUSTER, {"aws:RequestTag/deployment": "test"}),
            "no condition key aws:RequestTag/deployment",
        ),
        (Request("s3:GetObject", RAW), "no resource type"),
        (Request("s3:GetObject", f"{RAW}/x", {"s3:prefix": "x"}), "no condition key s3:prefix"),
    ],
)
def test_a_request_that_aws_never_builds_is_refused(request_: Request, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        require_known(request_)


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
    assert [needed.action for needed in requests_of(call(status=404), NAMES)] == [
        "s3:GetObject",
        "s3:ListBucket",
        "kms:Decrypt",
    ]
    assert [needed.action for needed in requests_of(call(operation="PutObject"), NAMES)] == [
        "s3:PutObject",
        "kms:GenerateDataKey",
    ]
    assert next(requests_of(call(query="versionId=1"), NAMES)).action == "s3:GetObjectVersion"
    deleted = [{"key": "a", "version_id": None}, {"key": "b", "version_id": "1"}]
    several = call(operation="DeleteObjects", key="", deleted=deleted)
    assert [(needed.action, needed.resource) for needed in requests_of(several, NAMES)] == [
        ("s3:DeleteObject", f"{LAKE}/a"),
        ("s3:DeleteObjectVersion", f"{LAKE}/b"),
    ]
    actions = [needed.action for needed in requests_of(call(service="emr", operation="RunJobFlow"), NAMES)]
    assert actions.count("iam:PassRole") == 2
    assert "elasticmapreduce:PutManagedScalingPolicy" in actions
