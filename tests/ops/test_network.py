"""The network that clusters run in: what EMR's service role may do there, and a network that the team brings along."""

from __future__ import annotations

import json
from typing import Any

import pytest
from moto.iam.aws_managed_policies import aws_managed_policies_data

from ops import __main__ as command_line
from ops.network import tag_network
from ops.stack import DeploymentFailed
from tests.infra.simulation import Request, allowed, require_known
from tests.ops.conftest import Account
from tests.ops.test_lookup import create

SERVICE_POLICY = json.loads(aws_managed_policies_data)["AmazonEMRServicePolicy_v2"]["Document"]["Statement"]
TAG = "for-use-with-amazon-emr-managed-policies"


@pytest.fixture(scope="module", params=["true", "private"])
def network(request: pytest.FixtureRequest, aws: Any) -> dict[str, dict[str, Any]]:
    """The live subnet and VPC of a deployment."""
    account = Account(aws, {"true": "eu-south-1", "private": "eu-south-2"}[request.param])
    names = {f"{kind}Database": f"net_{kind.lower()}" for kind in ("Nightly", "Demo", "Notebook")}
    create(account, "fruits-net", {"DeploymentId": "net", "CreateVpc": request.param, **names})
    formation, ec2 = account.client("cloudformation"), account.client("ec2")
    [stack] = formation.describe_stacks(StackName="fruits-net")["Stacks"]
    subnet_id = next(o["OutputValue"] for o in stack["Outputs"] if o["OutputKey"] == "SubnetId")
    [subnet] = ec2.describe_subnets(SubnetIds=[subnet_id])["Subnets"]
    [vpc] = ec2.describe_vpcs(VpcIds=[subnet["VpcId"]])["Vpcs"]
    groups = ec2.describe_security_groups(Filters=[{"Name": "vpc-id", "Values": [subnet["VpcId"]]}])["SecurityGroups"]
    [group] = [group for group in groups if "NotebookPrimary" in group["GroupName"]]
    return {"subnet": subnet, "vpc": vpc, "group": group}


def calls_of_emr(network: dict[str, dict[str, Any]]) -> list[Request]:
    """The EC2 rights that EMR needs for a cluster in a network, with the tags that the network has."""

    def of(kind: str, name: str = "x") -> str:
        return f"arn:aws:ec2:eu-west-1:123456789012:{kind}/{name}"

    def tags_of(kind: str) -> dict[str, str]:
        return {f"aws:ResourceTag/{tag['Key']}": tag["Value"] for tag in network[kind].get("Tags", [])}

    subnet, vpc = of("subnet", "subnet-1"), of("vpc", "vpc-1")
    emr_tags = {f"aws:RequestTag/{TAG}": "true"}
    return [
        *(
            Request(f"ec2:{action}", subnet, tags_of("subnet"))
            for action in ("RunInstances", "CreateFleet", "CreateNetworkInterface", "CreateVpcEndpoint")
        ),
        *(Request(f"ec2:{action}", vpc, tags_of("vpc")) for action in ("CreateSecurityGroup", "CreateVpcEndpoint")),
        Request("ec2:CreateSecurityGroup", of("security-group"), emr_tags),
        *(
            Request(f"ec2:{action}", of("security-group", "sg-1"), tags_of("group"))
            for action in ("RunInstances", "AuthorizeSecurityGroupIngress", "AuthorizeSecurityGroupEgress")
        ),
        Request("ec2:RunInstances", of("instance"), emr_tags),
        Request("ec2:CreateVpcEndpoint", of("vpc-endpoint"), emr_tags | {"aws:RequestTag/Name": "emr-service-vpce"}),
    ]


def test_emr_may_start_a_cluster_in_the_network_of_the_stack(network: dict[str, dict[str, Any]]) -> None:
    for call in calls_of_emr(network):
        require_known(call)
        assert allowed(SERVICE_POLICY, call), call


@pytest.mark.parametrize(
    ("kind", "name"), [("subnet", "subnet/subnet-1"), ("vpc", "vpc/vpc-1"), ("group", "security-group/sg-1")]
)
def test_emr_may_not_without_the_tag(network: dict[str, dict[str, Any]], kind: str, name: str) -> None:
    untagged = network | {kind: {}}
    denied = {call.resource.split(":")[-1] for call in calls_of_emr(untagged) if not allowed(SERVICE_POLICY, call)}
    assert denied == {name}


# ---- a network that the team brings along ------------------------------------------------------------------------


@pytest.fixture
def own_subnet(account: Account) -> str:
    ec2 = account.client("ec2")
    vpc_id = ec2.create_vpc(CidrBlock="10.8.0.0/24")["Vpc"]["VpcId"]
    return str(ec2.create_subnet(VpcId=vpc_id, CidrBlock="10.8.0.0/25")["Subnet"]["SubnetId"])


def is_tagged(account: Account, subnet_id: str) -> list[bool]:
    ec2 = account.client("ec2")
    [subnet] = ec2.describe_subnets(SubnetIds=[subnet_id])["Subnets"]
    [vpc] = ec2.describe_vpcs(VpcIds=[subnet["VpcId"]])["Vpcs"]
    return [{"Key": TAG, "Value": "true"} in resource.get("Tags", []) for resource in (subnet, vpc)]


def test_a_subnet_of_the_team_is_tagged_together_with_its_vpc(account: Account, own_subnet: str) -> None:
    questions: list[str] = []
    tag_network(account, own_subnet, lambda question: questions.append(question) or True)  # type: ignore[func-returns-value]
    assert is_tagged(account, own_subnet) == [True, True]
    tag_network(account, own_subnet, lambda question: questions.append(question) or False)  # type: ignore[func-returns-value]
    assert len(questions) == 1
    assert own_subnet in questions[0]


def test_a_network_that_may_not_be_tagged_is_refused_with_the_remedy(account: Account, own_subnet: str) -> None:
    with pytest.raises(DeploymentFailed, match=f"{own_subnet} and vpc-.*{TAG}=true is missing.*CreateVpc=true"):
        tag_network(account, own_subnet, lambda _: False)
    assert is_tagged(account, own_subnet) == [False, False]


def test_make_deploy_tags_the_subnet_and_prints_it_as_a_setting(
    account: Account,
    own_subnet: str,
    deployment_id: str,
    databases: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(command_line, "AwsAccount", lambda _region: account)
    values = {"CreateVpc": "false", "SubnetId": own_subnet, **databases}
    parameters = [word for name, value in values.items() for word in ("--parameter", f"{name}={value}")]
    ended = command_line.main(
        ["deploy", "--deployment-id", deployment_id, "--yes", "--alarm-email", "none", *parameters]
    )
    assert ended == 0
    assert is_tagged(account, own_subnet) == [True, True]
    assert f"FRUITS_SUBNET_ID={own_subnet}\n" in capsys.readouterr().out
