"""The geometry of the variance curve: how much of the spread the first components keep."""

from collections.abc import Sequence
from dataclasses import dataclass

from fruits_airflow.report.units import number

TARGET = 0.95  # the default setting, drawn for comparison whatever the run's setting
MAX_COMPONENTS = 10_000  # there are at most as many as features, which are 1280 of MobileNetV2
MILESTONES = (0.5, 0.8, 0.9, 0.95, 0.99)


@dataclass(frozen=True)
class Tick:
    """A label on an axis, `at` so many percent of it from the left or from the top."""

    at: float
    text: str


@dataclass(frozen=True)
class VarianceCurve:
    """The curve in a square of 100 by 100, y downwards."""

    line: str  # the `points` of an SVG polyline
    area: str  # the `points` of the polygon below it
    shown: int  # components on the axis; beyond them the curve is flat at 100 %
    total: int  # all components
    k: int | None  # kept components, None when not known
    kept: float | None  # share of the variance that they keep, 0 to 1
    k_at: float | None  # place of k on the x axis, percent
    target_at: float  # place of 95 % on the y axis, percent
    x_ticks: list[Tick]  # round numbers of components
    y_ticks: list[Tick]  # shares of the variance
    milestones: list[tuple[float, int]]  # (share, components needed), for the shares that are reached
    first: tuple[float, float | None]  # shares of the first and of the second component


def variance_curve(cumulative: Sequence[object], k: object) -> VarianceCurve | None:
    """Return the curve of the cumulative explained variance ratio per component, 0 to 1, with the k kept ones.

    None for no value, for a value that is no finite number, or beyond MAX_COMPONENTS.
    """
    if len(cumulative) > MAX_COMPONENTS:
        return None
    shares = [number(share) for share in cumulative]
    ratios = [min(max(share, 0.0), 1.0) for share in shares if share is not None]
    if not ratios or len(ratios) < len(shares):
        return None
    total = len(ratios)
    kept_components = number(k)
    chosen = int(kept_components) if kept_components and 1 <= kept_components <= total else None
    flat_from = next((i for i, ratio in enumerate(ratios, 1) if ratio >= 0.9999), total)
    shown = min(total, max(flat_from, round((chosen or 1) * 1.25)))
    if shown > 0.9 * total:  # not worth a remark about what is left out
        shown = total

    def x(component: float) -> float:
        return round(100 * component / shown, 2)

    points = [(0.0, 100.0)] + [(x(i), round(100 - 100 * ratio, 2)) for i, ratio in enumerate(ratios[:shown], 1)]
    line = " ".join(f"{px:g},{py:g}" for px, py in points)
    return VarianceCurve(
        line=line,
        area=f"{line} 100,100",
        shown=shown,
        total=total,
        k=chosen,
        kept=ratios[chosen - 1] if chosen else None,
        k_at=x(chosen) if chosen else None,
        target_at=100 - 100 * TARGET,
        x_ticks=[Tick(x(value), f"{value:,}") for value in round_numbers(shown)],
        y_ticks=[Tick(100.0 - share, f"{share} %") for share in (0, 25, 50, 75, 100)],
        milestones=[
            (share, 1 + next(i for i, ratio in enumerate(ratios) if ratio >= share))
            for share in MILESTONES
            if ratios[-1] >= share
        ],
        first=(ratios[0], ratios[1] - ratios[0] if total > 1 else None),
    )


def round_numbers(end: int, most: int = 7) -> list[int]:
    """Return round numbers from 0 to `end`, at most `most` of them: 143 → 0, 50, 100."""
    step = next(s * 10**p for p in range(10) for s in (1, 2, 5) if end / (s * 10**p) <= most - 1)
    return list(range(0, end + 1, step))
