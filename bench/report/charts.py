"""Bar and line charts as inline SVG: no script, no network, readable in the dark."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

WIDTH = 720
LABEL = 240
ROW = 30
PLOT_HEIGHT = 220
MARGIN = 48


def number(value: float | None) -> str:
    """Format a figure with three significant digits."""
    if value is None:
        return "n/a"
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.3g}"


def bars(rows: Sequence[tuple[str, float | None]], unit: str, own: Sequence[str] = ()) -> str:
    """Draw horizontal bars, the longest 100 %; rows named in `own` stand out, unmeasured ones are left out."""
    shown = [(label, value) for label, value in rows if value is not None]
    if not shown:
        return '<p class="none">Not measured in this mode.</p>'
    most = max(value for _, value in shown) or 1.0
    height = ROW * len(shown) + 8
    parts = [f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{escape(unit)}">']
    for place, (label, value) in enumerate(shown):
        y = place * ROW + 4
        width = max(1.0, (WIDTH - LABEL - 110) * value / most)
        kind = "own" if label in own else "peer"
        parts.append(f'<text x="{LABEL - 10}" y="{y + 17}" class="label">{escape(label)}</text>')
        parts.append(
            f'<rect x="{LABEL}" y="{y + 3}" width="{width:.1f}" height="{ROW - 10}" class="{kind}"/>'
        )
        parts.append(
            f'<text x="{LABEL + width + 6:.1f}" y="{y + 17}" class="value">{number(value)} {escape(unit)}</text>'
        )
    return "".join(parts) + "</svg>"


def lines(series: Mapping[str, Sequence[tuple[float, float | None]]], x_name: str, unit: str) -> str:
    """Draw a line for each series over a common x axis from zero; the first is ours."""
    known = {name: sorted((x, y) for x, y in points if y is not None) for name, points in series.items()}
    known = {name: points for name, points in known.items() if points}
    if not known:
        return '<p class="none">Not measured in this mode.</p>'
    x_most = max(x for points in known.values() for x, _ in points)
    y_most = max(y for points in known.values() for _, y in points) * 1.1 or 1.0
    width, height = WIDTH - 2 * MARGIN - 110, PLOT_HEIGHT - 60

    def at(x: float, y: float) -> tuple[float, float]:
        return MARGIN + width * x / x_most, 20 + height * (1 - y / y_most)

    parts = [f'<svg viewBox="0 0 {WIDTH} {PLOT_HEIGHT}" role="img" aria-label="{escape(unit)}">']
    base, top = at(0, 0), at(0, y_most)
    parts.append(f'<path class="axis" d="M{top[0]},{top[1]} V{base[1]} H{MARGIN + width}"/>')
    parts.append(f'<text x="{MARGIN}" y="12" class="unit">{escape(unit)}</text>')
    parts.append(f'<text x="{MARGIN + width}" y="{base[1] + 34}" class="label">{escape(x_name)}</text>')
    for x in sorted({x for points in known.values() for x, _ in points}):
        parts.append(f'<text x="{at(x, 0)[0]:.1f}" y="{base[1] + 16}" class="tick">{x:,.0f}</text>')
    for place, (name, points) in enumerate(known.items()):
        kind = ("own", "peer", "third")[place % 3]
        path = " ".join(f"{a:.1f},{b:.1f}" for a, b in (at(x, y) for x, y in points))
        parts.append(f'<polyline class="line {kind}" points="{path}"/>')
        for x, y in points:
            a, b = at(x, y)
            parts.append(f'<circle cx="{a:.1f}" cy="{b:.1f}" r="3.5" class="{kind}"/>')
            parts.append(f'<text x="{a:.1f}" y="{b - 8:.1f}" class="tick">{number(y)}</text>')
        a, b = at(*points[-1])
        parts.append(f'<text x="{a + 10:.1f}" y="{b + 4:.1f}" class="value">{escape(name)}</text>')
    return "".join(parts) + "</svg>"
