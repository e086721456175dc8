"""The tables of bench/README.md, written from results.json: `python -m bench.report.readme` after a published run.

Between the two marks nothing is typed by hand; a test compares.
"""

import json
import sys
from pathlib import Path
from typing import Any

from bench.report.tables import Table, all_tables, setting

HERE = Path(__file__).resolve().parents[1]
README = HERE / "README.md"
PUBLISHED = HERE / "results.json"
QUICK = HERE / "quick.json"
"""How long the last quick run took that was published."""

BEGIN, END = "<!-- results: begin, written by bench/report/readme.py -->", "<!-- results: end -->"


def publish(results: dict[str, Any]) -> None:
    """Store the results in the repository and write the tables; of a quick run store only how long it took."""
    if results["sizes"] == "quick":
        kept = {"seconds": results["seconds"], **{name: results["machine"][name] for name in ("date", "commit")}}
        QUICK.write_text(json.dumps(kept, indent=1) + "\n")
        results = json.loads(PUBLISHED.read_text())
    else:
        PUBLISHED.write_text(json.dumps(results, indent=1) + "\n")
    README.write_text(with_tables(README.read_text(), results))


def how_long(results: dict[str, Any]) -> str:
    """Say how long the suite took, and the last quick run that was published."""
    quick = json.loads(QUICK.read_text()) if QUICK.is_file() else None
    return f"The suite took {minutes(results['seconds'])}" + (
        f"; quick mode {minutes(quick['seconds'])} ({quick['date']}, commit {quick['commit']})." if quick else "."
    )


def minutes(seconds: float | None) -> str:
    """Format the time of the whole suite."""
    return "several goes" if seconds is None else f"{seconds / 60:.0f} minutes"


def with_tables(text: str, results: dict[str, Any]) -> str:
    """Return the README with its tables replaced."""
    before, rest = text.split(BEGIN)
    after = rest.split(END)[1]
    return f"{before}{BEGIN}\n\n{tables_of(results)}\n\n{END}{after}"


def tables_of(results: dict[str, Any]) -> str:
    """Return all tables below a paragraph about what was measured, in Markdown."""
    return "\n\n".join([f"{setting(results)} {how_long(results)}", *map(markdown, all_tables(results))])


def markdown(table: Table) -> str:
    """Format a Markdown table with its numbers to the right."""
    rule = ["---"] + ["---:"] * (len(table.head) - 1)
    lines = "\n".join("| " + " | ".join(row) + " |" for row in [table.head, rule, *table.rows])
    return f"{lines}\n\n{table.note}" if table.note else lines


if __name__ == "__main__":
    README.write_text(with_tables(README.read_text(), json.loads(PUBLISHED.read_text())))
    sys.stdout.write(f"{README}\n")
