"""Erased photos stay away: by their key, and by their content under any key."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fruits.base.errors import InputError
from fruits.base.keys import image_id
from fruits.images import suppression

from tests.spark_jobs.pictures import encoded, fruit


def part(folder: Path, name: str, keys: list[str], contents: list[str]) -> None:
    folder.mkdir(exist_ok=True)
    columns = {
        "key_sha256": pa.array([*keys, *[None] * len(contents)], pa.string()),
        "content_sha256": pa.array([*[None] * len(keys), *contents], pa.string()),
    }
    pq.write_table(pa.table(columns), folder / name)


def test_no_list_and_an_empty_folder_hide_nothing(tmp_path):
    assert suppression.read(None) == suppression.read(str(tmp_path)) == suppression.read(str(tmp_path / "x"))
    assert not suppression.read(None).image_ids


def test_all_parts_count(tmp_path):
    part(tmp_path, "a.parquet", ["k1"], ["c1"])
    part(tmp_path, "b.parquet", ["k2"], [])
    assert suppression.read(str(tmp_path)) == suppression.SuppressionList(frozenset({"k1", "k2"}), frozenset({"c1"}))


def test_a_part_that_cannot_be_read_stops_the_load(tmp_path):
    (tmp_path / "a.parquet").write_bytes(b"not parquet")
    with pytest.raises(InputError, match=r"a\.parquet is no part of a suppression list"):
        suppression.read(str(tmp_path))


@pytest.mark.spark
def test_erased_photos_are_not_loaded_again_by_key_nor_by_content_under_another_key(nights, tmp_path):
    erased, stays, broken = encoded(fruit(1)), encoded(fruit(2)), b"<html>"
    for name, content in {"a.jpg": erased, "b.jpg": stays, "c.jpg": broken, "d.jpg": encoded(fruit(3))}.items():
        (nights.photos / name).write_bytes(content)
    nights.load()
    (nights.photos / "copy.jpg").write_bytes(erased)
    (nights.photos / "d.jpg").write_bytes(erased)  # a photo whose object now holds what was erased
    contents = [hashlib.sha256(content).hexdigest() for content in (erased, broken)]
    part(tmp_path / "list", "1.parquet", [image_id("a.jpg")], contents)
    for _ in range(2):
        metrics = nights.load("--suppression", str(tmp_path / "list"))
        assert nights.keys("images") == ["b.jpg"]
        assert metrics["images"]["suppressed"] == 3
        assert metrics["images"]["loaded"] == 0
    metrics = nights.load("--suppression", str(tmp_path / "list"), "--complete")
    assert metrics["images"]["removed"] == 0, "what has no row cannot leave"
    of_others = sum(path.stat().st_size for path in nights.photos.iterdir() if path.name != "a.jpg")
    assert metrics["bytes"]["input"] == of_others
    metrics = nights.load("--suppression", str(tmp_path / "list"), "--full-refresh")
    assert nights.keys("images") == ["b.jpg"]
    assert nights.keys("rejects") == []
    assert metrics["images"]["suppressed"] == 4
