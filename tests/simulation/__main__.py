"""`python -m tests.simulation`: play nights by seed, print what was reached, and fail where a rule is broken."""

from __future__ import annotations

import argparse
import json
import multiprocessing
import sys
from collections import Counter
from collections.abc import Iterator
from typing import Any

from tests.simulation.history import draw_history
from tests.simulation.workers import play_seed, prepare


def seeds_for(nights: int, first: int) -> list[int]:
    """Return consecutive seeds with at least some nights, the quiet one at the end of each counted."""
    seeds, total = [], 0
    while total < nights:
        seeds.append(first + len(seeds))
        total += len(draw_history(seeds[-1]).nights) + 1
    return seeds


def _show(seed: int, guard: str | None) -> int:
    prepare(guard)
    from tests.simulation.simulation import play

    outcome = play(draw_history(seed), lambda line: print(line))
    print("\n".join(outcome.broken or ["every rule holds"]))
    return bool(outcome.broken)


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
    reached, states, nights, broken = Counter[str](), Counter[str](), 0, []
    for row in _results(seeds, arguments):
        reached, states, nights = (
            reached + Counter(row["reached"]),
            states + Counter(row["states"]),
            nights + row["nights"],
        )
        if arguments.json:
            print(json.dumps(row), flush=True)
        elif row["broken"]:
            print(f"seed {row['seed']} breaks {len(row['broken'])} rules:", *row["broken"], sep="\n  ", flush=True)
            print(f"  shortest history: {json.dumps(row['shrunk'])}", flush=True)
        if row["broken"]:
            broken.append(row["seed"])
            if arguments.until_broken:
                break
    if not arguments.json:
        for name, times in sorted(reached.items()):
            print(f"{times:8d} {name}")
        print(f"{nights} nights of {len(seeds)} seeds: {dict(states)}; broken by seeds: {broken or 'none'}")
    return bool(broken)


if __name__ == "__main__":
    sys.exit(main())
