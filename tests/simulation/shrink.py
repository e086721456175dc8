"""Shrinking: the shortest part of a history that still breaks a rule."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from tests.simulation.history import History


def shrink(history: History, fails: Callable[[History], bool], tries: int = 60) -> History:
    """Leave out nights, events and photos while the history fails; play it at most `tries` times."""
    is_shorter = True
    while is_shorter:
        is_shorter = False
        for candidate in _shorter(history):
            if tries <= 0:
                return history
            tries -= 1
            if fails(candidate):
                history, is_shorter = candidate, True
                break
    return history


def _shorter(history: History) -> Iterator[History]:
    nights = history.nights
    for number in range(len(nights) - 1, 0, -1):
        yield replace(history, nights=nights[:number])
    for number, night in enumerate(nights):
        for index in range(len(night.events)):
            events = night.events[:index] + night.events[index + 1 :]
            yield _with(history, number, events=events)
        if night.conf:
            yield _with(history, number, conf={})
        if night.removed:
            yield _with(history, number, removed=[])


def _with(history: History, number: int, **changed: object) -> History:
    nights = list(history.nights)
    nights[number] = replace(nights[number], **changed)  # type: ignore[arg-type]
    return replace(history, nights=nights)
