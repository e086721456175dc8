"""Requests and replies are in AWS's shape, by the models that botocore carries."""

from __future__ import annotations

import json
from typing import Any

import pytest
import requests
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from moto.core.utils import get_service_model

from local_aws.replies import Reply
from local_aws.requests import Call
from local_aws.shapes import problems
from tests.aws_keys import FOR_CLIENT
from tests.emulator.reply_check import ReplyCheck, document
from tests.local_aws.server import REGION, Server

MASTER = {"InstanceRole": "MASTER", "InstanceType": "m5.xlarge", "InstanceCount": 1}
TARGETS = {"emr": ("elasticmapreduce", "ElasticMapReduce"), "glue": ("glue", "AWSGlue"), "kms": ("kms", "TrentService")}


def call(aws: Server, service: str, operation: str, body: object) -> tuple[int, dict[str, Any]]:
    """Send a body that boto3 itself would refuse."""
    signing_name, prefix = TARGETS[service]
    headers = {"Content-Type": "application/x-amz-json-1.1", "X-Amz-Target": f"{prefix}.{operation}"}
    data = body if isinstance(body, str) else json.dumps(body)
    request = AWSRequest("POST", f"{aws.endpoint}/", headers=headers, data=data)
    keys = Credentials(FOR_CLIENT["aws_access_key_id"], FOR_CLIENT["aws_secret_access_key"])
    SigV4Auth(keys, signing_name, REGION).add_auth(request)
    reply = requests.post(request.url, data=data, headers=dict(request.headers), timeout=30)
    return reply.status_code, reply.json() if reply.content else {}


REFUSED: list[tuple[str, str, object, str, str]] = [
    (
        "emr",
        "DescribeCluster",
        {},
        "ValidationException",
        "Value null at 'clusterId' failed to satisfy constraint: Mem",
    ),
    ("emr", "DescribeCluster", {"ClusterId": "j-1", "clusterId": "j-1"}, "ValidationException", "Unknown member 'clu"),
    ("emr", "DescribeCluster", {"ClusterId": 1}, "SerializationException", "int at 'clusterId' can not be converted"),
    ("emr", "DescribeCluster", "{", "SerializationException", ""),
    ("emr", "DescribeCluster", [], "SerializationException", "list at '' can not be converted to structure"),
    ("emr", "TerminateJobFlows", {"JobFlowIds": "j-1"}, "SerializationException", "'jobFlowIds'"),
    (
        "emr",
        "SetTerminationProtection",
        {"JobFlowIds": [], "TerminationProtected": 1},
        "SerializationException",
        "bool",
    ),
    (
        "emr",
        "RunJobFlow",
        {"Name": "n", "Instances": {"InstanceGroups": [MASTER | {"InstanceRole": "BOSS"}]}},
        "ValidationException",
        "Value 'BOSS' at 'instances.instanceGroups.1.member.instanceRole' failed to satisfy constraint: Member must "
        "satisfy enum value set: [MASTER, CORE, TASK]",
    ),
    ("emr", "RunJobFlow", {}, "ValidationException", "2 validation errors detected: Value null at 'name'"),
    (
        "emr",
        "AddJobFlowSteps",
        {"JobFlowId": "j-1", "Steps": [{"Name": "n" * 257, "HadoopJarStep": {"Jar": "x"}}]},
        "ValidationException",
        "at 'steps.1.member.name' failed to satisfy constraint: Member must have length less than or equal to 256",
    ),
    ("glue", "GetTable", {"DatabaseName": "d"}, "ValidationException", "Value null at 'name'"),
    ("glue", "CreateDatabase", {"DatabaseInput": {"Name": ""}}, "ValidationException", "greater than or equal to 1"),
    ("glue", "GetTables", {"DatabaseName": "d", "MaxResults": 101}, "ValidationException", "less than or equal to 100"),
    ("kms", "DescribeKey", {}, "ValidationException", "Value null at 'keyId'"),
    ("kms", "DescribeKey", {"KeyId": "k", "Region": "eu-west-1"}, "ValidationException", "Unknown member 'Region'"),
]


@pytest.mark.parametrize(("service", "operation", "body", "code", "message"), REFUSED)
def test_a_request_that_is_not_in_awss_shape_is_refused(
    aws: Server, service: str, operation: str, body: object, code: str, message: str
) -> None:
    status, error = call(aws, service, operation, body)
    assert (status, error["__type"]) == (400, code)
    assert message in error["message"]


def test_a_member_that_is_null_counts_as_absent(aws: Server) -> None:
    status, reply = call(aws, "emr", "ListClusters", {"ClusterStates": None, "Marker": None})
    assert (status, "Clusters" in reply) == (200, True)


def test_a_timestamp_is_a_number(aws: Server) -> None:
    assert call(aws, "emr", "ListClusters", {"CreatedAfter": 1.5})[0] == 200
    assert call(aws, "emr", "ListClusters", {"CreatedAfter": "today"})[1]["__type"] == "SerializationException"


def test_an_operation_without_output_is_answered_with_an_empty_body(aws: Server) -> None:
    key = aws.client("kms").create_key()["KeyMetadata"]["KeyId"]
    assert call(aws, "kms", "EnableKeyRotation", {"KeyId": key}) == (200, {})


def reply_to(service: str, target: str, body: bytes) -> Reply:
    scope = f"Credential=a/20260101/{REGION}/{TARGETS[service][0]}/aws4_request, "
    environ = {"REQUEST_METHOD": "POST", "REQUEST_URI": "/", "HTTP_AUTHORIZATION": scope, "HTTP_X_AMZ_TARGET": target}
    return ReplyCheck().after(Call(environ), Reply(200, [], body))


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ({"Cluster": {"Id": "j-1", "Nick": "x"}}, "Unknown member 'Nick' at 'cluster'"),
        ({"Cluster": {"Id": 1}}, "int at 'cluster.id' can not be converted to string"),
        ({"Cluster": {"Status": {"State": "SLEEPING"}}}, "Value 'SLEEPING' at 'cluster.status.state'"),
        (
            {"Cluster": {"Status": {"Timeline": {"CreationDateTime": "2026-01-01"}}}},
            "can not be converted to timestamp",
        ),
    ],
)
def test_a_reply_that_is_not_in_awss_shape_fails_the_test_that_caused_it(body: object, problem: str) -> None:
    reply = reply_to("emr", "ElasticMapReduce.DescribeCluster", json.dumps(body).encode())
    assert reply.status == 501
    assert problem in json.loads(reply.body)["message"]


def test_a_reply_in_awss_shape_passes() -> None:
    body = json.dumps({"Cluster": {"Id": "j-1", "Status": {"State": "WAITING"}}}).encode()
    assert reply_to("emr", "ElasticMapReduce.DescribeCluster", body).body == body


@pytest.mark.parametrize(
    ("xml", "end"),
    [
        (b"<Tagging><TagSet><Tag><Key>a</Key><Value>b</Value></Tag></TagSet></Tagging>", []),
        (b"<Tagging><TagSet><Tag><Key>a</Key></Tag></TagSet></Tagging>", ["Value null at 'tagSet.1.member.value'"]),
        (b"<Tagging><TagSet/><Size>1</Size></Tagging>", ["Unknown member 'Size' at ''"]),
    ],
)
def test_a_reply_of_xml_is_compared_too(xml: bytes, end: list[str]) -> None:
    operation = get_service_model("s3").operation_model("GetBucketTagging")
    breaches = list(problems(operation.output_shape, document(operation, xml)))
    assert [breach.split(" failed")[0] for breach in breaches] == end
