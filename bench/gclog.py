"""What a JVM's own log says of its heap: how much of it is in use right after each full collection.

The resident memory of a JVM says what heap it was given, which grows before it is collected; and after a collection of
the young generation alone, what has died in the old one still counts. What a full collection leaves is what the program
holds.
"""

import re
from pathlib import Path

TIGHT = ["-Xms16m", "-Xmn4m", "-XX:MinHeapFreeRatio=1", "-XX:MaxHeapFreeRatio=5", "-XX:-ShrinkHeapInSteps"]
"""A heap with little room to spare: what outlives 4 MB of allocation makes the serial collector collect it as a whole
before it grows, so that no peak falls between two looks, however short it is."""

_COLLECTION = re.compile(r"Pause Full .*?(\d+)([KMG])->(\d+)([KMG])\(\d+[KMG]\)")
_MB = {"K": 2**10 / 1e6, "M": 2**20 / 1e6, "G": 2**30 / 1e6}


def options(folder: Path) -> list[str]:
    """Return Java's options that keep a heap tight and write such a log into `folder`, one for each JVM."""
    return [f"-Xlog:gc:file={folder}/%p.log", *TIGHT]


def live_heaps(log: Path) -> list[float]:
    """Return the MB in use after each full collection, in their order."""
    matches = (_COLLECTION.search(line) for line in log.read_text().splitlines())
    return [round(int(match[3]) * _MB[match[4]], 1) for match in matches if match]


def largest_live_heaps(folder: Path) -> list[float | None]:
    """Return the most MB that each JVM held, in the order of their ends; None for a JVM without a full collection."""
    logs = sorted(folder.glob("*.log"), key=lambda log: log.stat().st_mtime_ns)
    return [max(live_heaps(log), default=None) for log in logs]
