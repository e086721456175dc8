"""One endpoint for all tests of this folder, one account's worth of buckets for each."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from airflow.providers.amazon.aws.hooks.emr import EmrHook
from airflow.providers.amazon.aws.hooks.s3 import S3Hook
from fruits_airflow.config.settings import Settings
from fruits_airflow.emr.clusters import RunKey
from fruits_airflow.runs import run_context
from fruits_airflow.runs.plan import read_plan
from fruits_airflow.runs.run_context import RunContext

from tests.plugins import laptop
from tests.plugins.bash_steps import bash
from tests.plugins.doubles import KnownRuns

MODEL_ID = "a" * 64
_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with pytest.MonkeyPatch.context() as patch, laptop.local_aws(tmp_path_factory.mktemp("aws")) as url:
        for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN"):
            patch.delenv(name, raising=False)
        for name, value in laptop.aws_environment(url).items():
            patch.setenv(name, value)
        laptop.make_roles()
        yield url


@pytest.fixture(autouse=True)
def no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL", "0")  # nothing to settle without a scheduler
    for name in [name for name in os.environ if name.startswith("FRUITS_")]:
        monkeypatch.delenv(name)


@pytest.fixture(scope="session", autouse=True)
def clients_made_once() -> Iterator[None]:
    """Reads botocore's model of EMR once instead of for each operator; it is most of the suite's time."""
    made: dict[tuple[Any, ...], Any] = {}

    def once(hook: Any) -> Any:
        key = (hook.client_type, hook.region_name, str(hook.config.retries), os.environ.get("AWS_ENDPOINT_URL"))
        if key not in made:
            made[key] = hook.conn
        return made[key]

    with pytest.MonkeyPatch.context() as patch:
        for kind in (EmrHook, S3Hook):
            patch.setattr(kind, "get_conn", once)
        yield


@pytest.fixture
def settings() -> Settings:
    return Settings(
        deployment_id=f"test-{next(_numbers)}",
        raw_bucket="raw",
        lake_bucket="lake",
        model_id=MODEL_ID,
        service_role=laptop.SERVICE_ROLE,
        instance_profile=laptop.INSTANCE_PROFILE,
        security_configuration=laptop.SECURITY_CONFIGURATION,
        subnet_id="subnet-00000000",
        node_environment="preinstalled",
        poll_s=0.1,
        list_consistency_s=1.0,
        log_wait_s=5.0,
        terminate_timeout_minutes=1,
    )


@pytest.fixture
def account(endpoint: str, settings: Settings) -> Settings:
    """Settings whose buckets, model and code exist."""
    number = next(_numbers)
    made = replace(settings, raw_bucket=f"raw-{number}", lake_bucket=f"lake-{number}", subnet_id=laptop.subnet_id())
    laptop.make_bucket(made.raw_bucket)
    laptop.make_bucket(made.lake_bucket)
    laptop.put_model(made.lake_bucket, MODEL_ID)
    laptop.client("s3").put_object(Bucket=made.lake_bucket, Key="code/c0de/bootstrap.sh", Body=b"#!/bin/bash")
    return made


@pytest.fixture
def plan(account: Settings) -> dict[str, Any]:
    return {
        "run_id": "manual__2026-01-01T00:00:00+00:00",
        "planned_at": "2026-01-01T00:00:00+00:00",
        "run_folder": f"s3://{account.lake_bucket}/runs/manual__2026-01-01T00:00:00+00:00",
        "raw_bucket": account.raw_bucket,
        "lake_bucket": account.lake_bucket,
        "lake_region": "eu-west-1",
        "mode": "nightly",
        "complete": True,
        "database": "fruits",
        "profile": "demo",
        "region": "eu-west-1",
        "input_prefix": "images/",
        "limit": None,
        "variance": 0.95,
        "k": None,
        "engine": "litert",
        "batch_size": 1,
        "model_id": MODEL_ID,
        "network": "MobileNetV2",
        "weights": "path",
        "max_cost_eur": 5.0,
        "max_bytes": 96 * 2**20,
        "max_pixels": 210_000_000,
        "max_removed_share": 0.1,
        "max_removed_rows": 1000,
        "expected_removals": 0,
        "max_reject_rate": 0.2,
        "min_explained_variance": 0.5,
        "min_agreement": 0.5,
        "max_drift_degrees": 90.0,
        "max_variance_loss": 0.01,
        "classifier": "on",
        "shrinkage": 0.1,
        "held_out_share": 0.3,
        "refit_share": 0.1,
        "max_accuracy_loss": 0.1,
        "unknown_error": 0.1,
        "eur_per_hour": 0.5,
        "forecast_eur": 0.1,
        "forecast_parts": {"ec2": 0.08, "emr": 0.01, "s3": 0.01},
        "vcpus": 4,
        "full_refresh": False,
        "force": False,
        "images": {"seen": 3, "new": 3, "unchanged": 0, "removed": 0},
        "input_bytes": 30,
        "fingerprint": {
            "run_id": "manual__2026-01-01T00:00:00+00:00",
            "listing_digest": "l",
            "code_digest": "c",
            "model_id": MODEL_ID,
            "settings_digest": "s",
        },
    }


@pytest.fixture
def make_run(account: Settings, plan: dict[str, Any]) -> Iterator[Callable[..., RunContext]]:
    """Makes the cluster side of a run; ends what it made."""
    made: list[RunContext] = []

    def make(run_id: str = plan["run_id"], settings: Settings = account, dag_id: str = "fruits_pipeline") -> RunContext:
        run = RunContext(
            settings=settings,
            region=plan["region"],
            identity=RunKey(settings.deployment_id, dag_id, run_id),
            plan=read_plan(plan),
            code_digest="c0de",
            runs=KnownRuns(),
        )
        assert run.plan is not None
        run.keep(run.plan)
        run.journal.note("upload_code", digest="c0de")
        made.append(run)
        return run

    yield make
    for run in made:
        run.lifecycle.end_all(timeout_s=30)


@pytest.fixture
def run(make_run: Callable[..., RunContext]) -> RunContext:
    return make_run()


@pytest.fixture
def does(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Says what the steps do, as a line of bash; each stage has a step of its own."""
    monkeypatch.setattr("fruits_airflow.operators.emr.verify_code", lambda *_: None)

    def set_command(command: str) -> None:
        monkeypatch.setattr(run_context, "step_for", lambda stage, *_: bash(command, f"{stage}/1"))

    set_command("true")
    return set_command
