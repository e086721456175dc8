"""The tasks before the cluster: plan the run, and upload the code."""

import logging
from dataclasses import replace
from functools import partial
from typing import Any, NoReturn

from airflow.sdk import Context
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException
from botocore.exceptions import BotoCoreError, ClientError

from fruits_airflow.aws.clients import kms_client, require_role
from fruits_airflow.aws.endpoints import CALLED, is_simulated
from fruits_airflow.config.errors import FruitsError, LockHeld, NothingToDo
from fruits_airflow.config.run_parameters import mode_of, parameter_schemas, region_of, resolve_parameters
from fruits_airflow.config.settings import Settings
from fruits_airflow.emr.code_bundle import build_bundle, upload_bundle
from fruits_airflow.locking.lock_owners import lock_deadline
from fruits_airflow.records.models import RunRecord, State, write_record
from fruits_airflow.runs.attempts import clear_earlier_attempt
from fruits_airflow.runs.failures import fail_without_retry, record_failure
from fruits_airflow.runs.planning import make_plan
from fruits_airflow.runs.publication import Settled, change_state
from fruits_airflow.runs.residency import bucket_region
from fruits_airflow.runs.run_context import UPLOAD_TASK, RunContext, open_lake
from fruits_airflow.storage.lake import Lake, run_key

log = logging.getLogger(__name__)


def plan_run(settings: Settings, context: Context) -> dict[str, Any]:
    """Plan the run, or stop it before anything is created.

    Takes the database's lock before it looks at what another writer may change: what is listed must still be true
    when the cluster works. Only `verdict` gives it back, so that a retry or a resumed run keeps it.

    Raises:
        AirflowSkipException: There is nothing to do, or too little yet; run.json says skipped, and why.
        AirflowFailException: The run is refused; run.json says why, unless the lake itself is the reason.
        LockHeld: Another run works on the database.
    """
    run_id, lake = context["run_id"], open_lake(settings)

    def claim() -> None:
        RunContext.of(context, settings).lock(parameters.database).take(lock_deadline(settings))

    with fail_without_retry():  # only the log says why: this bucket may not be ours, or not in the EU
        bucket_region(lake.client, "lake_bucket", settings.lake_bucket)
    try:
        require_role(settings)
        conf = context["dag_run"].conf
        parameters = resolve_parameters(settings, context["params"], conf, parameter_schemas(settings))
        clear_earlier_attempt(lake, run_id)
        CALLED.keep(lake, run_key(run_id))
        plan = make_plan(settings, parameters, run_id, lake.client, partial(kms_client, settings), claim)
        return RunContext.of(context, settings).keep(plan)
    except NothingToDo as reason:
        settled = Settled.now(run_id, "skipped", str(reason))
        change_state(lake, parameters.database, lambda state: replace(state, settled=settled))
        _write_decision(lake, settings, context, "skipped", str(reason))
        raise AirflowSkipException(str(reason)) from reason
    except LockHeld:
        raise
    except FruitsError as reason:
        refuse_run(settings, context, reason)


def refuse_run(settings: Settings, context: Context, reason: FruitsError) -> NoReturn:
    """End the plan: the run is red, and nothing was created.

    Raises:
        AirflowFailException: Always; run.json says refused, and why.
    """
    message = f"{type(reason).__name__}: {reason}"
    _write_decision(open_lake(settings), settings, context, "refused", message)
    raise AirflowFailException(message) from reason


def upload_code(settings: Settings, context: Context) -> str:
    """Upload the code that the cluster runs; return its digest."""
    with record_failure(settings, context, UPLOAD_TASK):
        bundle, lake = build_bundle(), open_lake(settings)
        new = upload_bundle(bundle, lake)
        RunContext.of(context, settings).journal.note(UPLOAD_TASK, digest=bundle.digest)
    folder = lake.uri(f"code/{bundle.digest}/")
    log.info("%s holds the code: %d of %d objects were new", folder, new, len(bundle.files))
    return bundle.digest


def _write_decision(lake: Lake, settings: Settings, context: Context, state: State, reason: str) -> None:
    params = context["params"]
    record = RunRecord(
        run_id=context["run_id"],
        state=state,
        reason=reason,
        mode=mode_of(settings, params),
        region=region_of(settings, params),
        simulated=is_simulated(lake.client),
    )
    try:
        write_record(lake, record)
    except (BotoCoreError, ClientError) as error:
        log.warning("run.json cannot be written: %s", error)
