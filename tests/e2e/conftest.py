"""One demo for all tests of this folder, as a user starts it: `make demo`, with KEEP so that its tables can be read.

With CLUSTER=yarn in the environment of the tests, as `make test-yarn` calls them, it runs on YARN.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests import hostile_caller
from tests.aws_keys import read_keys

REPOSITORY = Path(__file__).resolve().parents[2]
SHARED = Path(os.environ.get("FRUITS_SHARED", REPOSITORY.parent / "shared"))
PHOTOS = SHARED / "images" / "fruits360_sample" / "Test"
WEIGHTS = SHARED / "weights" / "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_224_no_top.h5"
CLUSTER = os.environ.get("CLUSTER", "local")
GOOD_PHOTOS = 60 if CLUSTER == "yarn" else 200
AWKWARD = 'my photos, [1] #2 50% $x "q" été'
MARKER = "DEMO_FOLDER"  # dev.demo.processes.MARKER; the demo itself is not importable in this environment
START_SECONDS = 1500


@pytest.fixture(scope="session")
def photos(tmp_path_factory) -> Path:
    """GOOD_PHOTOS photos (real ones where they are at hand, else drawn), an HTML page named .jpg, a truncated JPEG.

    Every fiftieth has no label, as photos from a phone.
    """
    folder = tmp_path_factory.mktemp("photos") / AWKWARD
    folder.mkdir()
    source = PHOTOS
    if not source.is_dir():
        source = tmp_path_factory.mktemp("drawn")
        subprocess.run([".venv-airflow/bin/python", "-m", "dev.demo.drawing", source], check=True, cwd=REPOSITORY)
    everything = sorted(source.rglob("*.jpg"))
    for number, path in enumerate(everything[:: len(everything) // GOOD_PHOTOS][:GOOD_PHOTOS]):
        target = folder / (path.relative_to(source) if number % 50 else f"phone {number}.jpg")
        target.parent.mkdir(exist_ok=True)
        shutil.copyfile(path, target)
    label = next(path for path in folder.iterdir() if path.is_dir())
    (label / "page.jpg").write_text("<!doctype html><title>not a photo</title>")
    (label / "cut.jpg").write_bytes(everything[0].read_bytes()[:1500])
    return folder


@pytest.fixture(scope="session")
def demo(photos, tmp_path_factory):
    """A demo that has run and is kept up: its folder, endpoint and keys, what it said, and the calls that it made.

    Its caller's environment and home folder are hostile.
    """
    out = tmp_path_factory.mktemp("demo") / "out.txt"
    environ = {**hostile_caller.environment(tmp_path_factory.mktemp("home")), "IMAGES": str(photos), "KEEP": "1"}
    environ["CLUSTER"] = CLUSTER
    if WEIGHTS.is_file():
        environ["WEIGHTS"] = str(WEIGHTS)
    with out.open("wb") as log:
        process = subprocess.Popen(
            ["make", "-s", "demo"], cwd=REPOSITORY, env=environ, stdout=log, stderr=log, start_new_session=True
        )
    try:
        deadline = time.monotonic() + START_SECONDS
        while not (kept := re.search(r"AWS on (http://\S+);", out.read_text())):
            assert process.poll() is None, f"make demo ended with {process.returncode}:\n{out.read_text()}"
            assert time.monotonic() < deadline, f"make demo is still at work:\n{out.read_text()}"
            time.sleep(1)
        assert left_behind(), "a running demo must be found by its marker, else the check at the end says nothing"
        folder = REPOSITORY / "build" / "demo"
        # Read now: what the tests ask of the endpoint is nobody's call.
        log_lines = (folder / "aws" / "access.jsonl").read_text().splitlines()
        calls = [json.loads(line) for line in log_lines]
        keys = read_keys(folder / "aws" / "credentials")
        yield {"folder": folder, "endpoint": kept[1], "keys": keys, "out": out.read_text(), "calls": calls}
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGINT)
        process.wait(60)
    assert left_behind() == [], "the demo left processes behind"


def left_behind() -> list[str]:
    """Command lines of processes that carry the demo's marker, which every process it starts inherits."""
    marked = []
    for environ in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):  # it has just ended, or is another user's
            if f"{MARKER}={REPOSITORY / 'build' / 'demo'}".encode() in environ.read_bytes().split(b"\0"):
                marked.append((environ.parent / "cmdline").read_text())
    return marked
