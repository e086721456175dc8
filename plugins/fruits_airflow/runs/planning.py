"""The plan: what the run will do, and every reason to stop before anything is created."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from fruits_airflow.config.errors import ConfigError, RunRefused
from fruits_airflow.config.run_parameters import RunParameters
from fruits_airflow.config.settings import Settings
from fruits_airflow.cost.estimate import (
    Workload,
    deadline,
    fleets_eur_per_hour,
    worker_vcpus,
)
from fruits_airflow.cost.prices import load_prices
from fruits_airflow.emr.cluster_body import load_profile, require_sound_profile
from fruits_airflow.emr.code_bundle import build_bundle
from fruits_airflow.runs.forecast import forecast_run
from fruits_airflow.runs.publication import (
    Fingerprint,
    change_state,
    read_state,
    require_work,
    settings_digest,
)
from fruits_airflow.runs.removals import require_believable
from fruits_airflow.runs.residency import EVIDENCE, survey, unknown_key
from fruits_airflow.storage import bucket_listing, listing
from fruits_airflow.storage.lake import (
    MISSING,
    Lake,
    error_code,
    run_key,
)

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

log = logging.getLogger(__name__)


def make_plan(
    settings: Settings,
    asked: RunParameters,
    run_id: str,
    client: S3Client,
    claim: Callable[[], None] = lambda: None,
    describe_key: Callable[[str, str], str] = unknown_key,
) -> dict[str, Any]:
    """Checks and forecasts a run, writes its listing, and says what the other tasks need to know.

    Args:
        settings: of the deployment.
        asked: what this run is to do.
        run_id: of the run.
        client: S3 client.
        claim: makes the database this run's; called before the first look at what another writer may change.
        describe_key: gives the ARN of a KMS key by region and id.

    Returns:
        The plan, as JSON can hold it.

    Raises:
        ConfigError: a bucket or the model is missing, or a value is wrong.
        ResidencyError: a bucket lies outside the European Union.
        RunRefused: nothing to read, random weights at night, or a gate that refused the same before.
        NothingToDo: all this is published.
        CostCeilingExceeded: the forecast is above `max_cost_eur`.
        LockHeld: from `claim`; another run works on the database.
        ClientError, BotoCoreError: AWS does not answer now; another attempt asks again.
    """
    lake = Lake(client, settings.lake_bucket)
    if settings.raw_bucket_owner:
        _require_owner(client, settings.raw_bucket, settings.raw_bucket_owner)
    evidence = survey(settings, asked.region, client, describe_key)
    lake_region = evidence["buckets"]["lake_bucket"]["region"]
    if lake_region != asked.region:
        log.warning(
            "The cluster runs in %s, the lake is in %s: transfer is billed", asked.region, lake_region
        )
    for name in ("service_role", "instance_profile"):
        if getattr(settings, name) is None:
            raise ConfigError(f"{name}: not set; take it from the outputs of the stack (include/stack.yaml)")
    model = find_model(lake, asked)
    code_digest = build_bundle().digest
    profile = load_profile(asked.profile)
    require_sound_profile(settings, profile, asked.region, lake_region, datetime.now(UTC))
    eur_per_hour = fleets_eur_per_hour(
        profile.instance_fleets, load_prices(asked.region), settings.interface_endpoints
    )
    now = datetime.now(UTC)
    deadline(
        now, asked.max_cost_eur, 0.0, eur_per_hour, settings.max_cluster_minutes
    )  # refuses a useless ceiling

    claim()
    state = read_state(lake, asked.database)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "listing.parquet"
        filtered = listing.PhotoFilter(asked.input_prefix)
        photos = filtered.photos(
            bucket_listing.list_objects(
                client, settings.raw_bucket, asked.input_prefix, settings.raw_bucket_owner
            )
        )
        summary = listing.write_listing(
            photos if asked.limit is None else listing.choose(photos, asked.limit), path
        )
        if filtered.leftovers:
            log.warning(
                "%d leftovers of file managers are not loaded: %s",
                *(filtered.leftovers.total(), dict(filtered.leftovers.most_common(10))),
            )
        if not summary.images:
            raise RunRefused(
                f"input_prefix: no photo below s3://{settings.raw_bucket}/{asked.input_prefix}; "
                "check the bucket and the prefix, and that photos were uploaded"
            )
        client.upload_file(str(path), lake.bucket, run_key(run_id, "listing.parquet"))
        changes = _changes_since(state.published, lake, path, Path(folder), summary)
        expected_removals = 0
        if asked.complete and not asked.force:
            for earlier in (state.published, state.begun):
                before = _earlier_listing(lake, earlier, Path(folder))
                if before is not None:
                    allowed = require_believable(settings, lake, before, path, now)
                    expected_removals = max(expected_removals, allowed)
    fingerprint = Fingerprint(
        run_id=run_id,
        listing_digest=summary.digest,
        code_digest=code_digest,
        model_id=model["model_id"],
        settings_digest=settings_digest(_what_decides_the_result(settings, asked)),
    )
    log.info(
        "%s: %d images (%d bytes): %d new, %d unchanged, %d removed",
        *(asked.mode, summary.images, summary.size_bytes, changes.new, changes.unchanged, changes.removed),
    )
    require_work(state, fingerprint, asked.force or asked.full_refresh)

    same_features = state.published is not None and state.published.model_id == model["model_id"]
    images = changes.new if same_features and not asked.full_refresh else summary.images
    apart = (
        summary.size_bytes / 2**30 if lake_region != asked.region else 0.0
    )  # every byte crosses a border once
    work = Workload(images, summary.images, apart)
    forecast = forecast_run(asked, lake, profile, work, settings.interface_endpoints)
    lake.write_json(run_key(run_id, EVIDENCE), evidence)
    change_state(lake, asked.database, lambda found: replace(found, begun=fingerprint))
    return {
        **asdict(asked),
        "run_id": run_id,
        "planned_at": now.isoformat(),
        "run_folder": lake.uri(run_key(run_id)),
        "raw_bucket": settings.raw_bucket,
        "lake_bucket": settings.lake_bucket,
        "lake_region": lake_region,
        "model_id": model["model_id"],
        "weights": model.get("weights", "unknown"),
        "batch_size": settings.batch_size,
        "max_bytes": settings.max_photo_mib * 2**20,
        "max_pixels": settings.max_photo_megapixels * 10**6,
        "max_removed_share": 1.0 if asked.force else settings.max_removed_share,
        "max_removed_rows": settings.max_removed_rows,
        "expected_removals": expected_removals,
        "leftovers": dict(filtered.leftovers),
        "max_reject_rate": settings.max_reject_rate,
        "min_explained_variance": settings.min_explained_variance,
        "min_agreement": settings.min_agreement,
        "max_drift_degrees": settings.max_drift_degrees,
        "max_variance_loss": settings.max_variance_loss,
        "eur_per_hour": eur_per_hour,
        "forecast_eur": forecast.total_eur,
        "forecast_parts": dict(forecast.parts),
        "vcpus": worker_vcpus(profile.instance_fleets),
        "images": {"seen": summary.images, **asdict(changes)},
        "input_bytes": summary.size_bytes,
        "fingerprint": asdict(fingerprint),
    }


def find_model(lake: Lake, asked: RunParameters) -> Mapping[str, Any]:
    """The `model.json` of the run's model: of the reference model where the engine asks for it.

    Raises:
        ConfigError: no model is named, or its artifact is not in the lake.
        RunRefused: a nightly run with random weights.
    """
    if asked.model_id is None:
        raise ConfigError(
            "model_id: not set; run make model and set it (FRUITS_MODEL_ID or include/settings.yaml)"
        )
    model = _read_model(lake, asked.model_id)
    if model.get("engine") != asked.engine:
        if asked.engine != "tensorflow" or not model.get("reference_model_id"):
            raise ConfigError(
                f"engine: {asked.engine!r} cannot run model {asked.model_id[:16]}… ({model.get('engine')}); "
                "name the model of this engine, as make model printed it"
            )
        model = _read_model(lake, model["reference_model_id"])
    if model.get("weights") == "random":
        if asked.mode == "nightly":
            raise RunRefused(
                f"model_id: {model['model_id'][:16]}… has random weights and may not be published by a nightly run; "
                "give make model ImageNet's or your own weights"
            )
        log.warning("weights: random. The vectors mean nothing; give make model real weights.")
    return model


def _read_model(lake: Lake, model_id: str) -> Mapping[str, Any]:
    key = f"models/{model_id}/model.json"
    model = lake.read_json(key)
    if model is None or not _exists(lake, f"models/{model_id}/{model.get('file', '')}"):
        raise ConfigError(
            f"model_id: no complete model at {lake.uri(key)}; run make model and upload what it wrote"
        )
    return model


def _exists(lake: Lake, key: str) -> bool:
    try:
        lake.client.head_object(Bucket=lake.bucket, Key=key)
    except ClientError as error:
        if error_code(error) in MISSING:
            return False
        raise
    return True


def _require_owner(client: S3Client, bucket: str, owner: str) -> None:
    try:
        client.head_bucket(Bucket=bucket, ExpectedBucketOwner=owner)
    except ClientError as error:
        if error_code(error) not in ("403", "AccessDenied"):
            raise
        raise ConfigError(
            f"raw_bucket_owner: account {owner} does not own {bucket!r}, or this Airflow may not read it; correct "
            "raw_bucket or raw_bucket_owner"
        ) from error


def _changes_since(
    published: Fingerprint | None, lake: Lake, path: Path, folder: Path, summary: listing.ListingSummary
) -> listing.Changes:
    before = _earlier_listing(lake, published, folder)
    if before is None:
        return listing.Changes(new=summary.images, unchanged=0, removed=0)
    return listing.compare(listing.read_listing(before), listing.read_listing(path))


def _earlier_listing(lake: Lake, earlier: Fingerprint | None, folder: Path) -> Path | None:
    """Download the listing of an earlier run into `folder`; None where there is none."""
    if earlier is None:
        return None
    before = folder / f"{earlier.listing_digest}.parquet"
    if before.exists():
        return before
    try:
        lake.client.download_file(lake.bucket, run_key(earlier.run_id, "listing.parquet"), str(before))
    except ClientError as error:
        if error_code(error) not in MISSING:
            raise
        log.warning("The listing of run %s is gone; no image can be compared with it", earlier.run_id)
        return None
    return before


def _what_decides_the_result(settings: Settings, asked: RunParameters) -> dict[str, Any]:
    return {
        "input": f"{settings.raw_bucket}/{asked.input_prefix}",
        "limit": asked.limit,
        "engine": asked.engine,
        "batch_size": settings.batch_size,
        "variance": None if asked.k is not None else asked.variance,
        "k": asked.k,
        "max_photo_mib": settings.max_photo_mib,
        "max_photo_megapixels": settings.max_photo_megapixels,
        "max_reject_rate": settings.max_reject_rate,
        "min_explained_variance": settings.min_explained_variance,
        "min_agreement": settings.min_agreement,
        "max_drift_degrees": settings.max_drift_degrees,
        "max_variance_loss": settings.max_variance_loss,
        "release_label": settings.release_label,
    }
