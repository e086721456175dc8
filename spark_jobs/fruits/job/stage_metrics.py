"""The metrics of a stage, for the run's report: ``<run folder>/stages/<stage>.json``."""

import json
from typing import Any

from fruits.base import objects

Metrics = dict[str, Any]


def write(run_folder: str, stage: str, metrics: Metrics) -> None:
    """Write a stage's metrics (no NaN, which is not JSON), replacing those of an earlier attempt."""
    text = json.dumps(metrics, indent=1, sort_keys=True, allow_nan=False)
    objects.write_bytes(objects.join(run_folder, f"stages/{stage}.json"), text.encode())


def read(run_folder: str, stage: str) -> Metrics:
    """Read the metrics of a stage."""
    return dict(json.loads(objects.read_bytes(objects.join(run_folder, f"stages/{stage}.json"))))
