"""Medians over single runs, and plain arithmetic with figures of which some may not have been measured."""

import statistics
from collections.abc import Callable, Iterable
from typing import Any

from bench.runs import Run, Sizes

MODEL_S = ("stage_s", "seconds")
"""The seconds that run the model: of the Spark stage, or of the whole run where there is no Spark."""


class Summary:
    """Medians over the runs of a suite, by default of the runs with all workers.

    A figure is named by its path, for example `jobs.featurize.seconds`; of several, the first that a run has counts.
    """

    def __init__(self, runs: Iterable[Run], sizes: Sizes, workers: int) -> None:
        self._runs = list(runs)
        self.sizes = sizes
        self.workers = workers

    def median(
        self, section: str, contestant: str, size: int, *figures: str, workers: int | None = None
    ) -> float | None:
        """Return the median of a figure; None where it was not measured."""
        key = (section, contestant, size, workers or self.workers)
        values = (
            next((value for figure in figures if (value := figure_at(run.figures, figure)) is not None), None)
            for run in self._runs
            if run.key[:4] == key
        )
        known = [value for value in values if value is not None]
        return statistics.median(known) if known else None

    def peer(self, name: str, size: int, *figures: str, workers: int | None = None) -> float | None:
        """Return the median of a peer's figure."""
        return self.median("peers", name, size, *figures, workers=workers)

    def job(self, stage: str, size: int, figure: str = "seconds", workers: int | None = None) -> float | None:
        """Return the median of a figure of one of our jobs."""
        return self.median("chain", "fruits", size, f"jobs.{stage}.{figure}", workers=workers)

    def load_and_featurize(self, size: int, section: str = "chain") -> float | None:
        """Return the seconds of both jobs, which together do what a peer does in one."""
        stages = ("load_images", "featurize")
        both = [self.median(section, "fruits", size, f"jobs.{stage}.seconds") for stage in stages]
        return sum(filter(None, both)) if all(both) else None

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


def figure_at(figures: Any, path: str) -> Any:
    """Return the figure at a path, or None."""
    for name in path.split("."):
        figures = (figures or {}).get(name)
    return figures


def per_image(size: int, total: float | None) -> float | None:
    """Divide a total by the number of images."""
    return None if total is None else round(total / size, 1)


def milliseconds(per_second: float | None) -> float | None:
    """Convert a rate per second to milliseconds for each."""
    return None if not per_second else round(1000 / per_second, 4)


def rate(size: int, seconds: float | None) -> float | None:
    """Return images per second."""
    return None if not seconds else round(size / seconds, 1)


def marginal(few: int, many: int, seconds_of: Callable[[int], float | None]) -> float | None:
    """Return images per second of the difference between two sets, in which start-up cancels out."""
    least, most = seconds_of(few), seconds_of(many)
    if least is None or most is None or most <= least or many <= few:
        return None
    return round((many - few) / (most - least), 2)


def ratio(a: float | None, b: float | None) -> float | None:
    """Divide `a` by `b`."""
    return None if a is None or not b else round(a / b, 3)
