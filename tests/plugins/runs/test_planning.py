"""Every reason to stop before anything is created."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError
from fruits_airflow.config.errors import (
    ConfigError,
    CostCeilingExceeded,
    FruitsError,
    NothingToDo,
    ResidencyError,
    RunRefused,
)
from fruits_airflow.config.run_parameters import parameter_schemas, resolve_parameters
from fruits_airflow.config.settings import Settings
from fruits_airflow.emr.code_bundle import CodeBundle
from fruits_airflow.runs import planning
from fruits_airflow.runs.attempts import clear_earlier_attempt
from fruits_airflow.runs.plan import ListingCounts, RunPlan, read_plan
from fruits_airflow.runs.planning import make_plan
from fruits_airflow.runs.publication import PublicationState, read_state
from fruits_airflow.storage.lake import Lake, run_key
from fruits_airflow.storage.listing import read_listing

from tests.plugins import laptop
from tests.plugins.conftest import MODEL_ID
from tests.plugins.doubles import Double
from tests.plugins.published import set_state

Planner = Callable[..., RunPlan]


@pytest.fixture
def photos(account: Settings) -> list[str]:
    keys = [f"images/Training/Apple/{n}.jpg" for n in range(3)]
    laptop.put_photos(account.raw_bucket, keys)
    return keys


@pytest.fixture
def plan_of(account: Settings, monkeypatch: pytest.MonkeyPatch) -> Planner:
    monkeypatch.setattr(planning, "build_bundle", lambda: CodeBundle({"a": b"code"}))
    schemas = parameter_schemas(account)

    def plan(run_id: str = "r1", settings: Settings = account, client: Any = None, **conf: Any) -> RunPlan:
        params = {name: schema["default"] for name, schema in schemas.items()} | conf
        parameters = resolve_parameters(settings, params, conf, schemas)
        return make_plan(settings, parameters, run_id, client or laptop.client("s3"), kms_of=laptop.kms_of)

    return plan


@pytest.fixture
def lake(account: Settings) -> Lake:
    return Lake(laptop.client("s3"), account.lake_bucket)


def publish(lake: Lake, plan: RunPlan) -> None:
    set_state(lake, plan.database, PublicationState(published=plan.fingerprint))


def test_the_plan_has_the_seconds_that_past_runs_took(plan_of: Planner, photos: list[str], lake: Lake) -> None:
    assert plan_of().typical_s == {}
    past = {
        **{"run_id": "scheduled__2025-12-01T02:00:00+00:00", "state": "succeeded", "mode": "nightly"},
        **{"images": {"new": len(photos)}, "features": {"engine": "litert"}, "seconds": {"featurize": 300}},
    }
    lake.write_json(run_key(past["run_id"], "run.json"), past)
    assert plan_of().typical_s == {"featurize": 300.0}


def test_the_plan_writes_the_listing_that_load_reads(
    plan_of: Planner, photos: list[str], lake: Lake, tmp_path: Path
) -> None:
    plan = plan_of()
    path = tmp_path / "listing.parquet"
    path.write_bytes(lake.read(run_key("r1", "listing.parquet")) or b"")
    assert [item.key for item in read_listing(path)] == photos
    assert plan.images == ListingCounts(seen=3, new=3, unchanged=0, removed=0)
    assert plan.run_folder == f"s3://{lake.bucket}/runs/r1"
    assert 0 < plan.forecast_eur < plan.max_cost_eur


def test_a_second_run_counts_what_changed_since_the_publication(
    plan_of: Planner, photos: list[str], lake: Lake, account: Settings
) -> None:
    publish(lake, plan_of())
    s3 = laptop.client("s3")
    s3.delete_object(Bucket=account.raw_bucket, Key=photos[0])
    s3.put_object(Bucket=account.raw_bucket, Key=photos[1], Body=b"changed")
    laptop.put_photos(account.raw_bucket, ["images/new.jpg"])
    assert plan_of("r2").images == ListingCounts(seen=3, new=2, unchanged=1, removed=1)


def test_a_listing_that_has_expired_counts_everything_as_new(plan_of: Planner, photos: list[str], lake: Lake) -> None:
    publish(lake, plan_of())
    lake.remove(run_key("r1", "listing.parquet"))
    assert plan_of("r2", force=True).images.new == len(photos)


@pytest.mark.usefixtures("photos")
def test_what_is_published_is_nothing_to_do_until_forced(plan_of: Planner, lake: Lake) -> None:
    publish(lake, plan_of())
    with pytest.raises(NothingToDo, match="r1"):
        plan_of("r2")
    assert plan_of("r3", force=True).run_id == "r3"


@pytest.mark.usefixtures("photos")
def test_a_night_waits_for_more_photos_and_nothing_else_does(plan_of: Planner, lake: Lake, account: Settings) -> None:
    patient = replace(account, min_new_images=2, max_wait_days=7)
    publish(lake, plan_of("r1", patient))
    laptop.put_photos(account.raw_bucket, ["images/new-1.jpg"])
    with pytest.raises(NothingToDo, match=r"waiting for 1 more new photos: 1 of 2 \(min_new_images\)"):
        plan_of("r2", patient)
    state = read_state(lake, "fruits")
    assert state.begun is None, "the next night compares with the same publication"
    assert plan_of("r3", patient, limit=2).database == "fruits_demo"
    assert plan_of("r4", account).images.new == 1
    set_state(lake, "fruits", state)
    assert plan_of("r5", patient, force=True).images.new == 1
    set_state(lake, "fruits", state)
    laptop.put_photos(account.raw_bucket, ["images/new-2.jpg"])
    assert plan_of("r6", patient).images.new == 2
    set_state(lake, "fruits", state)
    laptop.client("s3").delete_object(Bucket=account.raw_bucket, Key="images/new-1.jpg")
    laptop.client("s3").delete_object(Bucket=account.raw_bucket, Key="images/Training/Apple/0.jpg")
    assert plan_of("r7", patient).images.removed == 1


@pytest.mark.usefixtures("photos")
def test_a_run_that_began_and_died_is_work_for_the_next(plan_of: Planner, lake: Lake, account: Settings) -> None:
    publish(lake, plan_of())
    laptop.put_photos(account.raw_bucket, ["images/new.jpg"])
    plan_of("died")
    assert read_state(lake, "fruits").begun is not None
    laptop.client("s3").delete_object(Bucket=account.raw_bucket, Key="images/new.jpg")
    assert plan_of("r3").run_id == "r3"


@pytest.mark.usefixtures("photos")
def test_a_new_model_forecasts_every_image(plan_of: Planner, lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    counted: list[int] = []
    real = planning.forecast_run

    def counting(parameters: Any, lake: Any, profile: Any, work: Any, private: bool) -> Any:
        counted.append(work.images)
        return real(parameters, lake, profile, work, private)

    monkeypatch.setattr(planning, "forecast_run", counting)
    publish(lake, plan_of())
    laptop.put_model(lake.bucket, "c" * 64)
    plan_of("r2", force=True)
    plan_of("r3", model_id="c" * 64)
    plan_of("r4", full_refresh=True)
    assert counted == [3, 0, 3, 3]


@pytest.mark.usefixtures("photos")
def test_a_plan_is_read_from_its_xcom_as_it_was_made(plan_of: Planner) -> None:
    plan = plan_of()
    assert read_plan(json.loads(json.dumps(plan.to_xcom()))) == plan


@pytest.mark.usefixtures("photos")
def test_leftovers_of_file_managers_are_neither_photos_nor_silent(
    plan_of: Planner, account: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    laptop.put_photos(account.raw_bucket, ["images/Training/._1.jpg", "images/.DS_Store"])
    plan = plan_of()
    assert plan.images.seen == 3
    assert plan.leftovers == {"._*": 1, ".DS_Store": 1}
    assert "2 leftovers of file managers are not loaded" in caplog.text


@pytest.mark.usefixtures("photos")
def test_a_bucket_of_another_account_is_refused(plan_of: Planner, account: Settings) -> None:
    real = laptop.client("s3")

    def head_bucket(**request: str) -> Any:
        if request.get("ExpectedBucketOwner", "123456789012") != "123456789012":
            raise ClientError({"Error": {"Code": "403", "Message": "Forbidden"}}, "HeadBucket")
        return real.head_bucket(**request)

    client = Double(real, head_bucket=head_bucket)
    for_others = replace(account, raw_bucket_owner="210987654321")
    with pytest.raises(ConfigError, match="raw_bucket_owner: account 210987654321 does not own"):
        plan_of(settings=for_others, client=client)
    assert plan_of(settings=replace(account, raw_bucket_owner="123456789012"), client=client)


def refusals(account: Settings) -> dict[str, tuple[Settings, dict[str, Any], type[FruitsError], str]]:
    return {
        "no photo": (account, {"input_prefix": "images/empty/"}, RunRefused, "no photo below"),
        "other folder": (
            account,
            {"input_prefix": "elsewhere/"},
            ConfigError,
            "input_prefix: 'elsewhere/' is not below raw_prefix .*deploy the stack",
        ),
        "no model named": (account, {"model_id": None}, ConfigError, "model_id: not set"),
        "no such model": (account, {"model_id": "d" * 64}, ConfigError, "no complete model"),
        "other engine": (account, {"engine": "tensorflow"}, ConfigError, "engine: 'tensorflow' cannot run"),
        "too dear": (account, {"max_cost_eur": 0.34}, CostCeilingExceeded, "max_cost_eur: the forecast"),
        "no use": (account, {"max_cost_eur": 0.01}, CostCeilingExceeded, "max_cost_eur"),
        "no raw bucket": (replace(account, raw_bucket="nowhere"), {}, ConfigError, "raw_bucket: cannot read 'nowhere'"),
        "no role": (replace(account, service_role=None), {}, ConfigError, "service_role: not set"),
        "no profile": (account, {"profile": "huge"}, ConfigError, "profile: 'huge' is not one of"),
    }


@pytest.mark.usefixtures("photos")
@pytest.mark.parametrize("case", refusals(Settings(deployment_id="xx", raw_bucket="raw", lake_bucket="lake")))
def test_a_run_that_cannot_be_is_refused(plan_of: Planner, account: Settings, lake: Lake, case: str) -> None:
    settings, conf, error, message = refusals(account)[case]
    with pytest.raises(error, match=message):
        plan_of(settings=settings, **conf)
    assert read_state(lake, "fruits") == PublicationState()


@pytest.mark.usefixtures("photos")
def test_no_run_works_in_a_folder_that_a_notebook_may_write(plan_of: Planner, lake: Lake) -> None:
    """By the policy of its role a notebook replaces the listing of such a run (`runs/notebook__*`)."""
    with pytest.raises(RunRefused, match="notebooks may write files of runs that are called so"):
        plan_of("notebook__x")
    assert lake.keys("runs/notebook__x/") == []


@pytest.mark.usefixtures("photos")
@pytest.mark.parametrize("setting", ["raw_bucket", "lake_bucket"])
def test_a_bucket_outside_the_union_is_refused(plan_of: Planner, account: Settings, setting: str) -> None:
    name = f"london-{account.deployment_id}-{setting.replace('_', '-')}"
    laptop.make_bucket(name, "eu-west-2")
    with pytest.raises(ResidencyError, match=rf"{setting} '{name}'.*United Kingdom"):
        plan_of(settings=replace(account, **{setting: name}))


@pytest.mark.usefixtures("photos")
def test_the_network_is_what_the_model_names(plan_of: Planner, lake: Lake) -> None:
    assert plan_of(limit=2).network == "MobileNetV2", "before there were others, none was named"
    laptop.put_model(lake.bucket, MODEL_ID, network="EfficientNetV2B0")
    assert plan_of("r2", limit=3).network == "EfficientNetV2B0"


@pytest.mark.usefixtures("photos")
def test_random_weights_are_for_demonstrations_only(plan_of: Planner, lake: Lake) -> None:
    laptop.put_model(lake.bucket, MODEL_ID, weights="random")
    with pytest.raises(RunRefused, match="random weights"):
        plan_of()
    assert plan_of(limit=2).weights == "random"


@pytest.mark.usefixtures("photos")
def test_the_reference_engine_takes_the_reference_model(plan_of: Planner, lake: Lake) -> None:
    laptop.put_model(lake.bucket, MODEL_ID, reference_model_id="e" * 64)
    laptop.put_model(lake.bucket, "e" * 64, engine="tensorflow", file="weights.h5")
    assert plan_of(engine="tensorflow").model_id == "e" * 64


@pytest.mark.usefixtures("photos")
def test_half_an_uploaded_model_is_no_model(plan_of: Planner, lake: Lake) -> None:
    lake.remove(f"models/{MODEL_ID}/model.tflite")
    with pytest.raises(ConfigError, match="no complete model"):
        plan_of()


@pytest.mark.usefixtures("photos")
@pytest.mark.parametrize(("call", "code"), [("get_paginator", "503"), ("download_file", "SlowDown")])
def test_what_s3_does_not_tell_now_is_for_another_attempt(plan_of: Planner, lake: Lake, call: str, code: str) -> None:
    def busy(*_: Any, **__: Any) -> Any:
        raise ClientError({"Error": {"Code": code, "Message": "busy"}}, call)

    publish(lake, plan_of())
    with pytest.raises(ClientError, match=code):
        plan_of("r2", client=Double(lake.client, **{call: busy}), force=True)
    assert read_state(lake, "fruits").begun is None


def test_a_cleared_run_forgets_what_it_had_reported(lake: Lake) -> None:
    pages = ("model_card.md", "datasheet.md", "lineage.json")
    gone = ("run.json", *pages, "stages/publish.json", "journal/last_failure.json")
    for name in (*gone, "listing.parquet"):
        lake.write_json(run_key("r1", name), {})
    clear_earlier_attempt(lake, "r1")
    assert [lake.read(run_key("r1", name)) for name in gone] == [None] * len(gone)
    assert lake.read(run_key("r1", "listing.parquet")) is not None
