"""Write docs/reliability.md from build/faults/results.json: what `make faults` injected, and what held."""

from __future__ import annotations

import itertools
import json
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[2]
RESULTS = REPOSITORY / "build" / "faults" / "results.json"
NIGHTS = REPOSITORY / "build" / "faults" / "simulation.json"
PAGE = REPOSITORY / "docs" / "reliability.md"
_MOMENTS = ("before", "during", "after")
_FAULTS = tuple(f"F{number}" for number in range(1, 30))
_NO_SENSE = {
    ("F15", "before"): "no Python worker lives before there are photos to read; F14 kills executors then",
    ("F15", "after"): "a worker whose rows are written holds nothing; F14 kills whole executors then",
    ("F20", "after"): "nothing is written to the node's disk once the last commit is made",
}
_HEAD = """# What breaks, and what holds

Written by `make faults` from `build/faults/results.json`; do not edit. Each line is a fault that was injected at a
moment of a real run of the DAG, before, during or after the effect of what it hit. The runner `scripted` has steps that
write small tables in the place of Spark; `spark` has the real jobs.

Held means that after it:

- every photo was a feature or a reject, and no photo's metadata was anywhere;
- no cluster lived, nothing was half done or locked, and nothing was done twice;
- tables were at whole snapshots of one PCA model, names were of one classifier, `run.json` and Airflow told the truth;
- the next night over the same photos came to the result of an undisturbed one (`tests/faults/invariants.py`).

Each line has its own date and commit, since parts can be run alone; `+` after a commit: with changes that were not
committed.
"""

_NIGHTS = """
## Nights by seed

`make simulate NIGHTS=1000 SEED=1` plays nights of the control plane against the AWS emulator in one process, under a
clock that jumps from event to event. The seed draws the photos, the runs, what people clear or mark, two to five faults
of every kind at random moments, and the requests at which a process is killed; steps are scripted. The same seed gives
the same events to the byte. [What must never happen](what_must_never_happen.md) is checked after each night. A seed
that breaks a rule is printed with its shortest history; `python -m tests.simulation --show --seed N` prints its events.
"""


def simulated(summary: Mapping[str, Any] | None) -> str:
    """Return the section on simulated nights as Markdown, with the numbers of the last `make simulate`."""
    if summary is None:
        return _NIGHTS
    reached = {name: times for name, times in summary["reached"].items() if " + " not in name}
    pairs = len(summary["reached"]) - len(reached)
    ends = ", ".join(f"{times} × {state}" for state, times in sorted(summary["states"].items()))
    broken = ", ".join(map(str, summary["broken"])) or "none"
    lines = [
        _NIGHTS,
        f"**{summary['nights']} nights of the seeds from {summary['first']} on; seeds that break a rule: {broken}.** "
        f"({summary['when'][:10]}, {summary['commit']}; {ends}; {pairs} pairs of kinds met in a night.)\n",
        "| what struck, and when | times |",
        "|---|--:|",
        *(f"| {name} | {times} |" for name, times in sorted(reached.items())),
    ]
    return "\n".join(lines) + "\n"


def page(results: Sequence[Mapping[str, Any]]) -> str:
    """Return the page as Markdown."""
    held = sum(bool(result["held"]) for result in results)
    unseen, missing = _unseen(results), without_result(results)
    named = f": {', '.join(missing)}" if missing else ""
    count = f"{held} of {len(results)} held; {len(missing)} moments of faults have no result{named}."
    lines = [_HEAD, f"**{count}**\n"]
    lines += [
        "| fault | moment | runner | what was injected | held | s | date, commit |",
        "|---|---|---|---|---|--:|---|",
    ]
    gaps = [
        {"fault": pair[0], "moment": pair[1], "runner": "", "what": _NO_SENSE.get(pair, "**no result**")}
        for pair in unseen
    ]
    for result in sorted([*results, *gaps], key=_order):
        name = f"| {result['fault']} | {result['moment']} |"
        if not result["runner"]:
            lines.append(f"{name} – | {result['what']} | – | | |")
            continue
        outcome = "yes" if result["held"] else "**no**: " + "; ".join(result["broken"]).replace("|", "\\|")
        measured = f"{result['seconds']:.0f} | {result['when'][:10]}, {result['commit']}"
        lines.append(f"{name} {result['runner']} | {result['what']} | {outcome} | {measured} |")
    return "\n".join(lines) + "\n"


def without_result(results: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the moments that lack a result: a test was skipped, or not chosen."""
    return [" ".join(pair) for pair in _unseen(results) if pair not in _NO_SENSE]


def _unseen(results: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    seen = {(result["fault"], result["moment"]) for result in results}
    return [pair for pair in itertools.product(_FAULTS, _MOMENTS) if pair not in seen]


def _order(result: Mapping[str, Any]) -> tuple[int, str, int, str]:
    number = re.fullmatch(r"F(\d+)", result["fault"])
    return (int(number[1]) if number else 1000, result["runner"], _MOMENTS.index(result["moment"]), result["what"])


def main() -> int:
    """Write the page; return 2 without results, 1 when a moment lacks one, since a skipped test does not hold."""
    if not RESULTS.is_file():
        sys.stderr.write(f"{RESULTS} is missing: run make faults\n")
        return 2
    results = json.loads(RESULTS.read_text())
    summary = json.loads(NIGHTS.read_text()) if NIGHTS.is_file() else None
    PAGE.write_text(page(results) + simulated(summary))
    sys.stdout.write(f"wrote {PAGE}\n")
    if missing := without_result(results):
        sys.stderr.write(f"no result: {', '.join(missing)}; see why their tests were skipped\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
