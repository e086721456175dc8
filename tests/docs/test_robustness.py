"""docs/robustness.md is what its result gives, and a demo's report gets the result of its own classifier alone."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dev.robustness import write

DOCS = Path(__file__).resolve().parents[2] / "docs"
PUBLISHED: dict[str, Any] = json.loads((DOCS / "robustness.json").read_text())


def test_the_page_and_the_chart_are_what_the_published_result_gives() -> None:
    for name, text in write.texts(PUBLISHED).items():
        assert (DOCS / name).read_text() == text, "make robustness PUBLISH=1 writes it"


def test_table_and_chart_have_each_alteration_and_its_three_strengths() -> None:
    texts = write.texts(PUBLISHED)
    assert texts["robustness.md"].count("\n| ") == 1 + 1 + 12 * 3
    assert "(robustness.svg)" in texts["robustness.md"]
    chart = ET.fromstring(texts["robustness.svg"])
    bars = chart.findall("{http://www.w3.org/2000/svg}rect")
    assert len(bars) == 3 * 12 * 3
    assert all(0 <= float(bar.attrib["width"]) <= 220 for bar in bars)


@pytest.fixture
def demo(tmp_path: Path) -> Path:
    """A demo's folder, with the report of a run that named photos."""
    run = tmp_path / "lake" / "runs" / "demo__2026-12-01"
    (run / "stages").mkdir(parents=True)
    for stage in write.STAGES:
        (run / "stages" / f"{stage}.json").write_text("{}")
    classifier = {"classifier_id": "c1", "top1": {"share": 0.8, "n": 9}}
    (run / "stages" / "publish.json").write_text(json.dumps({"classifier": classifier}))
    pq.write_table(pa.table({"pc1": [1.0], "pc2": [1.0]}), sample := io.BytesIO())
    (run / "sample.parquet").write_bytes(sample.getvalue())
    (run / "residency.json").write_text("{}")
    record = {"run_id": run.name, "state": "succeeded", "classifier": classifier | {"robustness": []}}
    (tmp_path / "run.json").write_text(json.dumps(record))
    (tmp_path / "report.html").write_text("as the run wrote it")
    return tmp_path


def test_the_report_of_a_demo_gets_the_photos_as_they_are_and_the_worst_three(demo: Path) -> None:
    names = ("none", "crop 5 %", "blur 4 %", "noise 9", "scale 5 %")
    shares = dict(zip((name.partition(" ")[::2] for name in names), (0.9, 0.7, 0.1, 0.2, 0.3), strict=True))
    rest = {name: {"share": None, "n": 0} for name in ("answered", "wrong_answers")} | {"answered": {"share": 0.5}}
    keys = [{"kind": kind, "strength": strength} for kind, strength in shares]
    rows = [key | {"top1": {"share": share}} | rest for key, share in zip(keys, shares.values(), strict=True)]
    assert write.show_in_report(demo, {"classifier_id": "c1", "rows": rows})
    page = (demo / "report.html").read_text()
    table = page[page.index("make robustness") :]
    places = [table.index(words) for words in ("unaltered", "blur, 4 %", "noise, 9", "scale, 5 %")]
    assert places == sorted(places)
    assert "crop" not in table


def test_a_result_of_another_classifier_or_without_a_demo_changes_no_report(demo: Path, tmp_path: Path) -> None:
    assert not write.show_in_report(demo, {"classifier_id": "c2", "rows": []})
    assert (demo / "report.html").read_text() == "as the run wrote it"
    assert not write.show_in_report(tmp_path / "elsewhere", {"classifier_id": "c1", "rows": []})
