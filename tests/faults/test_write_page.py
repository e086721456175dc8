"""The page of what broke and what held."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest

from tests.faults import write_page
from tests.faults.write_page import page


def result(fault: str, moment: str, *broken: str) -> dict[str, Any]:
    return {
        **{"fault": fault, "moment": moment, "runner": "scripted", "what": f"{fault} {moment}"},
        **{"held": not broken, "broken": list(broken)},
        **{"when": "2026-01-02T03:04:05+00:00", "commit": "abc+", "seconds": 7.4},
    }


def test_faults_come_in_the_order_of_their_numbers_and_moments() -> None:
    text = page([result("F10", "after"), result("F2", "after"), result("F2", "before")])
    assert text.index("F2 before") < text.index("F2 after") < text.index("F10 after")
    assert "3 of 3 held" in text


def test_what_did_not_hold_says_what_broke() -> None:
    text = page([result("F1", "during", "a | b")])
    assert "0 of 1 held" in text
    assert "**no**: a \\| b" in text


def test_each_line_says_when_and_on_which_commit_it_was_found() -> None:
    assert "| 7 | 2026-01-02, abc+ |" in page([result("F1", "during")])


def test_what_has_no_result_is_said_and_what_makes_no_sense_has_its_reason() -> None:
    text = page([result("F1", moment) for moment in ("before", "during")])
    assert "| F1 | after | – | **no result** |" in text
    assert "| F20 | after | – | nothing is written to the node's disk" in text
    assert f"{29 * 3 - 2 - 3} moments of faults have no result" in text


def test_a_moment_that_was_skipped_is_named_and_is_no_success(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(write_page, "RESULTS", tmp_path / "results.json")
    monkeypatch.setattr(write_page, "PAGE", tmp_path / "page.md")
    pairs = itertools.product([f"F{number}" for number in range(1, 30)], ("before", "during", "after"))
    every = [result(*pair) for pair in pairs]
    (tmp_path / "results.json").write_text(json.dumps(every))
    assert write_page.main() == 0
    skipped = [result for result in every if (result["fault"], result["moment"]) != ("F20", "during")]
    (tmp_path / "results.json").write_text(json.dumps(skipped))
    assert write_page.main() == 1
    assert "1 moments of faults have no result: F20 during." in (tmp_path / "page.md").read_text()
    assert "no result: F20 during" in capsys.readouterr().err


def test_nights_by_seed_say_how_many_there_were_and_which_seeds_broke_a_rule() -> None:
    reached = {"lost before": 3, "lost + cut": 2}
    found = {"first": 1, "nights": 40, "broken": [7], "states": {"success": 80}, "reached": reached}
    text = write_page.simulated(found | {"when": "2026-01-02T03:04:05+00:00", "commit": "abc"})
    assert "40 nights of the seeds from 1 on; seeds that break a rule: 7." in text
    assert "1 pairs of kinds" in text
    assert "| lost before | 3 |" in text
    assert "lost + cut" not in text
