"""include/stack.yaml under the tools that know AWS: nothing to say about it, and something about each broken copy."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import pytest

from ops.template import read_template
from tests.infra.authorization import condition_keys, expand, has_resource, is_known
from tests.infra.conftest import REPOSITORY, Run, resolved_stack, resolver

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # pkg_resources, until parliament has done without
    import parliament
    from cloudsplaining.scan.policy_document import PolicyDocument

STACK = REPOSITORY / "include" / "stack.yaml"
# What checkov is told to leave out, with the reason beside the resource.
SKIPPED = {
    ("CKV_AWS_21", "LakeBucket"),
    ("CKV_AWS_21", "AccessLogBucket"),
    ("CKV_AWS_18", "AccessLogBucket"),
    ("CKV_AWS_33", "Key"),
}
# Of plugins/fruits_airflow/config/regions.py, which this environment cannot import.
EU_REGIONS = (*("eu-west-1", "eu-west-3", "eu-central-1", "eu-north-1", "eu-south-1", "eu-south-2", "eusc-de-east-1"),)


def broken(folder: Path, old: str, new: str) -> Path:
    """A copy of the stack with one thing changed."""
    text = STACK.read_text()
    assert old in text
    path = folder / "stack.yaml"
    path.write_text(text.replace(old, new, 1))
    return path


@pytest.mark.parametrize("region", EU_REGIONS)
def test_cfn_lint_finds_nothing_in_any_region(run: Run, region: str) -> None:
    ended = run("cfn-lint", "--regions", region, "--", STACK)
    assert (ended.returncode, ended.stdout) == (0, "")


def test_cfn_lint_finds_a_type_that_a_region_lacks(run: Run, tmp_path: Path) -> None:
    everywhere = broken(tmp_path, "    - Condition: HasBudgetType\n", "    - !Not [!Equals [!Ref AlarmEmail, x]]\n")
    for region, lacks in (("eu-west-1", False), ("eu-north-1", True), ("eu-south-2", True)):
        assert ("AWS::Budgets::Budget" in run("cfn-lint", "--regions", region, "--", everywhere).stdout) is lacks


@pytest.mark.parametrize(
    ("old", "new", "rule"),
    [
        ("EnableKeyRotation", "EnableKeyRotatoin", "E3002"),
        ("!GetAtt Key.Arn", "!GetAtt Kee.Arn", "E1010"),
        ("Type: AWS::KMS::Alias", "Type: AWS::KMS::Allias", "E3006"),
    ],
)
def test_cfn_lint_finds_what_is_wrong(run: Run, tmp_path: Path, old: str, new: str, rule: str) -> None:
    ended = run("cfn-lint", broken(tmp_path, old, new))
    assert ended.returncode != 0
    assert rule in ended.stdout


def checkov(run: Run, path: Path) -> dict[str, Any]:
    ended = run("checkov", "--framework", "cloudformation", "--file", path, "--skip-download", "--output", "json")
    flawst: dict[str, Any] = json.loads(ended.stdout)["results"]
    return flawst


def test_checkov_fails_nothing_and_skips_what_has_a_reason(run: Run) -> None:
    results = checkov(run, STACK)
    assert results["failed_checks"] == []
    assert results["parsing_errors"] == []
    assert len(results["passed_checks"]) > 50
    skipped = {(check["check_id"], check["resource"].rpartition(".")[2]) for check in results["skipped_checks"]}
    assert skipped == SKIPPED
    assert all(len(check["check_result"]["suppress_comment"]) > 20 for check in results["skipped_checks"])


@pytest.mark.parametrize(
    ("old", "new", "check"),
    [
        ("BlockPublicAcls: true", "BlockPublicAcls: false", "CKV_AWS_53"),
        ("EnableKeyRotation: true", "EnableKeyRotation: false", "CKV_AWS_7"),
    ],
)
def test_checkov_finds_what_is_open(run: Run, tmp_path: Path, old: str, new: str, check: str) -> None:
    failed = {check["check_id"] for check in checkov(run, broken(tmp_path, old, new))["failed_checks"]}
    assert failed == {check}


# ---- the policies --------------------------------------------------------------------------------------------------


def policies() -> dict[str, dict[str, Any]]:
    """Every identity policy of the stack, by role."""
    return {
        f"{name}/{policy['PolicyName']}": policy["PolicyDocument"]
        for name, resource in resolved_stack().items()
        if resource["Type"] == "AWS::IAM::Role"
        for policy in resource["Properties"]["Policies"]
    }


def documents() -> dict[str, dict[str, Any]]:
    """Every policy of the stack: of roles, who may assume them, of buckets, key and endpoints."""
    return policies() | {
        f"{name}.{key}": resource["Properties"][key]
        for name, resource in resolved_stack().items()
        for key in ("AssumeRolePolicyDocument", "KeyPolicy", "PolicyDocument")
        if key in resource["Properties"]
    }


def unknown_parts(document: dict[str, Any]) -> list[str]:
    """Return the actions, resources and condition keys that AWS's service authorization reference lacks."""
    missing = []
    for statement in document["Statement"]:
        patterns = listed(statement.get("Action", []))
        missing += [f"no action {pattern}" for pattern in patterns if not expand(pattern)]
        # a pattern, of a denial or an endpoint, matches more actions than could use each resource and key
        actions = [action for pattern in patterns if "*" not in pattern for action in expand(pattern)]
        resources = listed(statement.get("Resource", "*"))
        pairs = [(action, part) for action in actions for part in resources if has_resource(action, part)]
        if actions:
            missing += [f"{action} knows none of {resources}" for action in {*actions} - {part for part, _ in pairs}]
            missing += [f"no action knows {part}" for part in {*resources} - {part for _, part in pairs}]
        missing += [
            f"{action} has no key {key}"
            for keys in statement.get("Condition", {}).values()
            for key in keys
            for action, resource in pairs
            if not is_known(key, condition_keys(action, resource))
        ]
    return missing


def listed(value: Any) -> list[str]:
    return list(value) if isinstance(value, list) else [value]


@pytest.mark.parametrize("name", sorted(documents()))
def test_statements_use_what_their_actions_know(name: str) -> None:
    assert unknown_parts(documents()[name]) == []


@pytest.mark.parametrize(
    ("change", "missing"),
    [
        (
            {"Condition": {"StringEquals": {"aws:RequestTag/deployment": "test"}}},
            "has no key aws:RequestTag/deployment",
        ),
        ({"Resource": "arn:aws:s3:::x/y"}, "no action knows arn:aws:s3:::x/y"),
        ({"Action": "elasticmapreduce:PutPolicy"}, "no action elasticmapreduce:PutPolicy"),
    ],
)
def test_what_an_action_does_not_know_is_found(change: dict[str, Any], missing: str) -> None:
    [statement] = [
        statement_
        for statement_ in policies()["AirflowRole/dags"]["Statement"]
        if statement_["Sid"] == "CompleteAtCreation"
    ]
    assert any(missing in text for text in unknown_parts({"Statement": [statement | change]}))


# EMR's guide conditions these actions on the cluster's tags by this key; parliament's list of 2025 lacks it.
TAG_KEY = "Unknown condition elasticmapreduce:ResourceTag/deployment for action elasticmapreduce:"


def findings(document: dict[str, Any]) -> set[str]:
    analyzed = parliament.analyze_policy_string(json.dumps(document)).findings
    return {f"{finding.issue}: {finding.detail}" for finding in analyzed if not str(finding.detail).startswith(TAG_KEY)}


@pytest.mark.parametrize("name", sorted(policies()))
def test_parliament_finds_nothing(name: str) -> None:
    assert findings(policies()[name]) == set()


@pytest.mark.parametrize(
    ("change", "issue"),
    [
        ({"Action": "s3:GetObjekt"}, "UNKNOWN_ACTION"),
        ({"Resource": "arn:aws:s3:::raw"}, "RESOURCE_MISMATCH"),
        ({"Effect": "Alow"}, "MALFORMED"),
    ],
)
def test_parliament_finds_what_is_wrong(change: dict[str, str], issue: str) -> None:
    document = policies()["NodeRole/jobs"]
    document["Statement"][0] |= change
    assert any(finding.startswith(issue) for finding in findings(document))


def wide(document: dict[str, Any]) -> dict[str, list[str]]:
    """What cloudsplaining calls out: escalation, exposure, changes without a resource."""
    scanned = PolicyDocument(document)
    return {
        "escalation": [str(path) for path in scanned.allows_privilege_escalation],
        "exposure": list(scanned.permissions_management_without_constraints),
        "exfiltration": list(scanned.allows_data_exfiltration_actions),
        "changes": list(scanned.infrastructure_modification),
        "stars": list(scanned.service_wildcard),
    }


@pytest.mark.parametrize("name", sorted(policies()))
def test_no_policy_is_wide(name: str) -> None:
    assert {kind: names for kind, names in wide(policies()[name]).items() if names} == {}


def test_a_wide_policy_is_found() -> None:
    document = policies()["NodeRole/jobs"]
    document["Statement"].append({"Effect": "Allow", "Action": ["s3:*", "iam:PutRolePolicy"], "Resource": "*"})
    flaws = wide(document)
    assert flaws["exposure"]
    assert flaws["stars"] == ["s3"]
    assert flaws["exfiltration"]


# ---- what is kept, and the network ---------------------------------------------------------------------------------


def test_what_holds_data_is_kept_except_when_its_creation_fails() -> None:
    kinds = ("AWS::S3::Bucket", "AWS::KMS::Key")
    kept = {name: resource for name, resource in resolved_stack().items() if resource["Type"] in kinds}
    assert {resource["DeletionPolicy"] for resource in kept.values()} == {"RetainExceptOnCreate"}
    assert {resource["UpdateReplacePolicy"] for resource in kept.values()} == {"Retain"}
    assert len(kept) == 4


EMR_TAG = {"Key": "for-use-with-amazon-emr-managed-policies", "Value": "true"}


@pytest.mark.parametrize("network", ["true", "private"])
def test_subnet_and_vpc_carry_the_tag_that_emr_acts_on(network: str) -> None:
    stack = resolved_stack(CreateVpc=network)
    assert EMR_TAG in stack["Subnet"]["Properties"]["Tags"]
    assert EMR_TAG in stack["Vpc"]["Properties"]["Tags"]


def network_of(**parameters: str) -> dict[str, dict[str, Any]]:
    return {
        name: resource
        for name, resource in resolved_stack(**parameters).items()
        if resource["Type"].startswith("AWS::EC2::")
    }


def test_the_network_costs_nothing_by_default_and_lets_nobody_in() -> None:
    network = network_of(CreateVpc="true")
    assert sorted({resource["Type"].rpartition("::")[2] for resource in network.values()}) == [
        *("InternetGateway", "Route", "RouteTable", "SecurityGroup", "Subnet", "SubnetRouteTableAssociation", "VPC"),
        *("VPCEndpoint", "VPCGatewayAttachment"),
    ]  # no NAT gateway, no address
    groups = [resource for resource in network.values() if resource["Type"] == "AWS::EC2::SecurityGroup"]
    assert [group["Properties"]["SecurityGroupIngress"] for group in groups] == [[], []]
    assert network["S3Endpoint"]["Properties"]["VpcEndpointType"] == "Gateway"


def test_a_private_network_has_no_way_to_the_internet() -> None:
    network = network_of(CreateVpc="private")
    kinds = {resource["Type"].rpartition("::")[2] for resource in network.values()}
    assert not kinds & {"InternetGateway", "Route", "NatGateway", "VPCGatewayAttachment"}
    assert network["Subnet"]["Properties"]["MapPublicIpOnLaunch"] is False
    group, inside = network["EndpointGroup"]["Properties"], network["Subnet"]["Properties"]["CidrBlock"]
    assert [rule["CidrIp"] for rule in group["SecurityGroupIngress"] + group["SecurityGroupEgress"]] == [inside] * 2


@pytest.mark.parametrize(("network", "count"), [("true", 2), ("private", 3)])
def test_security_groups_of_notebooks_carry_the_tag_that_emr_acts_on(network: str, count: int) -> None:
    groups = [resource["Properties"] for name, resource in network_of(CreateVpc=network).items() if "Notebook" in name]
    assert [EMR_TAG in group["Tags"] for group in groups] == [True] * count


def test_a_private_network_lets_the_primary_node_of_a_notebook_ask_emr() -> None:
    """EMR ends a cluster whose own service group lacks this rule, which it adds to its default group only."""
    [rule] = network_of(CreateVpc="private")["NotebookServiceGroup"]["Properties"]["SecurityGroupIngress"]
    assert (rule["IpProtocol"], rule["FromPort"], rule["ToPort"]) == ("tcp", 9443, 9443)
    assert rule["SourceSecurityGroupId"] == "notebookprimarygroup"


@pytest.mark.parametrize("network", ["true", "private"])
def test_each_endpoint_has_a_policy(network: str) -> None:
    endpoints = [
        resource for resource in network_of(CreateVpc=network).values() if resource["Type"] == "AWS::EC2::VPCEndpoint"
    ]
    assert len(endpoints) == (3 if network == "private" else 1)
    assert all(resource["Properties"]["PolicyDocument"]["Statement"] for resource in endpoints)


def test_a_stack_without_a_network_of_its_own_names_a_subnet() -> None:
    assert network_of(CreateVpc="false") == {}
    [rule] = read_template()["Rules"].values()
    [assertion] = rule["Assertions"]

    def refused(**parameters: str) -> bool:
        resolve = resolver(**parameters).resolve
        return bool(resolve(rule["RuleCondition"]) and not resolve(assertion["Assert"]))

    assert refused(CreateVpc="false")
    assert not refused(CreateVpc="false", SubnetId="subnet-01234567")
    assert not refused()


def test_every_statement_has_its_reason_beside_it() -> None:
    lines = STACK.read_text().splitlines()
    statements = [number for number, line in enumerate(lines) if line.strip().startswith("- Sid:")]
    assert len(statements) > 30
    assert [lines[number] for number in statements if not lines[number - 1].strip().startswith("# ")] == []
