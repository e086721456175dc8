"""Run every attack of the catalogue, and write build/attacks/results.json and docs/security.md (`make attacks`).

Each test runs in the environment that its folder needs. What pytest's JUnit files say is joined by attack: it held if
every one of its tests ran and passed.
"""

from __future__ import annotations

import json
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.attacks.catalogue import ATTACKS

REPOSITORY = Path(__file__).resolve().parents[2]
FOLDER = REPOSITORY / "build" / "attacks"
PAGE = REPOSITORY / "docs" / "security.md"
ENVIRONMENTS = {
    "tests/spark_jobs/": ".venv-spark",
    "tests/fruits_lake/": ".venv-spark",
    "tests/infra/": ".venv-lint",
    "": ".venv-airflow",
}
HEAD, TABLE_END = "<!-- attacks: written by make attacks -->", "<!-- /attacks -->"


@dataclass
class Outcome:
    """What came of a test, over all its parameters."""

    passed: int = 0
    failed: int = 0  # skipped ones too
    evidence: list[str] = field(default_factory=list)


def environment_of(test: str) -> str:
    """Return the virtual environment that a test needs."""
    return next(name for folder, name in ENVIRONMENTS.items() if test.startswith(folder))


def run_tests(tests: Iterable[str]) -> dict[str, Outcome]:
    """Run the tests; return what came of each, by node id without parameters, and by file."""
    by_environment = defaultdict[str, list[str]](list)
    for test in dict.fromkeys(tests):
        by_environment[environment_of(test)].append(test)
    outcomes = defaultdict[str, Outcome](Outcome)
    for environment, chosen in by_environment.items():
        report = FOLDER / f"{environment.removeprefix('.venv-')}.xml"
        command = [
            f"{environment}/bin/python",
            "-m",
            "pytest",
            "-q",
            "-ojunit_family=xunit1",
            f"--junitxml={report}",
            *chosen,
        ]
        subprocess.run(command, cwd=REPOSITORY, check=False)
        if report.is_file():
            read_report(report, outcomes)
    return outcomes


def read_report(report: Path, outcomes: dict[str, Outcome]) -> None:
    """Add what pytest's JUnit file says."""
    for case in ET.parse(report).iter("testcase"):
        file = case.attrib["classname"].replace(".", "/") + ".py"
        for name in (file, f"{file}::{case.attrib['name'].partition('[')[0]}"):
            outcome = outcomes[name]
            if any(case.find(bad) is not None for bad in ("failure", "error", "skipped")):
                outcome.failed += 1
            else:
                outcome.passed += 1
            properties = case.iterfind("properties/property[@name='evidence']")
            outcome.evidence += [each.attrib["value"] for each in properties]


def results(outcomes: Mapping[str, Outcome]) -> list[dict[str, Any]]:
    """Return an entry for each attack."""
    entries = []
    for attack in ATTACKS:
        of_tests = {test: outcomes.get(test, Outcome()) for test in attack.tests}
        bad = [test for test, outcome in of_tests.items() if outcome.failed or not outcome.passed]
        seen = [line for outcome in of_tests.values() for line in outcome.evidence]
        passed = sum(outcome.passed for outcome in of_tests.values())
        evidence = [*seen, f"{passed} tests passed"] + [f"not held: {test}" for test in bad]
        entries.append(
            {
                "attack": f"{attack.origin} {attack.attack}",
                "held": not bad,
                "evidence": evidence,
                "tests": list(attack.tests),
            }
        )
    return entries


def table(entries: Iterable[Mapping[str, Any]], when: str) -> str:
    """Return the table of the page."""
    entries = list(entries)
    lines = [f"**{sum(entry['held'] is True for entry in entries)} of {len(entries)} held** ({when}).", ""]
    lines += ["| from | attack | what holds | held | test |", "|---|---|---|---|---|"]
    for attack, entry in zip(ATTACKS, entries, strict=True):
        tests = ", ".join(f"`{test.removeprefix('tests/')}`" for test in attack.tests[:1])
        more = f" and {len(attack.tests) - 1} more" if len(attack.tests) > 1 else ""
        held = {True: "yes", False: "**no**", None: "not run"}[entry["held"]]
        lines.append(f"| {attack.origin} | {attack.attack} | {attack.guard} | {held} | {tests}{more} |")
    return "\n".join(lines)


def with_table(page: str, rows: str) -> str:
    """Return the page with another table."""
    before, _, rest = page.partition(HEAD)
    _, _, after = rest.partition(TABLE_END)
    return f"{before}{HEAD}\n\n{rows}\n\n{TABLE_END}{after}"


def main() -> int:
    """Return 1 unless every attack held."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    for report in FOLDER.glob("*.xml"):
        report.unlink()
    entries = results(run_tests(test for attack in ATTACKS for test in attack.tests))
    (FOLDER / "results.json").write_text(json.dumps(entries, indent=1) + "\n")
    commit = subprocess.run(
        ["git", "rev-parse", "--short=10", "HEAD"], cwd=REPOSITORY, capture_output=True, text=True, check=False
    ).stdout.strip()
    when = f"{datetime.now(UTC).date()}, commit {commit or 'unknown'}"
    PAGE.write_text(with_table(PAGE.read_text(), table(entries, when)))
    for entry in entries:
        if not entry["held"]:
            sys.stderr.write(f"NOT HELD: {entry['attack']}: {'; '.join(entry['evidence'])}\n")
    sys.stdout.write(f"{sum(entry['held'] for entry in entries)} of {len(entries)} attacks held; wrote {PAGE}\n")
    return 0 if all(entry["held"] for entry in entries) else 1


if __name__ == "__main__":
    sys.exit(main())
