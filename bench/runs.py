"""How much is run, one measured run, and the journal that keeps them."""

import json
import sys
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from bench import commits


@dataclass(frozen=True)
class Sizes:
    """How much is run."""

    name: str  # `full` or `quick`
    repeats: int  # runs of each kind; the median counts
    peers: int  # photos that peers and we are compared on
    small: int  # a smaller set for peers, from which the cost of one more photo follows; 0: not run
    phones: int  # photos of 12 megapixels that peers and we are compared on
    images: tuple[int, ...]  # sets that our chain alone runs on, rising; the nights follow on the last
    pca: tuple[int, ...]  # rows of features


FULL = Sizes("full", repeats=3, peers=2000, small=200, phones=500, images=(1000, 5000, 20000), pca=(20000, 100000))
QUICK = Sizes("quick", repeats=1, peers=250, small=0, phones=24, images=(250, 1000), pca=(20000,))
TINY = Sizes("tiny", repeats=1, peers=16, small=8, phones=4, images=(16, 32), pca=(2000,))
SIZES = {sizes.name: sizes for sizes in (FULL, QUICK, TINY)}


@dataclass(frozen=True)
class Run:
    """One measured run."""

    section: str  # `peers`, `chain`, `phones`, `night`, `memory` or `pca`
    contestant: str  # who ran
    size: int  # photos, or rows of features
    workers: int  # processes or Spark slots
    repeat: int  # which turn, from 0
    figures: dict[str, Any] = field(default_factory=dict)  # what was measured; seconds unless the name says otherwise
    load_average: float = 0.0  # of the machine, just before
    commit: str = ""  # what was measured; empty in a run that nobody has kept yet

    @property
    def key(self) -> tuple[str, str, int, int, int]:
        """What names the run."""
        return (self.section, self.contestant, self.size, self.workers, self.repeat)


class Journal:
    """The runs so far, one JSON line each: an interrupted suite goes on where it was."""

    def __init__(self, path: Path) -> None:
        self._path = path
        lines = path.read_text().splitlines() if path.is_file() else []
        self.runs = [Run(**json.loads(line)) for line in lines]

    def has(self, *key: object) -> bool:
        """Tell whether the journal has that run."""
        return any(run.key == key for run in self.runs)

    def add(self, run: Run) -> None:
        """Append a run, with the commit that it measured."""
        run = replace(run, commit=commits.here())
        self.runs.append(run)
        with self._path.open("a") as file:
            file.write(json.dumps(asdict(run)) + "\n")
        seconds = run.figures.get("seconds", run.figures.get("wall_s", 0.0))
        sys.stderr.write(
            f"{run.section:6} {run.contestant:18} {run.size:>6} x{run.workers} #{run.repeat}  {seconds:8.1f} s"
            f"  (load {run.load_average})\n"
        )
