"""Medians over single runs, and plain arithmetic with figures of which some may not have been measured."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable
from typing import Any, cast

from bench.runs import Run

Figure = Callable[[Run], float | None]


class Summary:
    """Medians over the runs of a suite."""

    def __init__(self, runs: Iterable[Run]) -> None:
        self._runs = list(runs)

    def median(self, section: str, contestant: str, size: int, workers: int, figure: Figure) -> float | None:
        """Return the median of a figure; None where it was not measured."""
        values = self._values(section, contestant, size, workers, figure)
        return statistics.median(values) if values else None

    def spread(self, section: str, contestant: str, size: int, workers: int, figure: Figure) -> float | None:
        """Return the largest over the smallest of a figure, the noise of the machine; None below two runs."""
        values = self._values(section, contestant, size, workers, figure)
        return round(max(values) / min(values), 2) if len(values) > 1 else None

    def _values(self, section: str, contestant: str, size: int, workers: int, figure: Figure) -> list[float]:
        return [
            value
            for run in self._runs
            if (run.section, run.contestant, run.size, run.workers) == (section, contestant, size, workers)
            if (value := figure(run)) is not None
        ]

    def load(self) -> dict[str, float]:
        """Return how busy the machine was when runs began."""
        loads = [run.load_average for run in self._runs]
        return {"median": statistics.median(loads), "max": max(loads)} if loads else {}

    def commits(self) -> dict[str, list[str]]:
        """Return the sections that each commit was measured in: a section may be newer than the others."""
        return {
            commit: sorted({run.section for run in self._runs if run.commit == commit})
            for commit in sorted({run.commit for run in self._runs})
        }


def seconds(run: Run) -> float | None:
    """Return the seconds of a peer: framework ready to results on disk."""
    return run.figures.get("seconds")


def model_seconds(run: Run) -> float | None:
    """Return the seconds that run the model: of the Spark stage, or of the whole run where there is no Spark."""
    return run.figures.get("stage_s", run.figures.get("seconds"))


def figure_at(*path: str) -> Figure:
    """Return a reader of the figure at a path of keys, for example `jobs`, `featurize`, `seconds`."""

    def figure(run: Run) -> float | None:
        value: Any = run.figures
        for name in path:
            value = (value or {}).get(name)
        return cast("float | None", value)

    return figure


def per_image(size: int, total: float | None) -> float | None:
    """Divide a total by the number of images."""
    return None if total is None else round(total / size, 1)


def milliseconds(per_second: float | None) -> float | None:
    """Convert a rate per second to milliseconds for each."""
    return None if not per_second else round(1000 / per_second, 4)


def rate(size: int, took: float | None) -> float | None:
    """Return images per second."""
    return None if not took else round(size / took, 1)


def marginal(sizes: tuple[int, int], took: tuple[float | None, float | None]) -> float | None:
    """Return images per second of the difference between two sets, in which start-up cancels out."""
    small, large = took
    if small is None or large is None or large <= small or sizes[1] <= sizes[0]:
        return None
    return round((sizes[1] - sizes[0]) / (large - small), 2)


def ratio(a: float | None, b: float | None) -> float | None:
    """Divide `a` by `b`."""
    return None if a is None or not b else round(a / b, 3)
