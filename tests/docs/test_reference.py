"""The pages that are generated from the code, and the runbook's anchors that alarms and readers follow."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from dev import write_docs
from tests.plugins.laptop import REPOSITORY

PAGES = ("data_dictionary.md", "settings.md", "dags.md", "map.md")
ALERTS = ("red-run", "refused", "cluster-will-not-die", "no-publication", "gate-failed", "lock-held")


@pytest.fixture(scope="module")
def dags() -> dict[str, Any]:
    with pytest.MonkeyPatch.context() as patch:
        for key, value in write_docs.PLACEHOLDERS.items():
            patch.setenv(f"FRUITS_{key.upper()}", value)  # put back afterwards
        return dict(write_docs.load_dags())


@pytest.fixture(scope="module")
def pages(dags: dict[str, Any]) -> dict[str, str]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(write_docs, "load_dags", lambda: dags)
        return dict(write_docs.pages())


@pytest.mark.parametrize("page", PAGES)
def test_a_generated_page_is_what_the_code_gives(pages: dict[str, str], page: str) -> None:
    assert (REPOSITORY / "docs" / page).read_text() == pages[page], "run make docs and commit what it writes"


def test_a_column_without_a_comment_stops_the_dictionary() -> None:
    with pytest.raises(write_docs.Undocumented, match="width_px"):
        list(write_docs.columns("images", "image_id STRING NOT NULL COMMENT 'id',\nwidth_px INT NOT NULL"))


def test_a_table_without_a_text_stops_the_dictionary(monkeypatch: pytest.MonkeyPatch) -> None:
    more = {"TABLES": {"new_table": "a INT COMMENT 'b'"}, "KEYS": {"new_table": ("a",)}}
    monkeypatch.setattr(write_docs, "_literal", more.__getitem__)
    with pytest.raises(write_docs.Undocumented, match="new_table"):
        write_docs.data_dictionary()


def test_a_setting_without_a_comment_stops_its_page(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(write_docs, "setting_texts", lambda _yaml: {})
    with pytest.raises(write_docs.Undocumented, match="deployment_id"):
        write_docs.settings()


def test_a_comment_goes_on_below_its_key() -> None:
    yaml = "# Head:\n#   bucket      where it is,\n#               and what for\nk: 1            # how many\n"
    assert write_docs.setting_texts(yaml) == {"bucket": "where it is, and what for", "k": "how many"}


@pytest.mark.parametrize("content", ["", None], ids=["no docstring", "no package"])
def test_a_folder_that_does_not_say_what_it_is_for_stops_the_map(tmp_path: Path, content: str | None) -> None:
    for name in write_docs.PACKAGES:
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text('"""Room."""')
    assert "| `ops/` | Room. |" in write_docs.code_map(tmp_path)
    room = tmp_path / "ops" / "new"
    room.mkdir()
    (room / "module.py").write_text("")
    if content is not None:
        (room / "__init__.py").write_text(content)
    with pytest.raises(write_docs.Undocumented, match=r"ops/new/__init__\.py"):
        write_docs.code_map(tmp_path)


def anchors(page: str) -> set[str]:
    """What GitHub lets a link point at: headings in lower case, and explicit anchors."""
    text = (REPOSITORY / "docs" / page).read_text()
    text = re.sub(r"^```.*?^```", "", text, flags=re.M | re.S)
    headings = re.findall(r"^#+ (.+)$", text, flags=re.M)
    slugs = {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}
    return slugs | set(re.findall(r'<a id="([^"]+)">', text))


@pytest.mark.parametrize("alert", ALERTS)
def test_the_runbook_says_what_to_do_for_each_alert(alert: str) -> None:
    assert alert in anchors("runbook.md")


def test_the_runbook_says_what_to_do_for_each_task(dags: dict[str, Any]) -> None:
    known = anchors("runbook.md")
    tasks = {f"{dag_id}.{task}" for dag_id, dag in dags.items() for task in dag.task_ids}
    wanted = {name: name.split(".", 1)[1].replace(".", "-") for name in tasks}
    assert {name: anchor for name, anchor in wanted.items() if anchor not in known} == {}


def test_links_between_the_documents_lead_somewhere() -> None:
    broken = []
    pages = [path for path in REPOSITORY.glob("docs/**/*.md") if "reference" not in path.parts]
    for page in [*pages, *REPOSITORY.glob("*.md")]:
        text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.M | re.S)
        for link in re.findall(r"\]\(([^)\s]+)\)", text):
            target, _, anchor = link.partition("#")
            if ":" in target:
                continue
            path = (page.parent / target) if target else page
            if not path.exists() or (
                anchor
                and path.suffix == ".md"
                and anchor not in anchors(str(path.resolve().relative_to(REPOSITORY / "docs")))
            ):
                broken.append(f"{page.name}: {link}")
    assert broken == []


def test_every_command_that_a_document_names_is_there() -> None:
    makefile = (REPOSITORY / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z][a-z-]*):", makefile, flags=re.M))
    unknown = {}
    for page in [*REPOSITORY.glob("docs/**/*.md"), *REPOSITORY.glob("*.md")]:
        named = re.findall(r"(?:`|^)make ([a-z][a-z-]*)", page.read_text(), flags=re.M)
        if missing := sorted(set(named) - targets):
            unknown[page.name] = missing
    assert unknown == {}
