"""The geometry of the PCA map: a sample of the images, placed by their first two components."""

import base64
import math
from collections import Counter
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import pyarrow as pa

from fruits_airflow.report.curve import Tick
from fruits_airflow.report.units import clipped, number

MAX_POINTS = 600  # more would neither be legible nor a page that opens at once
ASPECT = 1.6  # width to height of the plot
THUMBNAIL = 3.4  # width of a thumbnail in percent of the plot's width
COLOURS = 31  # style.css has as many; the first seven are Okabe and Ito's, made for colour-blind readers
SHAPES = 6  # coprime with COLOURS where both turn at once: 186 labels differ in colour or shape
MAX_LABEL = 100  # characters; the page says each label some four times
NO_LABEL = "no label"
PICTURES = ((b"\xff\xd8\xff", "image/jpeg"), (b"\x89PNG\r\n\x1a\n", "image/png"))


@dataclass(frozen=True)
class Point:
    """An image."""

    x: float  # place from the left, percent
    y: float  # place from the top, percent
    label: int  # index of its label in `PcaMap.labels`
    pc1: float  # its first component
    pc2: float  # its second component
    picture: str | None  # its thumbnail as a data URI, None when there is none
    is_drawn: bool  # whether the thumbnail has room; otherwise the page shows a mark until it is pointed at


@dataclass(frozen=True)
class Label:
    """An entry of the legend: name, number of points, colour and shape of the mark, mean of both components."""

    name: str
    points: int
    colour: int
    shape: int
    pc1: float
    pc2: float


@dataclass(frozen=True)
class PcaMap:
    """The map; `unplaced` rows have no finite coordinates, `left_out` rows are too many."""

    points: list[Point]
    labels: list[Label]
    x_ticks: list[Tick]
    y_ticks: list[Tick]
    unplaced: int
    left_out: int

    @property
    def drawn(self) -> int:
        """How many thumbnails have room."""
        return sum(point.is_drawn for point in self.points)


def pca_map(sample: pa.Table | None) -> PcaMap | None:
    """Return the map of `label`, `pc1`, `pc2` and `thumbnail` (encoded picture); None when no row has a place."""
    if sample is None or not {"pc1", "pc2"} <= set(sample.column_names):
        return None
    columns = [name for name in ("label", "pc1", "pc2", "thumbnail") if name in sample.column_names]
    rows: list[dict[str, Any]] = sample.select(columns).to_pylist()
    points_of_rows = [
        (pc1, pc2, row)
        for row in rows
        if (pc1 := _coordinate(row["pc1"])) is not None and (pc2 := _coordinate(row["pc2"])) is not None
    ]
    shown = points_of_rows[:MAX_POINTS]
    if not shown:
        return None

    names = [_name(row.get("label")) for _, _, row in shown]
    counts = Counter(names)
    order = {name: i for i, name in enumerate(sorted(counts, key=lambda name: (name == NO_LABEL, name)))}
    across = _Axis([pc1 for pc1, _, _ in shown])
    down = _Axis([pc2 for _, pc2, _ in shown])
    corners: list[tuple[float, float]] = []
    points = []
    for (pc1, pc2, row), name in zip(shown, names, strict=True):
        x, y = across.percent(pc1), 100 - down.percent(pc2)
        picture = data_uri(row.get("thumbnail"))
        is_drawn = picture is not None and _has_room(x, y, corners)
        if is_drawn:
            corners.append((x, y))
        points.append(Point(round(x, 2), round(y, 2), order[name], pc1, pc2, picture, is_drawn))
    return PcaMap(
        points=points,
        labels=[Label(name, counts[name], i % COLOURS, i % SHAPES, *_middle(points, i)) for name, i in order.items()],
        x_ticks=across.ticks(),
        y_ticks=[Tick(100 - tick.at, tick.text) for tick in down.ticks()],
        unplaced=len(rows) - len(points_of_rows),
        left_out=len(points_of_rows) - len(shown),
    )


def data_uri(encoded: object) -> str | None:
    """Return a picture as a data URI; None for what is not JPEG, PNG or WebP by its first bytes."""
    if not isinstance(encoded, bytes):
        return None
    kind = next((kind for start, kind in PICTURES if encoded.startswith(start)), None)
    if encoded[:4] == b"RIFF" and encoded[8:12] == b"WEBP":
        kind = "image/webp"
    return kind and f"data:{kind};base64,{base64.b64encode(encoded).decode('ascii')}"


def _coordinate(value: object) -> float | None:
    """Return a finite coordinate; None for a number so large that distances on its axis would overflow."""
    known = number(value)
    return known if known is not None and abs(known) < 1e12 else None


def _name(label: object) -> str:
    return clipped(label, MAX_LABEL) if isinstance(label, str) and label else NO_LABEL


def _middle(points: list[Point], label: int) -> tuple[float, float]:
    own = [point for point in points if point.label == label]
    return fmean(point.pc1 for point in own), fmean(point.pc2 for point in own)


def _has_room(x: float, y: float, others: list[tuple[float, float]]) -> bool:
    """Whether a thumbnail at that place covers none of the others."""
    wide, high = THUMBNAIL, THUMBNAIL * ASPECT
    return all(abs(x - left) >= wide or abs(y - top) >= high for left, top in others)


class _Axis:
    """A scale from values to percent, with a margin so that no thumbnail is cut."""

    def __init__(self, values: list[float]) -> None:
        low, high = min(values), max(values)
        if high - low < 1e-12 * max(1.0, abs(high)):  # one image, or all alike: put them in the middle
            low, high = low - 1, high + 1
        margin = (high - low) * 0.06
        self.low, self.high = low - margin, high + margin

    def percent(self, value: float) -> float:
        return 100 * (value - self.low) / (self.high - self.low)

    def ticks(self) -> list[Tick]:
        """Return round numbers on the axis, three to seven of them."""
        span = self.high - self.low
        step = 10 ** math.floor(math.log10(span / 3))
        step *= next(factor for factor in (1, 2, 5, 10) if span / (step * factor) <= 7)
        first = math.ceil(self.low / step)
        return [
            Tick(round(self.percent(i * step), 2), f"{i * step:g}".replace("-", "\u2212"))
            for i in range(first, math.floor(self.high / step) + 1)
        ]
