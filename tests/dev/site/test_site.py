"""The site is complete, its links lead somewhere, and it needs no other host."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[3]


def build(config: Path, site: Path) -> subprocess.CompletedProcess[str]:
    """Build the site as `make site` does; every warning is an error."""
    return subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "-f", config, "-d", site],
        cwd=REPOSITORY,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    ended = build(REPOSITORY / "mkdocs.yml", folder)
    assert ended.returncode == 0, ended.stderr
    return folder


def test_a_link_that_leads_nowhere_and_a_page_that_nothing_leads_to_stop_the_build(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "index.md").write_text("[nowhere](missing.md), [no heading](#missing)\n")
    (tmp_path / "docs" / "lost.md").write_text("No page leads here.\n")
    text = (REPOSITORY / "mkdocs.yml").read_text().partition("\nnav:")
    config = tmp_path / "mkdocs.yml"
    config.write_text(
        text[0].replace("[spark_jobs, plugins]", "[]").replace("[assets/site.css]", "[]") + "\nnav: [index.md]\n"
    )
    ended = build(config, tmp_path / "site")
    assert ended.returncode == 1
    for cause in ("missing.md", "#missing", "lost.md"):
        assert cause in ended.stderr


def test_a_page_loads_nothing_from_another_host(site: Path) -> None:
    pattern = re.compile(
        r'<(?:script|link|img|iframe)[^>]+(?:src|href)="?(?:https?:)?//[^" >]+|@import|url\(["\']?(?:https?:)?//'
    )
    files = [path for path in site.rglob("*") if path.suffix in {".html", ".css"}]
    assert len(files) > 30
    assert {path.name: pattern.findall(path.read_text()) for path in files if pattern.search(path.read_text())} == {}


def test_search_knows_pages_written_by_hand_and_by_the_code(site: Path) -> None:
    index = json.loads((site / "search" / "search_index.json").read_text())["docs"]
    places = {text: {item["location"] for item in index if text in item["title"] + item["text"]} for text in (
        "cluster_janitor", "max_cost_eur", "explained_variance_ratio", "principal_components",
    )}  # fmt: skip
    assert any(place.startswith("runbook/") for place in places["cluster_janitor"])
    assert any(place.startswith("settings/") for place in places["max_cost_eur"])
    assert any(place.startswith("data_dictionary/") for place in places["explained_variance_ratio"])
    assert any(place.startswith("api/jobs/") for place in places["principal_components"])
