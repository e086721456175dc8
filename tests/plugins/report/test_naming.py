"""What the report says of the photos' names."""

from __future__ import annotations

import json
from typing import Any

import pyarrow as pa
import pytest
from fruits_airflow.records.models import parse_metrics
from fruits_airflow.report import render

from tests.plugins.report.conftest import jpeg
from tests.plugins.report.pages import CLASSIFIER, HOSTILE, Page


def page_of(run: dict[str, Any], stages: dict[str, Any], classifier: object) -> Page:
    stages["publish"]["classifier"] = classifier
    return Page(render(run, stages, None))


def test_the_report_says_how_good_the_names_are_and_which_photos_got_one(run, stages) -> None:
    text = page_of(run, stages, CLASSIFIER).text
    for words in (
        "A new classifier, because a label came or went. It learned from 1,336 labelled photos and is judged by 464",
        "The most probable name is right 87.3 % 83.9 % 90.0 %",
        "by 6.0 % on average, and by 12.5 % before calibration",
        f"no thumbnail Kiwi 91.0 % sure {'a1' * 32}",
        f"not known 20.0 % sure {'b2' * 32}",
        "Apple 100 Kiwi 10 80 10",
        "7 photos of less frequent pairs are left out",
        "35.0 % 40.0 % 100",
        "90.0 % 60.0 % 2.0 % 99.0 % 0.0 % –",
        "Apple 80.0 % 30.0 % to 90.0 % 5 87.3 % 83.9 % to 90.0 % 464 Pear – 0 – 0",
        "900 labels with fewer photos held out are left out",
        "unaltered 87.0 % 87.3 % 10.0 % noise, 60 10.0 % 0.0 % – noise, 20 20.0 % 87.3 % 10.0 % blur, 4 px 30.0 %",
    ):
        assert words in text.replace("\xa0", " "), words


def test_the_curves_are_drawn_with_the_ideal_one_beside_them(run, stages) -> None:
    page = page_of(run, stages, CLASSIFIER)
    lines = [line["points"].split() for line in page.all("polyline")]
    assert ["35.0,60.0", "90.0,5.0"] in lines
    assert ["0.0,0.0", "90.0,40.0", "99.0,100.0"] in lines
    assert ["0.0,87.3", "90.0,98.0"] in lines, "no answers, no share of wrong ones"


def test_a_named_photo_of_the_sample_is_shown(run, stages) -> None:
    stages["publish"]["classifier"] = CLASSIFIER
    numbers = {"pc1": [1.0, 2.0], "pc2": [0.0, 0.0]}
    sample = pa.table({"image_id": ["a1" * 32, "c3" * 32], "thumbnail": [jpeg(), jpeg()], **numbers})
    page = Page(render(run, stages, sample))
    assert "Kiwi 91.0 %" in page.text
    assert page.text.count("no thumbnail") == 1, "of the one that is not in the sample"


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
    assert metrics.classifier.labels["Apple"].precision.n == 5
    assert metrics.classifier.by_confidence[2] == (0.99, 0.0, None)
    assert metrics.classifier.top1.share == 0.873
