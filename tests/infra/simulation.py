"""What IAM would say: the requests that a recorded call needs, and an evaluator for the policies of include/stack.yaml.

The evaluator follows the reference of IAM's policy evaluation for one account without boundaries or session policies:
an explicit denial wins, then an allowance, else it is denied. It knows the condition operators that the stack uses,
and fails on any other rather than guess. Which resource types and condition keys a request has comes from AWS's service
authorization reference (authorization.py), never from what a policy asks for. moto's own evaluator ignores conditions.
A public simulator is asked the same (second_opinion.py), and must give the same answer.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.infra import second_opinion
from tests.infra.authorization import condition_keys, has_resource, is_known, resource_types

Statement = Mapping[str, Any]

S3_ACTIONS = {
    "HeadObject": "GetObject",
    "HeadBucket": "ListBucket",
    "ListObjects": "ListBucket",
    "ListObjectsV2": "ListBucket",
    "ListObjectVersions": "ListBucketVersions",
    "ListMultipartUploads": "ListBucketMultipartUploads",
    "CreateMultipartUpload": "PutObject",
    "UploadPart": "PutObject",
    "CompleteMultipartUpload": "PutObject",
    "GetBucketEncryption": "GetEncryptionConfiguration",
    "GetBucketLifecycleConfiguration": "GetLifecycleConfiguration",
    "GetPublicAccessBlock": "GetBucketPublicAccessBlock",
}
FREE = {"sts:GetCallerIdentity", "s3:ListBuckets"}  # the first asks for no right; the second is nobody's but deploy's


@dataclass(frozen=True)
class Request:
    """One right that a call needs.

    Attributes:
        action: `service:Operation` in IAM's words.
        resource: ARN.
        context: condition keys and their values.
    """

    action: str
    resource: str
    context: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Names:
    """Of one deployment, as its stack has made them."""

    deployment_id: str
    region: str
    account: str
    key_arn: str
    service_role_arn: str
    node_role_arn: str
    database: str

    def arn(self, service: str, rest: str) -> str:
        """An ARN of this account and region."""
        return f"arn:aws:{service}:{self.region}:{self.account}:{rest}"


def require_known(request: Request) -> None:
    """Check that AWS builds such a request.

    Raises:
        ValueError: The action has no such resource type, or such requests have no such condition key.
    """
    if not has_resource(request.action, request.resource):
        raise ValueError(f"{request.action} has no resource type for {request.resource}")
    known = condition_keys(request.action, request.resource)
    if unknown := sorted(key for key in request.context if not is_known(key, known)):
        raise ValueError(f"{request.action} on {request.resource} has no condition key {', '.join(unknown)}")


def _request(action: str, resource: str, facts: Mapping[str, str]) -> Request:
    """Build a request with those facts that AWS puts into its context."""
    known = condition_keys(action, resource)
    request = Request(action, resource, {key: value for key, value in facts.items() if is_known(key, known)})
    require_known(request)
    return request


def allowed(statements: Iterable[Statement], request: Request, of_resource: Iterable[Statement] = ()) -> bool:
    """Whether the policies allow a request.

    Args:
        statements: Of the role's policies.
        request: What is asked.
        of_resource: Of the policy of the bucket or key, if it has one. A statement for the account's root hands the
            decision to the role's policies; a key whose policy has none is closed to them.

    Raises:
        AssertionError: The second opinion is another one.
    """
    statements, of_resource = list(statements), list(of_resource)
    answer = evaluate(statements, request, of_resource)
    second = second_opinion.allowed(statements, request.action, request.resource, request.context, of_resource)
    assert answer == second, f"{request}: {answer} here, {second} by iam-simulate"
    return answer


def evaluate(statements: Iterable[Statement], request: Request, of_resource: Iterable[Statement]) -> bool:
    """Whether the policies allow a request, by the evaluator of this module alone."""
    of_role = [statement for statement in statements if _applies(statement, request)]
    by_resource = [statement for statement in of_resource if _applies(statement, request)]
    if any(statement["Effect"] == "Deny" for statement in (*of_role, *by_resource)):
        return False
    granted = any(statement["Effect"] == "Allow" for statement in of_role)
    principals = [statement["Principal"] for statement in by_resource if statement["Effect"] == "Allow"]
    if "*" in principals or {"AWS": "*"} in principals:
        return True
    if request.action.startswith("kms:"):
        return granted and any(str(statement["AWS"]).endswith(":root") for statement in principals)
    return granted


def _applies(statement: Statement, request: Request) -> bool:
    if "NotAction" in statement:
        concerned = not any(_like(part.lower(), request.action.lower()) for part in _listed(statement["NotAction"]))
    else:
        concerned = any(_like(part.lower(), request.action.lower()) for part in _listed(statement["Action"]))
    if "NotResource" in statement:
        meant = not any(_like(part, request.resource) for part in _listed(statement["NotResource"]))
    else:
        meant = any(_like(part, request.resource) for part in _listed(statement["Resource"]))
    return (
        concerned
        and meant
        and all(
            _holds(operator, key, _listed(expected), request.context.get(key))
            for operator, keys in statement.get("Condition", {}).items()
            for key, expected in keys.items()
        )
    )


def _holds(operator: str, key: str, expected: list[str], value: str | None) -> bool:
    if operator == "Null":
        return (value is None) == (expected == ["true"])
    if operator == "StringNotEquals":  # a missing key is not equal
        return value is None or value not in expected
    if operator.endswith("IfExists") and value is None:
        return True
    if value is None:
        return False
    operator = operator.removesuffix("IfExists")
    if operator in ("StringEquals", "Bool"):
        return value in expected
    if operator in ("StringLike", "ArnLike", "ArnEquals"):
        return any(_like(part, value) for part in expected)
    raise NotImplementedError(f"condition {operator} on {key}")


def _like(pattern: str, text: str) -> bool:
    return re.fullmatch(fnmatch.translate(pattern.replace("[", "[[]")), text) is not None


def _listed(value: Any) -> list[str]:
    return [str(part) for part in value] if isinstance(value, list) else [str(value)]


def actions_of(statements: Iterable[Statement]) -> set[str]:
    """Every action that is allowed somewhere."""
    return {
        action for statement in statements if statement["Effect"] == "Allow" for action in _listed(statement["Action"])
    }


def role_of(call: Mapping[str, Any]) -> str | None:
    """Whose a recorded call is: by the words that a client says of itself, since every call here has one key.

    Airflow's hooks name Airflow. Iceberg, obstore and the SDK for Java run in steps only, and so does a boto3 that is
    neither Airflow's, nor the demo's (which deploys and uploads), nor local_aws' own. What local_aws does itself is
    CloudFormation's, but for a step's code and logs: on AWS the node fetches the one and uploads the other.
    """
    agent, first = str(call["user_agent"]), str(call["key"]).split("/")[0]
    if "fruits-demo" in agent or call["service"] == "local_aws":
        return None
    if agent.endswith("local_aws"):
        steps = call["service"] == "s3" and first in ("code", "env", "logs") and "Object" in call["operation"]
        return "NodeRole" if steps else None
    return "AirflowRole" if "irflow" in agent else "NodeRole"


def requests_of(call: Mapping[str, Any], names: Names) -> Iterator[Request]:
    """The rights that a recorded call needs, those it implies included."""
    here = {"aws:RequestedRegion": call["region"]}
    service, operation = call["service"], call["operation"]
    if f"{service}:{operation}" in FREE:
        return
    if service == "s3":
        yield from _s3(call, names, here)
    elif service == "glue":
        resources = {
            "rootcatalog": "catalog",
            "database": f"database/{names.database}",
            "table": f"table/{names.database}/images",
        }
        for kind in resource_types(f"glue:{operation}").keys() & resources.keys():
            yield _request(f"glue:{operation}", names.arn("glue", resources[kind]), here)
    elif service == "emr":
        yield from _emr(operation, names, here)
    else:
        yield _request(f"{service}:{operation}", "*", here)


def _s3(call: Mapping[str, Any], names: Names, here: dict[str, str]) -> Iterator[Request]:
    operation, bucket = S3_ACTIONS.get(call["operation"], call["operation"]), f"arn:aws:s3:::{call['bucket']}"
    if call["operation"] == "DeleteObjects":  # a right for each object, none for the call
        for deleted in call["deleted"]:
            version = "Version" if deleted["version_id"] else ""
            yield _request(f"s3:DeleteObject{version}", f"{bucket}/{deleted['key']}", here)
        return
    if "versionId=" in call["query"] and operation in ("GetObject", "DeleteObject"):
        operation += "Version"
    yield _request(f"s3:{operation}", f"{bucket}/{call['key']}" if call["key"] else bucket, here)
    if call["status"] == 404:  # without it S3 says 403
        yield _request("s3:ListBucket", bucket, here)
    through_s3 = {
        **here,
        "kms:ViaService": f"s3.{names.region}.amazonaws.com",
        "kms:EncryptionContext:aws:s3:arn": bucket,
    }
    if operation.startswith("GetObject"):
        yield _request("kms:Decrypt", names.key_arn, through_s3)
    if operation == "PutObject":
        yield _request("kms:GenerateDataKey", names.key_arn, through_s3)
    if call["operation"] == "UploadPart":
        yield _request("kms:Decrypt", names.key_arn, through_s3)


def _emr(operation: str, names: Names, here: dict[str, str]) -> Iterator[Request]:
    cluster = names.arn("elasticmapreduce", "cluster/j-1")
    tagged = {**here, "aws:RequestTag/deployment": names.deployment_id}
    own = {**here, "elasticmapreduce:ResourceTag/deployment": names.deployment_id}
    if operation == "RunJobFlow":
        yield _request("elasticmapreduce:RunJobFlow", "*", tagged)
        # it is not documented whether the cluster has its tags by then
        for facts in (tagged, tagged | own):
            for part in ("AddTags", "PutAutoTerminationPolicy", "PutManagedScalingPolicy"):
                yield _request(f"elasticmapreduce:{part}", cluster, facts)
        for arn, service in ((names.service_role_arn, "elasticmapreduce"), (names.node_role_arn, "ec2")):
            yield _request("iam:PassRole", arn, {**here, "iam:PassedToService": f"{service}.amazonaws.com"})
    elif resource_types(f"elasticmapreduce:{operation}"):
        yield _request(f"elasticmapreduce:{operation}", cluster, own)
    else:
        yield _request(f"elasticmapreduce:{operation}", "*", here)
