"""The tasks of an erasure after its cluster: redact exports and logs, remove the photos, write the receipt."""

import logging
from datetime import UTC, datetime
from typing import Any

from airflow.sdk import Context
from airflow.sdk.exceptions import AirflowFailException

from fruits_airflow.aws.endpoints import FOLDER
from fruits_airflow.config.errors import ErasureIncomplete
from fruits_airflow.config.settings import Settings
from fruits_airflow.emr.stage_steps import ERASURE_STAGES
from fruits_airflow.erasure.plan import COUNTED_TASKS, locks_of, metrics_key
from fruits_airflow.erasure.redaction import Redaction, keys_in_listings
from fruits_airflow.erasure.request import ErasureTargets, read_targets, record_keys, suppression_key
from fruits_airflow.erasure.stored_content import bounded_memory
from fruits_airflow.locking.database_lock import take_all
from fruits_airflow.locking.lock_owners import lock_deadline
from fruits_airflow.runs.run_context import RunContext, open_lake
from fruits_airflow.storage.lake import Lake, erasure_key
from fruits_airflow.storage.object_versions import (
    PhotoVersion,
    abort_uploads,
    image_id_of,
    list_versions,
    remove_versions,
)

log = logging.getLogger(__name__)

Counts = dict[str, Any]


@bounded_memory()
def erase_exports(settings: Settings, context: Context) -> Counts:
    """Redact the photos from every run's folder and every log; return counts.

    Raises:
        LockHeld: The task was cleared after `verdict` gave the locks back, and a run works by its listing.
    """
    run_id, lake = context["run_id"], open_lake(settings)
    run = RunContext.of(context, settings)
    take_all(locks_of(run), lock_deadline(settings))
    targets = _targets(lake, run_id)
    keys = {version.key for version in list_versions(lake.client, settings.raw_bucket)}
    keys.update(keys_in_listings(lake))
    keys_of_photos = record_keys(lake, run_id, (k for k in keys if image_id_of(k) in targets.image_ids))
    counts = Redaction(lake, targets.image_ids, keys_of_photos, f"{erasure_key(run_id)}/").erase().as_json()
    return _note(run, "erase_exports", counts)


def erase_photos(settings: Settings, context: Context) -> Counts:
    """Remove every version, marker and unfinished upload of the photos; return counts.

    Raises:
        ErasureIncomplete: S3 kept a version.
    """
    lake = open_lake(settings)
    targets = _targets(lake, context["run_id"])
    versions = _versions_of(settings, lake, targets)
    remove_versions(lake.client, settings.raw_bucket, versions)
    markers = sum(version.is_marker for version in versions)
    uploads = abort_uploads(lake.client, settings.raw_bucket, targets.image_ids)
    counts = {"versions": len(versions) - markers, "markers": markers, "uploads": uploads}
    return _note(RunContext.of(context, settings), "erase_photos", counts)


def _note(run: RunContext, task: str, counts: Counts) -> Counts:
    """Note counts for the receipt: a person may edit the result of the task."""
    log.info("%s", counts)
    run.journal.note(task, counts=counts)
    return counts


@bounded_memory()
def write_receipt(settings: Settings, context: Context) -> str:
    """Check that the photos are gone, write the receipt, and remove the targets; return the receipt's URI.

    Raises:
        ConfigError: A person has edited the plan.
        ErasureIncomplete: See `_receipt`.
    """
    run_id, lake = context["run_id"], open_lake(settings)
    receipt_key = erasure_key(run_id, "receipt.json")
    if not has_receipt(lake, run_id):
        lake.write_json(receipt_key, _receipt(settings, RunContext.of(context, settings)))
        # First the targets: while they exist, another attempt of this task writes the receipt again.
        lake.remove(erasure_key(run_id, "request.json"))
    # The cluster may still be ending, so that `verdict` removes the notes on it.
    kept = (receipt_key, *_notes_of(run_id))
    for key in lake.keys(f"{erasure_key(run_id)}/"):
        if not key.startswith(kept):
            lake.remove(key)
    return lake.uri(receipt_key)


def has_receipt(lake: Lake, erasure_id: str) -> bool:
    """Whether the receipt has replaced the targets."""
    return read_targets(lake, erasure_id) is None and lake.read(erasure_key(erasure_id, "receipt.json")) is not None


def remove_notes(lake: Lake, erasure_id: str) -> None:
    """Remove the journal and the endpoints of an erasure: the receipt alone stays."""
    for prefix in _notes_of(erasure_id):
        for key in lake.keys(prefix):
            lake.remove(key)


def _notes_of(erasure_id: str) -> tuple[str, ...]:
    return tuple(erasure_key(erasure_id, f"{folder}/") for folder in ("journal", FOLDER))


def _targets(lake: Lake, erasure_id: str) -> ErasureTargets:
    targets = read_targets(lake, erasure_id)
    if targets is None:
        raise AirflowFailException(f"{erasure_key(erasure_id)}: no request; clear the task plan")
    return targets


def _versions_of(settings: Settings, lake: Lake, targets: ErasureTargets) -> list[PhotoVersion]:
    versions = list_versions(lake.client, settings.raw_bucket)
    return [version for version in versions if image_id_of(version.key) in targets.image_ids]


def _receipt(settings: Settings, run: RunContext) -> dict[str, Any]:
    """Return the receipt.

    Raises:
        ErasureIncomplete: A task has left no counts; a version of a photo exists, or a listing has it, for example
            because it was uploaded meanwhile; or something in the lake still names a photo.
    """
    plan, run_id, lake = run.require_plan().to_xcom(), run.identity.run_id, run.lake
    targets = _targets(lake, run_id)
    tables = {database: lake.read_json(metrics_key(run_id, database)) for database in plan["databases"]}
    counts = {stage: tables[plan[database]] for stage, database in ERASURE_STAGES.items()}
    counts |= {task: (run.journal.read(task) or {}).get("counts") for task in COUNTED_TASKS}
    if silent := [task for task, count in counts.items() if count is None]:
        raise ErasureIncomplete(
            f"{', '.join(silent)}: nothing says what was erased; a person may have marked it as success: clear it"
        )
    if versions := _versions_of(settings, lake, targets):
        raise ErasureIncomplete(
            f"{len(versions)} versions of these photos are in {settings.raw_bucket}; clear erase_photos"
        )
    if any(image_id_of(key) in targets.image_ids for key in keys_in_listings(lake)):
        raise ErasureIncomplete("a run has listed one of these photos meanwhile; clear erase_exports")
    keys = record_keys(lake, run_id, ())
    redaction = Redaction(lake, targets.image_ids, keys, f"{erasure_key(run_id)}/")
    if named := list(redaction.named_objects()):
        raise ErasureIncomplete(
            f"{len(named)} objects in {settings.lake_bucket} still name one of these photos, for example {named[0]}; "
            "clear erase_exports"
        )
    return {
        "erasure_id": run_id,
        "planned_at": plan["planned_at"],
        "completed_at": datetime.now(UTC).isoformat(),
        **targets.as_json(),
        "suppression": suppression_key(run_id),
        "photos": counts["erase_photos"],
        "tables": tables,
        "exports": counts["erase_exports"],
        "not_reached": "Airflow's own database and task logs keep the parameters of this run: see docs/gdpr.md",
    }
