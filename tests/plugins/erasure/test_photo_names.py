"""Names of photos are found in text in every spelling, mapped back to the text as it was, and nothing else is."""

from __future__ import annotations

import html
import json
import unicodedata
from collections.abc import Callable
from urllib.parse import quote, quote_plus

import pytest
from fruits_airflow.erasure.photo_names import PhotoNames, search
from fruits_airflow.storage.object_versions import image_id_of

KEYS = [
    "images/Poire Léa/Screenshot\u202f2026.png",
    'images/O\'Neil "x".jpg',
    "images/a & b.jpg",
    "images/L\u00e9a\U0001f34e.jpg",
    "images/back\\name.jpg",
    "images/100%20x+y.jpg",
    "images/Ã©.jpg",
    "a.jpg",
    "images/Â\u0323\u0302.jpg",
    "images/日本/ハ゜.jpg",
    "images/new\nline.jpg",
    "images/🍐&amp;.jpg",
    "梨.jpg",
    "Café",
]


def entities(form: str) -> Callable[[str], str]:
    return lambda key: "".join(form.format(ord(char)) if ord(char) > 127 or char in "&<>'\"" else char for char in key)


def rust_debug(key: str) -> str:
    """As Rust's `{:?}` prints it: what is not printable, and marks, as `\\u{301}`."""
    escapes = {"'": "\\'", '"': '\\"', "\\": "\\\\", "\n": "\\n"}

    def spelled(char: str) -> str:
        hidden = ord(char) > 127 and (unicodedata.combining(char) or not char.isprintable())
        return f"\\u{{{ord(char):x}}}" if hidden else escapes.get(char, char)

    return "".join(map(spelled, key))


def octal(key: str) -> str:
    return "".join(chr(byte) if 32 <= byte < 127 else f"\\{byte:03o}" for byte in key.encode())


SPELLINGS: dict[str, Callable[[str], str]] = {
    "plain": str,
    "Python": repr,
    "Python, ASCII": ascii,
    "Python, bytes": lambda key: repr(key.encode()),
    "JSON, ASCII": json.dumps,
    "JSON": lambda key: json.dumps(key, ensure_ascii=False),
    "HTML": html.escape,
    "XML, decimal": entities("&#{};"),
    "XML, hexadecimal": entities("&#x{:X};"),
    "URL": quote,
    "URL, all": lambda key: quote(key, safe=""),
    "query": quote_plus,
    "Rust": rust_debug,
    "octal": octal,
    "NFC": lambda key: unicodedata.normalize("NFC", key),
    "NFD": lambda key: unicodedata.normalize("NFD", key),
}


@pytest.mark.parametrize("inner", SPELLINGS)
def test_a_key_is_found_in_every_spelling_and_in_each_inside_each(inner: str) -> None:
    missed = []
    for key in KEYS:
        names = PhotoNames([], [key])
        for outer in SPELLINGS:
            text = f"before {SPELLINGS[outer](SPELLINGS[inner](key))} after"
            spans = names.spans(text)
            left = [text[: spans[0][0]], text[spans[-1][1] :]] if spans else []
            if len(spans) != 1 or not left[0].startswith("before ") or not left[1].endswith(" after"):
                missed.append((key, outer, text, spans))
    assert missed == []


def test_a_letter_of_latin_1_in_a_text_that_is_none_of_utf_8_is_found() -> None:
    ((text, spans),) = search(["images/Léa.jpg".encode("latin-1")], PhotoNames([], ["images/Léa.jpg"]))
    assert spans == [(0, len(text))]


def test_an_image_id_is_found_and_another_is_not() -> None:
    names = PhotoNames([image_id_of("a")], [])
    text = f"{image_id_of('a')} {image_id_of('b')}"
    assert names.spans(text) == [(0, 64)]


@pytest.mark.parametrize("text", ["images/Pear/2.jpg", "Images/Pear/1.jpg", "images/Pear 1.jpg", "banana.jpg"])
def test_another_name_is_none(text: str) -> None:
    assert PhotoNames([], ["images/Pear/1.jpg", "a.jpg"]).spans(text) == []


def test_a_folder_is_no_name_of_a_photo() -> None:
    assert PhotoNames([], ["photos/"]).spans("photos/ has 3 objects") == []


def test_a_text_is_searched_in_pieces_and_comes_out_as_it_was() -> None:
    key = "images/Léa's.jpg"
    line = f"{key!a} and {quote(key)} \xff\n"
    content = ("nothing here, and no image\n" * 50_000).join([line] * 4).encode() + b"\xff\xfe"
    pieces = [content[at : at + 65_537] for at in range(0, len(content), 65_537)]
    results = list(search(pieces, PhotoNames([], [key])))
    assert len(results) > 3
    assert "".join(text for text, _ in results).encode("utf-8", "surrogateescape") == content
    assert sum(len(spans) for _, spans in results) == 8


@pytest.mark.parametrize("shift", [0, 10, 40])
def test_a_name_across_two_pieces_is_found(shift: int) -> None:
    key = "images/Léa's.jpg"
    content = b"x" * ((1 << 20) - (1 << 15) - shift) + ascii(key).encode() + b"x" * (1 << 20)
    pieces = [content[at : at + 1000] for at in range(0, len(content), 1000)]
    assert sum(len(spans) for _, spans in search(pieces, PhotoNames([], [key]))) == 1


def test_ten_thousand_keys_of_many_folders_are_looked_for_at_once() -> None:
    keys = [f"images/Pear {n % 100}/{n}_100.jpg" for n in range(10_000)]
    text = "\n".join(keys[::1000])
    assert len(PhotoNames(map(image_id_of, keys), keys).spans(text)) == 10


@pytest.mark.parametrize("unit", ["\\u0301", "\u0301", "\\", "\\u00", "%", "&a", "Training "])
def test_a_text_of_nothing_but_escapes_is_searched_in_time_that_grows_with_its_length(unit: str) -> None:
    """A node writes logs; more marks than Unicode's stream-safe limit would else be sorted again with each."""
    names, line = PhotoNames([], ["images/Training/1.jpg"]), " Training "
    assert names.spans(unit * 300_000 + line) == []
    assert names.spans(unit * 1000 + " images/Training/1.jpg") != []
