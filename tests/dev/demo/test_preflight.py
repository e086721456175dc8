from __future__ import annotations

import os
import re
import shutil
import socket
from collections import namedtuple
from pathlib import Path

import pytest
from fruits_airflow.config.errors import ResidencyError

from dev.demo import preflight
from dev.demo.preflight import (
    IMAGE_SUFFIXES,
    CannotStart,
    check_space,
    free_port,
    image_files,
    lock_folder,
    read_options,
)

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    (tmp_path / "photos" / "Apple").mkdir(parents=True)
    (tmp_path / "photos" / "Apple" / "1.JPG").write_bytes(b"any")
    return tmp_path / "photos"


def test_nothing_asked_for_is_fine():
    options = read_options({})
    assert (options.images, options.weights, options.region, options.conf) == (None, None, "eu-west-1", {})


def test_a_folder_with_a_photo_is_taken(photos):
    assert read_options({"IMAGES": str(photos)}).images == photos


@pytest.mark.parametrize(
    ("environ", "words"),
    [
        ({"IMAGES": "/no/such/folder"}, "is not a folder"),
        ({"IMAGES": "~nobody-of-this-name/photos"}, "is not a folder"),
        ({"WEIGHTS": "~nobody-of-this-name/w.h5"}, "is not a file"),
        ({"WEIGHTS": "/no/such/weights.h5"}, "is not a file"),
        ({"VARIANCE": "most"}, "VARIANCE=most cannot be read"),
        ({"K": "12.5"}, "K=12.5 cannot be read"),
        ({"LIMIT": "all"}, "LIMIT=all cannot be read"),
        ({"VARIANCE": "0"}, "VARIANCE=0.0 is no share"),
        ({"VARIANCE": "95"}, "VARIANCE=95.0 is no share"),
        ({"VARIANCE": "nan"}, "VARIANCE=nan is no share"),
        ({"K": "0"}, "K=0 cannot be used: give 1 to 1280"),
        ({"K": "1281"}, "K=1281 cannot be used: give 1 to 1280"),
        ({"LIMIT": "0"}, "LIMIT=0 cannot be used: give 1 to 1000000000"),
        ({"LIMIT": "1" + 30 * "0"}, "give 1 to 1000000000"),
        ({"ENGINE": "torch"}, "choose litert or tensorflow"),
        ({"AWS_PORT": "70000"}, "is not a port"),
    ],
)
def test_a_wish_that_cannot_be_fulfilled_is_named_with_its_value(environ, words):
    with pytest.raises(CannotStart, match=words):
        read_options(environ)


def test_a_name_that_no_file_can_have_is_one_clear_line(monkeypatch, capsys):
    monkeypatch.setenv("IMAGES", 5000 * "x")
    assert preflight.main() == 2
    assert re.fullmatch(r"ERROR: .*File name too long.*\n", capsys.readouterr().err)


def test_wishes_become_the_runs_parameters_and_empty_ones_do_not():
    wished = {"VARIANCE": "1", "K": "1280", "LIMIT": "1", "ENGINE": "tensorflow"}
    assert read_options(wished).conf == {"variance": 1.0, "k": 1280, "limit": 1, "engine": "tensorflow"}
    assert read_options(dict.fromkeys((*wished, "IMAGES", "WEIGHTS", "REGION", "KEEP"), "")) == read_options({})


def test_a_folder_without_images_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("no fruit here")
    with pytest.raises(CannotStart, match="holds no image"):
        read_options({"IMAGES": str(tmp_path)})


@pytest.mark.parametrize("region", ["eu-west-2", "eu-central-2", "us-east-1"])
def test_a_region_outside_the_eu_is_refused(region):
    with pytest.raises(ResidencyError, match=region):
        read_options({"REGION": region})


def test_leftovers_and_linked_folders_are_named_and_not_uploaded_and_all_else_is(photos):
    for name in (".DS_Store", ".git/x.jpg", "Apple/._1.JPG", "Apple/Thumbs.db", "__MACOSX/1.jpg"):
        (photos / name).parent.mkdir(exist_ok=True)
        (photos / name).write_bytes(b"")
    (photos / "Apple" / "page.jpg").write_text("<html>")
    (photos / "Apple" / ".hidden.jpg").write_bytes(b"any")
    (photos / "Apple" / "._gone.jpg").symlink_to("nowhere")
    (photos / "Kiwi").symlink_to(photos / "Apple")
    os.mkfifo(photos / "pipe.jpg")
    lines: list[str] = []
    assert [path.name for path in image_files(photos, lines.append)] == [".hidden.jpg", "1.JPG", "page.jpg"]
    assert lines == [
        "6 leftovers of file managers are not uploaded, for example .DS_Store",
        "2 links to folders, pipes or devices are not uploaded, for example Kiwi",
    ]


def test_a_linked_photo_that_cannot_be_read_is_an_error_that_names_it(photos):
    (photos / "Apple" / "2.jpg").symlink_to(photos / "unmounted" / "2.jpg")
    with pytest.raises(CannotStart, match=r"2\.jpg cannot be read"):
        image_files(photos)


def test_a_folder_that_cannot_be_read_is_an_error_that_names_it(photos, monkeypatch):
    real = os.scandir

    def denied(path):
        if str(path).endswith("Apple"):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", denied)
    with pytest.raises(CannotStart, match=r"Apple cannot be read .Permission denied"):
        image_files(photos)


def test_a_folder_that_the_demo_writes_into_is_refused():
    with pytest.raises(CannotStart, match="where the demo writes"):
        read_options({"IMAGES": str(ROOT)})


def test_the_formats_of_photos_are_those_that_loading_takes():
    source = (ROOT / "spark_jobs" / "fruits" / "images" / "decoding.py").read_text()
    (allowed,) = re.findall(r"^_ALLOWED = \((.*)\)$", source, re.MULTILINE)
    formats = {name.strip(' "').lower() for name in allowed.split(",")}
    assert {suffix.lstrip(".").replace("jpg", "jpeg") for suffix in IMAGE_SUFFIXES} == formats


def test_a_full_disk_is_said_before_anything_starts(tmp_path, monkeypatch):
    usage = namedtuple("usage", "free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage(free=1024**3))
    with pytest.raises(CannotStart, match=r"has 1\.0 GiB of free space"):
        check_space(tmp_path)


def test_a_second_demo_is_told_who_is_in_its_way(tmp_path):
    with (
        lock_folder(tmp_path),
        pytest.raises(CannotStart, match=rf"another demo is running.*process {os.getpid()}\b"),
        lock_folder(tmp_path),
    ):
        pass


def test_a_demo_that_has_ended_is_in_nobodys_way(tmp_path):
    with lock_folder(tmp_path):
        pass
    with lock_folder(tmp_path):
        pass


def test_a_port_in_use_is_refused_by_name():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(CannotStart, match=f"port {port} is in use.*AWS_PORT"):
            free_port(port, "AWS_PORT")
