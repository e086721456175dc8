"""Looking for a photo in everything that two buckets hold: every object, every version, decoded.

Gzip is unpacked, Parquet read cell by cell, Avro block by block, pictures in pages taken out of their base64. Texts
are read as they lie, and as HTML, JSON, a URL and Python's escapes mean them, also inside one another, in composed
and in decomposed form: each spells an accent or a quote another way. This shares no code with what erases. What is
found is told with the place, so that a test can name the places where something may be.
"""

from __future__ import annotations

import ast
import base64
import gzip
import html
import io
import json
import re
import unicodedata
import zlib
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import unquote

import pyarrow.parquet as pq

_DATA_URI = re.compile(rb"data:image/[a-z]+;base64,([A-Za-z0-9+/=]+)")


def find_everywhere(client: Any, buckets: list[str], needles: Mapping[str, Any]) -> dict[str, set[str]]:
    """Where each needle is: keys by needle name.

    Args:
        client: S3 client.
        buckets: to look through, with all versions.
        needles: text, bytes, or a list of floats (a vector, found as a cell of a table), by name.
    """
    found: dict[str, set[str]] = {name: set() for name in needles}
    for bucket in buckets:
        for page in client.get_paginator("list_object_versions").paginate(Bucket=bucket):
            for marker in page.get("DeleteMarkers", []):
                _look(marker["Key"].encode(), marker["Key"], needles, found)
            for version in page.get("Versions", []):
                key = version["Key"]
                body = client.get_object(Bucket=bucket, Key=key, VersionId=version["VersionId"])["Body"].read()
                _look(key.encode(), key, needles, found)
                for piece in decoded(body):
                    _look(piece, key, needles, found)
    return found


def decoded(body: bytes) -> Iterator[Any]:
    """An object's content: its bytes, and what they hold when they are a container."""
    yield body
    if body.startswith(b"\x1f\x8b"):
        yield from decoded(gzip.decompress(body))
    elif body.startswith(b"PAR1"):
        for batch in pq.ParquetFile(io.BytesIO(body)).iter_batches():
            for column in batch.columns:
                yield from (cell for cell in column.to_pylist() if cell is not None)
    elif body.startswith(b"Obj\x01"):
        yield from _avro_blocks(body)
    else:
        for uri in _DATA_URI.finditer(body):
            yield base64.b64decode(uri[1])
        yield from _meant(body)


def _meant(body: bytes) -> Iterator[str]:
    """What a text may mean, without escapes; nothing of what is no text."""
    try:
        readings = {body.decode()}
    except UnicodeDecodeError:
        return
    for _ in range(3):
        readings |= {decoded for text in readings for decode in _DECODERS for decoded in decode(text)}
    yield from readings
    for form in ("NFC", "NFD"):
        yield from {unicodedata.normalize(form, text) for text in readings if not text.isascii()}


def _json(text: str) -> Iterator[str]:
    if "\\" in text:
        try:
            yield json.dumps(json.loads(text), ensure_ascii=False)
        except ValueError:
            return


def _python(text: str) -> Iterator[str]:
    if "\\" in text:
        yield _PYTHON.sub(lambda match: _python_character(match[0]), text)


def _python_character(escape: str) -> str:
    try:
        return str(ast.literal_eval(f"'{escape}'"))
    except (SyntaxError, ValueError):
        return escape


_PYTHON = re.compile(r"\\(?:x[0-9a-f]{2}|u[0-9a-fA-F]{4}|U[0-9a-f]{8}|[\\'\"n])")
_DECODERS = (
    lambda text: [html.unescape(text)] if "&" in text else [],
    lambda text: [unquote(text)] if "%" in text else [],
    _json,
    _python,
)


def _avro_blocks(body: bytes) -> Iterator[bytes]:
    """The blocks of an Avro file (Iceberg's manifests), inflated: found by the sync marker that ends each."""
    sync = body[-16:]
    for piece in body.split(sync)[1:]:
        for start in range(min(24, len(piece))):  # two variable-length numbers come before the data
            try:
                yield zlib.decompress(piece[start:], -15)
                break
            except zlib.error:
                continue


def _look(piece: Any, place: str, needles: Mapping[str, Any], found: dict[str, set[str]]) -> None:
    for name, needle in needles.items():
        if isinstance(needle, list):
            hit = isinstance(piece, list) and len(piece) == len(needle) and piece == needle
        else:
            haystack = piece.encode() if isinstance(piece, str) else piece
            hit = isinstance(haystack, bytes) and (needle.encode() if isinstance(needle, str) else needle) in haystack
        if hit:
            found[name].add(place)
