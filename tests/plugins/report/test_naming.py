"""What the report says of the photos' names."""

from __future__ import annotations

import json
from typing import Any

import pytest
from fruits_airflow.records.models import parse_metrics
from fruits_airflow.report import render

from tests.plugins.report.pages import HOSTILE, Page

RATE = {"share": 0.873, "low": 0.839, "high": 0.9, "n": 464}
CLASSIFIER: dict[str, Any] = {
    "classifier_id": "c" * 64,
    "is_new": True,
    "reason": "a label came or went",
    "learned": 1336,
    "judged": 464,
    "near_equal": 0,
    **dict.fromkeys(("top1", "top3", "answered", "wrong_answers"), RATE),
    "calibration_error": 0.06,
    "calibration_error_raw": 0.125,
    "confusion": [["Kiwi", "Kiwi", 9], ["Kiwi", "Apple", 1], ["Apple", "Apple", 4]],
    "examples": [["a1" * 32, "Kiwi", 0.91], ["b2" * 32, None, 0.2]],
}


def page_of(run: dict[str, Any], stages: dict[str, Any], classifier: object) -> Page:
    stages["publish"]["classifier"] = classifier
    return Page(render(run, stages, None))


def test_the_report_says_how_good_the_names_are_and_which_photos_got_one(run, stages) -> None:
    text = page_of(run, stages, CLASSIFIER).text
    for words in (
        "A new classifier, because a label came or went. It learned from 1,336 labelled photos and is judged by 464",
        "The most probable name is right 87.3 % 83.9 % 90.0 %",
        "by 6.0 % on average, and by 12.5 % before calibration",
        f"{'a1' * 32} Kiwi 91.0 %",
        f"{'b2' * 32} not known 20.0 %",
        "Apple 100 Kiwi 10 90",
    ):
        assert words in text.replace("\xa0", " "), words


def test_a_night_without_a_classifier_says_why(run, stages) -> None:
    page = page_of(run, stages, {"failure": "1 label(s) to learn from: a classifier needs at least 2"})
    assert "No new classifier was fitted: 1 label(s) to learn from" in page.text
    assert "Names for the photos" not in page_of(run, stages, {}).text


@pytest.mark.parametrize("part", list(CLASSIFIER))
@pytest.mark.parametrize("bad", [HOSTILE, 7, [[1, 2]], {"share": "x"}, float("inf")])
def test_a_record_that_no_job_writes_never_breaks_the_page(run, stages, part, bad) -> None:
    page = page_of(run, stages, CLASSIFIER | {part: bad})
    assert "Succeeded" in page.text
    assert "<script" not in page.html.lower()


def test_the_metrics_of_a_night_are_read_as_they_are_written() -> None:
    metrics = parse_metrics(json.dumps({"classifier": CLASSIFIER | {"more": 1}}).encode(), "stages/publish.json")
    assert metrics.classifier.examples[1] == ("b2" * 32, None, 0.2)
    assert metrics.classifier.top1.share == 0.873
