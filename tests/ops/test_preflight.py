"""make preflight, on accounts of this machine: who calls, and what the account has."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator
from typing import Any

import boto3
import pytest
from fruits_airflow.emr.cluster_body import load_profile

from ops import __main__ as command_line
from ops.preflight import ON_DEMAND_QUOTA, SPOT_QUOTA, VPC_QUOTA, Finding, Preflight, exit_status, vcpus_needed
from ops.stack import Deployment
from ops.template import TEMPLATE
from tests.aws_keys import control_faults
from tests.local_aws.server import Server
from tests.ops.conftest import Account

TRUST = json.dumps(
    {
        "Version": "2012-10-17",
        "Statement": [{"Effect": "Allow", "Principal": {"AWS": "123456789012"}, "Action": "sts:AssumeRole"}],
    }
)
ADMINISTRATOR = {"Effect": "Allow", "Action": "*", "Resource": "*"}
_numbers = itertools.count(1)


class AccountOf(Account):
    """The account as a role of it sees it."""

    def __init__(self, server: Server, role: str, *statements: dict[str, Any], region: str = "eu-west-1") -> None:
        super().__init__(server, region)
        iam = server.client("iam")
        created = iam.create_role(RoleName=role, Path="/aws-reserved/sso/", AssumeRolePolicyDocument=TRUST)
        document = json.dumps({"Version": "2012-10-17", "Statement": statements})
        iam.put_role_policy(RoleName=role, PolicyName="policy", PolicyDocument=document)
        keys = server.client("sts").assume_role(RoleArn=created["Role"]["Arn"], RoleSessionName="test")["Credentials"]
        self.session = boto3.Session(
            keys["AccessKeyId"], keys["SecretAccessKey"], keys["SessionToken"], region_name=region
        )

    def client(self, service: str, attempts: int = 1) -> Any:
        return self.session.client(service, endpoint_url=self.server.endpoint)  # type: ignore[call-overload]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("aws"))
    yield server
    assert server.stop() == 0


@pytest.fixture
def role() -> str:
    return f"role-{next(_numbers)}"


@pytest.fixture
def look(server: Server, role: str, deployment_id: str) -> Callable[..., dict[str, Finding]]:
    """Return the findings by subject, as a role with the statements sees them."""

    def run(*statements: dict[str, Any], **parameters: str) -> dict[str, Finding]:
        account = AccountOf(server, role, *(statements or (ADMINISTRATOR,)))
        findings = Preflight(Deployment(account, deployment_id, print, lambda _: True), parameters).run()
        return {finding.subject: finding for finding in findings}

    return run


def status(findings: dict[str, Finding]) -> int:
    return exit_status(list(findings.values()))


def states(findings: dict[str, Finding], state: str) -> set[str]:
    return {subject for subject, finding in findings.items() if finding.state == state}


Look = Callable[..., dict[str, Finding]]


def test_an_administrator_of_an_empty_account_may_begin(look: Look, server: Server) -> None:
    before = len(server.access_log())
    findings = look()
    assert (status(findings), states(findings, "ok")) == (0, findings.keys())
    assert "may deploy" in findings["caller"].detail
    assert "made by make deploy" in findings["AWSServiceRoleForEC2Spot"].detail
    reads = ("Get", "List", "Describe", "Head", "Simulate")
    calls = [line["operation"] for line in server.access_log()[before:]]
    calls = calls[calls.index("AssumeRole") + 1 :]
    assert [call for call in calls if not call.startswith(reads)] == []


@pytest.mark.parametrize(
    ("arn", "state", "words"),
    [
        ("arn:aws:iam::123456789012:root", "mend", "cannot assume"),
        ("arn:aws:sts::123456789012:assumed-role/fruits-x-airflow-eu-west-1/task", "ok", "deploys nothing"),
    ],
)
def test_root_is_refused_and_airflows_role_is_known(server: Server, arn: str, state: str, words: str) -> None:
    preflight = Preflight(Deployment(Account(server), "x", print, lambda _: True))
    vars(preflight)["_arn"] = arn
    [finding] = preflight._caller()
    assert finding.state == state
    assert words in finding.detail + finding.remedy


def test_who_may_not_deploy_reads_what_is_missing(look: Look) -> None:
    may_not = {"Effect": "Deny", "Action": ["kms:Create*", "iam:CreateServiceLinkedRole"], "Resource": "*"}
    findings = look(ADMINISTRATOR, may_not)
    assert status(findings) == 1
    assert findings["caller"].detail.endswith("may not kms:CreateKey")
    assert states(findings, "mend") == {"caller", "AWSServiceRoleForEC2Spot", "AWSServiceRoleForEMRCleanup"}


@pytest.mark.parametrize(
    ("service", "operation", "subject"),
    [
        ("servicequotas", "GetServiceQuota", "quotas"),
        ("ec2", "DescribeVpcs", "network"),
        ("iam", "SimulatePrincipalPolicy", "caller"),
        ("iam", "GetRole", "roles"),
        ("s3", "HeadBucket", "names"),
        ("cloudformation", "DescribeStacks", "stack"),
        ("sts", "GetCallerIdentity", "caller"),
    ],
)
def test_a_request_that_aws_refuses_is_not_taken_for_a_yes(
    look: Look, server: Server, service: str, operation: str, subject: str
) -> None:
    fault = {"kind": "refused", "service": service, "operation": operation, "error": "AccessDenied"}
    control_faults(server.endpoint, "POST", body=fault)
    try:
        findings = look()
    finally:
        control_faults(server.endpoint, "DELETE")
    assert findings[subject].state == "unknown"
    assert status(findings) == 2


def test_something_to_mend_outweighs_what_could_not_be_seen() -> None:
    def status_of(*states: Any) -> int:
        return exit_status([Finding("x", state, "") for state in states])

    assert [status_of("ok", "later"), status_of("ok", "unknown"), status_of("unknown", "mend")] == [0, 2, 1]


def test_a_new_accounts_quota_is_too_small(tmp_path: Any, role: str) -> None:
    server = Server(tmp_path, "--vcpus", "5")
    account = AccountOf(server, role, ADMINISTRATOR)
    findings = Preflight(Deployment(account, "small", print, lambda _: True)).run()
    assert server.stop() == 0
    by_state = {finding.subject: finding.state for finding in findings if finding.state != "ok"}
    assert by_state == {
        f"quota {ON_DEMAND_QUOTA}, profile demo": "mend",
        f"quota {ON_DEMAND_QUOTA}, profile nightly": "later",
        f"quota {SPOT_QUOTA}, profile nightly": "later",
    }
    assert "5 vCPUs, a cluster needs 8" in next(item.detail for item in findings if item.state == "mend")


def test_spot_nodes_count_on_demand_too_since_they_may_fall_back() -> None:
    assert vcpus_needed(load_profile("demo").instance_fleets) == {ON_DEMAND_QUOTA: 8}
    assert vcpus_needed(load_profile("nightly").instance_fleets) == {ON_DEMAND_QUOTA: 4 + 8 + 24, SPOT_QUOTA: 24}


def test_a_subnet_of_the_team_without_the_tag_is_to_mend(look: Look, server: Server) -> None:
    ec2 = server.client("ec2")
    vpc_id = ec2.create_vpc(CidrBlock="10.8.0.0/24")["Vpc"]["VpcId"]
    subnet_id = ec2.create_subnet(VpcId=vpc_id, CidrBlock="10.8.0.0/25")["Subnet"]["SubnetId"]
    ec2.create_tags(Resources=[subnet_id], Tags=[{"Key": "for-use-with-amazon-emr-managed-policies", "Value": "true"}])
    findings = look(SubnetId=subnet_id, CreateVpc="false")
    assert (findings[subnet_id].state, findings[vpc_id].state, status(findings)) == ("ok", "mend", 1)
    assert f"SubnetId={subnet_id}" in findings[vpc_id].remedy


def test_an_account_with_as_many_vpcs_as_it_may_have_needs_one_more_or_a_subnet(server: Server, role: str) -> None:
    account = AccountOf(server, role, ADMINISTRATOR, region="eu-south-1")  # with the default VPC, as every region

    def states(**parameters: str) -> dict[str, str]:
        findings = Preflight(Deployment(account, "full", print, lambda _: True), parameters)._network()
        return {finding.subject: finding.state for finding in findings}

    ec2 = account.client("ec2")
    vpcs = [ec2.create_vpc(CidrBlock=f"10.{number}.0.0/24")["Vpc"]["VpcId"] for number in range(3)]
    assert states() == {f"quota {VPC_QUOTA}": "ok"}
    vpcs.append(ec2.create_vpc(CidrBlock="10.9.0.0/24")["Vpc"]["VpcId"])
    assert states() == {f"quota {VPC_QUOTA}": "mend"}
    subnet_id = ec2.create_subnet(VpcId=vpcs[0], CidrBlock="10.0.0.0/25")["Subnet"]["SubnetId"]
    assert states(CreateVpc="false", SubnetId=subnet_id).keys() == {subnet_id, vpcs[0]}


def test_names_that_are_taken_would_fail_the_deployment(look: Look, server: Server, deployment_id: str) -> None:
    bucket = server.make_bucket(f"fruits-{deployment_id}-lake-123456789012-eu-west-1")
    findings = look()
    assert findings["bucket names"].state == "mend"
    assert f"s3://{bucket}" in findings["bucket names"].detail


def test_a_deployment_that_was_interrupted_goes_on(look: Look, server: Server, deployment_id: str) -> None:
    server.make_bucket(f"fruits-{deployment_id}-raw-123456789012-eu-west-1")
    server.client("cloudformation").create_change_set(
        StackName=f"fruits-{deployment_id}", ChangeSetName="one", ChangeSetType="CREATE",
        TemplateBody=TEMPLATE.read_text(),
        Parameters=[{"ParameterKey": "DeploymentId", "ParameterValue": deployment_id}],
        Capabilities=["CAPABILITY_NAMED_IAM"],
    )  # fmt: skip
    findings = look()
    assert findings[f"fruits-{deployment_id}"].detail == "REVIEW_IN_PROGRESS"
    assert status(findings) == 0


def test_a_deployment_is_compared_with_the_template_and_may_lack_its_uploads(
    look: Look, server: Server, deployment_id: str, databases: dict[str, str]
) -> None:
    account = Account(server)
    deployment = Deployment(account, deployment_id, lambda _: None, lambda _: True, poll_s=0.05)
    lake = deployment.deploy(databases)["LakeBucket"]
    server.client("s3").put_object(Bucket=lake, Key="env/0/environment.tar.gz", Body=b"x")
    kms = server.client("kms")
    key_id = kms.describe_key(KeyId=f"alias/fruits-{deployment_id}")["KeyMetadata"]["KeyId"]
    policy = json.loads(kms.get_key_policy(KeyId=key_id, PolicyName="default")["Policy"])
    policy["Statement"] = [item for item in policy["Statement"] if "SpotNodes" not in item["Sid"]]
    kms.put_key_policy(KeyId=key_id, PolicyName="default", Policy=json.dumps(policy))
    findings = look()
    assert findings["AWSServiceRoleForEC2Spot"].detail == "exists"
    assert (findings[f"s3://{lake}/models/"].state, findings[f"s3://{lake}/env/"].state) == ("later", "ok")
    assert "Key.KeyPolicy" in findings[f"fruits-{deployment_id}"].detail
    assert states(findings, "mend") == {f"fruits-{deployment_id}"}


def test_the_command_prints_each_remedy_and_ends_with_the_answer(
    server: Server, role: str, deployment_id: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    account = AccountOf(server, role, {"Effect": "Allow", "NotAction": "kms:*", "Resource": "*"})
    monkeypatch.setattr(command_line, "AwsAccount", lambda _region: account)
    assert command_line.main(["preflight", "--deployment-id", deployment_id]) == 1
    printed = capsys.readouterr().out
    assert "may not kms:CreateKey" in printed
    assert "→ call as who may deploy" in printed


def test_a_region_outside_the_union_is_something_to_mend(capsys: pytest.CaptureFixture[str]) -> None:
    assert command_line.main(["preflight", "--deployment-id", "x", "--region", "eu-west-2"]) == 1
    assert "London" in capsys.readouterr().err
