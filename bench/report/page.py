"""results.json as a page: build/bench/index.html, without a script or a request."""

from __future__ import annotations

from html import escape
from typing import Any

from bench.report.tables import NAMES, Table, all_tables, setting

OWN = frozenset({NAMES["fruits"], "ours", "1 % new"})
WIDTH, LABEL, ROW = 720, 240, 30
STYLE = """
:root{color-scheme:light dark;--ink:#1d2a22;--soft:#5d6b62;--paper:#fbfaf6;--own:#c2412d;--peer:#8fa694;--rule:#dcd9cf}
@media(prefers-color-scheme:dark){:root{--ink:#ecefe9;--soft:#9fada3;--paper:#161b18;--own:#f0705a;--peer:#6d8573;
--rule:#333b36}}
body{font:16px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--paper);max-width:760px;margin:2.5rem auto;
padding:0 1rem}
h1{font-size:1.9rem;margin:0 0 .3rem}h2{margin:2.6rem 0 .2rem;font-size:1.25rem}.soft{color:var(--soft)}
svg{width:100%;height:auto;font:13px system-ui,sans-serif}.label{text-anchor:end;fill:var(--ink)}.value{fill:var(--ink)}
.own{fill:var(--own)}.peer{fill:var(--peer)}table{border-collapse:collapse;width:100%}
td,th{text-align:left;padding:.3rem .6rem .3rem 0;border-bottom:1px solid var(--rule)}
"""


def render(results: dict[str, Any]) -> str:
    """Render the page: each table with its first figures as bars, and the machine."""
    facts = results["machine"] | {"load average of the runs": results["details"]["load_average"]}
    machine = Table(["machine", ""], [[name, _flat(value)] for name, value in facts.items()])
    parts = [
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>",
        f"<title>Fruits! benchmark</title><style>{STYLE}</style>",
        f"<h1>Fruits! beside its peers</h1><p class=soft>{escape(setting(results))}</p>",
        *(_section(table) for table in [*all_tables(results), machine]),
        "</html>",
    ]
    return "\n".join(parts) + "\n"


def _section(table: Table) -> str:
    cells = "".join(f"<th>{escape(name)}</th>" for name in table.head)
    for row in table.rows:
        cells += "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>"
    note = f"<p class=soft>{escape(table.note)}</p>" if table.note else ""
    return f"<h2>{escape(table.head[0])}</h2>{_bars(table)}<table>{cells}</table>{note}"


def _bars(table: Table) -> str:
    """Draw the first figures of a table, the longest 100 %; leave out what was not measured."""
    rows = [(row[0], row[1], value) for row in table.rows if (value := _number(row[1])) is not None]
    if len(rows) < len(table.rows) / 2:
        return ""
    most = max(value for *_, value in rows) or 1.0
    parts = [f'<svg viewBox="0 0 {WIDTH} {ROW * len(rows) + 8}" role="img" aria-label="{escape(table.head[1])}">']
    for place, (label, text, value) in enumerate(rows):
        y = place * ROW + 4
        width = max(1.0, (WIDTH - LABEL - 110) * value / most)
        kind = "own" if label in OWN else "peer"
        parts += [
            f'<text x="{LABEL - 10}" y="{y + 17}" class="label">{escape(label)}</text>',
            f'<rect x="{LABEL}" y="{y + 3}" width="{width:.1f}" height="{ROW - 10}" class="{kind}"/>',
            f'<text x="{LABEL + width + 6:.1f}" y="{y + 17}" class="value">{escape(text)}</text>',
        ]
    return "".join(parts) + "</svg>"


def _number(text: str) -> float | None:
    try:
        return float(text.replace(",", ""))
    except ValueError:
        return None


def _flat(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {inner}" for name, inner in value.items())
    return str(value)
