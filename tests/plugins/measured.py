"""The metrics that the stages of a run leave, as a test needs them."""

from __future__ import annotations

import json
from typing import Any

from fruits_airflow.records.models import RunRecord, StageMetrics, parse_metrics
from fruits_airflow.runs.run_context import RunContext
from fruits_airflow.storage.lake import run_key

PUBLISHED: dict[str, Any] = {"seconds": 1, "published": True, "quality": {"checks": {}}}
REFUSED = PUBLISHED | {
    "published": False,
    "quality": {"checks": {"reject_rate": {"ok": False, "value": 1, "limit": 0}}},
}
MEASURED: dict[str, dict[str, Any]] = {
    "load_images": {"seconds": 1, "images": {"seen": 3, "new": 3, "loaded": 3, "rejected": 0}},
    "featurize": {"seconds": 1},
    "reduce_pca": {"seconds": 1},
    "publish": PUBLISHED,
}
"""Of the run that the fixture `plan` has planned."""


def blank_record(run_id: str, mode: str, region: str) -> dict[str, Any]:
    """run.json of a run that has done nothing yet."""
    return RunRecord(run_id=run_id, state="failed", mode=mode, region=region).model_dump()


def parsed(stages: dict[str, dict[str, Any]] = MEASURED) -> dict[str, StageMetrics]:
    """Metrics as the control plane reads them."""
    return {stage: parse_metrics(json.dumps(metrics).encode(), stage) for stage, metrics in stages.items()}


def measure(run: RunContext, stages: dict[str, dict[str, Any]] = MEASURED) -> None:
    """Writes metrics as the stages do."""
    for stage, metrics in stages.items():
        run.lake.write_json(run_key(run.identity.run_id, f"stages/{stage}.json"), metrics)
