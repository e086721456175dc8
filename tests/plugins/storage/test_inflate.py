"""Inflation of gzip in bounded pieces."""

from __future__ import annotations

import gzip
import io
import random
import re
import tracemalloc
import zlib

import pytest
from fruits_airflow.storage.inflate import PIECE_BYTES, InflateError, inflate

NOISE = random.Random(1).randbytes(300_000)
NO_BLOCK = b"\xff" * 64  # deflate has no blocks of this type


@pytest.mark.parametrize(
    ("stored", "content"),
    [
        (gzip.compress(NOISE), NOISE),
        (gzip.compress(NOISE) + gzip.compress(b"second member"), NOISE + b"second member"),
        (gzip.compress(NOISE) + b"\0" * 100, NOISE),
        (gzip.compress(b"0" * 1_000_000), b"0" * 1_000_000),
        (gzip.compress(b""), b""),
        (NOISE, NOISE),
        (b"x", b"x"),
        (b"", b""),
    ],
    ids=["gzip", "two members", "padded", "repetitive", "gzip of nothing", "plain", "a byte", "nothing"],
)
def test_bytes_and_streams_give_the_same_content_in_bounded_pieces(stored: bytes, content: bytes) -> None:
    pieces = list(inflate(stored, 2_000_000))
    assert b"".join(pieces) == content == b"".join(inflate(io.BytesIO(stored), 2_000_000))
    assert max(map(len, pieces), default=0) <= PIECE_BYTES


def read_until_refused(stored: bytes, max_bytes: int) -> tuple[int, str]:
    total = 0
    try:
        for piece in inflate(stored, max_bytes):
            total += len(piece)
    except InflateError as error:
        return total, str(error)
    pytest.fail(f"all {total} bytes were yielded")


def test_a_bomb_is_refused_at_the_limit_and_takes_little_memory() -> None:
    packer = zlib.compressobj(9, wbits=31)
    bomb = b"".join(packer.compress(b"\0" * 1_000_000) for _ in range(300)) + packer.flush()
    tracemalloc.start()
    try:
        total, message = read_until_refused(bomb, 5_000_000)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert total == 5_000_000
    assert "larger than 5,000,000 bytes" in message
    assert peak < 2_000_000


def test_the_limit_itself_is_allowed_and_holds_for_plain_content_too() -> None:
    assert b"".join(inflate(NOISE, len(NOISE))) == NOISE
    assert read_until_refused(NOISE, len(NOISE) - 1)[0] == len(NOISE) - 1


@pytest.mark.parametrize(
    ("stored", "message"),
    [
        (gzip.compress(NOISE)[:-100], "truncated"),
        (gzip.compress(NOISE)[:-8] + b"checksum", "corrupt"),
        (gzip.compress(NOISE)[:200_000] + NO_BLOCK, "truncated|corrupt"),
        (gzip.compress(NOISE) + b"garbage", "corrupt"),
    ],
    ids=["cut", "checksum", "midst", "trailing"],
)
def test_what_can_be_read_of_broken_gzip_is_yielded_before_the_error(stored: bytes, message: str) -> None:
    total, refusal = read_until_refused(stored, 2_000_000)
    assert re.search(message, refusal)
    assert total > 150_000
