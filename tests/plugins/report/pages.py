"""A page of the report, taken apart, and what several tests put into it."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from typing import Any

VOID = {"meta", "link", "br", "img", "input"}
HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)>\"'&"
N = 600

RATE = {"share": 0.873, "low": 0.839, "high": 0.9, "n": 464}
CLASSIFIER: dict[str, Any] = {
    "classifier_id": "c" * 64,
    "is_new": True,
    "reason": "a label came or went",
    "learned": 1336,
    "judged": 464,
    "near_equal": 0,
    **dict.fromkeys(("top1", "top3", "answered", "wrong_answers"), RATE),
    "calibration_error": 0.06,
    "calibration_error_raw": 0.125,
    "reliability": [[100, 0.35, 0.4], [364, 0.9, 0.95]],
    "by_confidence": [[0.0, 1.0, 0.873], [0.9, 0.6, 0.98], [0.99, 0.0, None]],
    "labels": {"Apple": {"precision": {"share": 0.8, "low": 0.3, "high": 0.9, "n": 5}, "recall": RATE}, "Pear": {}},
    "labels_left_out": 900,
    "confusion": [["Kiwi", "Kiwi", 8], ["Kiwi", "Apple", 1], ["Kiwi", "Pear", 1], ["Apple", "Apple", 4]],
    "confusion_left_out": 7,
    "examples": [["a1" * 32, "Kiwi", 0.91], ["b2" * 32, None, 0.2]],
    "robustness": [
        ["none", "", 0.87, 0.873, 0.1],
        ["crop", "10 %", 0.8, 0.873, 0.1],
        ["noise", "20", 0.2, 0.873, 0.1],
        ["noise", "60", 0.1, 0.0, None],
        ["blur", "4 px", 0.3, 0.873, 0.1],
    ],
}


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
