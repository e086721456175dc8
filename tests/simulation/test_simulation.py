"""Simulated nights: every rule holds, and the simulation finds what it is there to find.

Each test plays in processes of its own: a simulation replaces the clocks of its process.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.emulator.armed import KINDS
from tests.simulation.guards import GUARDS
from tests.simulation.history import DISRUPTIONS, History, Night, draw_history, shrink
from tests.simulation.loop import Loop

REPOSITORY = Path(__file__).resolve().parents[2]
SEEDS = ((1, 8), (50, 1))
"""First seed and number of each range that the gate plays. In seed 50 stale replies hid that a cluster ended."""
MANY_SEEDS = ((1, 50),)
FINDS = {"find before create": 1, "verdict": 1, "teardown": 1, "conditional lock": 5, "single attempts": 288}
"""A seed that finds each guard that is taken out; the gate takes the first three out."""

pytestmark = pytest.mark.timeout(900)


def play(*options: str, **environment: str) -> list[dict[str, Any]]:
    """Play seeds in another process; give a row for each."""
    command = [sys.executable, "-m", "tests.simulation", "--json", *options]
    outside = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "FRUITS_"))}
    paths = {"PYTHONPATH": os.pathsep.join((".", "plugins")), "AIRFLOW__LOGGING__LOGGING_LEVEL": "CRITICAL"}
    done = subprocess.run(
        command, cwd=REPOSITORY, env=outside | paths | environment, capture_output=True, text=True, check=False
    )
    assert done.returncode in (0, 1), done.stderr
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def play_ranges(ranges: tuple[tuple[int, int], ...]) -> list[dict[str, Any]]:
    """Play each range; give a row for each seed."""
    rows = [row for first, number in ranges for row in play("--seed", str(first), "--seeds", str(number))]
    assert len(rows) == sum(number for _, number in ranges)
    return rows


@pytest.fixture(scope="module")
def rows() -> list[dict[str, Any]]:
    return play_ranges(MANY_SEEDS)


def test_every_rule_holds_after_each_night() -> None:
    assert {row["seed"]: row["broken"] for row in play_ranges(SEEDS) if row["broken"]} == {}


@pytest.mark.slow
def test_every_rule_holds_after_each_night_of_many_seeds(rows: list[dict[str, Any]]) -> None:
    assert {row["seed"]: row["broken"] for row in rows if row["broken"]} == {}


@pytest.mark.slow
def test_every_kind_of_fault_and_disruption_is_reached(rows: list[dict[str, Any]]) -> None:
    reached = Counter[str]()
    for row in rows:
        reached.update(row["reached"])
    kinds = {name.split()[0] for name in reached}
    assert {*KINDS, *DISRUPTIONS} - kinds == set()
    moments = {f"{kind} {moment}" for kind in ("refused", "delayed") for moment in ("before", "after")}
    moments |= {"lost before", "lost during", "cut after"}
    assert moments - reached.keys() == set()
    assert sum(" + " in name for name in reached) > 50


@pytest.mark.slow
def test_runs_end_in_different_ways_and_in_different_orders(rows: list[dict[str, Any]]) -> None:
    states = Counter[str]()
    for row in rows:
        states.update(row["states"])
    assert min(states["fruits_pipeline success"], states["fruits_pipeline failed"]) > 5
    assert len({row["digest"] for row in rows}) == len(rows)


def test_a_seed_gives_the_same_events_to_the_byte_in_any_process() -> None:
    digests = {
        play("--seed", "4", "--seeds", "1", "--jobs", "1", PYTHONHASHSEED=seed)[0]["digest"] for seed in ("1", "2")
    }
    assert len(digests) == 1


@pytest.mark.parametrize(
    "guard", [pytest.param(name, marks=pytest.mark.slow if FINDS[name] > 1 else ()) for name in FINDS]
)
def test_a_guard_that_is_taken_out_is_missed(guard: str) -> None:
    assert guard in GUARDS
    assert play("--seed", str(FINDS[guard]), "--seeds", "1", "--jobs", "1", "--without", guard)[0]["broken"]


def test_shrinking_leaves_out_all_that_does_not_matter() -> None:
    history = next(history for history in map(draw_history, range(1, 100)) if len(history.nights) > 1)
    culprit = history.nights[0].events[0]

    def fails(shorter: History) -> bool:
        return any(culprit in night.events for night in shorter.nights)

    shortest = shrink(history, fails)
    first = history.nights[0]
    assert shortest == History(history.seed, [Night(first.put, [], {}, [culprit])])


def test_a_killed_process_does_nothing_more_not_even_in_its_handlers() -> None:
    loop, done = Loop(0.0), []

    def work() -> None:
        done.append("began")
        try:
            loop.sleep(1.0)
            done.append("went on")
        finally:
            with contextlib.suppress(Exception):
                loop.sleep(1.0)
                done.append("cleaned up")

    actor = loop.spawn("task", work)
    loop.spawn("kill", lambda: loop.kill(actor), 0.5)
    loop.run_until(10.0)
    assert done == ["began"]
    assert actor.has_ended


def test_actors_go_on_in_the_order_of_their_moments_and_the_clock_jumps() -> None:
    loop, seen = Loop(0.0), []
    for name, seconds in (("late", 3600.0), ("early", 1.0)):
        loop.spawn(name, lambda name=name, seconds=seconds: (loop.sleep(seconds), seen.append((name, loop.now))))  # type: ignore[misc]
    loop.run_until(7200.0)
    assert seen == [("early", 1.0), ("late", 3600.0)]
    assert loop.now == 7200.0


def test_a_red_run_must_name_something_that_disturbed_it() -> None:
    from tests.simulation.rules import unexplained

    reason = "publish: step s-1 is FAILED: ERROR OSError: [Errno 28] No space left on device"
    assert unexplained(reason, {"disk_full", "stale"}) is None
    assert "names none of stale" in str(unexplained(reason, {"stale"}))
    assert "nothing that disturbed it" in str(unexplained(reason, set()))
