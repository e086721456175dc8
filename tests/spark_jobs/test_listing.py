from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fruits import listing
from fruits.errors import InputError, ListingError


def test_a_folder_is_listed_whole_and_sorted_with_relative_keys(tmp_path):
    photos = tmp_path / "photos"
    for name in ("b/2.jpg", "a/%2F é+=.jpg", ".hidden.jpg", "_x.jpg", "b/sub/deep.jpg"):
        (photos / name).parent.mkdir(parents=True, exist_ok=True)
        (photos / name).write_bytes(b"x" * len(name))
    target = tmp_path / "out" / "listing.parquet"
    count, size = listing.write_of_folder(photos, str(target))
    table = pq.read_table(target)
    keys = table.column("key").to_pylist()
    assert keys == sorted(keys, key=str.encode)
    assert keys == [".hidden.jpg", "_x.jpg", "a/%2F é+=.jpg", "b/2.jpg", "b/sub/deep.jpg"]
    assert table.column("size_bytes").to_pylist() == [len(key) for key in keys]
    assert (count, size) == (5, sum(map(len, keys)))


def test_a_change_changes_the_etag_and_nothing_else_does(tmp_path):
    photo = tmp_path / "photos" / "x.jpg"
    photo.parent.mkdir()
    photo.write_bytes(b"one")
    etags = []
    for content in (None, b"one two"):
        if content:
            photo.write_bytes(content)
        for _ in range(2):
            listing.write_of_folder(photo.parent, str(tmp_path / "l.parquet"))
            etags.append(pq.read_table(tmp_path / "l.parquet").column("etag")[0].as_py())
    assert etags[0] == etags[1] != etags[2] == etags[3]


@pytest.mark.parametrize("kind", ["missing", "file", "empty"])
def test_a_folder_that_holds_nothing_is_a_named_error(tmp_path, kind):
    folder = tmp_path / "photos"
    if kind == "file":
        folder.write_bytes(b"x")
    elif kind == "empty":
        (folder / "sub").mkdir(parents=True)
    with pytest.raises(InputError, match="photos"):
        listing.write_of_folder(folder, str(tmp_path / "l.parquet"))
    assert not (tmp_path / "l.parquet").exists()


def test_a_link_to_nothing_is_not_listed(tmp_path):
    photos = tmp_path / "photos"
    photos.mkdir()
    (photos / "here.jpg").write_bytes(b"x")
    (photos / "gone.jpg").symlink_to(tmp_path / "nowhere.jpg")
    assert listing.write_of_folder(photos, str(tmp_path / "l.parquet")) == (1, 1)


@pytest.mark.parametrize(
    "listed", [b"not Parquet", {"key": ["a.jpg"], "etag": ["1"]}], ids=["no table", "a column less"]
)
def test_a_listing_that_is_none_is_a_named_error(tmp_path, listed):
    path = tmp_path / "listing.parquet"
    if isinstance(listed, bytes):
        path.write_bytes(listed)
    else:
        pq.write_table(pa.table(listed), path)
    # It is refused before Spark is asked for anything.
    with pytest.raises(ListingError, match=r"not a Parquet file|size_bytes"):
        listing.read(None, str(path))


def test_a_file_name_that_is_no_text_is_a_named_error(tmp_path):
    (tmp_path / "photos").mkdir()
    with open(bytes(tmp_path / "photos") + b"/\xff.jpg", "wb"):  # noqa: PTH123 - a Path cannot name it
        pass
    with pytest.raises(InputError, match="UTF-8"):
        listing.write_of_folder(tmp_path / "photos", str(tmp_path / "l.parquet"))
