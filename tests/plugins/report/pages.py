"""A page of the report, taken apart, and what several tests put into it."""

from __future__ import annotations

import re
from html.parser import HTMLParser

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


def swapped(text: str) -> str:
    """The text with each tile read as it is shown: the number above its word."""
    return re.sub(r"\bseen (\d+)", r"\1 seen", text)


DRIFT = {
    "angle_degrees": 4.21,
    "explained_variance_published_basis": 0.948,
    "variance_loss": 0.004,
    "limit_degrees": 15.0,
    "limit_variance_loss": 0.02,
    "new_basis": False,
    "reason": None,
}
