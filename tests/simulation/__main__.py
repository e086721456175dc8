"""`python -m tests.simulation`: play nights by seed, print what was reached, and fail where a rule is broken."""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.faults.results import stamp
from tests.simulation.history import draw_history
from tests.simulation.workers import play_seed, prepare

RESULT = Path(__file__).resolve().parents[2] / "build" / "faults" / "simulation.json"


@dataclass
class Summary:
    """What the seeds of a call came to; `tests.faults.write_page` reads it."""

    first: int
    seeds: int = 0
    nights: int = 0
    broken: list[int] = field(default_factory=list)
    states: Counter[str] = field(default_factory=Counter)
    reached: Counter[str] = field(default_factory=Counter)

    def add(self, row: Mapping[str, Any]) -> None:
        """Add the outcome of a seed."""
        self.seeds += 1
        self.nights += row["nights"]
        self.states.update(row["states"])
        self.reached.update(row["reached"])
        if row["broken"]:
            self.broken.append(row["seed"])

    def text(self) -> str:
        """Return how often each kind struck at each moment, and each pair of kinds met in a night."""
        lines = [f"{times:8d} {name}" for name, times in sorted(self.reached.items())]
        lines.append(f"{self.nights} nights of {self.seeds} seeds: {dict(self.states)}")
        return "\n".join([*lines, f"seeds that break a rule: {self.broken or 'none'}"])


def seeds_for(nights: int, first: int) -> list[int]:
    """Return consecutive seeds with at least some nights, the quiet one at the end of each counted."""
    seeds, total = [], 0
    while total < nights:
        seeds.append(first + len(seeds))
        total += len(draw_history(seeds[-1]).nights) + 1
    return seeds


def _show(seed: int, guard: str | None) -> int:
    prepare()
    from tests.simulation.simulation import play

    outcome = play(draw_history(seed), _say, guard)
    _say("\n".join(outcome.broken or ["every rule holds"]))
    return bool(outcome.broken)


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def _results(seeds: list[int], arguments: argparse.Namespace) -> Iterator[dict[str, Any]]:
    tasks = [(seed, arguments.without, not arguments.json) for seed in seeds]
    if arguments.jobs == 1:
        yield from map(play_seed, tasks)
        return
    with multiprocessing.get_context("spawn").Pool(arguments.jobs) as pool:
        yield from pool.imap(play_seed, tasks)


def main() -> int:
    """Play the nights of the command line; return 1 when a rule is broken."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--nights", type=int, default=1000, help="how many nights at least")
    parser.add_argument("--seed", type=int, default=1, help="the first seed")
    parser.add_argument("--seeds", type=int, help="how many seeds, in the place of --nights")
    parser.add_argument("--jobs", type=int, default=2, help="processes")
    parser.add_argument("--without", help="take a guard of the product out, see tests/simulation/guards.py")
    parser.add_argument("--show", action="store_true", help="print the events of the first seed, and play no other")
    parser.add_argument("--json", action="store_true", help="print one JSON object per seed, and shrink nothing")
    parser.add_argument("--until-broken", action="store_true", help="stop at the first seed that breaks a rule")
    arguments = parser.parse_args()
    if arguments.show:
        return _show(arguments.seed, arguments.without)
    seeds = seeds_for(arguments.nights, arguments.seed)
    if arguments.seeds:
        seeds = list(range(arguments.seed, arguments.seed + arguments.seeds))
    summary = Summary(first=arguments.seed)
    for row in _results(seeds, arguments):
        summary.add(row)
        if arguments.json:
            _say(json.dumps(row))
        elif row["broken"]:
            _say("\n  ".join([f"seed {row['seed']} breaks {len(row['broken'])} rules:", *row["broken"]]))
            _say(f"  shortest history: {json.dumps(row['shrunk'])}")
        if row["broken"] and arguments.until_broken:
            break
    if not arguments.json:
        _say(summary.text())
        if not arguments.without:
            RESULT.parent.mkdir(parents=True, exist_ok=True)
            RESULT.write_text(json.dumps({**vars(summary), **stamp()}, indent=1) + "\n")
    return bool(summary.broken)


if __name__ == "__main__":
    status = main()
    sys.stdout.flush()
    os._exit(status)  # a library's thread may abort the process where the clocks are replaced
