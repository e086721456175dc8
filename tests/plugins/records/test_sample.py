"""sample.parquet, which a node writes: decoded within bounds, or refused with the reason."""

from __future__ import annotations

import io
import os
import resource
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fruits_airflow.records.sample import SampleError, decode_sample
from fruits_airflow.records.sample_decoder import MAX_LABEL, MAX_THUMBNAIL_BYTES, MAX_THUMBNAILS_BYTES


def parquet(**columns: Any) -> bytes:
    out = io.BytesIO()
    pq.write_table(pa.table(columns), out, compression="zstd")
    return out.getvalue()


def test_a_sample_is_read_as_it_was_written() -> None:
    columns = {
        "image_id": ["x", "y"],
        "label": ["a", None],
        "pc1": [1.5, -2.0],
        "pc2": [0.0, 3.0],
        "thumbnail": [b"RIFF", None],
    }
    assert decode_sample(parquet(more=[1, 2], **columns)).to_pydict() == columns


def test_a_value_that_is_too_large_or_of_another_type_is_null() -> None:
    thumbnails = [b"x" * (MAX_THUMBNAIL_BYTES + 1), b"y"]
    rows = decode_sample(parquet(label=["z" * 5000, "b"], pc1=["text", "1"], thumbnail=thumbnails)).to_pydict()
    assert rows["label"] == ["z" * MAX_LABEL, "b"]
    assert rows["pc1"] == rows["pc2"] == [None, None]
    assert rows["thumbnail"] == [None, b"y"]


def test_the_thumbnails_together_are_bounded() -> None:
    pictures = [os.urandom(10_000)] * 600
    kept = decode_sample(parquet(pc1=[1.0] * 600, pc2=[1.0] * 600, thumbnail=pictures))["thumbnail"]
    assert 0 < len(kept.drop_null()) * 10_000 <= MAX_THUMBNAILS_BYTES


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"no parquet", "no usable Parquet"),
        (b"", "no usable Parquet"),
        (parquet(label=pa.nulls(5_000_000, pa.string())), "5,000,000 rows"),
        (parquet(label=["a" * 400_000_000], pc1=[1.0], pc2=[1.0]), "MB of memory"),
    ],
    ids=["text", "nothing", "many rows", "a label of 400 MB in 14 kB"],
)
def test_a_file_that_cannot_be_decoded_within_the_limits_is_refused_with_the_reason(
    content: bytes, reason: str
) -> None:
    assert len(content) < 500_000
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(SampleError, match=f"sample.parquet cannot be shown: .*{reason}"):
        decode_sample(content)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000, "kB, in this process"
