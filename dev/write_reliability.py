"""Writes docs/reliability.md from build/faults/results.json: what `make faults` injected, and what held."""

from __future__ import annotations

import itertools
import json
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[1]
RESULTS = REPOSITORY / "build" / "faults" / "results.json"
PAGE = REPOSITORY / "docs" / "reliability.md"
_MOMENTS = ("before", "during", "after")
_FAULTS = tuple(f"F{number}" for number in range(1, 29))
_NO_SENSE = {
    ("F15", "before"): "no Python worker lives before there are photos to read; F14 kills executors then",
    ("F15", "after"): "a worker whose rows are written holds nothing; F14 kills whole executors then",
    ("F20", "after"): "nothing is written to the node's disk once the last commit is made",
}
_HEAD = """# What breaks, and what holds

Written by `make faults` from `build/faults/results.json`; do not edit. Each line is a fault that was injected at a
moment of a real run of the DAG, before, during or after the effect of what it hit. The runner `scripted` has steps that
write small tables in the place of Spark; `spark` has the real jobs. Held means: after it every photo was a feature or a
reject, no cluster lived, tables were at whole snapshots of one basis, nothing was half done or locked, nothing was done
twice, `run.json` and Airflow told the truth, no photo's metadata was anywhere, and the next night over the same photos
came to the result of an undisturbed one (`tests/faults/invariants.py`). Each line has its own date and commit, since
parts can be run alone; `+` after a commit: with changes that were not committed.
"""


def page(results: Sequence[Mapping[str, Any]]) -> str:
    """The page as Markdown."""
    held = sum(bool(one["held"]) for one in results)
    unseen, missing = _unseen(results), without_result(results)
    named = f": {', '.join(missing)}" if missing else ""
    count = f"{held} of {len(results)} held; {len(missing)} moments of faults have no result{named}."
    lines = [_HEAD, f"**{count}**\n"]
    lines += [
        "| fault | moment | runner | what was injected | held | s | date, commit |",
        "|---|---|---|---|---|--:|---|",
    ]
    gaps = [
        {
            "fault": fault,
            "moment": moment,
            "runner": "",
            "what": _NO_SENSE.get((fault, moment), "**no result**"),
        }
        for fault, moment in unseen
    ]
    for one in sorted([*results, *gaps], key=_order):
        if not one["runner"]:
            lines.append(f"| {one['fault']} | {one['moment']} | – | {one['what']} | – | | |")
            continue
        outcome = "yes" if one["held"] else "**no**: " + "; ".join(one["broken"]).replace("|", "\\|")
        found = f"{one['seconds']:.0f} | {one['when'][:10]}, {one['commit']}"
        lines.append(
            f"| {one['fault']} | {one['moment']} | {one['runner']} | {one['what']} | {outcome} | {found} |"
        )
    return "\n".join(lines) + "\n"


def without_result(results: Sequence[Mapping[str, Any]]) -> list[str]:
    """The moments that should have one and do not: a test was skipped, or not chosen."""
    return [" ".join(pair) for pair in _unseen(results) if pair not in _NO_SENSE]


def _unseen(results: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    seen = {(one["fault"], one["moment"]) for one in results}
    return [pair for pair in itertools.product(_FAULTS, _MOMENTS) if pair not in seen]


def _order(one: Mapping[str, Any]) -> tuple[int, str, int, str]:
    number = re.fullmatch(r"F(\d+)", one["fault"])
    return int(number[1]) if number else 1000, one["runner"], _MOMENTS.index(one["moment"]), one["what"]


def main() -> int:
    """Writes the page; exit 2 when there are no results, 1 when a moment has none: what was skipped did not hold."""
    if not RESULTS.is_file():
        print(f"{RESULTS} is missing: run make faults", file=sys.stderr)
        return 2
    results = json.loads(RESULTS.read_text())
    PAGE.write_text(page(results))
    print(f"wrote {PAGE}")
    if missing := without_result(results):
        print(f"no result: {', '.join(missing)}; see why their tests were skipped", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
