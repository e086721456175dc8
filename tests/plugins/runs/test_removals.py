"""A night that would remove many rows stops before it does, unless something explains why the photos are gone."""

from __future__ import annotations

import hashlib
import io
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fruits_airflow.config.errors import RunRefused
from fruits_airflow.config.run_parameters import parameter_schemas, resolve_parameters
from fruits_airflow.config.settings import Settings
from fruits_airflow.emr.code_bundle import CodeBundle
from fruits_airflow.runs import planning
from fruits_airflow.runs.plan import RunPlan
from fruits_airflow.runs.publication import PublicationState, read_state
from fruits_airflow.runs.removals import require_plausible_removals
from fruits_airflow.storage.lake import Lake

from tests.plugins import laptop
from tests.plugins.published import set_state

KEYS = [f"images/Apple/{number:02}.jpg" for number in range(12)]


@pytest.fixture
def strict(account: Settings, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Limits that twelve photos can pass: at most two, and at most a quarter."""
    monkeypatch.setattr(planning, "build_bundle", lambda: CodeBundle({"a": b"code"}))
    laptop.put_photos(account.raw_bucket, KEYS)
    return replace(account, max_removed_rows=2, max_removed_share=0.25)


@pytest.fixture
def lake(account: Settings) -> Lake:
    return Lake(laptop.client("s3"), account.lake_bucket)


def plan(settings: Settings, run_id: str, **conf: Any) -> RunPlan:
    schemas = parameter_schemas(settings)
    params = {name: schema["default"] for name, schema in schemas.items()} | conf
    parameters = resolve_parameters(settings, params, conf, schemas)
    return planning.make_plan(settings, parameters, run_id, laptop.client("s3"), kms_of=laptop.kms_of)


def publish(lake: Lake, planned: RunPlan) -> None:
    set_state(lake, planned.database, PublicationState(published=planned.fingerprint))


def delete(settings: Settings, *keys: str) -> None:
    for key in keys:
        laptop.client("s3").delete_object(Bucket=settings.raw_bucket, Key=key)


def test_more_missing_photos_than_both_limits_stop_the_run_until_it_is_forced(strict: Settings, lake: Lake) -> None:
    publish(lake, plan(strict, "r1"))
    before = read_state(lake, "fruits")
    delete(strict, *KEYS[:4])
    with pytest.raises(RunRefused, match=r"4 of 12 photos are no longer in .*max_removed_rows.*force"):
        plan(strict, "r2")
    assert read_state(lake, "fruits") == before, "a refused listing is never what the next night compares with"
    forced = plan(strict, "r3", force=True)
    assert forced.images.removed == 4
    assert forced.max_removed_share == 1.0


@pytest.mark.parametrize("limits", [{"max_removed_rows": 4}, {"max_removed_share": 0.5}])
def test_fewer_than_one_limit_are_believed(strict: Settings, lake: Lake, limits: dict[str, Any]) -> None:
    publish(lake, plan(strict, "r1"))
    delete(strict, *KEYS[:4])
    assert plan(replace(strict, **limits), "r2").images.removed == 4


def test_a_part_of_the_input_removes_nothing_and_is_not_stopped(strict: Settings, lake: Lake) -> None:
    set_state(lake, strict.demo_database, PublicationState(published=plan(strict, "r1", limit=12).fingerprint))
    assert plan(strict, "r2", limit=2).images.seen == 2


def test_the_listing_of_a_run_that_began_and_did_not_publish_counts_too(strict: Settings, lake: Lake) -> None:
    delete(strict, *KEYS[4:])
    publish(lake, plan(strict, "r1"))
    laptop.put_photos(strict.raw_bucket, KEYS)
    plan(strict, "r2")  # its rows may be in the tables
    delete(strict, *KEYS[4:])
    with pytest.raises(RunRefused, match="8 of 12"):
        plan(strict, "r3")


def test_erased_photos_do_not_count(strict: Settings, lake: Lake) -> None:
    publish(lake, plan(strict, "r1"))
    delete(strict, *KEYS[:4])
    out = io.BytesIO()
    ids = [hashlib.sha256(key.encode()).hexdigest() for key in KEYS[:4]]
    pq.write_table(pa.table({"key_sha256": ids, "content_sha256": ["c"] * 4}), out)
    lake.write("suppression/e1.parquet", out.getvalue(), "application/vnd.apache.parquet")
    planned = plan(strict, "r2")
    assert (planned.images.removed, planned.expected_removals) == (4, 0)


def lifecycle(settings: Settings, days: int, **rule: Any) -> None:
    rule = {"ID": "x", "Status": "Enabled", "Filter": {"Prefix": "images/"}, "Expiration": {"Days": days}} | rule
    laptop.client("s3").put_bucket_lifecycle_configuration(
        Bucket=settings.raw_bucket, LifecycleConfiguration={"Rules": [rule]}
    )


def days_from_now(strict: Settings, lake: Lake, tmp_path: Path, days: float) -> int:
    before, after = tmp_path / "before.parquet", tmp_path / "after.parquet"
    before.write_bytes(lake.read("runs/r1/listing.parquet") or b"")
    after.write_bytes(lake.read("runs/r2/listing.parquet") or b"")
    return require_plausible_removals(strict, lake, before, after, datetime.now(UTC) + timedelta(days=days))


@pytest.fixture
def missing(strict: Settings) -> Settings:
    plan(strict, "r1")
    delete(strict, *KEYS[:4])
    plan(strict, "r2", force=True)
    return strict


def test_photos_that_the_buckets_lifecycle_has_expired_do_not_count(
    missing: Settings, lake: Lake, tmp_path: Path
) -> None:
    lifecycle(missing, days=30)
    assert days_from_now(missing, lake, tmp_path, 31) == 4
    with pytest.raises(RunRefused, match="4 of 12"):
        days_from_now(missing, lake, tmp_path, 29)


@pytest.mark.parametrize(
    "rule", [{"Status": "Disabled"}, {"Filter": {"Prefix": "other/"}}, {"Filter": {"Tag": {"Key": "a", "Value": "b"}}}]
)
def test_a_lifecycle_rule_that_does_not_apply_explains_nothing(
    missing: Settings, lake: Lake, tmp_path: Path, rule: dict[str, Any]
) -> None:
    lifecycle(missing, 30, **rule)
    with pytest.raises(RunRefused, match="4 of 12"):
        days_from_now(missing, lake, tmp_path, 31)
