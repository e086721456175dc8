"""Larger batches and decoding ahead are compared over the same features."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("ai_edge_litert")
pytest.importorskip("psutil")

import pyarrow as pa
from fruits.images import decoding
from fruits.model.embedding import LiteRtEmbedder, embed_all

from bench import ours
from bench.peers import batching
from bench.photos import REPOSITORY, PhotoSets
from bench.report import details

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def nine(work: Path) -> Path:
    return PhotoSets(work / "photos").first(9)


def test_decoding_ahead_changes_no_bit_whatever_is_left_over(model: ours.Model, nine: Path) -> None:
    pixels = pa.array([decoding.clean(photo.read_bytes()).pixels for photo in sorted(nine.rglob("*.jpg"))])
    flatbuffer = model.flatbuffer.read_bytes()
    expected = embed_all(LiteRtEmbedder(flatbuffer, 1), pixels)
    for size in (1, 2, 4):
        ahead = batching.Ahead(LiteRtEmbedder(flatbuffer, size))
        for count in (0, 1, 9):
            assert ahead(pixels[:count]).tobytes() == expected[:count].tobytes()


def test_a_setting_that_gives_other_features_ends_the_comparison() -> None:
    def honest(pixels: pa.Array) -> np.ndarray:
        return np.ones((len(pixels), 2), np.float32)

    with pytest.raises(SystemExit, match="setting 2"):
        batching.agree({"1": honest, "2": lambda pixels: honest(pixels) * 2}, pa.array([b""]))


def test_every_process_has_photos_in_every_turn() -> None:
    assert batching.turns_of(2000, 2) == 16
    assert batching.turns_of(9, 2) == 1
    for photos, workers in ((2000, 2), (129, 2), (250, 3)):
        fewest = photos // workers
        assert (batching.turns_of(photos, workers) - 1) * batching.TURN < fewest


def test_it_tells_every_setting_that_results_have(work: Path, model: ours.Model, nine: Path) -> None:
    env = ours.environment() | {"PYTHONPATH": f"{REPOSITORY}:{REPOSITORY / 'spark_jobs'}"}
    command = ["--images", nine, "--engine", "litert", "--out", work, "--weights", model.weights]
    command += ["--flatbuffer", model.flatbuffer, "--workers", 2]
    done = subprocess.run(
        [sys.executable, "-m", "bench.peers.batching", *map(str, command)],
        check=True,
        capture_output=True,
        env=env,
        cwd=REPOSITORY,
    )
    answer = json.loads(done.stdout.splitlines()[-1])
    settings = {f"{batch}{way}" for batch in details.BATCHES for way in ("", "_ahead")}
    assert set(answer["img_s"]) == set(answer["core_ms"]) == settings
    assert batching.BATCHES == details.BATCHES
