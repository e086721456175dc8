"""Each peer on eight photos: all of them give the features that the plain loop gives."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("ray", reason="the peers' environment is .venv-bench")

import numpy as np
from PIL import Image

from bench import agreement, ours, suite
from bench.pca import synthetic
from bench.peers.engines import litert_engine
from bench.photos import REPOSITORY, PhotoSets

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def eight(work: Path) -> Path:
    return PhotoSets(work / "photos").first(8)


def run(module: str, out: Path, *arguments: object) -> None:
    path = f"{REPOSITORY}:{REPOSITORY / 'spark_jobs'}"
    env = ours.environment() | {"PYTHONPATH": path, "TF_CPP_MIN_LOG_LEVEL": "3"}
    subprocess.run(
        [sys.executable, "-m", module, "--out", out, "--workers", "2", *map(str, arguments)],
        check=True,
        env=env,
        cwd=REPOSITORY,
    )


def features(name: str, work: Path, model: ours.Model, photos: Path) -> dict[str, object]:
    module, engine = suite.PEERS[name]
    out = work / name
    if not out.exists():
        arguments = ("--images", photos, "--engine", engine, "--weights", model.weights)
        run(module, out, *arguments, "--flatbuffer", model.flatbuffer)
    return agreement.vectors(out)


@pytest.mark.parametrize("name", list(suite.PEERS))
def test_a_peer_gives_the_features_of_the_plain_loop(name: str, work: Path, model: ours.Model, eight: Path) -> None:
    reference = features("no_spark_limit", work, model, eight)
    rows = features(name, work, model, eight)
    assert rows.keys() == reference.keys()
    assert len(rows) == 8
    for key, row in rows.items():
        assert row.shape == (1280,)
        np.testing.assert_allclose(row, reference[key], atol=agreement.TOLERANCE)


def test_another_resize_would_be_noticed(work: Path, model: ours.Model, eight: Path) -> None:
    reference = features("no_spark_limit", work, model, eight)
    engine = litert_engine(model.flatbuffer.read_bytes())
    key = next(iter(reference))
    pixels = Image.open(eight / key).convert("RGB").resize((224, 224), Image.Resampling.BICUBIC)
    other = engine(np.asarray(pixels, np.float32)[None] / 127.5 - 1)
    assert np.abs(other[0] - reference[key]).max() > agreement.TOLERANCE


def test_mllib_and_sklearn_find_the_same_spectrum(work: Path) -> None:
    synthetic_features = synthetic.write(1500, work / "features.parquet")
    for name, module in suite.PCA_PEERS.items():
        run(module, work / f"{name}.npz", "--features", synthetic_features, "--k", 8)
    difference = agreement.spectrum_difference(work / "mllib.npz", work / "sklearn.npz")
    assert difference["max_relative_error"] < 1e-9
