"""The runbook as a page, so that the link of a notice opens the section that says what to do."""

import re
from itertools import pairwise
from pathlib import Path

from markdown_it import MarkdownIt
from markupsafe import Markup

from fruits_airflow.report.page import render_template

RUNBOOK = Path(__file__).resolve().parents[3] / "docs" / "runbook.md"


def render_runbook() -> str | None:
    """Render docs/runbook.md, with an id for each heading as GitHub names it; None when it is not deployed."""
    if not RUNBOOK.is_file():
        return None
    markdown = MarkdownIt("commonmark").enable("table")
    tokens = markdown.parse(RUNBOOK.read_text(encoding="utf-8"))
    for heading, title in pairwise(tokens):
        if heading.type == "heading_open":
            heading.attrSet("id", re.sub(r"[^\w -]", "", title.content.lower()).replace(" ", "-"))
    for link in (child for token in tokens for child in token.children or () if child.type == "link_open"):
        if not str(link.attrGet("href")).startswith(("#", "http")):
            link.attrs.clear()  # another file of the repository, which is no page here
    content = markdown.renderer.render(tokens, markdown.options, {})
    return render_template("runbook.html.j2", {"content": Markup(content)})  # noqa: S704 - a file of our own
