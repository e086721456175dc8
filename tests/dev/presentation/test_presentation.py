"""The presentation as a reader gets it: built in both languages, each page checked, each number traced to its file."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path
from typing import Any

import pypdfium2
import pypdfium2.raw as pdfium
import pytest
import yaml
from pypdf import PdfReader

from dev.presentation import build

REPOSITORY = Path(__file__).resolve().parents[3]
PRESENTATION = REPOSITORY / "docs" / "presentation"
LANGUAGES = ("fr", "en")
NAMES = ("Fruits-360", "CCBY-SA4.0", "MobileNetV2", "S3", "EC2", "PUBLISH=1")  # digits that are part of a name
MARGIN_PT, FOOT_PT = 43, 14  # what theme.typ leaves free at the sides, and below the footer
MEASURED = {
    "machine": {"date": "2026-01-31", "commit": "abcdef123456"},
    "images": 2000,
    "details": {
        "whole_job_img_s": {
            "fruits_load_and_featurize": 211.5,
            "fruits_featurize": 381.5,
            "no_spark_limit": 430.2,
            "notebook": 61.4,
            "daft_litert": 399.9,
            "ray_data_litert": 350.1,
            "predict_batch_udf": 101.2,
        },
        "large": {"images": 20000, "fruits_load_and_featurize_img_s": 391.5, "best_peer_img_s": 409.9},
    },
    "pca": {"20000": {"fruits_s": 4.4, "mllib_s": 29.3}, "100000": {}},
}


@pytest.fixture(scope="module", params=["measured", "not measured"])
def bench(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A benchmark's results, or the path of none."""
    path = tmp_path_factory.mktemp("bench") / "results.json"
    if request.param == "measured":
        path.write_text(json.dumps(MEASURED))
    return path


def traces(source: Path, language: str) -> list[dict[str, Any]]:
    """Every figure that the pages show: its text and page, and the file and key that it comes from."""
    figures: list[dict[str, Any]] = json.loads(build.compiler(source, language).query("<fig>", field="value"))
    return figures


def titles(source: Path, language: str, kind: str = "slide") -> list[Any]:
    """The title of each page that there should be, or of each page of the annex."""
    pages: list[Any] = json.loads(build.compiler(source, language).query(f"<{kind}>", field="value"))
    return pages


class Built:
    def __init__(self, language: str, folder: Path, bench: Path) -> None:
        self.path = folder / f"presentation.{language}.pdf"
        self.pages = list(pypdfium2.PdfDocument(self.path))
        self.traces = traces(build.SOURCE, language)
        self.titles, self.annex = (titles(build.SOURCE, language, kind) for kind in ("slide", "annex"))
        self.language, self.measured = language, bench.exists()
        self.text = [page.get_textpage().get_text_bounded() for page in self.pages]


@pytest.fixture(scope="module", params=LANGUAGES)
def built(bench: Path, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Built:
    folder = tmp_path_factory.mktemp("pdf")
    assert build.main(["--out", str(folder), "--bench", str(bench)]) == 0
    return Built(request.param, folder, bench)


@pytest.fixture
def own_source() -> Iterator[Path]:
    """A source of the test's own, beside the real one; Typst reads nothing outside the repository."""
    path = PRESENTATION / "own-source-of-a-test.typ"
    yield path
    path.unlink(missing_ok=True)


def test_each_slide_is_one_page_and_there_are_eighteen_and_an_annex_at_most(built: Built) -> None:
    assert len(built.pages) == len(built.titles)
    assert built.titles[-len(built.annex) :] == built.annex
    assert 12 <= len(built.titles) - len(built.annex) <= 18
    assert len(built.annex) <= 6


def test_the_talk_takes_the_minutes_that_the_course_gives(built: Built, sources: dict[str, Any]) -> None:
    minutes = sources["defence"]["minutes"]
    assert list(minutes.values()) == [3, 6, 6, 2, 3]
    shown = [trace["text"] for trace in built.traces if trace["path"].startswith("defence:")]
    assert shown == [str(value) for value in minutes.values()]


def test_each_page_has_its_notes(built: Built) -> None:
    notes = (PRESENTATION / f"notes.{built.language}.md").read_text()
    headings = re.findall(r"^## \d+\. (.+)$", notes, re.M)
    assert [heading.replace("’", "'") for heading in headings[1:]] == [
        title.replace("’", "'") for title in built.titles[1:]
    ]
    assert re.findall(r"^## (\d+)\.", notes, re.M) == [str(number + 1) for number in range(len(built.titles))]


def test_a_jury_finds_thirty_questions_in_each_language() -> None:
    for language in LANGUAGES:
        questions = re.findall(r"^\*\*(\d+)\. .+\?\*\*$", (PRESENTATION / f"questions.{language}.md").read_text(), re.M)
        assert questions == [str(number + 1) for number in range(30)]


def texts_over_borders(page: Any) -> list[str]:
    """Words that cross the lower edge of the rectangle that they begin in."""
    edges = []
    for path in page.get_objects(filter=[pdfium.FPDF_PAGEOBJ_PATH], max_depth=5):
        left, bottom, right, top = path.get_bounds()
        if right - left > 90 and top - bottom > 40:
            edges.append((left, bottom, right, top))
    words = page.get_textpage()
    texts = []
    for i in range(words.count_rects()):
        left, bottom, right, top = words.get_rect(i)
        for edge_left, edge_bottom, edge_right, edge_top in edges:
            if edge_left < left and right < edge_right and bottom < edge_bottom + 3 < edge_top and top > edge_bottom:
                texts.append(words.get_text_bounded(left, bottom, right, top))
    return texts


def test_no_word_lies_on_the_border_of_its_box(built: Built) -> None:
    assert [(number, word) for number, page in enumerate(built.pages, 1) for word in texts_over_borders(page)] == []


def boxes_on_the_title(page: Any) -> list[tuple[float, ...]]:
    """Boxes and pictures that reach into the line of the title."""
    words = page.get_textpage()
    words.count_rects()
    title_bottom = words.get_rect(0)[1]
    kinds = [pdfium.FPDF_PAGEOBJ_PATH, pdfium.FPDF_PAGEOBJ_IMAGE]
    edges = (item.get_bounds() for item in page.get_objects(filter=kinds, max_depth=5))
    return [edge for edge in edges if edge[3] > title_bottom + 1 and edge[2] - edge[0] < page.get_size()[0] - 1]


def test_no_box_touches_the_title(built: Built) -> None:
    assert [(number, box) for number, page in enumerate(built.pages, 1) for box in boxes_on_the_title(page)] == []


def test_a_box_that_touches_the_title_or_its_text_is_found(own_source: Path, tmp_path: Path) -> None:
    own_source.write_text(
        '#import "theme.typ": *\n#show: look\n'
        '#slide[Gypsum][#card("Card", height: 60pt)[#range(60).map(_ => [word]).join[ ]]]\n'
        "#slide[Gypsum][#place(top, dy: 5pt, rect(width: 90pt, height: 50pt))]\n"
    )
    pdf = tmp_path / "own.pdf"
    build.compiler(own_source, "en").compile(output=str(pdf), format="pdf")
    full, high = pypdfium2.PdfDocument(pdf)
    assert texts_over_borders(full)
    assert boxes_on_the_title(full) == []
    assert len(boxes_on_the_title(high)) == 1


def outside(page: Any) -> list[str]:
    """Words that lie beyond the margins of a page."""
    width, height = page.get_size()
    words, texts = page.get_textpage(), []
    for i in range(words.count_rects()):
        left, bottom, right, top = words.get_rect(i)
        if left < MARGIN_PT - 2 or right > width - MARGIN_PT + 2 or bottom < FOOT_PT or top > height - 20:
            texts.append(words.get_text_bounded(left, bottom, right, top))
    return texts


def test_no_word_runs_over_the_margins(built: Built) -> None:
    assert [word for page in built.pages for word in outside(page)] == []


def test_words_do_not_lie_upon_words(built: Built) -> None:
    for number, page in enumerate(built.pages, 1):
        words = page.get_textpage()
        boxes = [words.get_rect(i) for i in range(words.count_rects())]
        for i, (left, bottom, right, top) in enumerate(boxes):
            for other_left, other_bottom, other_right, other_top in boxes[i + 1 :]:
                width = min(right, other_right) - max(left, other_left)
                height = min(top, other_top) - max(bottom, other_bottom)
                least = min(top - bottom, other_top - other_bottom)
                assert width < 3 or height < least / 2, (number, words.get_text_bounded(left, bottom, right, top))


def test_every_font_is_in_the_file(built: Built) -> None:
    fonts = {}
    for page in PdfReader(built.path).pages:
        for font in page["/Resources"].get("/Font", {}).values():
            for descendant in font.get_object().get("/DescendantFonts", [font]):
                name, descriptor = (
                    descendant.get_object()["/BaseFont"],
                    descendant.get_object()["/FontDescriptor"].get_object(),
                )
                fonts[name] = any(key.startswith("/FontFile") for key in descriptor)
    assert fonts
    assert all(fonts.values())
    families = {re.sub(r"^/[A-Z]{6}\+", "", name).split("-")[0] for name in fonts}
    assert families == {"SourceSansPro", "DejaVuSansMono"}, "another font: a glyph is missing in ours"


def objects(page: Any, kind: int) -> int:
    return sum(1 for _ in page.get_objects(filter=[kind], max_depth=5))


def test_photos_drawing_and_charts_are_on_their_pages(built: Built) -> None:
    photos = [objects(page, pdfium.FPDF_PAGEOBJ_IMAGE) for page in built.pages]
    paths = [objects(page, pdfium.FPDF_PAGEOBJ_PATH) for page in built.pages]
    fruits = json.loads((PRESENTATION / "data" / "photos" / "index.json").read_text())
    assert photos[0] == photos[3] == len(fruits)
    points = json.loads((PRESENTATION / "data" / "map.json").read_text())
    assert max(paths) >= len(points), "the map has a dot for each sampled photo"
    assert paths[4] > 20, "the architecture is drawn, not written"


def test_what_was_not_measured_is_said(built: Built) -> None:
    text = " ".join(built.text)
    not_yet = "Pas encore mesuré" if built.language == "fr" else "Not measured yet"
    assert (not_yet in text) is not built.measured


def test_it_is_said_that_aws_was_not_reached(built: Built) -> None:
    sentence = {"fr": "AWS n’a pas été atteint", "en": "AWS was not reached"}[built.language]
    assert sentence in " ".join(" ".join(built.text).split())


# Numbers


def untraced(text: list[str], traces: list[dict[str, Any]]) -> list[tuple[int, str]]:
    """Digits on a page that no trace and no name accounts for, with the page's number."""
    numbers = []
    for number, page in enumerate(text, 1):
        rest = "".join(page.split())
        assert rest.endswith(f"Fruits!{number}"), "the footer ends each page with its number"
        rest = rest.removesuffix(str(number))
        # The longest first, so that a lone digit does not take its place in a name.
        shown = ["".join(trace["text"].split()) for trace in traces if trace["page"] == number]
        for text_of_page in sorted([*shown, *NAMES], key=lambda text: -len(text)):
            assert text_of_page in rest or text_of_page in NAMES, f"page {number} lacks {text_of_page}, a traced figure"
            rest = rest.replace(text_of_page, "·", -1 if text_of_page in NAMES else 1)
        numbers += [(number, rest[max(0, m.start() - 20) : m.end() + 20]) for m in re.finditer(r"\d+", rest)]
    return numbers


def value_at(sources: dict[str, Any], path: str) -> Any:
    source, rest = path.split(":")
    value = sources[source]
    for key in rest.split("."):
        value = len(value) if key == "length" else value[int(key)] if isinstance(value, list) else value[key]
    return value


@pytest.fixture
def sources() -> dict[str, Any]:
    def read(path: Path) -> Any:
        return json.loads(path.read_text())

    data = PRESENTATION / "data"
    return {
        "run": read(data / "run.json"),
        "machine": read(data / "machine.json"),
        "pca": read(data / "stages" / "reduce_pca.json"),
        "fruits": read(data / "photos" / "index.json"),
        "classifier": read(data / "classifier.json"),
        "names": read(data / "names.json"),
        "defence": read(data / "defence.json"),
        "cluster": yaml.safe_load((REPOSITORY / "include" / "cluster.yaml").read_text()),
        "scale": read(REPOSITORY / "docs" / "scale" / "figures.json"),
        "facts": build.facts(),
        "bench": MEASURED,
    }


def written(value: float, digits: int, language: str) -> str:
    """A number as the language writes it; halves are rounded away from zero."""
    rounded = Decimal(str(value)).quantize(Decimal(1).scaleb(-digits), ROUND_HALF_UP)
    text = f"{rounded:,}"
    return text if language == "en" else text.replace(",", "\u202f").replace(".", ",")


def test_every_number_on_a_page_has_a_trace(built: Built) -> None:
    assert untraced(built.text, built.traces) == []


def test_every_trace_says_what_its_file_says(built: Built, sources: dict[str, Any]) -> None:
    for trace in built.traces:
        value = value_at(sources, trace["path"])
        if trace.get("word"):
            assert trace["text"] == str(value)
            continue
        if "by" in trace:
            value /= value_at(sources, trace["by"])
        assert trace["text"] == written(value * trace.get("scale", 1), trace["digits"], built.language), trace


def test_a_number_that_is_typed_by_hand_is_found(own_source: Path, tmp_path: Path) -> None:
    own_source.write_text(
        '#import "theme.typ": *\n#import "figures.typ": *\n#show: look\n'
        '#slide[Own][#fig("run:pca.k") components, and 42 typed by hand]\n'
    )
    pdf = tmp_path / "own.pdf"
    build.compiler(own_source, "en").compile(output=str(pdf), format="pdf")
    (page,) = pypdfium2.PdfDocument(pdf)
    numbers = untraced([page.get_textpage().get_text_bounded()], traces(own_source, "en"))
    assert [number for number, text in numbers if "42" in text] == [1]


def test_too_much_text_for_a_slide_is_found(own_source: Path, tmp_path: Path) -> None:
    own_source.write_text(
        '#import "theme.typ": *\n#show: look\n#slide[Own][#range(60).map(_ => [many words]).join(linebreak())]\n'
        "#slide[Wide][#box(width: 900pt)[#h(1fr) far out]]\n"
    )
    pdf = tmp_path / "own.pdf"
    build.compiler(own_source, "en").compile(output=str(pdf), format="pdf")
    pages = list(pypdfium2.PdfDocument(pdf))
    assert len(pages) > len(titles(own_source, "en"))
    assert [word for page in pages for word in outside(page)] == ["far out"]


# The files that are read


def test_the_constants_are_the_codes_own() -> None:
    networks = (REPOSITORY / "spark_jobs" / "fruits" / "model" / "networks.py").read_text()
    assert f'("MobileNetV2", {build.facts()["dims"]},' in networks
    assert f"pyspark=={build.facts()['spark']}" in (REPOSITORY / "requirements" / "spark.in").read_text()
    with pytest.raises(SystemExit, match="NO_SUCH"):
        build._constant(REPOSITORY / "spark_jobs" / "fruits" / "model" / "embedding.py", "NO_SUCH")


def test_the_shown_run_is_a_real_one_with_real_weights(sources: dict[str, Any]) -> None:
    run, machine = sources["run"], sources["machine"]
    assert run["state"] == "succeeded"
    assert run["cluster"]["state"] == "TERMINATED"
    assert run["features"]["weights"] in ("imagenet", "path")
    assert run["images"]["seen"] == run["images"]["loaded"] + run["images"]["rejected"]
    assert run["pca"] == sources["pca"]["pca"] | {
        key: run["pca"][key] for key in set(run["pca"]) - set(sources["pca"]["pca"])
    }
    assert re.fullmatch(r"[0-9a-f]{12}", machine["commit"])
    assert machine["date"]
    assert machine["cpu"]
    assert machine["photos"] == "Fruits-360"
    assert run["metadata_stripped"] == run["images"]["seen"] // 10


def test_the_photos_carry_their_attribution() -> None:
    licence = (PRESENTATION / "data" / "LICENSE").read_text()
    assert "Mihai Oltean" in licence
    assert "CC BY-SA 4.0" in licence
