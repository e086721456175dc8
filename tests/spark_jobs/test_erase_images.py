"""Erasure of rows, and of every byte behind them."""

from __future__ import annotations

import io
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import erase_images
import pyarrow.parquet as pq
import pytest
from fruits import job, stages
from fruits.errors import InputError

from tests.spark_jobs.conftest import Nights
from tests.spark_jobs.pictures import orchard

pytestmark = pytest.mark.spark


def erase(nights: Nights, image_ids: list[str], contents: list[str]) -> dict[str, Any]:
    nights.runs.append(f"erasure-{len(nights.runs)}")
    request = nights.run_folder / "request.json"
    request.parent.mkdir(parents=True, exist_ok=True)
    request.write_text(json.dumps({"image_ids": image_ids, "content_sha256": contents}))
    common = ["--database", nights.database, "--run-id", nights.runs[-1]]
    arguments = erase_images.parser().parse_args(
        [*common, "--run-folder", str(nights.run_folder), "--erasure", str(request)]
    )
    erase_images.erase_images(job.Run("erase_images", arguments, nights.spark))
    return stages.read(str(nights.run_folder), "erase_images")


def everything(nights: Nights) -> dict[str, bytes]:
    """The decoded content of every file of the database: Parquet and Avro by their values, all else as it lies."""
    (file,) = nights.spark.table(f"{nights.database}.images.files").select("file_path").limit(1).collect()
    folder = Path(file[0].removeprefix("file:")).parents[2]
    found = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        content = path.read_bytes()
        if path.suffix == ".parquet":
            content += repr(
                [list(row.values()) for row in pq.read_table(io.BytesIO(content)).to_pylist()]
            ).encode()
        if path.suffix == ".avro":
            content += b"".join(blocks(content))
        found[str(path)] = content
    return found


def blocks(content: bytes) -> Iterator[bytes]:
    """The inflated blocks of an Avro file, https://avro.apache.org/docs/1.12.0/specification/#object-container-files."""
    file = io.BytesIO(content)

    def long() -> int:
        shift = value = 0
        while True:
            (byte,) = file.read(1)
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return (value >> 1) ^ -(value & 1)

    assert file.read(4) == b"Obj\x01"
    header = {}
    while count := long():
        assert count > 0
        for _ in range(count):
            name = file.read(long())
            header[name] = file.read(long())
    assert header[b"avro.codec"] == b"deflate"
    sync = file.read(16)
    while file.tell() < len(content):
        assert long() > 0
        yield zlib.decompress(file.read(long()), -15)
        assert file.read(16) == sync


def traces(nights: Nights, *needles: bytes) -> list[str]:
    return [
        name for name, content in everything(nights).items() if any(needle in content for needle in needles)
    ]


def test_an_erased_image_is_in_no_file_of_any_table_and_the_others_stay(nights):
    orchard(nights.photos, labels=3, each=4)
    nights.night("--k", "3")
    (nights.photos / "Label 0").mkdir(exist_ok=True)
    row = nights.rows("images")[0]
    own = row["image_id"].encode()
    needles = (own, own[:16], repr(row["pixels"]).encode()[2:80], row["source_key"].encode())
    assert traces(nights, *needles)
    receipt = erase(nights, [row["image_id"]], [])
    assert receipt["rows"] == {"images": 1, "rejects": 0, "features": 1, "pca": 1, "samples": 1}
    assert traces(nights, *needles) == []
    for table in ("images", "features", "pca", "samples"):
        assert len(nights.rows(table)) == 11
        assert nights.commits(table) == 1
    again = erase(nights, [row["image_id"]], [])
    assert set(again["rows"].values()) == {0}

    (nights.photos / row["source_key"]).unlink()
    after = nights.night("--k", "3")
    assert after["reduce_pca"]["pca"]["n"] == 11
    assert after["publish"]["published"] is True


def test_a_photo_is_erased_under_every_key_by_its_content(nights):
    orchard(nights.photos, labels=2, each=3)
    first = sorted(nights.photos.rglob("*.*"))[0]
    (nights.photos / "copy.jpg").write_bytes(first.read_bytes())
    nights.night("--k", "2")
    twice = next(row for row in nights.rows("images") if row["source_key"] == "copy.jpg")["content_sha256"]
    receipt = erase(nights, [], [twice])
    assert receipt["rows"]["images"] == receipt["rows"]["features"] == 2
    assert "copy.jpg" not in nights.keys("images")


@pytest.mark.parametrize(
    "request_text", ["", "[]", '{"image_ids": []}', '{"image_ids": ["x\' OR 1=1"], "content_sha256": []}']
)
def test_a_request_that_is_none_is_refused(tmp_path, request_text):
    path = tmp_path / "request.json"
    path.write_text(request_text)
    with pytest.raises(InputError):
        erase_images._request(str(path))


def test_a_missing_request_is_refused(tmp_path):
    with pytest.raises(InputError, match="write the request first"):
        erase_images._request(str(tmp_path / "none.json"))
