"""What a process of a simulation does: it makes its world once, and plays seeds in it."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from tests.simulation import product
from tests.simulation.history import draw_history


def play_seed(task: tuple[int, str | None, bool]) -> dict[str, Any]:
    """Play a seed in this process, and shrink its history if it breaks a rule."""
    seed, guard, is_shrunk = task
    prepare(guard)
    from tests.simulation.shrink import shrink
    from tests.simulation.simulation import play

    history = draw_history(seed)
    outcome = play(history)
    row = {name: value for name, value in vars(outcome).items() if name != "events"}
    if outcome.broken and is_shrunk:
        row["shrunk"] = asdict(shrink(history, lambda shorter: bool(play(shorter).broken)))
    return row


def prepare(guard: str | None) -> None:
    """Make the world of this process, once, without a guard of the product."""
    from tests.simulation import cloud

    product.set_environment(cloud.RAW, cloud.LAKE)
    from tests.simulation.simulation import world

    world(guard)
