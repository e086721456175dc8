"""The model card and the datasheet of what a run published."""

from __future__ import annotations

import re
from typing import Any

import pytest
from fruits_airflow.report import render_cards

from tests.plugins.report.pages import HOSTILE
from tests.plugins.report.test_hostile import leaves, replaced
from tests.plugins.report.test_naming import CLASSIFIER

SECTIONS = {
    # Mitchell et al. (2019), figure 1
    "model_card.md": "Model details, Intended use, Factors, Metrics, Evaluation data, Training data, Quantitative "
    "analyses: where it fails, by label, Ethical considerations, Caveats and recommendations",
    # Gebru et al. (2021), section 3
    "datasheet.md": "Motivation, Composition, Collection process, Preprocessing, cleaning, labelling, Uses, "
    "Distribution, Maintenance",
}


def text_of(run: dict[str, Any], stages: dict[str, Any], name: str) -> str:
    return render_cards(run, stages)[name].replace("\xa0", " ")


@pytest.mark.parametrize("name", SECTIONS)
def test_a_card_has_the_sections_of_the_literature(name: str, run: dict[str, Any], stages: dict[str, Any]) -> None:
    card = text_of(run, stages, name)
    assert ", ".join(re.findall("^## (.*)$", card, re.MULTILINE)) == SECTIONS[name]
    assert "\n\n\n\n" not in card
    for line in re.findall(r"^\|.*$", card, re.MULTILINE):
        assert line.endswith("|"), line


def test_the_model_card_says_what_was_published_and_where_it_fails(run: dict[str, Any], stages: dict[str, Any]) -> None:
    stages["publish"]["classifier"] = CLASSIFIER
    card = text_of(run, stages, "model_card.md")
    for words in (
        "| Network | MobileNetV2 of Keras without its top, average-pooled: 1280 features |",
        f"| Weights | ImageNet, from Keras; `model_id` {'9f' * 32} is their digest |",
        "| Runtime | litert, emr-spark-8.0.0 |",
        f"| Projection | PCA: 3 of 1280 components, which keep 96.0 % of the variance; `pca_id` {'5b' * 32} |",
        "| The most probable name is right | 87.3 % | 83.9 % to 90.0 % |",
        "Confidence differs from accuracy by 6.0 % on average.",
        "| Kiwi | 10 | 80.0 % | Apple |\n| Apple | 4 | 100.0 % | – |",
        "(of 64 photos in this run)",
        "eu-west-1 (Ireland), in a member state of the European Union; `residency.json` is the evidence",
        "1,336 labelled photos of this lake",
    ):
        assert words in card, words
    assert "Weights: random" not in card


def test_without_a_classifier_the_card_says_that_no_accuracy_is_known(
    run: dict[str, Any], stages: dict[str, Any]
) -> None:
    card = text_of(run, stages, "model_card.md")
    assert "There is no classifier, so that no accuracy by label is known." in card
    assert "Not known: no photos were held out." in card
    assert "94.8 % by components" in card


def test_the_datasheet_says_what_the_photos_are(run: dict[str, Any], stages: dict[str, Any]) -> None:
    sheet = text_of(run, stages, "datasheet.md")
    for words in ("| Objects listed | 602, 2.9 MB |", "| not_an_image | 1 |", "64 photos of this run had metadata"):
        assert words in sheet, words
    stages["publish"]["classifier"] = CLASSIFIER
    assert "| Labelled photos | 1,336 to learn from, 464 to judge by |" in text_of(run, stages, "datasheet.md")


def test_another_network_and_random_weights_are_named(run: dict[str, Any], stages: dict[str, Any]) -> None:
    run["features"] |= {"network": "MobileNetV3Large", "dims": 960, "weights": "random"}
    card = text_of(run, stages, "model_card.md")
    assert "MobileNetV3Large of Keras without its top, average-pooled: 960 features" in card
    assert "**Weights: random.**" in card


def test_a_run_of_the_laptop_is_in_no_region(run: dict[str, Any], stages: dict[str, Any]) -> None:
    del run["region"]
    assert "It was computed on one machine." in text_of(run, stages, "model_card.md")
    assert "They are on one machine, in no region." in text_of(run, stages, "datasheet.md")


@pytest.mark.parametrize("published", [False, None, "yes"])
def test_a_run_that_published_nothing_has_no_cards(
    published: object, run: dict[str, Any], stages: dict[str, Any]
) -> None:
    stages["publish"]["published"] = published
    assert render_cards(run, stages) == {}


def test_the_worst_label_is_first(run: dict[str, Any], stages: dict[str, Any]) -> None:
    rows = [["a", "a", 3], ["B", "B", 1], ["B", "a", 2], ["B", "C", 1], ["A", "a", 0]]
    stages["publish"]["classifier"] = CLASSIFIER | {"confusion": rows}
    (table,) = re.findall(r"taken for \|\n\|---.*\n((?:\|.*\n)+)", text_of(run, stages, "model_card.md"))
    assert table.splitlines() == ["| A | 0 | 0.0 % | – |", "| B | 4 | 25.0 % | a |", "| a | 3 | 100.0 % | – |"]


def test_a_label_is_no_markup(run: dict[str, Any], stages: dict[str, Any]) -> None:
    hostile = f"[x](javascript:1) | `a` **b**\n# c {HOSTILE}"
    stages["publish"]["classifier"] = CLASSIFIER | {"confusion": [[hostile, hostile, 1], [hostile, "Kiwi", 1]]}
    stages["publish"]["rejects_by_code"] = run["rejects_by_code"] = {hostile: 1}
    for name in SECTIONS:
        card = text_of(run, stages, name)
        assert "javascript" in card
        assert not re.search(r"\[x\]|\*\*b|<script|<img|`a`|^# c", card, re.MULTILINE)
        lines = [line for line in card.splitlines() if "javascript" in line]
        assert {line.count("|") for line in lines} == {5 if name == "model_card.md" else 3}


@pytest.mark.parametrize("junk", [None, float("nan"), -1, 10**400, HOSTILE, [], {}, [[]], True])
def test_no_wrong_part_stops_the_cards(junk: object, run: dict[str, Any], stages: dict[str, Any]) -> None:
    stages["publish"]["classifier"] = CLASSIFIER
    for record, other in ((run, stages), (stages, run)):
        for path in leaves(record):
            if path != ("publish", "published") and path != ("publish",):
                changed = replaced(record, path, junk)
                cards = render_cards(changed, other) if record is run else render_cards(other, changed)
                assert set(cards) == set(SECTIONS), path
                for card in cards.values():
                    assert not re.search(r"\b(nan|inf|None)\b|<script", card), path
