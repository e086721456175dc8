"""What no input can make the report do."""

from __future__ import annotations

import copy
import json
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pytest
from fruits_airflow.report import render
from fruits_airflow.report.page import MAX_PAGE_BYTES

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
    parts = record.items() if isinstance(record, dict) else enumerate(record) if isinstance(record, list) else ()
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


def test_rows_without_usable_coordinates_are_counted_not_drawn(run: dict[str, Any], stages: dict[str, Any]) -> None:
    sample = pa.table({"label": ["a"] * 4, "pc1": [1.0, float("nan"), None, 1e300], "pc2": [1.0, 1.0, 1.0, 1.0]})
    drawn = Page(render(run, stages, sample))
    assert len(drawn.classed("pt")) == 1
    assert "3 rows had no usable coordinates" in drawn.text
    assert not re.search(r"\bnan\b", " ".join(a.get("style", "") for _, a in drawn.elements))


def test_a_long_cause_is_cut_and_says_so(run: dict[str, Any]) -> None:
    run |= {"state": "failed", "reason": "x" * 10_000}
    text = Page(render(run, {}, None)).text
    assert "… (6,000 more characters)" in text


MEGABYTE = 1_000_000


def filled(item: Any, size: int = MEGABYTE) -> list[Any]:
    return [item] * (size // (len(json.dumps(item)) + 2))


@pytest.mark.parametrize(
    "where",
    [
        ("rejects_by_code", {f"{n}{HOSTILE}": n for n in range(12_000)}),
        ("quality", {"checks": {f"{n}{HOSTILE}": {"ok": False, "value": "&" * 50} for n in range(6_000)}}),
        ("reject_examples", filled({"source_key": HOSTILE * 10, "error_code": "&" * 400, "detail": "\u202e" * 400})),
        ("variance_curve", filled(0.5)),
        ("mode", "\u202e" * MEGABYTE),
        ("region", "&" * MEGABYTE),
        ("drift", {"reason": "&" * MEGABYTE, "new_basis": True}),
        ("reason", "\u202e" * MEGABYTE),
    ],
    ids=lambda where: where[0],
)
def test_no_json_of_a_megabyte_makes_a_page_of_more_than_two(
    where: tuple[str, Any], run: dict[str, Any], stages: dict[str, Any], sample: pa.Table
) -> None:
    name, content = where
    stages["load_images"][name] = content
    for page in (
        render(run, stages, sample, {"evidence": filled({"a": HOSTILE})}, problems=["x" * MEGABYTE] * 50),
        render(run | {name: content, "state": "failed"}, stages, sample),
    ):
        assert len(page.encode()) <= MAX_PAGE_BYTES
        assert Page(page).all("h1")


def test_a_page_that_would_be_too_large_says_what_is_left_out(run: dict[str, Any]) -> None:
    rows = {"label": [f"{n}" + "\u202e" * 200 for n in range(600)], "pc1": [1.0] * 600, "pc2": [2.0] * 600}
    pictures = [b"\x89PNG\r\n\x1a\n" + b"x" * 10_000] * 600
    large = Page(render(run, {}, pa.table({**rows, "thumbnail": pictures})))
    assert len(large.html.encode()) <= MAX_PAGE_BYTES
    assert "Parts of the page are left out" in large.text
    assert "Map of the images" not in large.text
    assert "600 images became vectors" in large.text
