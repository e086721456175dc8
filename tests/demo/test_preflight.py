from __future__ import annotations

import os
import shutil
import socket
from collections import namedtuple
from pathlib import Path

import pytest
from fruits_airflow.errors import ResidencyError

from demo.preflight import CannotStart, check_space, free_port, image_files, only_demo, read_wishes


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    (tmp_path / "photos" / "Apple").mkdir(parents=True)
    (tmp_path / "photos" / "Apple" / "1.JPG").write_bytes(b"any")
    return tmp_path / "photos"


def test_nothing_asked_for_is_fine():
    wishes = read_wishes({})
    assert (wishes.images, wishes.weights, wishes.region, wishes.conf) == (None, None, "eu-west-1", {})


def test_a_folder_with_a_photo_is_taken(photos):
    assert read_wishes({"IMAGES": str(photos)}).images == photos


@pytest.mark.parametrize(
    ("environ", "words"),
    [
        ({"IMAGES": "/no/such/folder"}, "is not a folder"),
        ({"WEIGHTS": "/no/such/weights.h5"}, "is not a file"),
        ({"VARIANCE": "most"}, "VARIANCE=most cannot be read"),
        ({"K": "12.5"}, "K=12.5 cannot be read"),
        ({"LIMIT": "all"}, "LIMIT=all cannot be read"),
        ({"VARIANCE": "0"}, "VARIANCE=0.0 is no share"),
        ({"VARIANCE": "95"}, "VARIANCE=95.0 is no share"),
        ({"VARIANCE": "nan"}, "VARIANCE=nan is no share"),
        ({"K": "0"}, "K=0 cannot be used: give 1 to 1280"),
        ({"K": "1281"}, "K=1281 cannot be used: give 1 to 1280"),
        ({"LIMIT": "0"}, "LIMIT=0 cannot be used: give 1 or more"),
        ({"ENGINE": "torch"}, "choose litert or tensorflow"),
        ({"AWS_PORT": "70000"}, "is not a port"),
    ],
)
def test_a_wish_that_cannot_be_fulfilled_is_named_with_its_value(environ, words):
    with pytest.raises(CannotStart, match=words):
        read_wishes(environ)


def test_wishes_become_the_runs_parameters_and_empty_ones_do_not():
    wished = {"VARIANCE": "1", "K": "1280", "LIMIT": "1", "ENGINE": "tensorflow"}
    assert read_wishes(wished).conf == {"variance": 1.0, "k": 1280, "limit": 1, "engine": "tensorflow"}
    assert read_wishes(dict.fromkeys((*wished, "IMAGES", "WEIGHTS", "REGION", "KEEP"), "")) == read_wishes({})


def test_a_folder_without_images_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("no fruit here")
    with pytest.raises(CannotStart, match="holds no image"):
        read_wishes({"IMAGES": str(tmp_path)})


@pytest.mark.parametrize("region", ["eu-west-2", "eu-central-2", "us-east-1"])
def test_a_region_outside_the_eu_is_refused(region):
    with pytest.raises(ResidencyError, match=region):
        read_wishes({"REGION": region})


def test_hidden_files_are_left_alone_and_others_uploaded(photos):
    (photos / ".DS_Store").write_bytes(b"")
    (photos / ".git").mkdir()
    (photos / ".git" / "x.jpg").write_bytes(b"")
    (photos / "Apple" / "page.jpg").write_text("<html>")
    assert [path.name for path in image_files(photos)] == ["1.JPG", "page.jpg"]


def test_a_full_disk_is_said_before_anything_starts(tmp_path, monkeypatch):
    usage = namedtuple("usage", "free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage(free=1024**3))
    with pytest.raises(CannotStart, match=r"has 1\.0 GiB of free space"):
        check_space(tmp_path)


def test_a_second_demo_is_told_who_is_in_its_way(tmp_path):
    with (
        only_demo(tmp_path),
        pytest.raises(CannotStart, match=rf"another demo is running.*process {os.getpid()}\b"),
        only_demo(tmp_path),
    ):
        pass


def test_a_demo_that_has_ended_is_in_nobodys_way(tmp_path):
    with only_demo(tmp_path):
        pass
    with only_demo(tmp_path):
        pass


def test_a_port_in_use_is_refused_by_name():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(CannotStart, match=f"port {port} is in use.*AWS_PORT"):
            free_port(port, "AWS_PORT")
