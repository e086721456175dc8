"""Plan a run: what it does, and every reason to stop before anything is created."""

import logging
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from botocore.exceptions import ClientError

from fruits_airflow.config.aws_types import S3Client
from fruits_airflow.config.errors import ConfigError, NothingToDo, RunRefused
from fruits_airflow.config.run_parameters import RunParameters
from fruits_airflow.config.settings import Settings
from fruits_airflow.cost.estimate import Workload, deadline, fleets_eur_per_hour, worker_vcpus
from fruits_airflow.cost.prices import load_prices
from fruits_airflow.emr.cluster_body import Profile, load_profile, require_sound_profile
from fruits_airflow.emr.code_bundle import build_bundle
from fruits_airflow.records.pace import typical_seconds
from fruits_airflow.runs.forecast import forecast_run, past_runs
from fruits_airflow.runs.plan import ListingCounts, RunPlan
from fruits_airflow.runs.publication import (
    Fingerprint,
    PublicationState,
    change_state,
    read_state,
    reason_to_wait,
    require_work,
    settings_digest,
)
from fruits_airflow.runs.removals import require_plausible_removals
from fruits_airflow.runs.residency import EVIDENCE, survey
from fruits_airflow.storage import bucket_listing, listing
from fruits_airflow.storage.lake import MISSING, Lake, error_code, run_key

log = logging.getLogger(__name__)

# Settings that limit what a run may publish: the plan passes them to the stages, and they decide the result.
_LIMITS = (
    *("batch_size", "max_reject_rate", "min_explained_variance", "min_agreement"),
    *("max_drift_degrees", "max_variance_loss"),
    *("classifier", "shrinkage", "held_out_share", "refit_share", "max_accuracy_loss", "unknown_error"),
)
_PASSED_ON = ("raw_bucket", "lake_bucket", "max_removed_rows")


@dataclass(frozen=True)
class ListedPhotos:
    """What a listing of the raw bucket shows."""

    summary: listing.ListingSummary  # number, size and digest of the photos
    changes: listing.Changes  # the difference from the published listing
    leftovers: Mapping[str, int]  # objects of file managers that were left out, by kind
    expected_removals: int  # missing photos that lifecycle rules explain


def make_plan(
    settings: Settings,
    parameters: RunParameters,
    run_id: str,
    client: S3Client,
    kms_of: Callable[[str], Any],
    claim: Callable[[], None] = lambda: None,
) -> RunPlan:
    """Check and forecast a run, write its listing, and mark its database as worked on.

    `kms_of` returns the KMS client of a region. `claim` takes the database's lock, before the first look at what
    another writer may change.

    Raises:
        ConfigError: A bucket or the model is missing, or a value is wrong.
        ResidencyError: A bucket lies outside the European Union.
        RunRefused: Nothing to read, random weights at night, or a gate that refused the same before.
        NothingToDo: All this is published, or the run waits for more photos.
        CostCeilingExceeded: The forecast is above `max_cost_eur`.
        LockHeld: From `claim`; another run works on the database.
        ClientError, BotoCoreError: AWS does not answer now; another attempt asks again.
    """
    if run_id.startswith("notebook__"):  # include/stack.yaml
        raise RunRefused(f"{run_id}: notebooks may write files of runs that are called so; trigger with another run id")
    lake, now = Lake(client, settings.lake_bucket), datetime.now(UTC)
    _require_readable_input(settings, parameters, client)
    evidence = survey(settings, parameters.region, client, kms_of)
    lake_region: str = evidence["buckets"]["lake_bucket"]["region"]
    for role in ("service_role", "instance_profile"):
        if getattr(settings, role) is None:
            raise ConfigError(f"{role}: not set; take it from the outputs of the stack (include/stack.yaml)")
    model = find_model(lake, parameters)
    code_digest = build_bundle().digest
    profile, eur_per_hour = price_profile(
        settings, parameters.profile, parameters.region, lake_region, parameters.max_cost_eur
    )

    claim()
    state = read_state(lake, parameters.database)
    photos = _list_photos(settings, parameters, lake, run_id, state, now)
    fingerprint = Fingerprint(
        run_id=run_id,
        listing_digest=photos.summary.digest,
        code_digest=code_digest,
        model_id=model["model_id"],
        settings_digest=settings_digest(_settings_of_the_result(settings, parameters)),
    )
    is_forced = parameters.force or parameters.full_refresh
    require_work(state, fingerprint, is_forced)
    if parameters.mode == "nightly" and not is_forced:
        limits = settings.min_new_images, settings.max_wait_days
        if reason := reason_to_wait(state, fingerprint, photos.changes, now, *limits):
            raise NothingToDo(reason)
    work = _workload(parameters, photos, state, fingerprint.model_id, lake_region)
    past = past_runs(lake)
    forecast = forecast_run(parameters, past, profile, work, settings.interface_endpoints)
    lake.write_json(run_key(run_id, EVIDENCE), evidence)
    change_state(lake, parameters.database, lambda before: replace(before, begun=fingerprint))
    return RunPlan.model_validate(
        {
            **vars(parameters),
            **{name: getattr(settings, name) for name in (*_LIMITS, *_PASSED_ON)},
            "run_id": run_id,
            "planned_at": now.isoformat(),
            "run_folder": lake.uri(run_key(run_id)),
            "lake_region": lake_region,
            "model_id": fingerprint.model_id,
            "network": model.get("network", "MobileNetV2"),  # before there were others, none was named
            "weights": model.get("weights", "unknown"),
            "max_bytes": settings.max_photo_mib * 2**20,
            "max_pixels": settings.max_photo_megapixels * 10**6,
            "max_removed_share": 1.0 if parameters.force else settings.max_removed_share,
            "expected_removals": photos.expected_removals,
            "leftovers": dict(photos.leftovers),
            "eur_per_hour": eur_per_hour,
            "forecast_eur": forecast.total_eur,
            "forecast_parts": dict(forecast.parts),
            "vcpus": worker_vcpus(profile.instance_fleets),
            "images": ListingCounts(seen=photos.summary.images, **asdict(photos.changes)),
            "input_bytes": photos.summary.size_bytes,
            "typical_s": typical_seconds(past, parameters.mode, parameters.engine, photos.changes.new),
            "fingerprint": fingerprint,
        }
    )


def price_profile(
    settings: Settings, name: str, region: str, lake_region: str, max_cost_eur: float
) -> tuple[Profile, float]:
    """Return a profile of include/cluster.yaml, and its euros per hour.

    Raises:
        ConfigError: There is no such profile, or a cluster of it breaks a rule.
        CostCeilingExceeded: `max_cost_eur` does not pay for a cluster of it.
    """
    profile, now = load_profile(name), datetime.now(UTC)
    require_sound_profile(settings, profile, region, lake_region, now)
    eur_per_hour = fleets_eur_per_hour(profile.instance_fleets, load_prices(region), settings.interface_endpoints)
    deadline(now, max_cost_eur, 0.0, eur_per_hour, settings.max_cluster_minutes)
    return profile, eur_per_hour


def find_model(lake: Lake, parameters: RunParameters) -> Mapping[str, Any]:
    """Read the `model.json` of the run's model: of the reference model where the engine asks for it.

    Raises:
        ConfigError: No model is named, or its artifact is not in the lake.
        RunRefused: A nightly run with random weights.
    """
    if parameters.model_id is None:
        raise ConfigError("model_id: not set; run make model and set it (FRUITS_MODEL_ID or include/settings.yaml)")
    model = _read_model(lake, parameters.model_id)
    if model.get("engine") != parameters.engine:
        if parameters.engine != "tensorflow" or not model.get("reference_model_id"):
            raise ConfigError(
                f"engine: {parameters.engine!r} cannot run model {parameters.model_id[:16]}… "
                f"({model.get('engine')}); name the model of this engine, as make model printed it"
            )
        model = _read_model(lake, model["reference_model_id"])
    if model.get("weights") == "random":
        if parameters.mode == "nightly":
            raise RunRefused(
                f"model_id: {model['model_id'][:16]}… has random weights and may not be published by a nightly run; "
                "give make model ImageNet's or your own weights"
            )
        log.warning("weights: random. The vectors mean nothing; give make model real weights.")
    return model


def _read_model(lake: Lake, model_id: str) -> Mapping[str, Any]:
    folder = f"models/{model_id}/"
    key = f"{folder}model.json"
    model = lake.read_json(key)
    if model is None or f"{folder}{model.get('file', '')}" not in lake.keys(folder):
        raise ConfigError(f"model_id: no complete model at {lake.uri(key)}; run make model and upload what it wrote")
    return model


def _require_readable_input(settings: Settings, parameters: RunParameters, client: S3Client) -> None:
    """Refuse photos that the nodes may not read, and a bucket of another account.

    Raises:
        ConfigError: `input_prefix` is not below `raw_prefix`, or `raw_bucket_owner` does not own the bucket.
    """
    if not parameters.input_prefix.startswith(settings.raw_prefix):
        raise ConfigError(
            f"input_prefix: {parameters.input_prefix!r} is not below raw_prefix ({settings.raw_prefix!r}), the only "
            f"folder of {settings.raw_bucket!r} that the nodes may read; name a folder below it, or change raw_prefix "
            "and deploy the stack with the same RawPrefix"
        )
    bucket, owner = settings.raw_bucket, settings.raw_bucket_owner
    if owner is None:
        return
    try:
        client.head_bucket(Bucket=bucket, ExpectedBucketOwner=owner)
    except ClientError as error:
        if error_code(error) not in ("403", "AccessDenied"):
            raise
        raise ConfigError(
            f"raw_bucket_owner: account {owner} does not own {bucket!r}, or this Airflow may not read it; correct "
            "raw_bucket or raw_bucket_owner"
        ) from error


def _list_photos(
    settings: Settings, parameters: RunParameters, lake: Lake, run_id: str, state: PublicationState, now: datetime
) -> ListedPhotos:
    """List the input into the run's folder, and compare it with the listings of earlier runs.

    Raises:
        RunRefused: There is no photo, or too many photos of an earlier listing are missing.
    """
    prefix, bucket = parameters.input_prefix, settings.raw_bucket
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        path = folder / "listing.parquet"
        photo_filter = listing.PhotoFilter(prefix)
        objects = bucket_listing.list_objects(lake.client, bucket, prefix, settings.raw_bucket_owner)
        photos = photo_filter.photos(objects)
        if parameters.limit is not None:
            photos = iter(listing.choose(photos, parameters.limit))
        summary = listing.write_listing(photos, path)
        if photo_filter.leftovers:
            log.warning(
                "%d leftovers of file managers are not loaded: %s",
                *(photo_filter.leftovers.total(), dict(photo_filter.leftovers.most_common(10))),
            )
        if not summary.images:
            raise RunRefused(
                f"input_prefix: no photo below s3://{bucket}/{prefix}; "
                "check the bucket and the prefix, and that photos were uploaded"
            )
        lake.client.upload_file(str(path), lake.bucket, run_key(run_id, "listing.parquet"))
        published = _earlier_listing(lake, state.published, folder)
        changes = (
            listing.compare(listing.read_listing(published), listing.read_listing(path))
            if published
            else listing.Changes(new=summary.images, unchanged=0, removed=0)
        )
        expected = 0
        if parameters.complete and not parameters.force:
            for earlier in (published, _earlier_listing(lake, state.begun, folder)):
                if earlier:
                    expected = max(expected, require_plausible_removals(settings, lake, earlier, path, now))
    log.info(
        "%s: %d images (%d bytes): %d new, %d unchanged, %d removed",
        *(parameters.mode, summary.images, summary.size_bytes),
        *(changes.new, changes.unchanged, changes.removed),
    )
    return ListedPhotos(summary, changes, photo_filter.leftovers, expected)


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


def _workload(
    parameters: RunParameters, photos: ListedPhotos, state: PublicationState, model_id: str, lake_region: str
) -> Workload:
    """Compute what the run has to do: all images with a new model or a full refresh, else the new ones."""
    summary = photos.summary
    same_features = state.published is not None and state.published.model_id == model_id
    images = photos.changes.new if same_features and not parameters.full_refresh else summary.images
    is_remote = lake_region != parameters.region
    if is_remote:
        log.warning("The cluster runs in %s, the lake is in %s: transfer is billed", parameters.region, lake_region)
    # Each byte crosses a border once.
    return Workload(images, summary.images, summary.size_bytes / 2**30 if is_remote else 0.0)


def _settings_of_the_result(settings: Settings, parameters: RunParameters) -> dict[str, Any]:
    """Collect what decides what is published, beside input, code and model."""
    return {
        **{name: getattr(settings, name) for name in _LIMITS},
        "input": f"{settings.raw_bucket}/{parameters.input_prefix}",
        "limit": parameters.limit,
        "engine": parameters.engine,
        "variance": None if parameters.k is not None else parameters.variance,
        "k": parameters.k,
        "max_photo_mib": settings.max_photo_mib,
        "max_photo_megapixels": settings.max_photo_megapixels,
        "release_label": settings.release_label,
    }
