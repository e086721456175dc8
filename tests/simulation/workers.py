"""What a process of a simulation does: it makes its world once, and plays seeds in it."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from tests.simulation import product
from tests.simulation.history import draw_history, shrink


def play_seed(task: tuple[int, str | None, bool]) -> dict[str, Any]:
    """Play a seed in this process, and shrink its history if it breaks a rule."""
    seed, guard, is_shrunk = task
    prepare()
    from tests.simulation.simulation import play

    history = draw_history(seed)
    outcome = play(history, guard=guard)
    row = {name: value for name, value in vars(outcome).items() if name != "events"}
    if outcome.broken and is_shrunk:
        row["shrunk"] = asdict(shrink(history, lambda shorter: bool(play(shorter, guard=guard).broken)))
    return row


def prepare() -> None:
    """Set the environment of this process before Airflow is imported."""
    from tests.simulation.cloud import LAKE, RAW

    product.set_environment(RAW, LAKE)
