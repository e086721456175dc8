"""The tasks of an erasure that need no cluster: plan, take out of exports, remove the photos, receipt, verdict.

The cluster's tasks are the pipeline's own (operators.py, sensors.py); they find here the plan that they read.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from airflow.sdk.exceptions import AirflowFailException
from botocore.exceptions import BotoCoreError, ClientError

from fruits_airflow.aws.endpoints import FOLDER
from fruits_airflow.config.errors import (
    ConfigError,
    ErasureIncomplete,
    ErasureRefused,
)
from fruits_airflow.config.settings import Settings
from fruits_airflow.cost.estimate import deadline, fleets_eur_per_hour, worker_vcpus
from fruits_airflow.cost.prices import load_prices
from fruits_airflow.emr.cluster_body import load_profile
from fruits_airflow.emr.cluster_request import require_sound_profile
from fruits_airflow.emr.clusters import RunKey
from fruits_airflow.emr.stage_steps import ERASURE_JOB, ERASURE_STAGES
from fruits_airflow.erasure.redaction import erase_from_runs, keys_in_listings, still_named
from fruits_airflow.erasure.request import (
    Request,
    Targets,
    Wish,
    read_request,
    record_keys,
    record_request,
    require_confirmed,
    resolve,
    suppressed,
    suppression_key,
)
from fruits_airflow.locking.database_lock import DatabaseLock, take_together
from fruits_airflow.locking.lock_owners import lock_deadline
from fruits_airflow.runs.attempts import forget_failure
from fruits_airflow.runs.failures import waited_in_vain
from fruits_airflow.runs.notices import (
    Anchor,
    Notice,
    is_last_attempt,
    tell,
)
from fruits_airflow.runs.publication import PublicationState, change_state
from fruits_airflow.runs.residency import bucket_region
from fruits_airflow.runs.run_context import RunContext, open_lake
from fruits_airflow.storage.lake import Lake, erasure_key
from fruits_airflow.storage.object_versions import (
    abort_uploads,
    image_id_of,
    list_versions,
    remove_versions,
)
from fruits_airflow.storage.run_notes import LAST_FAILURE

if TYPE_CHECKING:
    from airflow.sdk import Context

log = logging.getLogger(__name__)

# What must have succeeded for a photo to be gone.
WORK_TASKS = (
    *("plan", "upload_code", "create_cluster", "cluster_ready"),
    *(f"{stage}.{task}" for stage in ERASURE_STAGES for task in ("add", "wait")),
    *("erase_exports", "erase_photos", "write_receipt"),
)


def parameter_schemas() -> dict[str, dict[str, Any]]:
    """JSON schema and default of each parameter of the DAG, by name."""
    words = {"type": ["null", "array"], "default": None, "maxItems": 10_000}
    return {
        "image_ids": {
            **words,
            "items": {"type": "string", "pattern": "^[0-9a-f]{64}$"},
            "description": "Ids of images (hex SHA-256 of the object's key); the way that leaves no key in Airflow",
        },
        "keys": {
            **words,
            "items": {"type": "string", "minLength": 1, "maxLength": 1024},
            "description": "Keys of objects in the raw bucket; Airflow keeps them with the run",
        },
        "prefix": {
            "type": ["null", "string"],
            "default": None,
            "minLength": 1,
            "maxLength": 1024,
            "description": "A folder of the raw bucket: everything that lies, or ever lay, below it",
        },
        "expected_photos": {
            "type": ["null", "integer"],
            "default": None,
            "minimum": 0,
            "description": "How many photos will be erased, from the plan of a run without this parameter; any other "
            "number stops the run before anything is erased",
        },
        "allow_missing": {
            "type": "boolean",
            "default": False,
            "description": "Go on although a part of the request matches no photo, since it may be gone already",
        },
    }


def plan_erasure(settings: Settings, context: Context) -> dict[str, Any]:
    """Takes both locks, settles which photos are meant, and writes suppression list and request.

    Raises:
        ConfigError: a parameter or a bucket is wrong.
        ResidencyError: a bucket lies outside the European Union.
        LockHeld: another run works on a database.
        CostCeilingExceeded: `max_cost_eur` pays for no cluster.
        ErasureRefused: what would be erased is not what `expected_photos` confirms.
    """
    run_id, params, lake = context["run_id"], context["params"], open_lake(settings)
    unknown = sorted(set(context["dag_run"].conf or {}) - set(parameter_schemas()))
    if unknown:
        raise ConfigError(
            f"conf: unknown {', '.join(unknown)}; an erasure takes {', '.join(parameter_schemas())}"
        )
    wish = Wish.of(params)
    lake_region = bucket_region(lake.client, "lake_bucket", settings.lake_bucket)
    forget_failure(lake, erasure_key(run_id))
    bucket_region(lake.client, "raw_bucket", settings.raw_bucket)
    profile, now = load_profile(settings.demo_profile), datetime.now(UTC)
    require_sound_profile(settings, profile, settings.region, lake_region, now)
    eur_per_hour = fleets_eur_per_hour(
        profile.instance_fleets, load_prices(settings.region), settings.interface_endpoints
    )
    deadline(
        now, settings.max_cost_eur, 0.0, eur_per_hour, settings.max_cluster_minutes
    )  # refuses a useless ceiling

    if wish.expected_photos is None:
        _confirmed_targets(settings, lake, run_id, wish)  # tells the number without waiting for a lock
    locks = _locks(RunContext.of(context, settings))
    take_together(locks, lock_deadline(settings))
    targets = _confirmed_targets(settings, lake, run_id, wish)
    databases = [lock.database for lock in locks]
    everywhere = [*databases, settings.notebook_database]  # a notebook takes no lock: its tables are its own
    for database in everywhere:  # of a cleared attempt, whose request may have been smaller
        lake.remove(_metrics_key(run_id, database))
    request = record_request(lake, run_id, targets.request, targets.keys | wish.keys)
    for database in databases:
        _overtake(lake, database, run_id)
    log.info(
        "%d image ids with %d contents are to be erased", len(request.image_ids), len(request.content_sha256)
    )
    return {
        "run_id": run_id,
        "planned_at": now.isoformat(),
        "run_folder": lake.uri(erasure_key(run_id)),
        "erasure": lake.uri(erasure_key(run_id, "request.json")),
        "photos": len(targets.keys),
        "lake_bucket": settings.lake_bucket,
        "lake_region": lake_region,
        "region": settings.region,
        "profile": profile.name,
        "databases": everywhere,
        "locked_databases": databases,
        "database": settings.database,
        "demo_database": settings.demo_database,
        "notebook_database": settings.notebook_database,
        "max_cost_eur": settings.max_cost_eur,
        "eur_per_hour": eur_per_hour,
        "vcpus": worker_vcpus(profile.instance_fleets),
    }


def _confirmed_targets(settings: Settings, lake: Lake, run_id: str, wish: Wish) -> Targets:
    """Find what would be erased, log it by count and folder, and refuse what was not confirmed."""
    targets = resolve(lake.client, settings.raw_bucket, wish, keys_in_listings(lake))
    for line in targets.summary():
        log.info("%s", line)
    require_confirmed(wish, targets, suppressed(lake, run_id), settings.max_erased_photos)
    return targets


def erase_exports(settings: Settings, context: Context) -> dict[str, Any]:
    """Takes the photos out of every run's folder and every log; returns counts.

    Raises:
        LockHeld: the task was cleared after `verdict` gave the locks back, and a run is at work by its listing.
    """
    run_id, lake = context["run_id"], open_lake(settings)
    take_together(_locks(RunContext.of(context, settings)), lock_deadline(settings))
    request = _request(lake, run_id)
    present = (version.key for version in list_versions(lake.client, settings.raw_bucket))
    known = (key for keys in (present, keys_in_listings(lake)) for key in keys)
    keys = record_keys(lake, run_id, (key for key in known if image_id_of(key) in request.image_ids))
    erased = erase_from_runs(lake, request.image_ids, keys, own_folder=f"{erasure_key(run_id)}/")
    log.info("%s", erased.as_json())
    return erased.as_json()


def erase_photos(settings: Settings, context: Context) -> dict[str, Any]:
    """Removes every version, marker and unfinished upload of the photos; returns counts.

    Raises:
        ErasureIncomplete: S3 kept one.
    """
    lake = open_lake(settings)
    ids = _request(lake, context["run_id"]).image_ids
    found = [v for v in list_versions(lake.client, settings.raw_bucket) if image_id_of(v.key) in ids]
    remove_versions(lake.client, settings.raw_bucket, found)
    markers = sum(version.is_marker for version in found)
    uploads = abort_uploads(lake.client, settings.raw_bucket, ids)
    counts = {"versions": len(found) - markers, "markers": markers, "uploads": uploads}
    log.info("%s", counts)
    return counts


def write_receipt(
    settings: Settings, context: Context, exports: dict[str, Any] | None, photos: dict[str, Any] | None
) -> str:
    """Looks once more whether the photos are gone, writes the receipt and removes the request; returns its URI.

    Raises:
        ErasureIncomplete: see `_receipt`.
    """
    run_id, lake = context["run_id"], open_lake(settings)
    if not _is_done(lake, run_id):
        receipt = _receipt(settings, lake, context["ti"].xcom_pull(task_ids="plan"), exports, photos)
        lake.write_json(erasure_key(run_id, "receipt.json"), receipt)
        # Before what the receipt was made from: another attempt of this task makes it again, or leaves it as it is.
        lake.remove(erasure_key(run_id, "request.json"))
    for key in lake.keys(f"{erasure_key(run_id)}/"):
        # the cluster may still be at its end: what the run notes of it goes last, in verdict
        if not key.endswith("/receipt.json") and not key.startswith(_notes(run_id)):
            lake.remove(key)
    return lake.uri(erasure_key(run_id, "receipt.json"))


def _receipt(
    settings: Settings,
    lake: Lake,
    plan: dict[str, Any],
    exports: dict[str, Any] | None,
    photos: dict[str, Any] | None,
) -> dict[str, Any]:
    """The receipt.

    Raises:
        ErasureIncomplete: a task has left no account of what it erased; a version of a photo is there, or a listing
            has it, for example because it was uploaded meanwhile; or something in the lake still names one.
    """
    run_id = plan["run_id"]
    request = _request(lake, run_id)
    tables = {database: lake.read_json(_metrics_key(run_id, database)) for database in plan["databases"]}
    accounts = {stage: tables[plan[database]] for stage, database in ERASURE_STAGES.items()}
    accounts |= {"erase_exports": exports, "erase_photos": photos}
    if silent := [task for task, account in accounts.items() if account is None]:
        raise ErasureIncomplete(
            f"{', '.join(silent)}: nothing says what was erased; a person may have marked it as success: clear it"
        )
    left = [
        v for v in list_versions(lake.client, settings.raw_bucket) if image_id_of(v.key) in request.image_ids
    ]
    if left:
        raise ErasureIncomplete(
            f"{len(left)} versions of these photos are in {settings.raw_bucket}; clear erase_photos"
        )
    if any(image_id_of(key) in request.image_ids for key in keys_in_listings(lake)):
        raise ErasureIncomplete("a run has listed one of these photos meanwhile; clear erase_exports")
    own_folder = f"{erasure_key(run_id)}/"
    if named := list(still_named(lake, request.image_ids, record_keys(lake, run_id, ()), own_folder)):
        raise ErasureIncomplete(
            f"{len(named)} objects in {settings.lake_bucket} still name one of these photos, for example {named[0]}; "
            "clear erase_exports"
        )
    return {
        "erasure_id": run_id,
        "planned_at": plan["planned_at"],
        "completed_at": datetime.now(UTC).isoformat(),
        **request.as_json(),
        "suppression": suppression_key(run_id),
        "photos": photos,
        "tables": tables,
        "exports": exports,
        "not_reached": "Airflow's own database and task logs keep the parameters of this run: see docs/gdpr.md",
    }


def judge_erasure(settings: Settings, context: Context) -> None:
    """Says by its own end whether the photos are gone; gives both locks back once no cluster is alive.

    An erasure that is not done, or of which nobody can tell, is told to whom the settings say: it was promised.

    Raises:
        AirflowFailException: a task did not do its work; the suppression list stands, and clearing the task goes on.
        TimeoutError: a cluster was not seen ended; a retry looks again.
    """
    try:
        _judge(settings, context)
    except AirflowFailException:
        raise
    except Exception as error:
        if is_last_attempt(context):
            run = RunKey(settings.deployment_id, context["dag"].dag_id, context["run_id"])
            tell(settings, Notice("red-run", run, f"the erasure could not be judged: {error}", None))
        raise


def _judge(settings: Settings, context: Context) -> None:
    run, ti = RunContext.of(context, settings), context["ti"]
    found: Any = ti.get_task_states(dag_id=ti.dag_id, task_ids=list(WORK_TASKS), run_ids=[ti.run_id])
    states = found.get(ti.run_id, {})
    problems = [f"{task} is {states.get(task)}" for task in WORK_TASKS if str(states.get(task)) != "success"]
    locks = _locks(run)
    try:
        # First: a run that is cleared from now on keeps the locks that it asks for.
        held = [lock.holding() for lock in locks]
    finally:
        _end_clusters(run)  # also where the lake denies
    for lock, holding in zip(locks, held, strict=True):
        lock.release(holding)
    if not problems and not _is_done(run.lake, run.identity.run_id):
        problems.append("no receipt is written: was a task marked as success?")
    if problems:
        failure = run.journal.read(LAST_FAILURE)
        if failure:
            problems.insert(0, f"{failure['stage']}: {failure['cause']}")
        cause = f"not everything is erased: {'; '.join(problems)}; clear what failed"
        anchor: Anchor = "lock-held" if waited_in_vain(failure) else "red-run"
        if failure and str(failure["cause"]).startswith(ErasureRefused.__name__):
            anchor = "refused"
        tell(settings, Notice(anchor, run.identity, cause, run.cost_so_far()))
        raise AirflowFailException(cause)
    _forget_notes(run)
    log.info("erased: %s", run.lake.uri(erasure_key(ti.run_id, "receipt.json")))


def _end_clusters(run: RunContext) -> None:
    try:
        leftovers = run.desk.end_all(run.settings.terminate_timeout_minutes * 60)
    except (BotoCoreError, ClientError) as error:
        raise TimeoutError(f"a cluster may be alive: {error}") from error
    if leftovers:
        log.warning("%d clusters were alive after terminate_cluster, and are ended", len(leftovers))


def _locks(run: RunContext) -> list[DatabaseLock]:
    return [run.lock(database) for database in (run.settings.database, run.settings.demo_database)]


def _metrics_key(erasure_id: str, database: str) -> str:
    return erasure_key(erasure_id, f"{database}/stages/{ERASURE_JOB}.json")


def _is_done(lake: Lake, erasure_id: str) -> bool:
    """Whether the receipt has taken the request's place."""
    if read_request(lake, erasure_id):
        return False
    return lake.read(erasure_key(erasure_id, "receipt.json")) is not None


def _request(lake: Lake, erasure_id: str) -> Request:
    request = read_request(lake, erasure_id)
    if request is None:
        raise AirflowFailException(f"{erasure_key(erasure_id)}: no request; clear the task plan")
    return request


def _overtake(lake: Lake, database: str, run_id: str) -> None:
    """Marks the database as worked on: older runs may not go on, and the next night is not skipped."""

    def overtake(state: PublicationState) -> PublicationState:
        last = state.begun or state.published
        return state if last is None else replace(state, begun=replace(last, run_id=run_id))

    change_state(lake, database, overtake)


def _forget_notes(run: RunContext) -> None:
    """Removes journal and endpoints: of an erasure that is done the receipt stays."""
    for prefix in _notes(run.identity.run_id):
        for key in run.lake.keys(prefix):
            run.lake.remove(key)


def _notes(run_id: str) -> tuple[str, ...]:
    return tuple(erasure_key(run_id, f"{folder}/") for folder in ("journal", FOLDER))
