"""How long a part of a run takes, as past runs tell."""

from __future__ import annotations

import pytest
from fruits_airflow.records.models import FeatureFacts, ImageCounts, RunRecord, StageSeconds, State
from fruits_airflow.records.pace import MIN_IMAGES, typical_seconds


def past(
    seconds: float, new: int = 60, state: State = "succeeded", mode: str = "nightly", engine: str = "litert"
) -> RunRecord:
    return RunRecord(
        state=state,
        mode=mode,
        images=ImageCounts(new=new),
        features=FeatureFacts(engine=engine),
        seconds=StageSeconds(featurize=seconds),
    )


def typical(*records: RunRecord, new: int = 60) -> float | None:
    return typical_seconds(records, "nightly", "litert", new).get("featurize")


def test_it_is_the_median_of_the_good_runs_of_this_kind() -> None:
    others = [past(900, state="failed"), past(900, mode="demo"), past(900, engine="tensorflow"), past(0)]
    assert typical(past(20), *others, past(40), past(30)) == 30


def test_seconds_grow_with_the_images_of_large_runs_only() -> None:
    assert typical(past(30, new=60), new=6000) == 30
    assert typical(past(100, new=MIN_IMAGES), new=3 * MIN_IMAGES) == pytest.approx(300)


def test_small_and_large_runs_say_nothing_of_each_other() -> None:
    assert typical(past(100, new=MIN_IMAGES), new=MIN_IMAGES - 1) is None
    assert typical(past(30, new=MIN_IMAGES - 1), new=MIN_IMAGES) is None
    assert typical() is None
