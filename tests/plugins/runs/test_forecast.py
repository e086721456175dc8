"""The forecast of a run and of a million images: learned speeds, the table, the ceiling."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest
from fruits_airflow.config.regions import EU_REGIONS
from fruits_airflow.config.settings import Settings
from fruits_airflow.emr.cluster_body import load_profile
from fruits_airflow.records.models import RunRecord, write_record
from fruits_airflow.report.facts import Facts
from fruits_airflow.report.sections import costs
from fruits_airflow.runs.forecast import (
    RUNS_LEARNED_FROM,
    forecast_table,
    learned_speed,
    past_runs,
    profile_speed,
    speed_of,
)
from fruits_airflow.runs.record import _add_cost
from fruits_airflow.storage.lake import Lake, run_key

from tests.plugins import laptop
from tests.plugins.measured import blank_record


def record(rate: float = 10.0, images: int = 48_000, **changed: Any) -> RunRecord:
    """Build the record of a run over `images` on eight CPUs, a quarter of its seconds for loading."""
    seconds = images / rate / 8
    content = {
        "state": "succeeded",
        "images": {"loaded": images - 100, "rejected": 100},
        "seconds": {"load_images": seconds / 4, "featurize": seconds * 3 / 4, "total": 10 * seconds},
        "cluster": {"vcpus": 8},
        "features": {"engine": "litert"},
        **changed,
    }
    return RunRecord.model_validate(content)


def test_the_speed_is_images_by_seconds_of_load_and_featurize_by_cpus() -> None:
    assert learned_speed([record(rate=12.5)], "litert") == (pytest.approx(12.5), 1)


def test_the_speed_is_the_median_of_the_last_runs() -> None:
    latest = [record(rate=rate) for rate in (10, 20, 300)]
    assert learned_speed(latest, "litert") == (pytest.approx(20), 3)
    older = [record(rate=1)] * 50
    rate, count = learned_speed([record(rate=30)] * RUNS_LEARNED_FROM + older, "litert") or (0, 0)
    assert (rate, count) == (pytest.approx(30), RUNS_LEARNED_FROM)


@pytest.mark.parametrize(
    "useless",
    [
        record(state="failed"),
        record(images=9_000),
        record(features={"engine": "tensorflow"}),
        record(cluster={"vcpus": 0}),
        record(seconds={"load_images": 0, "featurize": 0}),
        RunRecord(state="refused"),
    ],
    ids=["failed", "few images", "other engine", "no cpus", "no seconds", "refused"],
)
def test_a_run_that_says_nothing_of_the_speed_is_left_out(useless: RunRecord) -> None:
    assert learned_speed([useless], "litert") is None
    assert learned_speed([useless, record(rate=7)], "litert") == (pytest.approx(7), 1)


def test_without_runs_the_profile_is_believed() -> None:
    profile = load_profile("nightly")
    assert speed_of(profile, None).images_per_second_per_vcpu == profile_speed(profile)
    assert speed_of(profile, (3.0, 2)).images_per_second_per_vcpu == 3.0
    assert speed_of(profile, (3.0, 2)).fixed_minutes == profile.fixed_minutes


def test_past_runs_come_latest_first(account: Settings) -> None:
    lake = Lake(laptop.client("s3"), account.lake_bucket)
    ids = [f"{kind}__2026-01-0{day}T02:00:00+00:00" for kind, day in (("scheduled", 2), ("manual", 3), ("a", 1))]
    for run_id in ids:
        write_record(lake, RunRecord(run_id=run_id, state="succeeded"))
    lake.write(run_key("manual__2026-01-05T02:00:00+00:00", "listing.parquet"), b"")
    assert [r.run_id for r in past_runs(lake)] == [ids[1], ids[0], ids[2]]


MALFORMED: dict[str, Any] = {
    "text for a number": {"images": {"loaded": "<script>"}},
    "null section": {"seconds": None},
    "list for a number": {"cluster": {"vcpus": [8]}},
    "list for a section": {"images": [1, 2]},
    "infinite seconds": {"seconds": {"load_images": float("inf")}},
    "negative count": {"images": {"loaded": -5}},
    "another run": {"run_id": "scheduled__2020-01-01T02:00:00+00:00"},
}


@pytest.mark.parametrize("changed", MALFORMED.values(), ids=MALFORMED)
def test_a_malformed_record_is_left_out_of_the_forecast_and_logged(
    account: Settings, changed: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    lake = Lake(laptop.client("s3"), account.lake_bucket)
    good, bad = "scheduled__2026-01-01T02:00:00+00:00", "scheduled__2026-01-02T02:00:00+00:00"
    lake.write_json(run_key(good, "run.json"), record(rate=7).model_dump() | {"run_id": good})
    lake.write_json(run_key(bad, "run.json"), record(rate=900).model_dump() | {"run_id": bad} | changed)
    assert learned_speed(past_runs(lake), "litert") == (pytest.approx(7), 1)
    assert f"run.json of {bad}" in caplog.text


@pytest.mark.parametrize(
    "forged", ["scheduled__2999-01-01T02:00:00+00:00", "zz__9999-12-31T23:59:59+00:00", "zzz", "a__zzz"]
)
def test_no_name_of_a_folder_keeps_a_forged_record_among_the_latest(account: Settings, forged: str) -> None:
    lake = Lake(laptop.client("s3"), account.lake_bucket)
    good = "scheduled__2026-01-01T02:00:00+00:00"
    for run_id, rate in ((good, 7.0), (forged, 900.0)):
        write_record(lake, record(rate=rate, run_id=run_id))
    assert [r.run_id for r in past_runs(lake)] == [good]


def test_a_million_images_cost_less_than_two_euros_somewhere() -> None:
    rows = forecast_table(1_000_000, ["demo", "nightly"])
    assert rows[0]["total_eur"] == min(row["total_eur"] for row in rows) < 2
    assert len(rows) == 2 * len(EU_REGIONS)


def test_a_row_of_the_table_adds_up() -> None:
    for row in forecast_table(250_000, ["nightly"]):
        assert row["total_eur"] == pytest.approx(sum(row["parts"].values()), abs=5e-4)
        assert row["parts"].keys() == {"ec2", "emr", "ebs", "s3", "kms", "network"}


def test_a_learned_speed_moves_the_table() -> None:
    slow, fast = (forecast_table(1_000_000, ["nightly"], (rate, 3))[0] for rate in (5.0, 50.0))
    assert slow["hours"] > fast["hours"]
    fixed = load_profile("nightly").fixed_minutes / 60
    assert slow["hours"] - fixed == pytest.approx(10 * (fast["hours"] - fixed), abs=0.02)


@pytest.mark.parametrize(
    ("estimate", "words"), [({"ec2": 0.05, "emr": 0.02}, "€0.0200 less"), ({"ec2": 0.3, "emr": 0.02}, "€0.23 more")]
)
def test_the_report_says_by_how_much_the_nodes_were_forecast_wrongly(estimate: dict[str, float], words: str) -> None:
    record = blank_record("r1", "nightly", "eu-west-1")
    record["cost"] |= {"forecast_eur": 1.09, "forecast_parts": {"ec2": 0.08, "emr": 0.01, "s3": 1.0}}
    _add_cost(record["cost"], estimate)
    assert record["cost"]["difference_eur"] == pytest.approx(sum(estimate.values()) - 0.09), "requests have no timeline"
    assert words in costs(Facts(record, {}))[1].what


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(laptop.REPOSITORY / "plugins")}
    argv = [sys.executable, "-m", "ops", "forecast", *arguments]
    return subprocess.run(argv, env=environment, capture_output=True, text=True, check=False, timeout=60)


def test_programs_get_a_list() -> None:
    done = command("--images", "1000000", "--format", "json")
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)
    assert all(row.keys() == {"region", "profile", "hours", "total_eur", "parts"} for row in rows)
    assert {row["profile"] for row in rows} == {"demo", "nightly"}


def test_people_get_a_table_that_says_what_is_from_memory() -> None:
    done = command("--images", "1000")
    assert "eu-central-1" in done.stdout
    assert "from memory" in done.stdout
    assert command("--images", "-1").returncode == 2
