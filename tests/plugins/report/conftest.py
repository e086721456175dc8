"""What a good run left, and its page."""

from __future__ import annotations

import io
from typing import Any

import pyarrow as pa
import pytest
from fruits_airflow.report import render
from PIL import Image

from tests.plugins.report.pages import N, Page


def jpeg(colour: str = "red") -> bytes:
    with io.BytesIO() as buffer:
        Image.new("RGB", (48, 48), colour).save(buffer, "JPEG")
        return buffer.getvalue()


@pytest.fixture
def run() -> dict[str, Any]:
    return {
        "run_id": "scheduled__2026-01-12T02:00:00+00:00",
        "state": "succeeded",
        "mode": "nightly",
        "region": "eu-west-1",
        "cluster": {
            "id": "j-2AXXXXXXGAPLF",
            "name": "fruits/laptop/scheduled__2026-01-12T02:00:00+00:00",
            "state": "TERMINATED",
            "release": "emr-spark-8.0.0",
        },
        "images": {"seen": 602, "new": 602, "unchanged": 0, "removed": 0, "loaded": N, "rejected": 2},
        "rejects_by_code": {"not_an_image": 1, "truncated": 1},
        "metadata_stripped": 64,
        "features": {"rows": N, "model_id": "9f" * 32, "engine": "litert", "weights": "imagenet"},
        "pca": {"pca_id": "5b" * 32, "k": 3, "explained_variance": 0.96, "n": N},
        "bytes": {"input": 2_890_036, "pixels": 2_312_028, "features": N * 5120, "pca": N * 12},
        "quality": {
            "knn_accuracy_features": 0.943,
            "knn_accuracy_pca": 0.948,
            "checks": {
                "keys_match": {"ok": True, "value": N, "limit": N},
                "reject_rate": {"ok": True, "value": 0.0033, "limit": 0.2},
            },
        },
        "seconds": {
            "total": 148.2,
            "cluster_start": 6.1,
            "load_images": 21.4,
            "featurize": 38.9,
            "reduce_pca": 24.2,
            "publish": 26.7,
            "terminate": 3.3,
        },
        "cost": {"forecast_eur": 0.0431, "ceiling_eur": 1.0, "estimate_eur": 0.0377},
    }


@pytest.fixture
def stages() -> dict[str, dict[str, Any]]:
    return {
        "load_images": {
            "seconds": 13.2,
            "reject_examples": [
                {
                    "source_key": "raw/Pear/page.jpg",
                    "error_code": "not_an_image",
                    "detail": "starts with <!DOCTYPE html>",
                },
                {"source_key": "raw/Pear/half.jpg", "error_code": "truncated", "detail": "3118 bytes short"},
            ],
        },
        "featurize": {"seconds": 30.0, "features": {"computed": N}},
        "reduce_pca": {"seconds": 15.5, "variance_curve": [0.5, 0.8, 0.96, 1.0]},
        "publish": {"seconds": 18.2, "published": True},
    }


@pytest.fixture
def sample() -> pa.Table:
    return pa.table(
        {
            "image_id": ["a", "b", "c"],
            "label": ["Apple", "Banana", None],
            "pc1": [1.0, -4.0, 2.5],
            "pc2": [0.5, 3.0, -1.0],
            "thumbnail": [jpeg("red"), jpeg("yellow"), jpeg("grey")],
        }
    )


@pytest.fixture
def page(run: dict[str, Any], stages: dict[str, Any], sample: pa.Table) -> Page:
    return Page(render(run, stages, sample))
