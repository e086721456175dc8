"""The runbook as a page: each section that a notice links to is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from fruits_airflow.report import runbook_page
from fruits_airflow.runs.notices import HEADLINES
from fruits_airflow.runs.run_status import WORK_TASKS


def test_each_section_and_task_that_a_notice_links_to_has_an_anchor() -> None:
    page = runbook_page.render_runbook()
    assert page is not None
    anchors = set(re.findall(r'id="([^"]+)"', page))
    assert set(HEADLINES) <= anchors
    assert {task.replace(".", "-") for task in (*WORK_TASKS, "terminate_cluster", "verdict", "end_clusters")} <= anchors
    inner = set(re.findall(r'<a href="#([^"]+)"', page))
    assert inner <= anchors, "no link inside the page is dead"
    assert not re.findall(r'<a href="(?!#|http|\./)', page), "no link to a file that is no page"


def test_where_the_runbook_is_not_deployed_there_is_no_page(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(runbook_page, "RUNBOOK", tmp_path / "runbook.md")
    assert runbook_page.render_runbook() is None
