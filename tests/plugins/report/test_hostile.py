"""What no input can make the report do."""

from __future__ import annotations

import copy
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pytest
from fruits_airflow.report import render

from tests.plugins.report.pages import HOSTILE, Page


def strings(record: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path to every text in a nested record, keys of mappings included as `(..., "key of", key)`."""
    if isinstance(record, dict):
        for key, part in record.items():
            yield from strings(part, (*path, key))
    elif isinstance(record, list):
        for index, part in enumerate(record):
            yield from strings(part, (*path, index))
    elif isinstance(record, str):
        yield path


def leaves(record: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path to every part of a nested record, inner parts included."""
    if path:
        yield path
    parts = (
        record.items() if isinstance(record, dict) else enumerate(record) if isinstance(record, list) else ()
    )
    for key, part in parts:
        yield from leaves(part, (*path, key))


def replaced(record: Any, path: tuple[Any, ...], value: object) -> Any:
    changed = copy.deepcopy(record)
    here = changed
    for key in path[:-1]:
        here = here[key]
    here[path[-1]] = value
    return changed


def test_hostile_text_is_only_text_wherever_it_comes_from(
    run: dict[str, Any], stages: dict[str, Any], page: Page
) -> None:
    sound = Counter(tag for tag, _ in page.elements)
    run["reason"] = run["state"] = HOSTILE
    run["rejects_by_code"] = {HOSTILE: 2}
    run["quality"]["checks"] = {HOSTILE: {"ok": False, "value": HOSTILE, "limit": HOSTILE}}
    for path in list(strings(run)):
        if path != ("state",):
            run = replaced(run, path, HOSTILE)
    for path in list(strings(stages)):
        stages = replaced(stages, path, HOSTILE)
    hostile = pa.table({"label": [HOSTILE], "pc1": [1.0], "pc2": [2.0], "thumbnail": [HOSTILE.encode()]})

    attacked = Page(render(run, stages, hostile))

    assert attacked.text.count("<script>alert(1)</script>") > 15
    assert not {tag for tag, _ in attacked.elements} - set(sound) - {"pre"}
    assert attacked.all("img") == []
    assert all("onerror" not in attributes for _, attributes in attacked.elements)


def test_a_file_name_cannot_turn_the_text_around_or_hide(run: dict[str, Any], stages: dict[str, Any]) -> None:
    stages["load_images"]["reject_examples"][0]["source_key"] = "raw/\u202egpj.exe\u200b\x00\ud800.jpg"
    html = render(run, stages, None)
    assert r"raw/\u202egpj.exe\u200b\u0000\ud800.jpg" in html
    html.encode("utf-8")


@pytest.mark.parametrize("junk", [None, float("nan"), float("inf"), -1, 10**400, "junk", [], {}, [[]], True])
def test_no_wrong_part_stops_the_report_or_shows_as_a_number(
    junk: object, run: dict[str, Any], stages: dict[str, Any]
) -> None:
    for path in leaves(run):
        text = Page(render(replaced(run, path, junk), stages, None)).text
        assert not re.search(r"\b(nan|inf|None)\b", text), path
    for path in leaves(stages):
        text = Page(render(run, replaced(stages, path, junk), None)).text
        assert not re.search(r"\b(nan|inf|None)\b", text), path


def test_rows_without_usable_coordinates_are_counted_not_drawn(
    run: dict[str, Any], stages: dict[str, Any]
) -> None:
    sample = pa.table(
        {"label": ["a"] * 4, "pc1": [1.0, float("nan"), None, 1e300], "pc2": [1.0, 1.0, 1.0, 1.0]}
    )
    drawn = Page(render(run, stages, sample))
    assert len(drawn.classed("pt")) == 1
    assert "3 rows had no usable coordinates" in drawn.text
    assert not re.search(r"\bnan\b", " ".join(a.get("style", "") for _, a in drawn.elements))


def test_a_long_cause_is_cut_and_says_so(run: dict[str, Any]) -> None:
    run |= {"state": "failed", "reason": "x" * 10_000}
    text = Page(render(run, {}, None)).text
    assert "… (6,000 more characters)" in text
