"""The task `plan` of an erasure: find the photos, require their confirmation, take the locks, suppress the photos."""

import logging
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from airflow.sdk import Context

from fruits_airflow.config.param_check import check_params
from fruits_airflow.config.settings import Settings
from fruits_airflow.cost.estimate import worker_vcpus
from fruits_airflow.emr.stage_steps import ERASURE_JOB
from fruits_airflow.erasure.redaction import STAGING, keys_in_listings
from fruits_airflow.erasure.request import (
    ErasureRequest,
    Resolution,
    parameter_schemas,
    read_suppressed,
    record_targets,
    require_confirmed,
    resolve,
)
from fruits_airflow.erasure.stored_content import bounded_memory
from fruits_airflow.locking.database_lock import DatabaseLock, take_all
from fruits_airflow.locking.lock_owners import lock_deadline
from fruits_airflow.runs.attempts import clear_failure
from fruits_airflow.runs.plan import ErasurePlan
from fruits_airflow.runs.planning import price_profile
from fruits_airflow.runs.publication import PublicationState, change_state
from fruits_airflow.runs.residency import bucket_region
from fruits_airflow.runs.run_context import RunContext, open_lake
from fruits_airflow.storage.lake import Lake, erasure_key

log = logging.getLogger(__name__)

COUNTED_TASKS = ("erase_exports", "erase_photos")  # they note what they have erased, for the receipt


@bounded_memory()
def plan_erasure(settings: Settings, context: Context) -> dict[str, Any]:
    """Take both locks, settle which photos are meant, write the suppression list and the targets; return the plan.

    Raises:
        ConfigError: A parameter or a bucket is wrong.
        ResidencyError: A bucket lies outside the European Union.
        LockHeld: Another run works on a database.
        CostCeilingExceeded: `max_cost_eur` pays for no cluster.
        ErasureRefused: What would be erased is not what `expected_photos` confirms.
    """
    run_id, params, lake = context["run_id"], context["params"], open_lake(settings)
    check_params(params, context["dag_run"].conf, parameter_schemas(), "an erasure", is_personal=True)
    request, now = ErasureRequest.of(params), datetime.now(UTC)
    lake_region = bucket_region(lake.client, "lake_bucket", settings.lake_bucket)
    clear_failure(lake, erasure_key(run_id))
    bucket_region(lake.client, "raw_bucket", settings.raw_bucket)
    profile, eur_per_hour = price_profile(
        settings, settings.demo_profile, settings.region, lake_region, settings.max_cost_eur
    )

    if request.expected_photos is None:
        _resolve_confirmed(settings, lake, run_id, request)  # says the number without waiting for a lock
    run = RunContext.of(context, settings)
    locks = locks_of(run)
    take_all(locks, lock_deadline(settings))
    resolution = _resolve_confirmed(settings, lake, run_id, request)
    databases = tuple(lock.database for lock in locks)
    # Left by an attempt that may have erased less. Notebooks take no lock and have their own tables.
    for database in (*databases, settings.notebook_database):
        lake.remove(metrics_key(run_id, database))
    for task in COUNTED_TASKS:
        run.journal.forget(task)
    targets = record_targets(lake, run_id, resolution.targets, resolution.keys | request.keys)
    for database in databases:
        _overtake(lake, database, run_id)
    log.info("%d image ids with %d contents are to be erased", *map(len, targets.as_json().values()))
    plan = ErasurePlan(
        run_id=run_id,
        planned_at=now.isoformat(),
        run_folder=lake.uri(erasure_key(run_id)),
        erasure=lake.uri(erasure_key(run_id, "request.json")),
        photos=len(resolution.keys),
        lake_bucket=settings.lake_bucket,
        lake_region=lake_region,
        databases=(*databases, settings.notebook_database),
        locked_databases=databases,
        database=settings.database,
        demo_database=settings.demo_database,
        notebook_database=settings.notebook_database,
        region=settings.region,
        profile=profile.name,
        max_cost_eur=settings.max_cost_eur,
        eur_per_hour=eur_per_hour,
        vcpus=worker_vcpus(profile.instance_fleets),
    )
    return run.keep(plan)


def locks_of(run: RunContext) -> list[DatabaseLock]:
    """Return the locks of the databases that runs write to."""
    return [run.lock(database) for database in (run.settings.database, run.settings.demo_database)]


def metrics_key(erasure_id: str, database: str) -> str:
    """Return the key of the metrics that the step for a database leaves."""
    return erasure_key(erasure_id, f"{database}/stages/{ERASURE_JOB}.json")


def _resolve_confirmed(settings: Settings, lake: Lake, run_id: str, request: ErasureRequest) -> Resolution:
    """Find what would be erased, log it by count and folder, and refuse what is not confirmed."""
    resolution = resolve(lake.client, settings.raw_bucket, request, keys_in_listings(lake))
    for line in resolution.summary():
        log.info("%s", line)
    log.info("%d objects of scratch space in %s would go with them", len(lake.keys(STAGING)), STAGING)
    require_confirmed(request, resolution, read_suppressed(lake, run_id), settings.max_erased_photos)
    return resolution


def _overtake(lake: Lake, database: str, run_id: str) -> None:
    """Mark the database as worked on, so that older runs may not go on and the next run is not skipped."""

    def overtake(state: PublicationState) -> PublicationState:
        last = state.begun or state.published
        return state if last is None else replace(state, begun=replace(last, run_id=run_id))

    change_state(lake, database, overtake)
