from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest
from fruits.base.batches import to_matrix
from fruits.images.decoding import clean
from fruits.model import embedding
from PIL import Image

from tests.spark_jobs.pictures import encoded, fruit


@pytest.fixture(scope="module")
def flatbuffer(model) -> bytes:
    return (Path(model["folder"]) / "model.tflite").read_bytes()


@pytest.fixture(scope="module")
def pixels() -> list[bytes]:
    return [clean(encoded(fruit(seed))).pixels for seed in range(11)]


@pytest.fixture
def forgotten(monkeypatch):
    monkeypatch.setattr(embedding, "_ready", {})


def embedded(flatbuffer: bytes, pixels: list[bytes], batch_size: int, *cuts: int) -> np.ndarray:
    """Run the mapper over a partition cut into Arrow batches."""
    table = pa.table(
        {
            "image_id": pa.array([str(i) for i in range(len(pixels))]),
            "content_sha256": pa.array([f"c{i}" for i in range(len(pixels))]),
            "pixels": pa.array(pixels, pa.binary()),
        }
    )
    starts = [0, *cuts, len(pixels)]
    batches = [batch for a, b in pairwise(starts) for batch in table.slice(a, b - a).combine_chunks().to_batches()]
    run = embedding.embed_mapper(SimpleNamespace(value=flatbuffer), "id", "litert", batch_size)
    out = list(run(batches))
    assert [i for batch in out for i in batch.column("image_id").to_pylist()] == [str(i) for i in range(len(pixels))]
    assert out[0].column("content_sha256")[0].as_py() == "c0"
    return np.concatenate([to_matrix(batch.column("features"), 1280) for batch in out])


@pytest.mark.parametrize("batch_size", [2, 4, 8])
def test_features_do_not_depend_on_the_batch_size_by_a_single_bit(flatbuffer, pixels, batch_size, forgotten):
    single = embedded(flatbuffer, pixels, 1)
    assert embedded(flatbuffer, pixels, batch_size).tobytes() == single.tobytes()


def test_features_do_not_depend_on_how_arrow_cut_the_rows(flatbuffer, pixels, forgotten):
    assert embedded(flatbuffer, pixels, 4, 1, 2, 7).tobytes() == embedded(flatbuffer, pixels, 4).tobytes()


def test_a_reused_worker_makes_its_interpreter_once(flatbuffer, pixels, forgotten, monkeypatch):
    created = []
    real = embedding.LiteRtEmbedder
    monkeypatch.setattr(embedding, "LiteRtEmbedder", lambda *a: created.append(1) or real(*a))
    for _ in range(3):
        embedded(flatbuffer, pixels[:2], 1)
    assert created == [1]


def test_another_model_or_batch_size_replaces_the_cached_one(forgotten):
    first = embedding.worker_embedder("a", 1, lambda: "first")
    assert embedding.worker_embedder("a", 1, lambda: "other") is first
    assert embedding.worker_embedder("b", 1, lambda: "second") == "second"
    assert embedding.worker_embedder("b", 2, lambda: "third") == "third"
    assert list(embedding._ready) == [("b", 2)]


def test_an_empty_partition_gives_nothing_and_makes_no_interpreter(forgotten):
    broadcast = SimpleNamespace()  # no value to read
    assert list(embedding.embed_mapper(broadcast, "id", "litert", 4)([])) == []


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_what_is_stored_of_a_small_photo_has_the_features_of_the_photo_to_the_bit(flatbuffer, kind, forgotten):
    photos = [encoded(fruit(seed, (100, 90)), kind) for seed in range(3)]
    stored = [clean(photo).pixels for photo in photos]
    assert embedded(flatbuffer, stored, 1).tobytes() == embedded(flatbuffer, photos, 1).tobytes()


def test_what_is_stored_of_a_large_photo_has_nearly_its_features(flatbuffer, forgotten):
    rng = np.random.default_rng(1)
    photos = []
    for seed in range(3):
        noisy = np.asarray(fruit(seed, (2000, 1500)), np.int16) + rng.normal(0, 8, (1500, 2000, 3)).astype(np.int16)
        photos.append(encoded(Image.fromarray(noisy.clip(0, 255).astype(np.uint8)), quality=90))
    stored = [clean(photo).pixels for photo in photos]
    assert sum(map(len, stored)) < sum(map(len, photos)) / 2
    for first, second in zip(embedded(flatbuffer, stored, 1), embedded(flatbuffer, photos, 1), strict=True):
        assert first @ second / np.linalg.norm(first) / np.linalg.norm(second) > 0.98
