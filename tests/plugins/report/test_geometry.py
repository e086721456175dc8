"""The numbers and drawings of the run report, as pure functions."""

from __future__ import annotations

import math
import re
from itertools import combinations
from pathlib import Path

import fruits_airflow.report as report
import pyarrow as pa
import pytest
from fruits_airflow.report import units
from fruits_airflow.report.curve import round_numbers, variance_curve
from fruits_airflow.report.pca_map import ASPECT, COLOURS, MAX_POINTS, SHAPES, THUMBNAIL, PcaMap, data_uri, pca_map

JPEG = b"\xff\xd8\xff\xe0 and so on"


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0 B"), (999, "999 B"), (1536, "1.5 kB"), (999_960, "1.0 MB"), (312_000, "312 kB"), (2.5e9, "2.5 GB")],
)
def test_bytes_have_three_digits_and_a_unit(value: float, text: str) -> None:
    assert units.size(value).replace(units.NBSP, " ") == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0.0 s"), (4.21, "4.2 s"), (9.96, "10 s"), (119.4, "119 s"), (192, "3 min 12 s"), (3840, "1 h 04 min")],
)
def test_seconds_are_read_as_a_person_says_them(value: float, text: str) -> None:
    assert units.seconds(value).replace(units.NBSP, " ") == text


@pytest.mark.parametrize(("value", "text"), [(0, "€0.00"), (0.0377, "€0.0377"), (0.4179, "€0.42"), (1234, "€1,234.00")])
def test_small_sums_keep_their_digits(value: float, text: str) -> None:
    assert units.euros(value) == text


@pytest.mark.parametrize(("share", "text"), [(0.95, "95.0 %"), (1, "100.0 %"), (0.99999, "99.9 %"), (0, "0.0 %")])
def test_a_share_is_never_rounded_up_to_all(share: float, text: str) -> None:
    assert units.percent(share).replace(units.NBSP, " ") == text


@pytest.mark.parametrize(
    ("before", "after", "text"),
    [
        (100, 10, "10.0 times smaller"),
        (10, 13.3, "1.33 times larger"),
        (1e6, 1e3, "1,000 times smaller"),
        (5, 5, "the same"),
        (0, 5, units.UNKNOWN),
        (5, None, units.UNKNOWN),
    ],
)
def test_a_change_says_its_factor_and_direction(before: object, after: object, text: str) -> None:
    assert units.change(before, after) == text


@pytest.mark.parametrize("junk", [None, math.nan, math.inf, True, "12", [], 10**400])
def test_what_is_no_number_is_not_known(junk: object) -> None:
    for show in (units.count, units.size, units.seconds, units.euros, units.percent):
        assert show(junk) == units.UNKNOWN


@pytest.mark.parametrize(
    ("value", "text"), [(None, "not known"), (True, "yes"), (600.0, "600"), (0.0033, "0.0033"), ("abc", "abc")]
)
def test_a_checks_value_shows_whatever_its_type(value: object, text: str) -> None:
    assert units.value(value) == text


def test_the_curve_marks_the_components_kept() -> None:
    curve = variance_curve([0.5, 0.8, 0.96, 0.99995, 1.0, 1.0, 1.0, 1.0], 3)
    assert curve is not None
    assert (curve.k, curve.kept, curve.total) == (3, 0.96, 8)
    assert curve.shown == 4  # flat from there on
    assert curve.k_at == 75
    assert curve.line.split()[0] == "0,100"
    assert curve.line.split()[3] == "75,4"
    assert curve.milestones == [(0.5, 1), (0.8, 2), (0.9, 3), (0.95, 3), (0.99, 4)]
    assert curve.first == pytest.approx((0.5, 0.3))


def test_a_curve_that_never_reaches_95_percent_claims_no_such_milestone() -> None:
    curve = variance_curve([0.4, 0.7], 2)
    assert curve is not None
    assert [share for share, _ in curve.milestones] == [0.5]


def test_a_short_flat_end_is_drawn_too() -> None:
    curve = variance_curve([0.1 * i for i in range(1, 10)] + [0.95] * 9 + [1.0, 1.0], 9)
    assert curve is not None
    assert curve.shown == curve.total == 20


def test_a_curve_of_one_component_is_drawn() -> None:
    curve = variance_curve([1.0], 1)
    assert curve is not None
    assert curve.line == "0,100 100,0"
    assert curve.first == (1.0, None)


@pytest.mark.parametrize("cumulative", [[], [0.5, None], [0.5, math.nan], ["0.5"], [math.inf]])
def test_a_curve_with_a_hole_is_not_drawn(cumulative: list[object]) -> None:
    assert variance_curve(cumulative, 1) is None


@pytest.mark.parametrize("k", [None, 0, -3, 9, math.nan, "2"])
def test_an_impossible_k_is_not_marked(k: object) -> None:
    curve = variance_curve([0.5, 1.0], k)
    assert curve is not None
    assert curve.k is None
    assert curve.k_at is None


@pytest.mark.parametrize("end", [1, 2, 7, 143, 581, 1280])
def test_an_axis_has_few_round_numbers(end: int) -> None:
    ticks = round_numbers(end)
    assert 2 <= len(ticks) <= 7
    assert ticks[0] == 0
    assert ticks[-1] <= end


def table(rows: int, labels: int = 1, thumbnail: bytes | None = JPEG) -> pa.Table:
    return pa.table(
        {
            "label": [f"label {i % labels:03d}" for i in range(rows)],
            "pc1": [math.cos(i * 2.4) * math.sqrt(i) for i in range(rows)],
            "pc2": [math.sin(i * 2.4) * math.sqrt(i) for i in range(rows)],
            "thumbnail": pa.array([thumbnail] * rows, pa.binary()),
        }
    )


def drawn(sample: pa.Table) -> PcaMap:
    result = pca_map(sample)
    assert result is not None
    return result


def test_thumbnails_never_cover_one_another() -> None:
    shown = [point for point in drawn(table(600)).points if point.is_drawn]
    assert 50 < len(shown) < 600
    for point, other in combinations(shown, 2):
        assert abs(point.x - other.x) >= THUMBNAIL - 0.02 or abs(point.y - other.y) >= THUMBNAIL * ASPECT - 0.02


def test_every_point_lies_inside_with_room_for_its_thumbnail() -> None:
    for point in drawn(table(300)).points:
        assert THUMBNAIL / 2 <= point.x <= 100 - THUMBNAIL / 2
        assert THUMBNAIL * ASPECT / 2 <= point.y <= 100 - THUMBNAIL * ASPECT / 2


@pytest.mark.parametrize("rows", [1, 5])
def test_images_that_are_all_alike_lie_in_the_middle(rows: int) -> None:
    plot = drawn(pa.table({"label": ["a"] * rows, "pc1": [7.0] * rows, "pc2": [0.0] * rows}))
    assert {(point.x, point.y) for point in plot.points} == {(50.0, 50.0)}
    assert 3 <= len(plot.x_ticks) <= 7


def test_a_larger_second_component_is_drawn_higher() -> None:
    low, high = drawn(pa.table({"pc1": [0.0, 1.0], "pc2": [0.0, 1.0]})).points
    assert high.y < low.y
    assert high.x > low.x


def test_more_rows_than_the_page_bears_are_counted() -> None:
    plot = drawn(table(MAX_POINTS + 7, thumbnail=None))
    assert (len(plot.points), plot.left_out) == (MAX_POINTS, 7)


def test_labels_differ_in_colour_or_shape() -> None:
    labels = drawn(table(200, labels=COLOURS * SHAPES)).labels
    assert len({(label.colour, label.shape) for label in labels}) == COLOURS * SHAPES


def test_photos_without_label_come_last_in_the_legend() -> None:
    plot = drawn(pa.table({"label": ["zucchini", None, "apple"], "pc1": [1.0, 2.0, 3.0], "pc2": [1.0, 2.0, 3.0]}))
    assert [label.name for label in plot.labels] == ["apple", "zucchini", "no label"]


def test_a_label_knows_its_middle() -> None:
    (label,) = drawn(pa.table({"label": ["a", "a"], "pc1": [1.0, 3.0], "pc2": [0.0, -1.0]})).labels
    assert (label.points, label.pc1, label.pc2) == (2, 2.0, -0.5)


def test_there_is_no_map_without_coordinates() -> None:
    assert pca_map(None) is None
    assert pca_map(pa.table({"label": ["a"]})) is None
    assert pca_map(pa.table({"pc1": [math.nan], "pc2": [0.0]})) is None
    assert pca_map(pa.table({"pc1": ["1"], "pc2": ["2"]})) is None


@pytest.mark.parametrize(
    ("encoded", "kind"),
    [(JPEG, "image/jpeg"), (b"\x89PNG\r\n\x1a\n..", "image/png"), (b"RIFF1234WEBPVP8 ", "image/webp")],
)
def test_a_picture_is_known_by_its_first_bytes(encoded: bytes, kind: str) -> None:
    assert str(data_uri(encoded)).startswith(f"data:{kind};base64,")


@pytest.mark.parametrize("encoded", [None, b"", b"<svg onload=alert(1)>", b"GIF89a", "text"])
def test_what_is_no_picture_is_not_embedded(encoded: object) -> None:
    assert data_uri(encoded) is None


def test_the_stylesheet_has_every_colour_and_the_page_every_shape() -> None:
    folder = Path(str(report.__file__)).parent
    css = (folder / "style.css").read_text(encoding="utf-8")
    marks = (folder / "parts" / "marks.html.j2").read_text(encoding="utf-8")
    first = sorted(set(re.findall(r"\.c(\d+) \{", css)))
    assert [*first, *map(str, range(len(first), COLOURS))] == [str(i) for i in range(COLOURS)]
    assert css.count(f"{COLOURS}) %}}") == 2, "the loops end at the last colour"
    assert re.findall(r'id="s(\d+)"', marks) == [str(i) for i in range(SHAPES)]


def test_a_text_is_cut_only_where_that_makes_it_shorter() -> None:
    assert units.clipped("x" * 161, 160) == "x" * 161
    assert units.clipped("x" * 1000, 160) == "x" * 160 + "… (840 more characters)"
