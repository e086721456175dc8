"""Find the names of photos in text, in whatever way a program spelled them.

A log spells the key of a photo as Python's `repr`, as JSON, as Rust's `Debug`, as XML or HTML, as a URL, or as
several of these inside one another. Enumerating the spellings of a key is endless, so both the text and the keys are
reduced to one canonical reading: escapes are decoded, and letters are decomposed (NFD). A match is mapped back to the
text as it was.
"""

import codecs
import html
import re
import unicodedata
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from typing import NamedTuple
from urllib.parse import unquote_to_bytes

from fruits_airflow.storage.object_versions import is_folder

Span = tuple[int, int]

_ESCAPE = re.compile(
    r"(?P<utf16>(?:\\+u[0-9a-fA-F]{4})+)"  # JSON, Java, Python
    r"|\\+(?:u\{(?P<rust>[0-9a-fA-F]{1,6})\}|U(?P<utf32>[0-9a-fA-F]{8}))"
    r"|(?P<octets>(?:\\+(?:x[0-9a-fA-F]{2}|[0-3][0-7]{2}))+)"  # Python, C, the shell
    r"|\\+(?P<control>[abfnrtv0])?"
    r"|(?P<entity>&(?:#[0-9]{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z][A-Za-z0-9]{1,31});)"
    r"|(?P<percent>(?:%[0-9a-fA-F]{2})+)"
    r"|(?P<letter>[^\x00-\x7f])"
)
_ESCAPE_START = re.compile(r"[\\&%\x80-\U0010ffff]")
_OCTET = re.compile(r"x([0-9a-fA-F]{2})|([0-3][0-7]{2})")
_CONTROL = dict(zip("abfnrtv0", "\a\b\f\n\r\t\v\0", strict=True))
_IMAGE_ID = re.compile(r"[0-9a-f]{64}")
_VERBATIM = re.compile(r"[A-Za-z0-9]{3,}(?![^\x00-\x7f])")  # no program escapes these, but a mark may follow
_MAX_ANCHORS = 32
_MAX_LAYERS = 5  # of escapes inside escapes: JSON in JSON in a repr in a URL, and a spare one
_MAX_MARKS = 30  # on one letter: Unicode's stream-safe limit
_START_CHARS = 8  # a shorter key is a name only where it stands as a word
_PIECE_CHARS = 1 << 20
_LONGEST_SPELLING = 1 << 15  # 1024 bytes of key, each as an entity in JSON in JSON


class _Part(NamedTuple):
    """Where a part of a reading comes from; a part that is not verbatim is one escape."""

    at: int
    start: int
    end: int
    is_verbatim: bool


class PhotoNames:
    """The names of some photos: their image ids, and their keys; a folder's key is no name of a photo."""

    def __init__(self, image_ids: Iterable[str], keys: Iterable[str]) -> None:
        self._ids = frozenset(image_ids)
        keys = [key for key in keys if not is_folder(key)]
        readings = {_reading(key, octets_are_utf8)[0] for key in keys for octets_are_utf8 in (True, False)}
        names = sorted(filter(None, readings), key=len, reverse=True)
        self._words = _any_of([name for name in names if len(name) < _START_CHARS], r"(?<!\w)(?:{})(?!\w)")
        self._by_start: dict[str, dict[int, set[str]]] = {}
        for name in names:
            if len(name) >= _START_CHARS:
                self._by_start.setdefault(name[:_START_CHARS], {}).setdefault(len(name), set()).add(name)
        self._starts = _any_of(self._by_start, "{}")
        self._anchors = _any_of(_anchors(keys), "{}")
        self._has_lines = any("\n" in name or "\r" in name for name in names)

    def spans(self, text: str) -> list[Span]:
        """Return where the text names one of the photos: start and end, in order, without overlaps."""
        spans = [match.span() for match in _IMAGE_ID.finditer(text) if match[0] in self._ids]
        for start, end in self._regions(text):
            region = text[start:end]
            readings = [_reading(region, octets_are_utf8=True)]
            if "\\" in region or "5c" in region.lower():
                # `\xc3\xa9` is é in the repr of bytes, and Ã© in that of a string.
                readings.append(_reading(region, octets_are_utf8=False))
            for reading, layers in readings:
                for span in self._keys_in(reading):
                    first, last = _source_span(span, layers)
                    spans.append((start + first, start + last))
        return list(_joined(sorted(spans)))

    def _regions(self, text: str) -> Iterator[Span]:
        """Yield the parts of a text that may hold a key: the lines with a word that each spelling of a key keeps."""
        if not self._by_start and not self._words:
            return
        if self._anchors is None or self._has_lines:
            yield 0, len(text)
            return
        end = 0
        while match := self._anchors.search(text, end):
            start = text.rfind("\n", end, match.start()) + 1 or end
            end = text.find("\n", match.end()) + 1 or len(text)
            yield start, end

    def _keys_in(self, reading: str) -> Iterator[Span]:
        if self._words:
            yield from (match.span() for match in self._words.finditer(reading))
        at = 0
        while self._starts and (match := self._starts.search(reading, at)):
            at = match.start()
            lengths = self._by_start[match[0]]  # the longest first
            length = next((n for n, names in lengths.items() if reading[at : at + n] in names), None)
            if length is not None:
                yield at, at + length
            at += length or 1


def search(pieces: Iterable[bytes], names: PhotoNames) -> Iterator[tuple[str, list[Span]]]:
    """Yield a text piece by piece, with the places where each piece names a photo.

    A name that lies across two pieces of the source lies within one of the result. What is not UTF-8 is kept
    (`surrogateescape`).
    """
    decoder, text = codecs.getincrementaldecoder("utf-8")("surrogateescape"), ""
    for piece in pieces:
        text += decoder.decode(piece)
        if len(text) < _PIECE_CHARS:
            continue
        spans, cut = names.spans(text), len(text) - _LONGEST_SPELLING
        cut = text.rfind("\n", cut // 2, cut) + 1 or cut
        cut = max([cut, *(end for start, end in spans if start < cut)])
        yield text[:cut], [span for span in spans if span[1] <= cut]
        text = text[cut:]
    text += decoder.decode(b"", final=True)
    yield text, names.spans(text)


def _anchors(keys: Iterable[str]) -> set[str]:
    """Return a few words of which each key has one; none where they would be too many to look for at once."""
    words = [_VERBATIM.findall(_ESCAPE.sub("\x80", unicodedata.normalize("NFD", key))) for key in keys]
    if not all(words):
        return set()
    longest, first = {max(each, key=len) for each in words}, {each[0] for each in words}
    for anchors in (longest, first):
        if len(anchors) <= _MAX_ANCHORS:
            return anchors
    return set()


def _any_of(words: Iterable[str], pattern: str) -> re.Pattern[str] | None:
    alternatives = "|".join(map(re.escape, words))
    return re.compile(pattern.format(alternatives)) if alternatives else None


def _joined(spans: Iterable[Span]) -> Iterator[Span]:
    last: Span | None = None
    for span in spans:
        if last is not None and span[0] < last[1]:
            last = (last[0], max(last[1], span[1]))
            continue
        if last is not None:
            yield last
        last = span
    if last is not None:
        yield last


def _reading(text: str, octets_are_utf8: bool) -> tuple[str, list[list[_Part]]]:
    """Return the canonical reading of a text, and for each layer of escapes where its parts come from."""
    layers: list[list[_Part]] = []
    for _ in range(_MAX_LAYERS):
        decoded, parts = _without_escapes(text, octets_are_utf8)
        if decoded == text:
            break
        layers.append(parts)
        text = decoded
    return text, layers


def _without_escapes(text: str, octets_are_utf8: bool) -> tuple[str, list[_Part]]:
    parts: list[_Part] = []
    pieces: list[str] = []
    length = end = 0

    def add(piece: str, start: int, stop: int, is_verbatim: bool) -> None:
        nonlocal length
        parts.append(_Part(length, start, stop, is_verbatim))
        pieces.append(piece.replace("+", " ") if is_verbatim else piece)  # a blank in a query string
        length += len(piece)

    at = 0
    while at_escape := _ESCAPE_START.search(text, at):
        match = _ESCAPE.match(text, at_escape.start())
        at = match.end() if match else at_escape.end()
        if match is None:
            continue
        if match.start() > end:
            add(text[end : match.start()], end, match.start(), is_verbatim=True)
        piece, start = unicodedata.normalize("NFD", _meaning(match, octets_are_utf8)), match.start()
        is_mark = piece and unicodedata.combining(piece[0]) and parts and not parts[-1].is_verbatim
        if is_mark and len(pieces[-1]) < _MAX_MARKS:
            # Several marks on one letter have a canonical order, whatever the order in the text.
            length -= len(pieces[-1])
            piece, start = unicodedata.normalize("NFD", pieces.pop() + piece), parts.pop().start
        add(piece, start, match.end(), is_verbatim=False)
        end = match.end()
    if end < len(text):
        add(text[end:], end, len(text), is_verbatim=True)
    return "".join(pieces), parts


def _meaning(match: re.Match[str], octets_are_utf8: bool) -> str:
    """Return what an escape stands for. Backslashes before anything else are dropped: they double at each layer."""
    kind, text = match.lastgroup, match[0]
    if kind is None:
        return ""
    if kind == "utf16":
        units = bytes.fromhex("".join(re.findall(r"u([0-9a-fA-F]{4})", text)))
        return units.decode("utf-16-be", "surrogatepass")
    if kind in ("rust", "utf32"):
        point = int(match[kind], 16)
        return chr(point) if point <= 0x10FFFF else ""
    if kind == "control":
        return _CONTROL[match[kind]]
    if kind == "entity":
        return html.unescape(text)
    if kind == "letter":  # a byte that is not UTF-8 is a letter of Latin-1
        return chr(ord(text) - 0xDC00) if "\udc80" <= text <= "\udcff" else text
    if kind == "percent":
        return _as_text(unquote_to_bytes(text))
    octets = bytes(int(hexed, 16) if hexed else int(octal, 8) for hexed, octal in _OCTET.findall(text))
    return _as_text(octets) if octets_are_utf8 else octets.decode("latin-1")


def _as_text(octets: bytes) -> str:
    try:
        return octets.decode()
    except UnicodeDecodeError:
        return octets.decode("latin-1")


def _source_span(span: Span, layers: list[list[_Part]]) -> Span:
    start, end = span
    for parts in reversed(layers):
        first = parts[bisect_right(parts, start, key=lambda part: part.at) - 1]
        last = parts[bisect_right(parts, end - 1, key=lambda part: part.at) - 1]
        start = first.start + (start - first.at if first.is_verbatim else 0)
        end = last.start + (end - last.at) if last.is_verbatim else last.end
    return start, end
