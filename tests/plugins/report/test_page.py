"""The run report: what a reader of the page sees."""

from __future__ import annotations

import re
from itertools import pairwise
from typing import Any

import pytest
from fruits_airflow.records.digests import CARDS
from fruits_airflow.report import render

from tests.plugins.report.pages import DRIFT, HOSTILE, Page, swapped


def test_a_good_run_reads_from_top_to_bottom(page: Page) -> None:
    for words in (
        "Succeeded",
        "600 images became vectors of 3 numbers",
        "96.0 % of what tells them apart",
        "602 seen",
        "job itself 13 s 600 loaded 2 rejected 46 images/s",
        "2 min 28 s in all, of which 28 s outside these stages",
        "3 images by their first two PCA components (80.0 % of the variance)",
        "The first 3 of 4 components keep 96.0 %",
        "From 2.9 MB of photos to 7.2 kB of vectors: 401 times smaller",
        "1.33 times larger",
        "reject_rate passed 0.0033 ≤ 0.2",
        "3 PCA components 94.8 %",
        "raw/Pear/half.jpg truncated 3118 bytes short",
        "€0.0431",
        "eu-west-1 (Ireland), in a member state of the European Union",
        "64 images (EXIF with position and camera, profiles, comments: never stored)",
    ):
        assert words in re.sub(r"(\d+) (seen)", r"\1 \2", swapped(page.text)), words
    assert page.classed("alarm") == []
    assert page.classed("absent") == []


def test_the_page_loads_nothing_and_runs_nothing(page: Page) -> None:
    assert not {"script", "link", "iframe", "object", "embed", "base"} & {tag for tag, _ in page.elements}
    policy = next(m["content"] for m in page.all("meta") if m.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'")
    assert "script-src" not in policy
    for _, attributes in page.elements:
        assert not [name for name in attributes if name.startswith("on")]
        for name in ("src", "href", "action", "srcset"):
            value = attributes.get(name, "#")
            assert value.startswith(("#", "data:image/")) or value in CARDS, "files beside it, which nobody must open"
    styles = "".join(re.findall(r"<style>(.*?)</style>", page.html, re.S))
    assert "url(" not in styles
    assert "@import" not in styles


@pytest.mark.parametrize(("origin", "words"), [("path", "from a file"), ("imagenet", "ImageNet, from Keras")])
def test_where_the_weights_came_from_is_said_in_words(
    origin: object, words: str, run: dict[str, Any], stages: dict[str, Any]
) -> None:
    run["features"]["weights"] = origin
    assert Page(render(run, stages, None)).text.count(f"Weights {words} ") == 2


def test_the_run_record_counts_more_than_the_stages(run: dict[str, Any], stages: dict[str, Any]) -> None:
    stages["load_images"]["images"] = {"seen": 1}
    assert "602 seen" in swapped(Page(render(run, stages, None)).text)
    run["images"]["seen"] = None
    assert "1 seen" in swapped(Page(render(run, stages, None)).text)


def test_a_run_that_may_have_called_elsewhere_is_not_said_to_have_stayed(run: dict[str, Any]) -> None:
    assert "stayed in the EU" in Page(render(run, {}, None)).text
    run["reason"] = "ResidencyError: load_images called s3.us-east-1.amazonaws.com"
    text = Page(render(run, {}, None)).text
    assert "stayed in the EU" not in text
    assert "Not shown for this run: ResidencyError" in text


def test_a_simulated_run_says_so_beside_region_cost_and_evidence(run: dict[str, Any]) -> None:
    evidence = {"endpoint": {"service": "s3", "region": "local endpoint"}}
    real = Page(render(run, {}, None, evidence)).text
    assert "simulated" not in real.lower()
    assert "read back from AWS" in real
    text = Page(render(run | {"simulated": True}, {}, None, evidence)).text
    assert "stayed in the EU" not in text
    assert "read back from AWS" not in text
    assert "Region eu-west-1, simulated" in text
    assert "Cost (estimate) €0.0377, not billed" in text
    assert "The run was simulated: nothing was billed" in text
    assert "as the emulator of AWS answered" in text


@pytest.mark.parametrize(("region", "why"), [("eu-west-2", "United Kingdom"), ("us-east-1", "not a region")])
def test_a_region_outside_the_eu_is_called_that(region: str, why: str, run: dict[str, Any]) -> None:
    run["region"] = region
    text = Page(render(run, {}, None)).text
    assert "Not an EU region." in text
    assert why in text
    assert "stayed in the EU" not in text


def test_a_screen_reader_finds_its_way(page: Page) -> None:
    headings = [int(tag[1]) for tag, _ in page.elements if re.fullmatch(r"h[1-6]", tag)]
    assert headings[0] == 1
    assert headings.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(headings))
    assert page.all("html")[0]["lang"] == "en"
    assert len(page.all("caption")) == len(page.all("table"))
    assert all(cell.get("scope") for cell in page.all("th"))
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    for _, attributes in page.elements:
        named = " ".join(attributes.get(name, "") for name in ("aria-labelledby", "aria-describedby"))
        targets = named.split() + [attributes[name][1:] for name in ("href",) if name in attributes]
        assert set(targets) <= {*ids, *(name[1:] for name in CARDS)}
    for svg in page.all("svg"):
        assert svg.get("aria-hidden") == "true" or svg["role"] == "img"
    assert len(page.all("desc")) == len([svg for svg in page.all("svg") if svg.get("role") == "img"]) == 2


def test_every_point_is_reached_by_key_and_says_its_label(page: Page) -> None:
    points = page.classed("pt")
    assert [point["tabindex"] for point in points] == ["0"] * 3
    assert {point["aria-label"].split(",")[0] for point in points} == {"Apple", "Banana", "no label"}
    assert "Skip the 3 points" in page.text


def test_every_label_of_the_map_can_be_shown_alone(page: Page) -> None:
    assert len([field for field in page.all("input") if field["type"] == "radio"]) == 1 + 3
    for number in range(3):
        assert f"#only-{number}:checked" in page.html


def test_the_page_follows_the_readers_colours_and_prints(page: Page) -> None:
    for rule in ("color-scheme: light dark;", "light-dark(", "@media print", ":focus-visible"):
        assert rule in page.html


def test_drift_says_whether_earlier_vectors_stay_comparable(run: dict[str, Any], stages: dict[str, Any]) -> None:
    stages["reduce_pca"]["drift"] = DRIFT
    kept = Page(render(run, stages, None)).text
    assert "vectors of earlier runs stay comparable" in kept
    assert "Angle between the PCA models 4.2 ° 15.0 °" in kept
    assert "Variance lost by keeping the published PCA model 0.4 % 2.0 %" in kept
    moved = DRIFT | {"new_basis": True, "reason": "the bases are 20.00 degrees apart, limit 15"}
    stages["reduce_pca"]["drift"] = moved
    assert "A new PCA model, because the bases are 20.00 degrees apart" in Page(render(run, stages, None)).text


def test_a_first_run_has_nothing_to_compare_with(run: dict[str, Any], stages: dict[str, Any]) -> None:
    first = dict.fromkeys(DRIFT) | {"new_basis": True, "reason": "nothing is published yet"}
    stages["reduce_pca"]["drift"] = first
    text = Page(render(run, stages, None)).text
    assert "because nothing is published yet" in text
    assert "Angle between the PCA models" not in text


def test_residency_evidence_is_shown_leaf_by_leaf_and_as_text(run: dict[str, Any]) -> None:
    evidence = {
        "buckets": {"raw_bucket": {"region": "eu-west-1", "public": False}},
        "endpoints": [{"host": "s3.eu-west-1.amazonaws.com", "calls": 7}],
        "zones": ["a", "b"],
        HOSTILE: HOSTILE,
    }
    shown = Page(render(run, {}, None, evidence))
    for words in (
        "buckets › raw bucket region eu-west-1 public no",
        "endpoints › 1 host s3.eu-west-1.amazonaws.com calls 7",
        "zones a, b",
        f"{HOSTILE} {HOSTILE}",
    ):
        assert words in shown.text, words
    assert shown.all("script") == []
    many = Page(render(run, {}, None, {str(n): n for n in range(500)})).text
    assert "380 more in residency.json" in many
