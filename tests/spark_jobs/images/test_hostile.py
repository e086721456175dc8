"""Whatever lies in the bucket: each class of it gets its image or its code, in bounded time and memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import load_images
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fruits.base import objects
from fruits.base.keys import image_id
from fruits.images.decoding import clean
from fruits.images.rejects import RETRIED_CODES, ImageRejected, RejectCode
from fruits.job import job_run

from tests.spark_jobs import hostile
from tests.spark_jobs.conftest import PHOTOS, ROOT
from tests.spark_jobs.hostile import CLASSES, LOADED
from tests.spark_jobs.pictures import encoded, fruit
from tests.spark_jobs.scripted_s3 import scripted_s3

SECONDS = 2
PEAK_MB = 512


class Prober:
    """A process that cleans one file after the other, each in a child, and measures."""

    def __init__(self) -> None:
        paths = os.pathsep.join([str(ROOT), str(ROOT / "spark_jobs")])
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.spark_jobs.probe"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": paths},
        )

    def ask(self, path: Path) -> dict[str, Any]:
        """What became of a file, and what it took."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{path}\n")
        self._process.stdin.flush()
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        return answer

    def close(self) -> None:
        """End it."""
        self._process.communicate(timeout=60)


@pytest.fixture(scope="module")
def prober() -> Iterator[Prober]:
    process = Prober()
    yield process
    process.close()


@pytest.fixture(scope="module")
def make(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Write the bytes of a class to a file, once: some have tens of megabytes."""
    folder = tmp_path_factory.mktemp("hostile")

    def make(name: str) -> Path:
        path: Path = folder / f"{list(CLASSES).index(name):03}"
        if not path.exists():
            path.write_bytes(CLASSES[name].data())
        return path

    return make


def test_there_are_many_classes_and_each_code_about_bytes_is_among_them():
    assert len(CLASSES) > 100
    about_the_object = {*RETRIED_CODES, RejectCode.KEY_NOT_FETCHABLE}
    assert set().union(*(kind.expected for kind in CLASSES.values())) == {LOADED, *set(RejectCode) - about_the_object}


@pytest.mark.parametrize("name", CLASSES)
def test_each_class_gets_its_verdict_in_bounded_time_and_memory(name, make, prober):
    outcome = prober.ask(make(name))
    assert outcome["code"] in {code if code is None else str(code) for code in CLASSES[name].expected}, outcome
    assert CLASSES[name].size is None or outcome["size"] == list(CLASSES[name].size)
    assert outcome["seconds"] < SECONDS
    assert outcome["peak_mb"] < PEAK_MB


def test_the_memory_that_is_measured_is_that_of_the_picture(make, prober):
    """A measurement that would not see a large picture could not fail above."""
    assert prober.ask(make("png at the limit"))["peak_mb"] > 4 * 50


STRANGE_KEYS = {
    "a=b/c=d.jpg": "a=b",
    "100%2Fnot a folder.jpg": None,
    "Apple%20Red/1.jpg": "Apple%20Red",
    "plus+plus/1+1.jpg": "plus+plus",
    "🍎/é ü 😀.jpg": "🍎",
    "_hidden/_x.jpg": "_hidden",
    ".hidden/.x.jpg": ".hidden",
    "trailing/slash.jpg/": "slash.jpg",
    "empty//segment.jpg": "empty",
    "no folder.jpg": None,
    "deep/er/and/deeper/x.jpg": "deeper",
    "quotes'\"\\/x.jpg": "quotes'\"\\",
    "tab\tand\x7f/x.jpg": "tab\tand\x7f",
    "dots/./x.jpg": ".",
    "no extension": None,
    "x" * 1000 + ".jpg": None,
}


@pytest.mark.spark
def test_every_class_at_once_through_spark_is_one_image_or_one_reject_by_key(nights, make, monkeypatch):
    prefix = "photos/"
    expected: dict[str, frozenset[RejectCode | None]] = {}
    listed: dict[str, tuple[str, int]] = {}
    with scripted_s3() as bucket:

        def put(key: str, data: bytes, *codes: RejectCode | None, **lies: Any) -> None:
            bucket.objects[key] = (data, lies.get("etag", "tag"))
            listed[key] = ("tag", lies.get("size", len(data)))
            expected[key] = frozenset(codes)

        for number, name in enumerate(CLASSES):
            put(f"{prefix}classes/{number:03}.jpg", make(name).read_bytes(), *CLASSES[name].expected)
        for key in STRANGE_KEYS:
            put(prefix + key, encoded(fruit(len(key))), LOADED)
        same = encoded(fruit(1))
        for key in ("twins/one.jpg", "twins/two.jpg"):
            put(prefix + key, same, LOADED)
        put(f"{prefix}three gigabytes.jpg", b"", RejectCode.TOO_MANY_BYTES, size=3 * 1024**3)
        put(f"{prefix}changed.jpg", same, RejectCode.CHANGED, etag="another")
        put(f"{prefix}gone.jpg", same, RejectCode.GONE)
        del bucket.objects[f"{prefix}gone.jpg"]
        put(f"{prefix}up/../x.jpg", same, RejectCode.KEY_NOT_FETCHABLE)
        bucket.failures[f"{prefix}up/../x.jpg"], bucket.codes[f"{prefix}up/../x.jpg"] = 400, "InvalidURI"
        monkeypatch.setenv("AWS_ENDPOINT_URL", bucket.location.endpoint)
        monkeypatch.setenv("AWS_REGION", "eu-west-1")
        objects.find_s3.cache_clear()
        run_folder = "s3://raw/runs/run-1"
        _write_listing(f"{run_folder}/listing.parquet", listed)
        arguments = ["--database", nights.database, "--run-id", "run-1", "--run-folder", run_folder]
        parsed = load_images.parser().parse_args([*arguments, "--input", f"s3://raw/{prefix}", "--complete"])
        load_images.load_images(job_run.Run("load_images", parsed, nights.spark))
        requested = sorted(key for method, key in bucket.requests if key in listed)
        metrics = json.loads(bucket.objects["runs/run-1/stages/load_images.json"][0])
    objects.find_s3.cache_clear()

    images = {row["source_key"]: row for row in nights.rows("images", "pixels")}
    rejects = {row["source_key"]: row for row in nights.rows("rejects")}
    assert sorted([*images, *rejects]) == sorted(listed), "in = images + rejects, by key"
    wrong = {
        key: (codes, rejects[key]["error_code"] if key in rejects else None)
        for key, codes in expected.items()
        if (RejectCode(rejects[key]["error_code"]) if key in rejects else LOADED) not in codes
    }
    assert not wrong
    assert {key: images[prefix + key]["label"] for key in STRANGE_KEYS} == STRANGE_KEYS
    assert all(row["image_id"] == image_id(key) for key, row in images.items())
    twins = [images[f"{prefix}twins/{name}.jpg"] for name in ("one", "two")]
    assert twins[0]["content_sha256"] == twins[1]["content_sha256"]
    not_asked = {key for key, (_, size) in listed.items() if not 0 < size <= 64 * 1024 * 1024}
    assert requested == sorted(set(listed) - not_asked), "one request each, and none for what is refused unread"
    assert (metrics["images"]["loaded"], metrics["images"]["rejected"]) == (len(images), len(rejects))


def _write_listing(uri: str, listed: dict[str, tuple[str, int]]) -> None:
    keys = sorted(listed)
    table = pa.table(
        {
            "key": keys,
            "etag": [listed[key][0] for key in keys],
            "size_bytes": pa.array([listed[key][1] for key in keys], pa.int64()),
        }
    )
    with objects.writer(uri, None) as out:
        pq.write_table(table, out)


@pytest.mark.spark
def test_a_file_of_three_gigabytes_in_a_folder_is_a_reject_and_its_neighbour_is_loaded(nights):
    with (nights.photos / "huge.jpg").open("wb") as file:
        file.truncate(3 * 1024**3)
    (nights.photos / "fruit.jpg").write_bytes(encoded(fruit(1)))
    nights.load()
    assert nights.keys("images") == ["fruit.jpg"]
    assert [row["error_code"] for row in nights.rows("rejects")] == ["too_many_bytes"]


def _memory_mb(of: str) -> float:
    """What this process has (VmRSS), or the most that it had since its mark was reset (VmHWM): on Linux, else 0."""
    status = Path("/proc/self/status")
    return int(status.read_text().split(f"{of}:")[1].split()[0]) / 1024 if status.exists() else 0


def _reset_high_water_mark() -> None:
    """Only Linux has one that can be reset."""
    if sys.platform == "linux":
        Path("/proc/self/clear_refs").write_text("5")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("mutations", [1_000, pytest.param(10_000, marks=pytest.mark.slow)])
def test_mutated_files_are_images_or_rejects_and_nothing_else_in_bounded_time_and_memory(mutations):
    sources = hostile.originals()
    sources += [path.read_bytes() for path in sorted(PHOTOS.rglob("*.jpg"))[:5]]
    verdicts: Counter[str] = Counter()
    for seed in range(mutations):
        data = hostile.mutation(sources[seed % len(sources)], seed)
        _reset_high_water_mark()
        before, started = _memory_mb("VmRSS"), time.process_time()
        try:
            clean(data)
            verdicts["loaded"] += 1
        except ImageRejected as rejected:
            verdicts[str(rejected.code)] += 1
        assert time.process_time() - started < SECONDS, f"seed {seed}"
        assert _memory_mb("VmHWM") - before < PEAK_MB, f"seed {seed}"
    assert verdicts.total() == mutations
    assert {"loaded", "corrupt", "truncated", "not_an_image", "format_not_allowed"} <= set(verdicts)
