"""After deploying: each resource of the template is there, as the template says; what is not is named."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ops.drift import compare_stack, normal
from ops.live_resources import READERS
from ops.template import TEMPLATE, TemplateError, read_template, template_body
from tests.emr_rules import add_rules
from tests.ops.conftest import Account

EVERYTHING = {"CreateVpc": "private", "AlarmEmail": "accounts@example.org"}


def create(account: Account, name: str, parameters: dict[str, str]) -> None:
    account.client("cloudformation").create_stack(
        StackName=name,
        TemplateBody=TEMPLATE.read_text(),
        Parameters=[{"ParameterKey": key, "ParameterValue": value} for key, value in parameters.items()],
        Capabilities=["CAPABILITY_NAMED_IAM"],
    )


def resources_without(*conditions: str) -> dict[str, Any]:
    """The template's resources but for those of some conditions."""
    return {
        name: resource
        for name, resource in read_template()["Resources"].items()
        if resource.get("Condition") not in conditions
    }


@pytest.fixture(scope="module")
def deployed(aws: Any) -> Account:
    account = Account(aws, "eu-central-1")
    create(account, "fruits-look", {"DeploymentId": "look", **EVERYTHING})
    return account


def test_everything_is_as_the_template_says(deployed: Account) -> None:
    assert compare_stack(deployed, "fruits-look") == (len(resources_without("IsPublic")), [])


def test_a_public_network_is_as_the_template_says(aws: Any) -> None:
    account = Account(aws, "eu-north-1")  # where CloudFormation has no budgets either
    names = {f"{kind}Database": f"public_{kind.lower()}" for kind in ("Nightly", "Demo", "Notebook")}
    create(account, "fruits-public", {"DeploymentId": "public", "AlarmEmail": "accounts@example.org", **names})
    resources = resources_without("IsPrivate", "HasBudget")
    assert compare_stack(account, "fruits-public") == (len(resources), [])


def test_what_a_condition_leaves_out_is_not_missed(aws: Any) -> None:
    account = Account(aws, "eu-west-3")
    create(account, "fruits-least", {"DeploymentId": "least", "CreateVpc": "false", "SubnetId": "subnet-01234567"})
    resources = read_template()["Resources"]
    conditional = [name for name, resource in resources.items() if "Condition" in resource]
    assert compare_stack(account, "fruits-least") == (len(resources) - len(conditional), [])


def bucket(name: str) -> str:
    return f"fruits-look-{name}-123456789012-eu-central-1"


Change = Callable[[Account], Any]
UNPROTECTED: list[tuple[str, Change, Change]] = [
    (
        "RawBucket.VersioningConfiguration",
        lambda a: a.client("s3").put_bucket_versioning(
            Bucket=bucket("raw"), VersioningConfiguration={"Status": "Suspended"}
        ),
        lambda a: a.client("s3").put_bucket_versioning(
            Bucket=bucket("raw"), VersioningConfiguration={"Status": "Enabled"}
        ),
    ),
    (
        "LakeBucketPolicy (AWS::S3::BucketPolicy)",
        lambda a: (
            setattr(a, "kept", a.client("s3").get_bucket_policy(Bucket=bucket("lake"))["Policy"])
            or a.client("s3").delete_bucket_policy(Bucket=bucket("lake"))
        ),
        lambda a: a.client("s3").put_bucket_policy(Bucket=bucket("lake"), Policy=a.kept),
    ),
    (
        "RawBucket.PublicAccessBlockConfiguration",
        lambda a: a.client("s3").delete_public_access_block(Bucket=bucket("raw")),
        lambda a: a.client("s3").put_public_access_block(
            Bucket=bucket("raw"),
            PublicAccessBlockConfiguration=dict.fromkeys(
                ("BlockPublicAcls", "BlockPublicPolicy", "IgnorePublicAcls", "RestrictPublicBuckets"), True
            ),
        ),
    ),
    (
        "Key.EnableKeyRotation",
        lambda a: a.client("kms").disable_key_rotation(KeyId=key(a)),
        lambda a: a.client("kms").enable_key_rotation(KeyId=key(a)),
    ),
    (
        "AnalystRole.Policies",
        lambda a: a.client("iam").put_role_policy(
            RoleName="fruits-look-analyst-eu-central-1",
            PolicyName="more",
            PolicyDocument=json.dumps(
                {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "s3:*", "Resource": "*"}]}
            ),
        ),
        lambda a: a.client("iam").delete_role_policy(RoleName="fruits-look-analyst-eu-central-1", PolicyName="more"),
    ),
    (
        "EndpointGroup.SecurityGroupIngress",
        lambda a: a.client("ec2").authorize_security_group_ingress(GroupId=group(a), IpPermissions=OPEN),
        lambda a: a.client("ec2").revoke_security_group_ingress(GroupId=group(a), IpPermissions=OPEN),
    ),
    (
        "NotebookPrimaryGroup.SecurityGroupIngress",
        lambda a: a.client("ec2").authorize_security_group_ingress(GroupId=notebook(a), IpPermissions=OPEN_V6),
        lambda a: a.client("ec2").revoke_security_group_ingress(GroupId=notebook(a), IpPermissions=OPEN_V6),
    ),
    (
        "NotebookServiceGroup.SecurityGroupIngress",
        lambda a: a.client("ec2").revoke_security_group_ingress(GroupId=service(a), IpPermissions=asking(a)),
        lambda a: a.client("ec2").authorize_security_group_ingress(GroupId=service(a), IpPermissions=asking(a)),
    ),
]
OPEN = [{"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22, "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}]
OPEN_V6 = [{"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22, "Ipv6Ranges": [{"CidrIpv6": "::/0"}]}]


def physical(account: Account, name: str) -> str:
    formation = account.client("cloudformation")
    [identifier] = [
        resource["PhysicalResourceId"]
        for resource in formation.describe_stack_resources(StackName="fruits-look")["StackResources"]
        if resource["LogicalResourceId"] == name
    ]
    return str(identifier)


def key(account: Account) -> str:
    return physical(account, "Key")


def group(account: Account) -> str:
    return physical(account, "EndpointGroup")


def notebook(account: Account) -> str:
    return physical(account, "NotebookPrimaryGroup")


def service(account: Account) -> str:
    return physical(account, "NotebookServiceGroup")


def asking(account: Account) -> list[dict[str, Any]]:
    """The rule that EMR asks for and does not add."""
    pairs = [{"GroupId": notebook(account), "Description": "primary nodes of notebook clusters"}]
    return [{"IpProtocol": "tcp", "FromPort": 9443, "ToPort": 9443, "UserIdGroupPairs": pairs}]


def test_the_rules_that_emr_adds_for_its_clusters_are_no_difference(deployed: Account) -> None:
    core = physical(deployed, "NotebookCoreGroup")
    add_rules(deployed.client("ec2"), notebook(deployed), core, service(deployed))
    assert compare_stack(deployed, "fruits-look")[1] == []


@pytest.mark.parametrize(("named", "change", "restore"), UNPROTECTED, ids=[case[0] for case in UNPROTECTED])
def test_what_somebody_changed_is_named(deployed: Account, named: str, change: Change, restore: Change) -> None:
    change(deployed)
    try:
        _, differences = compare_stack(deployed, "fruits-look")
    finally:
        restore(deployed)
    assert len(differences) == 1
    assert differences[0].startswith(named)
    assert compare_stack(deployed, "fruits-look")[1] == []


def test_a_type_without_a_reader_is_a_difference(deployed: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(READERS, "AWS::KMS::Alias")
    _, [difference] = compare_stack(deployed, "fruits-look")
    assert "KeyAlias: AWS::KMS::Alias has no reader" in difference


def test_a_property_that_is_not_read_back_is_a_difference(deployed: Account) -> None:
    template = read_template()
    template["Resources"]["KeyAlias"]["Properties"]["Colour"] = "green"
    assert compare_stack(deployed, "fruits-look", template)[1] == ["KeyAlias.Colour: not read back"]


def test_a_resource_that_the_stack_never_made_is_a_difference(deployed: Account) -> None:
    template = read_template()
    template["Resources"]["Another"] = template["Resources"]["KeyAlias"]
    assert compare_stack(deployed, "fruits-look", template)[1] == ["Another (AWS::KMS::Alias): not in the stack"]


def test_a_name_that_is_not_in_the_template_is_told(deployed: Account) -> None:
    template = read_template()
    template["Resources"]["KeyAlias"]["Properties"]["AliasName"] = {"Ref": "Nothing"}
    with pytest.raises(TemplateError, match="Nothing"):
        compare_stack(deployed, "fruits-look", template)


def test_the_template_fits_into_one_call() -> None:
    assert len(template_body().encode()) < 51_200, "bytes that CloudFormation takes as TemplateBody"


def test_the_body_differs_from_the_template_in_its_comments_only(tmp_path: Path) -> None:
    body = tmp_path / "body.yaml"
    body.write_text(template_body())
    assert read_template(body) == read_template()
    assert len(template_body()) < len(TEMPLATE.read_text()) - 5000


@pytest.mark.parametrize(
    ("value", "other"),
    [(True, "true"), (80, 80.0), (["a"], "a"), (["b", "a"], ["a", "b"]), ([{"Key": "k", "Value": "v"}], {"k": "v"})],
)  # fmt: skip
def test_two_ways_of_writing_are_one(value: object, other: object) -> None:
    assert normal(value) == normal(other)


@pytest.mark.parametrize(("value", "other"), [(True, False), (["a", "b"], ["a"]), (1, 2), ({"a": 1}, {"a": 1, "b": 2})])
def test_two_meanings_are_two(value: object, other: object) -> None:
    assert normal(value) != normal(other)
