"""What the lake stores is read as text, in bounded pieces, whatever it is packed in."""

from __future__ import annotations

import gzip
import io
import resource
import zlib

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fruits_airflow.erasure.stored_content import text_pieces
from fruits_airflow.storage.inflate import InflateError

KEY = b"images/Pear/me.jpg"


def parquet(**columns: list[str | None]) -> bytes:
    out = io.BytesIO()
    pq.write_table(pa.table(columns), out)
    return out.getvalue()


@pytest.mark.parametrize(
    "content",
    [KEY, gzip.compress(KEY), gzip.compress(b"one") + gzip.compress(KEY), parquet(label=[None, KEY.decode()])],
    ids=["text", "gzip", "two members", "Parquet"],
)
def test_a_name_is_in_the_pieces(content: bytes) -> None:
    assert KEY in b"".join(text_pieces(io.BytesIO(content)))


@pytest.mark.parametrize(
    "content",
    [gzip.compress(KEY)[:-4], b"\x1f\x8bbroken", b"PAR1broken", b"Obj\x01"],
    ids=["cut gzip", "no gzip", "no Parquet", "Avro"],
)
def test_what_cannot_be_read_is_an_error(content: bytes) -> None:
    with pytest.raises(InflateError):
        list(text_pieces(io.BytesIO(content)))


def test_a_bomb_takes_no_memory() -> None:
    packer = zlib.compressobj(9, wbits=31)
    bomb = b"".join(packer.compress(bytes(1 << 20)) for _ in range(1 << 8)) + packer.flush()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert sum(map(len, text_pieces(io.BytesIO(bomb)))) == 1 << 28
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 * 1024
