"""What the page of a run that goes on reads from Airflow's database (tried against a real one by the demo)."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from fruits_airflow.records.models import FeatureFacts, RunRecord, StageSeconds
from fruits_airflow.records.pace import typical_seconds
from fruits_airflow.report import live_run

PLAN = {
    "planned_at": (datetime.now(UTC) - timedelta(seconds=60)).isoformat(),
    "mode": "demo",
    "region": "eu-west-1",
    "images": {"seen": 60, "new": 20, "unchanged": 40, "removed": 0},
    "input_bytes": 1000,
    "engine": "litert",
    "weights": "path",
    "model_id": "m",
    "forecast_eur": 0.1,
    "max_cost_eur": 5.0,
}


class Session:
    def __init__(self, tasks: Mapping[str, str | None], xcoms: Mapping[str, Any]) -> None:
        self.tasks, self.xcoms = tasks, xcoms

    def execute(self, _query: Any) -> Any:
        began_at = datetime.now(UTC) - timedelta(seconds=10)
        ended_at = {"success": began_at + timedelta(seconds=4)}
        rows = [
            (task, state, began_at if state else None, ended_at.get(state or "")) for task, state in self.tasks.items()
        ]
        return SimpleNamespace(tuples=lambda: SimpleNamespace(all=lambda: rows))

    def scalars(self, _query: Any) -> Any:
        return [SimpleNamespace(task_id=task, value=value) for task, value in self.xcoms.items()]


def plan_after(*totals: float) -> dict[str, Any]:
    """Return a plan that was made after good runs of these seconds, runs of another mode and failed ones."""
    record = RunRecord(state="succeeded", mode="demo", features=FeatureFacts(engine="litert"))
    parts = {"load_images": 0.05, "featurize": 0.1}
    seconds = [StageSeconds(total=total, **{part: share * total for part, share in parts.items()}) for total in totals]
    good = [record.model_copy(update={"seconds": each}) for each in seconds]
    others = [RunRecord(state="succeeded", mode="nightly"), RunRecord(state="failed", mode="demo")]
    return PLAN | {"typical_s": typical_seconds([*good, *others], "demo", "litert", 20)}


@pytest.fixture
def database(monkeypatch: pytest.MonkeyPatch) -> Any:
    def fill(tasks: Mapping[str, str | None], xcoms: Mapping[str, Any]) -> None:
        @contextmanager
        def create_session() -> Iterator[Session]:
            yield Session(tasks, xcoms)

        monkeypatch.setattr(live_run, "create_session", create_session)

    return fill


def test_a_planned_run_has_its_plan_its_tasks_and_the_time_left(database: Any) -> None:
    database(
        {"plan": "success", "load_images.wait": "deferred", "report": None},
        {"plan": plan_after(100_000.0, 300_000.0, 110_000.0), "create_cluster": "j-1"},
    )
    record = live_run.read_live("fruits_pipeline", "r")
    assert record["tasks"] == {"plan": "success", "load_images.wait": "deferred"}
    assert record["images"] == PLAN["images"]
    assert record["cluster"] == {"id": "j-1"}
    assert record["cost"] == {"forecast_eur": 0.1, "ceiling_eur": 5.0}
    assert record["seconds"]["total"] >= 60
    assert record["left"] == {"total": pytest.approx(110_000 - record["seconds"]["total"])}, (
        "by the median of good runs"
    )


def test_the_stage_that_goes_on_has_its_seconds_so_far_and_left(database: Any) -> None:
    tasks = {"load_images.add": "success", "load_images.wait": "success", "featurize.add": "success"}
    database(tasks | {"featurize.wait": "deferred", "publish.add": None}, {"plan": plan_after(1000.0)})
    record = live_run.read_live("fruits_pipeline", "r")
    assert set(record["left"]) == {"total", "featurize"}
    assert set(record["seconds"]) == {"total", "load_images", "featurize"}
    assert record["seconds"]["load_images"] == 4, "a finished stage has the seconds from its first task to its last"
    assert record["seconds"]["featurize"] >= 10
    assert record["left"]["featurize"] == pytest.approx(100 - record["seconds"]["featurize"])


def test_a_run_that_took_longer_than_the_others_has_no_seconds_left_and_a_first_run_none_known(database: Any) -> None:
    database({"plan": "success"}, {"plan": plan_after(30.0)})
    assert live_run.read_live("fruits_pipeline", "r")["left"] == {"total": 0}
    for first in (plan_after(), PLAN):
        database({"plan": "success"}, {"plan": first})
        assert live_run.read_live("fruits_pipeline", "r")["left"] == {}


@pytest.mark.parametrize("plan", [None, "text", {"version": 0}])
def test_a_run_without_a_usable_plan_shows_its_tasks_alone(database: Any, plan: Any) -> None:
    database({"plan": "running"}, {} if plan is None else {"plan": plan})
    assert live_run.read_live("fruits_pipeline", "r") == {"tasks": {"plan": "running"}}


def test_a_result_that_names_a_class_makes_no_object_of_it(database: Any) -> None:
    """Whoever edits it would have the API server import any module of Airflow, and call what is there."""
    module = "airflow.example_dags.example_custom_weight"
    named = json.dumps({"__classname__": f"{module}.Any", "__version__": 0, "__data__": {}})
    database({"plan": "success"}, {"plan": named, "create_cluster": named, "report": PLAN})
    record = live_run.read_live("fruits_pipeline", "r")
    assert module not in sys.modules
    assert record == {"tasks": {"plan": "success"}}
