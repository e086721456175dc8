"""The run report: what a reader of the page sees, and what no input can make it do."""

from __future__ import annotations

import copy
import io
import re
from collections import Counter
from collections.abc import Iterator
from html.parser import HTMLParser
from itertools import pairwise
from typing import Any

import pyarrow as pa
import pytest
from fruits_airflow.report import render
from fruits_airflow.run_record import blank_record
from PIL import Image

VOID = {"meta", "link", "br", "img", "input"}
HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)>\"'&"
N = 600


class Page(HTMLParser):
    """A rendered page, taken apart as a browser would."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.html = html
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.open: list[str] = []
        self.texts: list[str] = []
        self.captioned: list[bool] = []
        self.feed(html)
        self.close()
        assert self.open == [], "every element is closed"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not {"style", "title"} & set(self.open):
            self.texts.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"[ \n]+", " ", " ".join(self.texts)).replace("\u00a0", " ")

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.elements if name == tag]

    def classed(self, name: str) -> list[dict[str, str]]:
        return [attrs for _, attrs in self.elements if name in attrs.get("class", "").split()]


def jpeg(colour: str = "red") -> bytes:
    with io.BytesIO() as buffer:
        Image.new("RGB", (48, 48), colour).save(buffer, "JPEG")
        return buffer.getvalue()


@pytest.fixture
def run() -> dict[str, Any]:
    return {
        "run_id": "scheduled__2026-01-12T02:00:00+00:00",
        "state": "succeeded",
        "mode": "nightly",
        "region": "eu-west-1",
        "cluster": {
            "id": "j-2AXXXXXXGAPLF",
            "name": "fruits/laptop/scheduled__2026-01-12T02:00:00+00:00",
            "state": "TERMINATED",
            "release": "emr-spark-8.0.0",
        },
        "images": {"seen": 602, "new": 602, "unchanged": 0, "removed": 0, "loaded": N, "rejected": 2},
        "rejects_by_code": {"not_an_image": 1, "truncated": 1},
        "metadata_stripped": 64,
        "features": {"rows": N, "model_id": "9f" * 32, "engine": "litert", "weights": "imagenet"},
        "pca": {"pca_id": "5b" * 32, "k": 3, "explained_variance": 0.96, "n": N},
        "bytes": {"input": 2_890_036, "pixels": 2_312_028, "features": N * 5120, "pca": N * 12},
        "quality": {
            "knn_accuracy_features": 0.943,
            "knn_accuracy_pca": 0.948,
            "checks": {
                "keys_match": {"ok": True, "value": N, "limit": N},
                "reject_rate": {"ok": True, "value": 0.0033, "limit": 0.2},
            },
        },
        "seconds": {
            "total": 148.2,
            "cluster_start": 6.1,
            "load_images": 21.4,
            "featurize": 38.9,
            "reduce_pca": 24.2,
            "publish": 26.7,
            "terminate": 3.3,
        },
        "cost": {"forecast_eur": 0.0431, "ceiling_eur": 1.0, "estimate_eur": 0.0377},
    }


@pytest.fixture
def stages() -> dict[str, dict[str, Any]]:
    return {
        "load_images": {
            "seconds": 13.2,
            "reject_examples": [
                {
                    "source_key": "raw/Pear/page.jpg",
                    "error_code": "not_an_image",
                    "detail": "starts with <!DOCTYPE html>",
                },
                {"source_key": "raw/Pear/half.jpg", "error_code": "truncated", "detail": "3118 bytes short"},
            ],
        },
        "featurize": {"seconds": 30.0, "features": {"computed": N}},
        "reduce_pca": {"seconds": 15.5, "variance_curve": [0.5, 0.8, 0.96, 1.0]},
        "publish": {"seconds": 18.2, "published": True},
    }


@pytest.fixture
def sample() -> pa.Table:
    return pa.table(
        {
            "image_id": ["a", "b", "c"],
            "label": ["Apple", "Banana", None],
            "pc1": [1.0, -4.0, 2.5],
            "pc2": [0.5, 3.0, -1.0],
            "thumbnail": [jpeg("red"), jpeg("yellow"), jpeg("grey")],
        }
    )


@pytest.fixture
def page(run: dict[str, Any], stages: dict[str, Any], sample: pa.Table) -> Page:
    return Page(render(run, stages, sample))


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
        "reject_rate passed 0.0033 0.2",
        "3 PCA components 94.8 %",
        "raw/Pear/half.jpg truncated 3118 bytes short",
        "€0.0431",
        "eu-west-1 (Ireland), in a member state of the European Union",
        "64 images (EXIF with position and camera, profiles, comments: never stored)",
    ):
        assert words in re.sub(r"(\d+) (seen)", r"\1 \2", swapped(page.text)), words
    assert page.classed("alarm") == []
    assert page.classed("absent") == []


def swapped(text: str) -> str:
    """The text with each tile read as it is shown: the number above its word."""
    return re.sub(r"\bseen (\d+)", r"\1 seen", text)


def test_the_page_loads_nothing_and_runs_nothing(page: Page) -> None:
    assert not {"script", "link", "iframe", "object", "embed", "base"} & {tag for tag, _ in page.elements}
    policy = next(m["content"] for m in page.all("meta") if m.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'")
    assert "script-src" not in policy
    for _, attributes in page.elements:
        assert not [name for name in attributes if name.startswith("on")]
        for name in ("src", "href", "action", "srcset"):
            assert attributes.get(name, "#").startswith(("#", "data:image/"))
    styles = "".join(re.findall(r"<style>(.*?)</style>", page.html, re.S))
    assert "url(" not in styles
    assert "@import" not in styles


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


@pytest.mark.parametrize(
    ("origin", "said"), [("path", "from a file"), ("imagenet", "ImageNet, from Keras"), (7, "not known")]
)
def test_where_the_weights_came_from_is_said_in_words(
    origin: object, said: str, run: dict[str, Any], stages: dict[str, Any]
) -> None:
    run["features"]["weights"] = origin
    assert Page(render(run, stages, None)).text.count(f"Weights {said} ") == 2


@pytest.mark.parametrize("where", ["run", "stage"])
def test_random_weights_raise_an_alarm_before_anything_else(
    where: str, run: dict[str, Any], stages: dict[str, Any], sample: pa.Table
) -> None:
    if where == "run":
        run["features"]["weights"] = "random"
    else:
        del run["features"]
        stages["featurize"]["features"] = {"weights": "random"}
    alarmed = Page(render(run, stages, sample))
    assert [alarm["role"] for alarm in alarmed.classed("alarm")] == ["alert"]
    assert alarmed.text.index("Weights: random.") < alarmed.text.index("Succeeded")


@pytest.mark.parametrize("state", ["RUNNING", "TERMINATING", None])
def test_a_cluster_that_was_not_seen_ending_raises_an_alarm(state: str | None, run: dict[str, Any]) -> None:
    run["cluster"]["state"] = state
    text = Page(render(run, {}, None)).text
    assert "Cluster j-2AXXXXXXGAPLF" in text
    assert "until then it costs money" in text


def test_a_cluster_that_ended_badly_is_gone_all_the_same(run: dict[str, Any]) -> None:
    run["cluster"]["state"] = "TERMINATED_WITH_ERRORS"
    assert Page(render(run, {}, None)).classed("alarm") == []


def test_a_failed_run_says_why_where_and_what_stays(run: dict[str, Any], stages: dict[str, Any]) -> None:
    run |= {"state": "failed", "reason": "StepFailed: weights do not fit", "pca": None, "quality": None}
    run["seconds"] |= {"featurize": 0, "reduce_pca": 0, "publish": 0}
    failed = Page(render(run, {"load_images": stages["load_images"]}, None))
    assert "StepFailed: weights do not fit" in failed.text
    assert "the result of the last good run stays current" in failed.text
    assert "Load images done" in failed.text
    assert "Featurize stopped here \u2013" in failed.text
    assert "Reduce (PCA) did not run" in failed.text
    assert "Terminate done" in failed.text
    assert "No map: this run left no sample" in failed.text
    assert "No variance curve" in failed.text
    assert "the quality gate did not run" in failed.text


def test_the_zeros_of_a_blank_record_are_not_shown_as_facts() -> None:
    blank = blank_record("manual__1", "demo", "eu-west-1")
    text = Page(render(blank | {"state": "refused", "reason": "ConfigError: no such model"}, {}, None)).text
    assert "ConfigError: no such model" in text
    assert "This run counted no images." in text
    assert "No record of rejects" in text
    assert "No cost" in text
    assert "Metadata stripped not known" in text
    assert text.count("did not run") == 6 + 1  # the stages, and the quality gate


def test_a_cluster_that_never_became_ready_is_where_the_run_stopped(run: dict[str, Any]) -> None:
    run["state"] = "failed"
    run["seconds"] = dict.fromkeys(run["seconds"], 0)
    text = Page(render(run, {}, None)).text
    assert "Start cluster stopped here" in text
    assert "Load images did not run" in text


def test_a_failed_gate_stops_at_publish(run: dict[str, Any], stages: dict[str, Any]) -> None:
    run["state"] = "failed"
    stages["publish"]["published"] = False
    run["quality"]["checks"]["reject_rate"] = {"ok": False, "value": 0.4, "limit": 0.2}
    failed = Page(render(run, stages, None))
    assert "Publish stopped here" in failed.text
    assert "nothing published" in failed.text
    assert failed.text.index("reject_rate failed 0.4 0.2") < failed.text.index("keys_match passed")


def test_a_run_that_failed_after_publishing_says_that_it_published(
    run: dict[str, Any], stages: dict[str, Any]
) -> None:
    run["state"] = "failed"
    assert "The PCA was published before the run failed." in Page(render(run, stages, None)).text


@pytest.mark.parametrize(
    ("state", "words"),
    [
        ("skipped", "There was nothing to do, so no cluster was created."),
        ("refused", "The plan stopped the run before anything was created"),
        ("failed", "The run gives no cause"),
    ],
)
def test_a_state_without_cause_is_explained(state: str, words: str) -> None:
    assert words in Page(render({"state": state}, {}, None)).text


def test_a_refused_run_shows_its_cause() -> None:
    cause = "CostCeilingExceeded: forecast €3.20, max_cost_eur is 1.00"
    refused = Page(render({"state": "refused", "reason": cause}, {}, None))
    assert cause in refused.text
    assert "Refused" in refused.text


def test_an_empty_record_gives_a_page_that_says_what_is_missing() -> None:
    empty = Page(render({}, {}, None))
    assert "State not known" in empty.text
    for words in (
        "This run counted no images.",
        "The run\u2019s total time is not known.",
        "No map",
        "No variance curve",
        "No volumes",
        "No checks",
        "No record of rejects",
        "No cost",
        "The run names no region.",
    ):
        assert words in empty.text
    assert empty.classed("alarm") == []
    assert "None" not in empty.text


def test_a_run_over_no_image_counts_zeros_and_draws_nothing(run: dict[str, Any]) -> None:
    run["images"] = dict.fromkeys(run["images"], 0)
    run |= {"rejects_by_code": {}, "pca": {"k": 0, "n": 0}, "bytes": dict.fromkeys(run["bytes"], 0)}
    none = pa.table({"label": pa.array([], pa.string()), "pc1": pa.array([], pa.float64())})
    no_rows = none.append_column("pc2", pa.array([], pa.float64()))
    for sample in (none, no_rows):
        stages = {"load_images": {"seconds": 3.0}, "reduce_pca": {"variance_curve": []}}
        text = Page(render(run, stages, sample)).text
        assert "0 seen" in swapped(text)
        assert "No image was rejected." in text
        assert "No map" in text
        assert "No volumes" in text


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


def test_the_run_record_counts_more_than_the_stages(run: dict[str, Any], stages: dict[str, Any]) -> None:
    stages["load_images"]["images"] = {"seen": 1}
    assert "602 seen" in swapped(Page(render(run, stages, None)).text)
    run["images"]["seen"] = None
    assert "1 seen" in swapped(Page(render(run, stages, None)).text)


@pytest.mark.parametrize(("region", "why"), [("eu-west-2", "United Kingdom"), ("us-east-1", "not a region")])
def test_a_region_outside_the_eu_is_called_that(region: str, why: str, run: dict[str, Any]) -> None:
    run["region"] = region
    text = Page(render(run, {}, None)).text
    assert "Not an EU region." in text
    assert why in text
    assert "stayed in the EU" not in text


def test_a_long_cause_is_cut_and_says_so(run: dict[str, Any]) -> None:
    run |= {"state": "failed", "reason": "x" * 10_000}
    text = Page(render(run, {}, None)).text
    assert "… (6,000 more characters)" in text


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
        assert set(targets) <= set(ids)
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


DRIFT = {
    "angle_degrees": 4.21,
    "explained_variance_published_basis": 0.948,
    "variance_loss": 0.004,
    "limit_degrees": 15.0,
    "limit_variance_loss": 0.02,
    "new_basis": False,
    "reason": None,
}


def test_drift_says_whether_earlier_vectors_stay_comparable(
    run: dict[str, Any], stages: dict[str, Any]
) -> None:
    stages["reduce_pca"]["drift"] = DRIFT
    kept = Page(render(run, stages, None)).text
    assert "vectors of earlier nights stay comparable" in kept
    assert "Angle between the bases 4.2 ° 15.0 °" in kept
    assert "Variance lost by keeping the published basis 0.4 % 2.0 %" in kept
    moved = DRIFT | {"new_basis": True, "reason": "the bases are 20.00 degrees apart, limit 15"}
    stages["reduce_pca"]["drift"] = moved
    assert "A new basis, because the bases are 20.00 degrees apart" in Page(render(run, stages, None)).text


def test_a_first_night_has_nothing_to_compare_with(run: dict[str, Any], stages: dict[str, Any]) -> None:
    first = dict.fromkeys(DRIFT) | {"new_basis": True, "reason": "nothing is published yet"}
    stages["reduce_pca"]["drift"] = first
    text = Page(render(run, stages, None)).text
    assert "because nothing is published yet" in text
    assert "Angle between the bases" not in text


def test_residency_evidence_is_shown_leaf_by_leaf_and_as_text(run: dict[str, Any]) -> None:
    found = {
        "buckets": {"raw_bucket": {"region": "eu-west-1", "public": False}},
        "endpoints": [{"host": "s3.eu-west-1.amazonaws.com", "calls": 7}],
        "zones": ["a", "b"],
        HOSTILE: HOSTILE,
    }
    shown = Page(render(run, {}, None, found))
    for words in (
        "buckets › raw bucket › region eu-west-1",
        "raw bucket › public no",
        "endpoints › 1 › host s3.eu-west-1.amazonaws.com",
        "endpoints › 1 › calls 7",
        "zones a, b",
        f"{HOSTILE} {HOSTILE}",
    ):
        assert words in shown.text, words
    assert shown.all("script") == []
    many = Page(render(run, {}, None, {str(n): n for n in range(500)})).text
    assert "440 more in residency.json" in many
