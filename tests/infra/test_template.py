"""include/stack.yaml under the tools that know AWS: nothing to say about it, and something about each broken copy."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import pytest

from tests.infra.conftest import REPOSITORY, Run, resolved_stack

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # pkg_resources, until parliament has done without
    import parliament
    from cloudsplaining.scan.policy_document import PolicyDocument

STACK = REPOSITORY / "include" / "stack.yaml"
# What checkov is told to leave out, with the reason beside the resource.
SKIPPED = {("CKV_AWS_21", "LakeBucket"), ("CKV_AWS_21", "AccessLogBucket"), ("CKV_AWS_18", "AccessLogBucket")}


def broken(folder: Path, old: str, new: str) -> Path:
    """A copy of the stack with one thing changed."""
    text = STACK.read_text()
    assert old in text
    path = folder / "stack.yaml"
    path.write_text(text.replace(old, new, 1))
    return path


def test_cfn_lint_finds_nothing(run: Run) -> None:
    ended = run("cfn-lint", STACK)
    assert (ended.returncode, ended.stdout) == (0, "")


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
    ended = run(
        "checkov", "--framework", "cloudformation", "--file", path, "--skip-download", "--output", "json"
    )
    found: dict[str, Any] = json.loads(ended.stdout)["results"]
    return found


def test_checkov_fails_nothing_and_skips_what_has_a_reason(run: Run) -> None:
    results = checkov(run, STACK)
    assert results["failed_checks"] == []
    assert results["parsing_errors"] == []
    assert len(results["passed_checks"]) > 50
    skipped = {(one["check_id"], one["resource"].rpartition(".")[2]) for one in results["skipped_checks"]}
    assert skipped == SKIPPED
    assert all(len(one["check_result"]["suppress_comment"]) > 20 for one in results["skipped_checks"])


@pytest.mark.parametrize(
    ("old", "new", "check"),
    [
        ("BlockPublicAcls: true", "BlockPublicAcls: false", "CKV_AWS_53"),
        ("EnableKeyRotation: true", "EnableKeyRotation: false", "CKV_AWS_7"),
    ],
)
def test_checkov_finds_what_is_open(run: Run, tmp_path: Path, old: str, new: str, check: str) -> None:
    failed = {one["check_id"] for one in checkov(run, broken(tmp_path, old, new))["failed_checks"]}
    assert failed == {check}


# ---- the policies --------------------------------------------------------------------------------------------------


def policies() -> dict[str, dict[str, Any]]:
    """Every identity policy of the stack, by role."""
    return {
        f"{name}/{policy['PolicyName']}": policy["PolicyDocument"]
        for name, one in resolved_stack().items()
        if one["Type"] == "AWS::IAM::Role"
        for policy in one["Properties"]["Policies"]
    }


# EMR's guide conditions these actions on the cluster's tags by this key; parliament's list of 2025 lacks it.
TAG_KEY = "Unknown condition elasticmapreduce:ResourceTag/deployment for action elasticmapreduce:"


def findings(document: dict[str, Any]) -> set[str]:
    analyzed = parliament.analyze_policy_string(json.dumps(document)).findings
    return {f"{one.issue}: {one.detail}" for one in analyzed if not str(one.detail).startswith(TAG_KEY)}


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
    assert any(one.startswith(issue) for one in findings(document))


def wide(document: dict[str, Any]) -> dict[str, list[str]]:
    """What cloudsplaining calls out: escalation, exposure, changes without a resource."""
    scanned = PolicyDocument(document)
    return {
        "escalation": [str(one) for one in scanned.allows_privilege_escalation],
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
    document["Statement"].append(
        {"Effect": "Allow", "Action": ["s3:*", "iam:PutRolePolicy"], "Resource": "*"}
    )
    found = wide(document)
    assert found["exposure"]
    assert found["stars"] == ["s3"]
    assert found["exfiltration"]


def test_every_statement_has_its_reason_beside_it() -> None:
    lines = STACK.read_text().splitlines()
    statements = [number for number, line in enumerate(lines) if line.strip().startswith("- Sid:")]
    assert len(statements) > 30
    assert [lines[number] for number in statements if not lines[number - 1].strip().startswith("# ")] == []
