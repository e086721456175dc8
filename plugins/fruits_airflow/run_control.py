"""What the tasks without a cluster do: plan, upload the code, report, and say how the run ended."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException
from botocore.exceptions import BotoCoreError, ClientError

from fruits_airflow.code_bundle import build_bundle, upload_bundle
from fruits_airflow.errors import FruitsError, NothingToDo
from fruits_airflow.journal import LAST_FAILURE
from fruits_airflow.lake import Lake, run_key
from fruits_airflow.operators import failing_for_good
from fruits_airflow.planning import forget_earlier_attempt, make_plan
from fruits_airflow.publication import Fingerprint, PublicationState, read_state, write_state
from fruits_airflow.run_cluster import PLAN_TASK, UPLOAD_TASK, RunCluster, open_lake
from fruits_airflow.run_parameters import mode_of, parameter_schemas, resolve_parameters
from fruits_airflow.run_record import State, assemble_record, blank_record, read_sample, read_stages
from fruits_airflow.settings import Settings
from fruits_airflow.stages import STAGES

if TYPE_CHECKING:
    from airflow.sdk import Context

log = logging.getLogger(__name__)

REPORT = "report.html"
WORK_TASKS = (
    *(PLAN_TASK, UPLOAD_TASK, "create_cluster", "cluster_ready"),
    *(f"{stage}.{task}" for stage in STAGES for task in ("add", "wait")),
)


def plan_run(settings: Settings, context: Context) -> dict[str, Any]:
    """Plans the run, or stops it before anything is created.

    Raises:
        AirflowSkipException: there is nothing to do; run.json says skipped.
        AirflowFailException: the run is refused; run.json says refused, and why.
    """
    run_id, params = context["run_id"], context["params"]
    lake = open_lake(settings)
    try:
        asked = resolve_parameters(settings, params, context["dag_run"].conf, parameter_schemas(settings))
        forget_earlier_attempt(lake, run_id)
        return make_plan(settings, asked, run_id, lake.client)
    except NothingToDo as reason:
        _write_decision(lake, settings, context, "skipped", str(reason))
        raise AirflowSkipException(str(reason)) from reason
    except FruitsError as reason:
        message = f"{type(reason).__name__}: {reason}"
        _write_decision(lake, settings, context, "refused", message)
        raise AirflowFailException(message) from reason


def upload_code(settings: Settings) -> str:
    """Ships the code that the cluster runs; returns its digest."""
    with failing_for_good():
        bundle, lake = build_bundle(), open_lake(settings)
        new = upload_bundle(bundle, lake)
    log.info(
        "%s holds the code: %d of %d objects were new",
        lake.uri(f"code/{bundle.digest}/"),
        new,
        len(bundle.files),
    )
    return bundle.digest


def report_run(settings: Settings, context: Context) -> str:
    """Writes report.html; returns its URI.

    Raises:
        AirflowSkipException: the plan stopped the run, so there is nothing to report.
    """
    run = RunCluster.of(context, settings)
    if not run.plan:
        raise AirflowSkipException("the plan stopped the run; run.json says why")
    stages = read_stages(run.lake, run.identity.run_id)
    record = assemble_record(run, mode_of(settings, context["params"]), stages)
    problems = _problems(_task_states(context), stages, run.journal.read(LAST_FAILURE))
    record |= {"state": "failed" if problems else "succeeded", "reason": "; ".join(problems)}
    return _write_report(run, record, stages)


def judge_run(settings: Settings, context: Context) -> None:
    """Says how the run ended, in run.json and by its own end.

    Raises:
        AirflowFailException: the run did not do all its work, or did not publish.
        TimeoutError: a cluster was not seen ended; a retry looks again.
    """
    run = RunCluster.of(context, settings)
    run_id, states = run.identity.run_id, _task_states(context)
    decided = None if run.plan else run.lake.read_json(run_key(run_id, "run.json"))
    stages = read_stages(run.lake, run_id)
    problems, leftovers = _problems(states, stages, run.journal.read(LAST_FAILURE)), 0
    lost_sight: Exception | None = None
    try:
        leftovers = len(run.desk.end_all(timeout_s=settings.terminate_timeout_minutes * 60))
    except (TimeoutError, BotoCoreError, ClientError) as error:
        lost_sight = error
        problems.append(f"a cluster may be alive: {error}")
    if decided and decided["state"] in ("skipped", "refused") and not lost_sight and not leftovers:
        log.info("%s: %s", decided["state"], decided["reason"])
        if decided["state"] == "skipped" and states[PLAN_TASK] == "skipped":
            return
        raise AirflowFailException(f"{decided['state']}: {decided['reason']}")

    record = assemble_record(run, mode_of(settings, context["params"]), stages)
    record |= {"state": "failed" if problems else "succeeded", "reason": "; ".join(problems)}
    if leftovers:
        log.warning("%d clusters were alive after terminate_cluster, and are ended", leftovers)
    if run.plan:
        # A run marked failed by hand skips report; a run resumed after it has more to say.
        if leftovers or run.lake.read(run_key(run_id, REPORT)) is None:
            _write_report_if_possible(run, record, stages)
        _record_publication(run, stages, published=not problems)
    run.lake.write_json(run_key(run_id, "run.json"), record)
    if lost_sight:
        raise lost_sight
    if problems:
        raise AirflowFailException(f"the run did not do its work: {record['reason']}")
    log.info("succeeded: %s", record["pca"])


def _task_states(context: Context) -> dict[str, str | None]:
    ti: Any = context["ti"]
    found = ti.get_task_states(dag_id=ti.dag_id, task_ids=list(WORK_TASKS), run_ids=[ti.run_id])
    states = found.get(ti.run_id, {})
    return {task: None if (state := states.get(task)) is None else str(state) for task in WORK_TASKS}


def _problems(
    states: Mapping[str, str | None],
    stages: Mapping[str, Mapping[str, Any]],
    failure: Mapping[str, Any] | None = None,
) -> list[str]:
    problems = [f"{task} is {state}" for task, state in states.items() if state != "success"]
    if problems and failure:
        problems.insert(0, f"{failure['stage']}: {failure['cause']}")
    publish = stages.get("publish")
    if publish is not None and not publish.get("published"):
        failed = [
            name for name, check in publish.get("quality", {}).get("checks", {}).items() if not check["ok"]
        ]
        problems.append(f"the quality gate refused: {', '.join(failed) or 'no check named'}")
    elif publish is None and not problems:
        problems.append("nothing was published, whatever the tasks say")
    return problems


def _record_publication(run: RunCluster, stages: Mapping[str, Mapping[str, Any]], *, published: bool) -> None:
    database = run.plan["database"]
    fingerprint = replace(Fingerprint(**run.plan["fingerprint"]), code_digest=run.code_digest)
    state = read_state(run.lake, database)
    if published:
        write_state(run.lake, database, PublicationState(published=fingerprint))
    elif stages.get("publish", {}).get("published") is False:
        write_state(run.lake, database, replace(state, gate_failed=fingerprint))


def _write_report(run: RunCluster, record: dict[str, Any], stages: dict[str, dict[str, Any]]) -> str:
    from fruits_airflow.report import render

    key = run_key(run.identity.run_id, REPORT)
    page = render(record, stages, read_sample(run.lake, run.identity.run_id))
    run.lake.write(key, page.encode(), "text/html; charset=utf-8")
    return run.lake.uri(key)


def _write_report_if_possible(
    run: RunCluster, record: dict[str, Any], stages: dict[str, dict[str, Any]]
) -> None:
    try:
        _write_report(run, record, stages)
    except Exception:
        log.exception("report.html cannot be written; a page does not decide how a run ended")


def _write_decision(lake: Lake, settings: Settings, context: Context, state: State, reason: str) -> None:
    params = context["params"]
    record = blank_record(context["run_id"], mode_of(settings, params), str(params.get("region")))
    try:
        lake.write_json(run_key(context["run_id"], "run.json"), {**record, "state": state, "reason": reason})
    except (BotoCoreError, ClientError) as error:
        log.warning("run.json cannot be written: %s", error)
