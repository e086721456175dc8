"""How a run ended: in run.json, in the state of its database, and by the colour of its last task."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from airflow.sdk.exceptions import AirflowFailException
from botocore.exceptions import BotoCoreError, ClientError

from fruits_airflow.config.errors import RunOvertaken
from fruits_airflow.config.run_parameters import database_of, mode_of
from fruits_airflow.config.settings import Settings
from fruits_airflow.emr.clusters import RunKey
from fruits_airflow.records.digests import (
    CONTROL_FILES,
    NODE_FILES,
    REPORT,
    digest_files,
)
from fruits_airflow.records.models import (
    RunRecord,
    StageMetrics,
    read_record,
    read_stages,
    stage_file,
    write_record,
)
from fruits_airflow.runs.assets import announce
from fruits_airflow.runs.failures import waited_in_vain
from fruits_airflow.runs.notices import (
    Anchor,
    Notice,
    is_last_attempt,
    tell,
)
from fruits_airflow.runs.publication import (
    Fingerprint,
    PublicationState,
    Settled,
    change_state,
    require_not_overtaken,
)
from fruits_airflow.runs.record import assemble_record
from fruits_airflow.runs.report_task import residency_problems, write_report_if_possible
from fruits_airflow.runs.run_context import PLAN_TASK, RunContext
from fruits_airflow.runs.run_status import gate_refused, problems_of, task_states
from fruits_airflow.storage.run_notes import LAST_FAILURE

if TYPE_CHECKING:
    from airflow.sdk import Context

log = logging.getLogger(__name__)


def judge_run(settings: Settings, context: Context) -> None:
    """Says how the run ended, in run.json and by its own end; gives the database's lock back.

    The lock stays while a cluster of the run may be alive: whoever took it then would be a second writer. A red or
    refused run is told to whom the settings say; a published one is announced to the DAGs that follow it.

    Raises:
        AirflowFailException: the run did not do all its work, or did not publish, or this last attempt could not note
            its publication or give the lock back.
        TimeoutError: a cluster was not seen ended; a retry looks again, and the last one says so in run.json.
        ClientError, BotoCoreError: AWS does not answer; a retry asks again, and the last one writes what is known,
            unless run.json is what cannot be written.
    """
    try:
        _judge(settings, context)
    except (AirflowFailException, TimeoutError):
        raise
    except Exception as error:
        if is_last_attempt(context):
            run = RunKey(settings.deployment_id, context["dag"].dag_id, context["run_id"])
            tell(settings, Notice("red-run", run, f"the run could not be judged: {error}", None))
        raise


def _judge(settings: Settings, context: Context) -> None:
    last = is_last_attempt(context)
    run = RunContext.of(context, settings)
    run_id, states = run.identity.run_id, task_states(context)
    lock = run.lock(run.plan.get("database") or database_of(settings, context["params"]))
    undone: list[str] = []
    trying = partial(_trying, undone, last)
    # Not tried, as the rest is: what the plan has decided must not be written over unread.
    decided = None if run.plan else read_record(run.lake, run_id)
    stages, unusable, failure = dict[str, StageMetrics](), list[str](), None
    with trying("the run's notes cannot be read"):
        stages = read_stages(run.lake, run_id, unusable)
        failure = run.journal.read(LAST_FAILURE)
    problems = [] if undone else [*problems_of(states, stages, run.plan, failure), *unusable]
    held = None
    with trying(f"the lock of {lock.database} cannot be read"):
        held = lock.read()  # first: a run that is cleared from now on keeps the lock that it asks for
    leftovers, lost_sight = _end_clusters(run, last)
    if lost_sight:
        problems.append(str(lost_sight))
    stopped = decided if not (lost_sight or leftovers) and _stands(decided, states) else None
    digests = dict[str, str]()
    if not stopped:
        problems += residency_problems(run)
        with trying("the run's files cannot be read"):
            digests = digest_files(run.lake, run_id, NODE_FILES + CONTROL_FILES)
        problems += [
            f"{name} changed while the run was judged: was it written by another cluster?"
            for stage, metrics in stages.items()
            if digests and digests.get(name := stage_file(stage)) != metrics.sha256
        ]
    record = assemble_record(
        run, mode_of(settings, context["params"]), stages, ended=lost_sight is None, whole=not last
    )
    if leftovers:
        log.warning("%d clusters were alive after terminate_cluster, and are ended", leftovers)
    if run.plan:
        with trying(f"the state of {lock.database} cannot be written"):
            _record_publication(run, stages, published=not (problems or undone))
    if not lost_sight:
        with trying(f"the lock of {lock.database} cannot be given back"):
            lock.release(held)
    if stopped and not undone:
        _end_as_planned(settings, run, stopped)
        return

    problems = [*([stopped.reason] if stopped else problems), *undone]
    record = record.ended("failed" if problems else "succeeded", "; ".join(problems))
    if run.plan or undone:
        # A run marked failed by hand skips report; a run resumed after it has more to say.
        page = write_report_if_possible(run, record, stages, anew=bool(leftovers or problems))
        digests |= {REPORT: hashlib.sha256(page).hexdigest()} if page else {}
    write_record(run.lake, record.model_copy(update={"digests": digests}))
    if problems:
        # From here and not from a callback of the DAG: that would run in the dag-processor, once, if it is up.
        anchor = _anchor(stages, failure, cluster_may_live=lost_sight is not None)
        tell(settings, Notice(anchor, run.identity, record.reason, record.cost.estimate_eur))
    if lost_sight:
        raise lost_sight
    if problems:
        raise AirflowFailException(f"the run did not do its work: {record.reason}")
    log.info("succeeded: %s", record.pca)
    announce(settings, context, run.plan["database"], record)


def _end_clusters(run: RunContext, last: bool) -> tuple[int, TimeoutError | None]:
    """How many clusters were alive, and are ended; and on the last attempt why one may be alive still.

    Raises:
        TimeoutError: one may be alive, and nothing is said yet: the next attempt may find all well.
    """
    try:
        return len(run.desk.end_all(run.settings.terminate_timeout_minutes * 60)), None
    except (TimeoutError, BotoCoreError, ClientError) as error:
        lost_sight = TimeoutError(f"a cluster may be alive: {error}")
        if not last:
            raise lost_sight from error
        return 0, lost_sight


@contextmanager
def _trying(undone: list[str], last: bool, what: str) -> Iterator[None]:
    """Ends an attempt by an error, so that the next one tries again; the last one notes the error and goes on.

    What a run could not do must not keep its end out of run.json.
    """
    try:
        yield
    except Exception as error:
        if not last:
            raise
        log.exception("%s; this was the last attempt", what)
        undone.append(f"{what}: {error}")


def _stands(decided: RunRecord | None, states: Mapping[str, str | None]) -> bool:
    """Whether the plan has stopped the run, and Airflow shows it so."""
    state = decided.state if decided else None
    return state == "refused" or (state == "skipped" and states[PLAN_TASK] == "skipped")


def _end_as_planned(settings: Settings, run: RunContext, decided: RunRecord) -> None:
    log.info("%s: %s", decided.state, decided.reason)
    if decided.state == "refused":
        tell(settings, Notice.of_refusal(run.identity, decided.reason))
        raise AirflowFailException(f"refused: {decided.reason}")


def _anchor(
    stages: Mapping[str, StageMetrics], failure: Mapping[str, Any] | None, *, cluster_may_live: bool
) -> Anchor:
    if cluster_may_live:
        return "cluster-will-not-die"
    if waited_in_vain(failure):  # before the gate: of a resumed run, that is the earlier attempt's
        return "lock-held"
    return "gate-failed" if gate_refused(stages) else "red-run"


def _record_publication(run: RunContext, stages: Mapping[str, StageMetrics], *, published: bool) -> None:
    database = run.plan["database"]
    fingerprint = replace(Fingerprint(**run.plan["fingerprint"]), code_digest=run.code_digest)
    settled = Settled.now(run.identity.run_id, "succeeded")

    def settle(state: PublicationState) -> PublicationState:
        require_not_overtaken(state, run.identity.run_id)
        if published:
            return PublicationState(published=fingerprint, settled=settled)
        return replace(state, gate_failed=fingerprint) if gate_refused(stages) else state

    try:
        change_state(run.lake, database, settle)
    except RunOvertaken as reason:
        log.warning("The state of %s stays as it is: %s", database, reason)
