"""run.json and the metrics of stages: one schema, which bounds everything that a node may write."""

from __future__ import annotations

import json
from typing import Any

import pytest
from fruits_airflow.config.settings import Settings
from fruits_airflow.emr.stage_steps import STAGES
from fruits_airflow.records.models import (
    MAX_REASON,
    MAX_RECORD_BYTES,
    RecordError,
    RunRecord,
    StageSeconds,
    parse_metrics,
    read_record,
    read_stages,
    write_record,
)
from fruits_airflow.runs.attempts import clear_failure
from fruits_airflow.storage.lake import Lake, run_key

from tests.plugins import laptop

RUN = "scheduled__2026-01-01T02:00:00+00:00"


@pytest.fixture
def lake(account: Settings) -> Lake:
    return Lake(laptop.client("s3"), account.lake_bucket)


def test_a_record_is_read_as_it_was_written(lake: Lake) -> None:
    record = RunRecord(run_id=RUN, state="succeeded", mode="nightly", digests={"report.html": "0" * 64})
    write_record(lake, record)
    assert read_record(lake, RUN) == record
    assert read_record(lake, "scheduled__2026-01-02T02:00:00+00:00") is None


def test_each_stage_has_its_seconds() -> None:
    assert set(STAGES) < set(StageSeconds.model_fields)


def test_a_reason_of_any_length_can_be_recorded() -> None:
    assert len(RunRecord(state="failed").ended("failed", "x" * 100_000).reason) == MAX_REASON
    assert len(RunRecord(state="failed", reason="x" * 100_000).reason) == MAX_REASON


METRICS: dict[str, Any] = {
    "seconds": 3,
    "images": {"seen": 1, "loaded": 1},
    "quality": {"checks": {"reject_rate": {"ok": True, "value": 0.1, "limit": 0.2}}},
    "published": True,
}


def test_metrics_hold_what_the_stage_wrote_and_ignore_what_nobody_knows() -> None:
    metrics = parse_metrics(json.dumps(METRICS | {"from_a_later_release": 1}).encode(), "stages/publish.json")
    assert metrics.parts("seconds", "images", "pca") == {"seconds": 3, "images": {"seen": 1, "loaded": 1}}
    assert metrics.published is True
    assert len(metrics.sha256) == 64


HOSTILE: dict[str, dict[str, Any]] = {
    "text for a number": {"images": {"loaded": "3"}},
    "a truth value for a number": {"images": {"loaded": True}},
    "NaN": {"seconds": float("nan")},
    "infinity": {"bytes": {"pca": float("inf")}},
    "a number beyond the range": {"images": {"loaded": 10**30}},
    "a negative count": {"images": {"loaded": -1}},
    "an angle beyond the range": {"drift": {"angle_degrees": 1e300}},
    "endless seconds": {"seconds": 1e300},
    "a share above 1": {"pca": {"explained_variance": 7.0}},
    "null": {"images": None},
    "a list for an object": {"quality": []},
    "a long text": {"features": {"model_id": "x" * 10_000}},
    "a long list": {"variance_curve": [0.5] * 50_000},
    "many codes": {"rejects_by_code": {str(n): 1 for n in range(10_000)}},
    "many checks": {"quality": {"checks": {str(n): {"ok": True} for n in range(10_000)}}},
    "many endpoints": {"endpoints": [dict.fromkeys(("client", "service", "host", "region"), "x")] * 1_000},
    "a check without outcome": {"quality": {"checks": {"reject_rate": {}}}},
    "a table of another name": {"reads": ["images/Apple/somebody.jpg"]},
    "a column of another name": {"writes": {"images": [["who; where", ["STRING", True]]]}},
    "a type that is none": {"writes": {"images": [["image_id", ["see https://example.org", True]]]}},
    "many tables": {"writes": {f"t{n}": [] for n in range(1_000)}},
    "more than a megabyte": {"ignored": "x" * MAX_RECORD_BYTES},
}


@pytest.mark.parametrize("changed", HOSTILE.values(), ids=HOSTILE)
def test_metrics_outside_their_bounds_are_refused_with_place_and_value(changed: dict[str, Any]) -> None:
    with pytest.raises(RecordError, match=r"stages/publish\.json") as refused:
        parse_metrics(json.dumps(METRICS | changed).encode(), "stages/publish.json")
    assert len(str(refused.value)) <= 500
    place = next(iter(changed))
    assert place in str(refused.value) or place == "ignored"


def test_metrics_that_cannot_be_used_count_as_not_written_and_are_reported(
    lake: Lake, caplog: pytest.LogCaptureFixture
) -> None:
    lake.write_json(run_key(RUN, "stages/featurize.json"), METRICS)
    lake.write(run_key(RUN, "stages/publish.json"), b"[1")
    lake.write(run_key(RUN, "stages/load_images.json"), b" " * (MAX_RECORD_BYTES + 1))
    problems: list[str] = []
    assert set(read_stages(lake, RUN, problems)) == {"featurize"}
    assert ["load_images" in problems[0], "publish" in problems[1], len(problems)] == [True, True, 2]
    assert "at most 1,000,000 are read" in problems[0], "an object that is too large is not even fetched"
    assert problems[0] in caplog.text


def test_a_new_attempt_forgets_a_publication_that_cannot_be_read(lake: Lake) -> None:
    lake.write(run_key(RUN, "stages/publish.json"), b'{"published": "yes"}')
    clear_failure(lake, run_key(RUN))
    assert lake.read(run_key(RUN, "stages/publish.json")) is None
