"""How long what is kept: what include/stack.yaml rules is what docs/gdpr.md says."""

from __future__ import annotations

import re

from ops.template import read_template
from tests.infra.conftest import REPOSITORY, resolved_stack

GDPR = (REPOSITORY / "docs" / "gdpr.md").read_text()


def stated() -> dict[str, int]:
    """Days by parameter of the stack, as the table of docs/gdpr.md has them."""
    section = GDPR.partition("## How long")[2].partition("\n## ")[0]
    return {name: int(days) for name, days in re.findall(r"`(\w+Days)`[^|]*?: (\d+) days", section)}


def test_the_days_of_the_page_are_those_of_the_stack() -> None:
    parameters = {name: parameter for name, parameter in read_template()["Parameters"].items() if name.endswith("Days")}
    assert len(parameters) > 4
    assert stated() == {name: parameter["Default"] for name, parameter in parameters.items()}


def test_what_runs_and_logs_leave_in_the_lake_expires() -> None:
    rules = resolved_stack()["LakeBucket"]["Properties"]["LifecycleConfiguration"]["Rules"]
    ended = {
        rule["Prefix"]: int(rule["ExpirationInDays"])
        for rule in rules
        if rule["Status"] == "Enabled" and "ExpirationInDays" in rule
    }
    assert ended == {"runs/": stated()["RunDays"], "logs/": stated()["LogDays"], "staging/": 7}


def test_no_rule_deletes_what_must_stay() -> None:
    """Tables, models, code, the suppression list and receipts: no rule of the lake is without a prefix of its own."""
    rules = resolved_stack()["LakeBucket"]["Properties"]["LifecycleConfiguration"]["Rules"]
    assert [rule["Id"] for rule in rules if "ExpirationInDays" in rule and not rule.get("Prefix")] == []
