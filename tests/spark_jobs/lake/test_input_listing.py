from __future__ import annotations

import contextlib
import os
import re
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fruits.base import keys
from fruits.base.errors import InputError, ListingError
from fruits.lake import input_listing

from tests.spark_jobs.conftest import ROOT

LEFTOVERS = (
    "Kiwi/._1.jpg",
    "__MACOSX/Kiwi/1.jpg",
    ".DS_Store",
    "Apple/.gitkeep",
    "Kiwi/.ds_store",
    "Kiwi/Thumbs.db",
    "Kiwi/desktop.ini",
    ".thumbnails/1.jpg",
    "Kiwi/@eaDir/1.jpg/SYNOPHOTO_THUMB_M.jpg",
    "Kiwi/.trashed-1700000000-1.jpg",
    "Kiwi/.nomedia",
    ".localized",
    ".directory",
    "Kiwi/ehthumbs.db",
    "Icon\r",
    "#recycle/Kiwi/1.jpg",
    "@Recycle/Kiwi/1.jpg",
    "System Volume Information/IndexerVolumeGuid",
    "lost+found/1.jpg",
)
PHOTOS = (
    "Icon",
    "Kiwi/.nomedia.jpg",
    "Kiwi/lost+found.jpg",
    "Kiwi/.hidden.jpg",
    "Kiwi/1.jpg",
    "Kiwi/Thumbs.db.jpg",
    "Kiwi/my._1.jpg",
    "_x/page.html",
)


def test_a_folder_is_listed_whole_and_sorted_with_relative_keys(tmp_path):
    photos = tmp_path / "photos"
    for name in ("b/2.jpg", "a/%2F é+=.jpg", ".hidden.jpg", "_x.jpg", "b/sub/deep.jpg"):
        (photos / name).parent.mkdir(parents=True, exist_ok=True)
        (photos / name).write_bytes(b"x" * len(name))
    target = tmp_path / "out" / "listing.parquet"
    count, size = input_listing.write_folder_listing(photos, str(target))
    table = pq.read_table(target)
    names = table.column("key").to_pylist()
    assert names == sorted(names, key=str.encode)
    assert names == [".hidden.jpg", "_x.jpg", "a/%2F é+=.jpg", "b/2.jpg", "b/sub/deep.jpg"]
    assert table.column("size_bytes").to_pylist() == [len(key) for key in names]
    assert (count, size) == (5, sum(map(len, names)))


def test_a_change_changes_the_etag_and_nothing_else_does(tmp_path):
    photo = tmp_path / "photos" / "x.jpg"
    photo.parent.mkdir()
    photo.write_bytes(b"one")
    etags = []
    for content in (None, b"one two"):
        if content:
            photo.write_bytes(content)
        for _ in range(2):
            input_listing.write_folder_listing(photo.parent, str(tmp_path / "l.parquet"))
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
        input_listing.write_folder_listing(folder, str(tmp_path / "l.parquet"))
    assert not (tmp_path / "l.parquet").exists()


@contextlib.contextmanager
def as_nobody() -> Iterator[Path]:
    """A folder of a user without rights, and that user while the block runs: root reads what nobody may."""
    root = os.geteuid() == 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o777)
        if root:
            os.seteuid(65534)
        try:
            yield folder
        finally:
            for path in folder.rglob("*"):
                if path.is_dir():
                    path.chmod(0o755)
            if root:
                os.seteuid(0)


@pytest.mark.parametrize("mode", [0o000, 0o444, 0o111])
def test_a_folder_that_may_not_be_read_is_an_error_that_names_it(mode):
    with as_nobody() as photos:
        for name in ("Apple", "Kiwi"):
            (photos / name).mkdir()
            (photos / name / "1.jpg").write_bytes(b"x")
        (photos / "Kiwi").chmod(mode)
        target = photos / "l.parquet"
        with pytest.raises(InputError, match=r"/Kiwi\b.* cannot be read .Permission denied"):
            input_listing.write_folder_listing(photos, str(target))
        assert not target.exists()


def test_a_folder_that_goes_away_while_it_is_listed_is_an_error(tmp_path, monkeypatch):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "1.jpg").write_bytes(b"x")
    real = os.scandir

    def unmounting(path):
        if str(path).endswith("b"):
            raise FileNotFoundError(2, "No such file or directory", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", unmounting)
    with pytest.raises(InputError, match="/b cannot be read"):
        input_listing.walk(tmp_path)


def test_a_link_to_nothing_is_an_error_because_its_photo_cannot_be_seen(tmp_path):
    (tmp_path / "here.jpg").write_bytes(b"x")
    (tmp_path / "gone.jpg").symlink_to(tmp_path / "nowhere.jpg")
    with pytest.raises(InputError, match=r"gone\.jpg cannot be read"):
        input_listing.write_folder_listing(tmp_path, str(tmp_path / "l.parquet"))


def test_a_linked_photo_is_listed_and_a_linked_folder_is_counted_and_named(tmp_path):
    photos, disk = tmp_path / "photos", tmp_path / "disk"
    for folder in (photos, disk):
        folder.mkdir()
        (folder / "1.jpg").write_bytes(b"x")
    (photos / "2.jpg").symlink_to(disk / "1.jpg")
    (photos / "Kiwi").symlink_to(disk)
    (photos / "loop").symlink_to(photos)
    lines: list[str] = []
    assert input_listing.write_folder_listing(photos, str(tmp_path / "l.parquet"), lines.append) == (2, 2)
    assert lines == ["2 links to folders, pipes or devices are not followed, for example 'Kiwi'"]


def test_pipes_are_counted_and_named_and_not_opened(tmp_path):
    photos = tmp_path / "photos"
    photos.mkdir()
    (photos / "1.jpg").write_bytes(b"x")
    os.mkfifo(photos / "2.jpg")
    lines: list[str] = []
    assert input_listing.write_folder_listing(photos, str(tmp_path / "l.parquet"), lines.append) == (1, 1)
    assert lines == ["1 links to folders, pipes or devices are not followed, for example '2.jpg'"]


def test_what_file_managers_leave_behind_need_not_be_readable():
    with as_nobody() as photos:
        for name in ("Apple", ".Trashes"):
            (photos / name).mkdir()
            (photos / name / "1.jpg").write_bytes(b"x")
        (photos / "Apple" / "._2.jpg").symlink_to("nowhere")
        (photos / ".Trashes").chmod(0)
        content = input_listing.walk(photos)
        assert content.photos == [photos / "Apple" / "1.jpg"]
        assert content.leftovers == [photos / ".Trashes", photos / "Apple" / "._2.jpg"]


@pytest.mark.parametrize(("name", "depth"), [("a", 1100), ("d" * 100, 60)], ids=["many folders", "a long path"])
def test_folders_too_deep_to_walk_are_an_error_that_names_the_folder(tmp_path, name, depth):
    folder = os.open(tmp_path, os.O_RDONLY)
    for _ in range(depth):
        os.mkdir(name, dir_fd=folder)
        parent, folder = folder, os.open(name, os.O_RDONLY, dir_fd=folder)
        os.close(parent)
    os.close(folder)
    try:
        with pytest.raises(InputError, match=rf"^{tmp_path}.* cannot be read .*; nothing was loaded"):
            input_listing.walk(tmp_path)
    finally:
        subprocess.run(["rm", "-rf", tmp_path / name], check=True)


def test_leftovers_of_file_managers_are_counted_and_named_and_not_listed(tmp_path):
    photos = tmp_path / "photos"
    for name in (*LEFTOVERS, *PHOTOS):
        (photos / name).parent.mkdir(parents=True, exist_ok=True)
        (photos / name).write_bytes(b"x")
    lines: list[str] = []
    input_listing.write_folder_listing(photos, str(tmp_path / "l.parquet"), lines.append)
    assert pq.read_table(tmp_path / "l.parquet").column("key").to_pylist() == sorted(PHOTOS)
    (line,) = lines
    assert line.startswith(f"{len(LEFTOVERS)} leftovers of file managers are not loaded, for example ")


def test_both_definitions_of_leftovers_are_the_same():
    control_plane = (ROOT / "plugins" / "fruits_airflow" / "storage" / "listing.py").read_text()
    (pattern,) = re.findall(r"_LEFTOVER = re\.compile\(\n(.*?)    re\.IGNORECASE", control_plane, re.DOTALL)
    (same,) = re.findall(
        r"_LEFTOVER = re\.compile\(\n(.*?)    re\.IGNORECASE", Path(keys.__file__).read_text(), re.DOTALL
    )
    assert pattern == same
    every = (*LEFTOVERS, *PHOTOS, "up/../x.jpg", "dots/./x.jpg")
    assert [key for key in every if keys.is_leftover(key)] == list(LEFTOVERS)


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
        input_listing.read(None, str(path))


def test_a_file_name_that_is_no_text_is_a_named_error(tmp_path):
    (tmp_path / "photos").mkdir()
    with open(bytes(tmp_path / "photos") + b"/\xff.jpg", "wb"):  # noqa: PTH123 - a Path cannot name it
        pass
    with pytest.raises(InputError, match="UTF-8"):
        input_listing.write_folder_listing(tmp_path / "photos", str(tmp_path / "l.parquet"))
