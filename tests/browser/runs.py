"""Runs as the pipeline leaves them in the lake: drawn fruits placed by their colours, the stages' own metrics."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from functools import cache
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image, ImageStat

from dev.demo.drawing import SUBJECTS, draw_jpeg
from tests.plugins.measured import blank_record
from tests.plugins.report.pages import CLASSIFIER, DRIFT

PER_LABEL = 8
THUMBNAIL_PX = 48
GOOD, SECOND, FAILED = (
    "scheduled__2026-11-20T02:00:00+00:00",
    "manual__2026-11-21T10:30:00+00:00",
    "scheduled__2026-11-22T02:00:00+00:00",
)
CAUSE = "StepFailed: step featurize of j-2FAILEDGAPLF ended FAILED: the model's digest is not its name"


@cache
def drawn() -> tuple[pa.Table, list[float]]:
    """The sample that `publish` leaves, and the variance curve that `reduce_pca` leaves."""
    labels = [label for label in SUBJECTS for _ in range(PER_LABEL)]
    pictures = []
    for n, label in enumerate(labels):
        with Image.open(io.BytesIO(draw_jpeg(label, n))) as photo:
            pictures.append(photo.convert("RGB").resize((THUMBNAIL_PX, THUMBNAIL_PX)))
    colours = [ImageStat.Stat(picture.crop((12, 12, 36, 36))).mean for picture in pictures]
    sample = pa.table(
        {
            "image_id": [f"{n:064x}" for n in range(len(labels))],
            "label": labels,
            "pc1": [(red - blue) / 10 for red, _, blue in colours],
            "pc2": [(green - 128) / 10 for _, green, _ in colours],
            "thumbnail": [_webp(picture) for picture in pictures],
        }
    )
    return sample, [1 - 0.5 ** ((n / 5) ** 0.8) for n in range(1, 1280)] + [1.0]


def _webp(picture: Image.Image) -> bytes:
    with io.BytesIO() as buffer:
        picture.save(buffer, "WEBP", quality=80)
        return buffer.getvalue()


def good_run(run_id: str, **changes: Any) -> dict[str, bytes]:
    """The objects of a run that published, by their names in its folder."""
    sample, curve = drawn()
    n = sample.num_rows
    k = 1 + next(i for i, share in enumerate(curve) if share >= 0.95)
    stages: dict[str, dict[str, Any]] = {
        "load_images": {
            "seconds": 11.2,
            "images": {"seen": n + 2, "new": n + 2, "unchanged": 0, "removed": 0, "loaded": n, "rejected": 2},
            "rejects_by_code": {"not_an_image": 1, "truncated": 1},
            "reject_examples": [
                {"source_key": "photos/Apple/not_found.jpg", "error_code": "not_an_image", "detail": "HTML"},
                {"source_key": "photos/Apple/truncated.jpg", "error_code": "truncated", "detail": "cut short"},
            ],
            "metadata_stripped": 64,
            "bytes": {"input": 961_300, "pixels": 2_301_112},
        },
        "featurize": {
            "seconds": 14.9,
            "features": {"rows": n, "computed": n, "model_id": "07" * 32, "engine": "litert", "weights": "path"},
            "bytes": {"features": 660_300},
        },
        "reduce_pca": {
            "seconds": 5.0,
            "pca": {"pca_id": "5b" * 32, "k": k, "explained_variance": curve[k - 1], "n": n},
            "variance_curve": curve,
            "drift": DRIFT | {"fitted_on": n},
        },
        "publish": {
            "seconds": 13.1,
            "published": True,
            "quality": {
                "knn_accuracy_features": 0.763,
                "knn_accuracy_pca": 0.758,
                "checks": {
                    "images": {"ok": True, "value": n, "limit": 2},
                    "reject_rate": {"ok": True, "value": 2 / (n + 2), "limit": 0.2},
                    "features_without_pca": {"ok": True, "value": 0, "limit": 0},
                },
            },
            "classifier": CLASSIFIER | {"examples": [[f"{0:064x}", "Kiwi", 0.91], [f"{n:064x}", None, 0.2]]},
            "bytes": {"pca": 79_900},
        },
    }
    record = _record(run_id, stages) | {"state": "succeeded"}
    bucket = {"region": "eu-west-1", "encryption": "aws:kms", "public_access": "blocked"}
    residency = {
        "checked_at": "2026-11-20T02:00:04+00:00",
        "cluster_region": "eu-west-1",
        "buckets": {"raw_bucket": {"name": "raw", **bucket}, "lake_bucket": {"name": "browser-lake", **bucket}},
        "catalog": {"kind": "AWS Glue", "region": "eu-west-1"},
        "clusters": {"j-2GOODGOODGAP": {"region": "eu-west-1", "security_configuration": None}},
    }
    return _objects(merged(record, changes), stages) | {
        "sample.parquet": _parquet(sample),
        "residency.json": json.dumps(residency).encode(),
        "listing.parquet": b"PAR1",
    }


def failed_run(run_id: str) -> dict[str, bytes]:
    """The objects of a run whose featurize step failed."""
    good = {name: json.loads(content) for name, content in good_run(run_id).items() if "load_images" in name}
    stages = {"load_images": good["stages/load_images.json"]}
    record = _record(run_id, stages) | {"state": "failed", "reason": CAUSE}
    record["cluster"] |= {"id": "j-2FAILEDGAPLF"}
    return _objects(record, stages)


def _record(run_id: str, stages: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """run.json as the control plane puts it together."""
    record = blank_record(run_id, "nightly", "eu-west-1")
    record["cluster"] = {
        "id": "j-2GOODGOODGAP",
        "name": f"fruits/test/fruits_pipeline/{run_id}",
        "state": "TERMINATED",
        "release": "emr-spark-8.0.0",
    }
    for stage, metrics in stages.items():
        record["seconds"][stage] = metrics["seconds"] + 6.5
        for part in ("images", "features", "pca", "bytes", "quality"):
            record[part] |= metrics.get(part, {})
        for part in ("rejects_by_code", "metadata_stripped"):
            record[part] = metrics.get(part, record[part])
    record["seconds"] |= {"total": 122.4, "cluster_start": 6.1, "terminate": 3.2}
    record["cost"] = {"forecast_eur": 0.1151, "ceiling_eur": 5.0, "estimate_eur": 0.0313}
    return record


def merged(record: dict[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """`record` with some parts replaced, whole or one by one."""
    for name, part in changes.items():
        record[name] = record[name] | part if isinstance(part, dict) else part
    return record


def _objects(record: Mapping[str, Any], stages: Mapping[str, Any]) -> dict[str, bytes]:
    return {
        "run.json": json.dumps(record, indent=1, sort_keys=True).encode(),
        **{f"stages/{stage}.json": json.dumps(metrics).encode() for stage, metrics in stages.items()},
    }


def _parquet(table: pa.Table) -> bytes:
    with io.BytesIO() as buffer:
        pq.write_table(table, buffer, compression="zstd")
        return buffer.getvalue()
