"""Listing once, choosing, writing, comparing; a million keys pass through without being held."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest
from fruits_airflow.config.errors import ConfigError
from fruits_airflow.config.settings import Settings
from fruits_airflow.storage.bucket_listing import list_objects
from fruits_airflow.storage.listing import (
    ROW_GROUP,
    Changes,
    ListedObject,
    PhotoFilter,
    choose,
    compare,
    read_listing,
    write_listing,
)

from tests.plugins import laptop


def objects(*keys: str, etag: str = "e") -> list[ListedObject]:
    return [ListedObject(key, etag, 1) for key in keys]


def test_the_bucket_is_listed_in_the_order_of_its_keys_without_folder_markers(account: Settings) -> None:
    laptop.put_photos(account.raw_bucket, ["in/b/é.jpg", "in/a/1.jpg", "in/a/2.jpg", "other/x.jpg"])
    objects = list(list_objects(laptop.client("s3"), account.raw_bucket, "in/"))
    assert [item.key for item in objects] == ["in/a/1.jpg", "in/a/2.jpg", "in/b/é.jpg"]
    assert objects[0].size_bytes == len("in/a/1.jpg")
    assert '"' not in objects[0].etag


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "listing.parquet"
    items = objects("a", "b", "ü")
    summary = write_listing(iter(items), path)
    assert list(read_listing(path)) == items
    assert (summary.images, summary.size_bytes) == (3, 3)
    assert pq.read_schema(path).names == ["key", "etag", "size_bytes", "uploaded_s"]


def test_a_listing_of_an_earlier_release_has_no_times_and_is_read(tmp_path: Path) -> None:
    path = tmp_path / "listing.parquet"
    write_listing(objects("a", "b"), path)
    pq.write_table(pq.read_table(path).drop_columns(["uploaded_s"]), path)
    assert list(read_listing(path)) == objects("a", "b")


def test_leftovers_are_counted_by_kind_and_never_by_a_photos_name() -> None:
    keys = ("in/Kiwi/._secret.jpg", "in/Kiwi/._2.jpg", "in/.DS_Store", "in/.git/x.jpg", "in/.trashed-1-secret.jpg")
    filtered = PhotoFilter("in/")
    photos = list(filtered.photos(objects(*keys, "in/Kiwi/1.jpg", "in/.hidden.jpg")))
    assert [item.key for item in photos] == ["in/Kiwi/1.jpg", "in/.hidden.jpg"]
    assert filtered.leftovers == {"._*": 2, ".DS_Store": 1, ".git/": 1, ".trashed-*": 1}


def test_a_prefix_that_looks_like_a_leftover_hides_no_photo() -> None:
    assert len(list(PhotoFilter("__MACOSX/").photos(objects("__MACOSX/1.jpg")))) == 1


def test_an_empty_listing_is_a_file_too(tmp_path: Path) -> None:
    path = tmp_path / "listing.parquet"
    assert write_listing([], path).images == 0
    assert list(read_listing(path)) == []


def test_row_groups_hold_no_more_than_their_limit(tmp_path: Path) -> None:
    path = tmp_path / "listing.parquet"
    write_listing((ListedObject(f"{n:07}", "e", 1) for n in range(ROW_GROUP + 1)), path)
    file = pq.ParquetFile(path)
    assert [file.metadata.row_group(g).num_rows for g in range(file.num_row_groups)] == [ROW_GROUP, 1]


@pytest.mark.parametrize(
    "other", [objects("a"), objects("a", "c"), objects("a", "b", etag="f"), [ListedObject("a", "e", 2), *objects("b")]]
)
def test_the_digest_tells_listings_apart(tmp_path: Path, other: list[ListedObject]) -> None:
    path = tmp_path / "listing.parquet"
    assert write_listing(objects("a", "b"), path).digest != write_listing(other, path).digest


def test_keys_out_of_order_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"object 2 \(image id ca978112ca1b.*\) is out of order"):
        write_listing(objects("b", "a"), tmp_path / "listing.parquet")


def test_a_limit_takes_from_every_folder_and_always_the_same() -> None:
    items = objects(*(f"{label}/{n:03}.jpg" for label in "abcd" for n in range(100)))
    chosen = choose(items, 40)
    assert len(chosen) == 40
    assert {item.key[0] for item in chosen} == set("abcd")
    assert chosen == choose(list(reversed(items)), 40)
    assert chosen == sorted(chosen)


def test_a_comparison_has_the_first_upload_among_the_new() -> None:
    before = [ListedObject("a", "1", 1, 100), ListedObject("b", "1", 1, 200), ListedObject("c", "1", 1, 300)]
    now = [ListedObject("a", "1", 1, 50), ListedObject("b", "2", 1, 500), ListedObject("d", "1", 1, 400)]
    assert compare(before, now) == Changes(2, 1, 1, oldest_new_s=400)
    assert compare(before, [ListedObject("b", "1", 1, 9)]).oldest_new_s == 0
    assert compare([], [ListedObject("a", "1", 1, 0), ListedObject("b", "1", 1, 7)]).oldest_new_s == 0


@pytest.mark.parametrize(
    ("before", "now", "changes"),
    [
        ([], ["a"], Changes(1, 0, 0)),
        (["a"], ["a"], Changes(0, 1, 0)),
        (["a"], [], Changes(0, 0, 1)),
        (["a", "c"], ["b"], Changes(1, 0, 2)),
        (["a", "b", "d"], ["b", "c", "d", "e"], Changes(2, 2, 1)),
        (["b"], ["a", "b"], Changes(1, 1, 0)),
        (["a", "b", "c"], ["a"], Changes(0, 1, 2)),
    ],
)
def test_a_comparison_counts_what_came_stayed_and_went(before: list[str], now: list[str], changes: Changes) -> None:
    assert compare(objects(*before), objects(*now)) == changes


def test_a_changed_object_is_new() -> None:
    assert compare(objects("a"), objects("a", etag="f")) == Changes(1, 0, 0)
