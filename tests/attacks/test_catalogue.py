"""Every test that the catalogue names exists, and the page and the results follow from what the tests said."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.attacks import write_page
from tests.attacks.catalogue import ATTACKS
from tests.attacks.write_page import Outcome

TESTS = sorted({test for attack in ATTACKS for test in attack.tests})


@pytest.mark.parametrize("test", TESTS)
def test_each_named_test_exists(test: str) -> None:
    file, _, name = test.partition("::")
    functions = {
        node.name
        for node in ast.parse((write_page.REPOSITORY / file).read_text()).body
        if isinstance(node, ast.FunctionDef)
    }
    assert not name or name in functions


def test_an_attack_holds_only_if_each_of_its_tests_has_passed() -> None:
    every = {test: Outcome(passed=1, evidence=["seen"]) for test in TESTS}
    assert all(entry["held"] for entry in write_page.results(every))
    for spoilt in (Outcome(), Outcome(passed=2, failed=1)):
        entry = write_page.results(every | {ATTACKS[0].tests[0]: spoilt})[0]
        assert not entry["held"]
        assert f"not held: {ATTACKS[0].tests[0]}" in entry["evidence"]


def test_what_pytest_says_is_read_with_its_evidence_and_a_skipped_test_has_not_passed(tmp_path: Path) -> None:
    report = tmp_path / "report.xml"
    report.write_text(
        '<testsuites><testsuite><testcase classname="tests.a.test_b" name="test_c[1]"><properties>'
        '<property name="evidence" value="403"/></properties></testcase>'
        '<testcase classname="tests.a.test_b" name="test_c[2]"/>'
        '<testcase classname="tests.a.test_b" name="test_d"><skipped/></testcase></testsuite></testsuites>'
    )
    outcomes: dict[str, Outcome] = write_page.defaultdict(Outcome)
    write_page.read_report(report, outcomes)
    assert outcomes["tests/a/test_b.py::test_c"] == Outcome(passed=2, evidence=["403"])
    assert outcomes["tests/a/test_b.py::test_d"] == Outcome(failed=1)


def test_the_page_has_a_row_for_each_attack() -> None:
    page = write_page.PAGE.read_text()
    assert page.count("\n| ") == 1 + len(ATTACKS) + page.partition(write_page.HEAD)[0].count("\n| ") + page.partition(
        write_page.TABLE_END
    )[2].count("\n| "), "run make attacks"
    assert all(attack.attack in page for attack in ATTACKS), "run make attacks"
