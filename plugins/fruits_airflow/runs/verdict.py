"""The task `verdict`: how a run ended, in run.json, in the state of its database, and by the state of the task."""

import hashlib
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from airflow.sdk import Context
from airflow.sdk.exceptions import AirflowFailException

from fruits_airflow.config.errors import RunOvertaken
from fruits_airflow.config.run_parameters import database_of, mode_of
from fruits_airflow.config.settings import Settings
from fruits_airflow.records.digests import CONTROL_FILES, NODE_FILES, digest_files
from fruits_airflow.records.models import RunRecord, StageMetrics, read_record, read_stages, stage_file, write_record
from fruits_airflow.runs.assets import announce
from fruits_airflow.runs.failures import is_lock_timeout, notify_unjudged
from fruits_airflow.runs.notices import Anchor, Notice, is_last_attempt, notify
from fruits_airflow.runs.plan import RunPlan
from fruits_airflow.runs.publication import PublicationState, Settled, change_state, require_not_overtaken
from fruits_airflow.runs.record import assemble_record
from fruits_airflow.runs.report_task import residency_problems, write_report_if_possible
from fruits_airflow.runs.run_context import EDITED, PLAN_TASK, RunContext
from fruits_airflow.runs.run_status import failed_task, gate_refused, problems_of, task_states
from fruits_airflow.storage.run_notes import LAST_FAILURE

log = logging.getLogger(__name__)


@dataclass
class Attempt:
    """An attempt of the task, and what the last attempt could not do."""

    is_last: bool  # whether Airflow does not retry the task by itself
    undone: list[str] = field(default_factory=list)  # a sentence for each error that the last attempt did not raise

    @contextmanager
    def trying(self, failure: str) -> Iterator[None]:
        """Raise an error, so that the next attempt tries again; record it in the last attempt, and go on.

        What a run could not do must not keep its end out of run.json.
        """
        try:
            yield
        except Exception as error:
            if not self.is_last:
                raise
            log.exception("%s; this was the last attempt", failure)
            self.undone.append(f"{failure}: {error}")


@dataclass(frozen=True)
class Facts:
    """What is known of a run when its clusters have ended."""

    states: Mapping[str, str | None]  # the states of the tasks that work
    stages: Mapping[str, StageMetrics]  # the metrics of the stages, by stage
    unusable: list[str]  # a sentence for the plan and for each metrics file that cannot be used
    plan: RunPlan | None  # None when the task `plan` returned nothing
    decided: RunRecord | None  # what the plan has recorded when it stopped the run
    failure: Mapping[str, Any] | None = None  # the recorded failure that Airflow does not retry
    ended: int = 0  # how many clusters were alive, and are ended now
    lost_sight: TimeoutError | None = None  # why a cluster may be alive

    @property
    def stopped(self) -> RunRecord | None:
        """What the plan has recorded, where it stopped the run and nothing contradicts it."""
        if self.decided is None or self.ended or self.lost_sight:
            return None
        is_skipped = self.decided.state == "skipped" and self.states[PLAN_TASK] == "skipped"
        return self.decided if self.decided.state == "refused" or is_skipped else None

    @property
    def anchor(self) -> Anchor:
        """The section of the runbook for a red run."""
        if self.lost_sight:
            return "cluster-will-not-die"
        if is_lock_timeout(self.failure):  # before the gate: a resumed run has the metrics of the earlier attempt
            return "lock-held"
        return "gate-failed" if gate_refused(self.stages) else "red-run"


def judge_run(settings: Settings, context: Context) -> None:
    """Record how the run ended, in run.json and by the end of this task; give the database's lock back.

    The lock stays while a cluster of the run may be alive: whoever took it then would be a second writer. A red or
    refused run is notified as the settings say; a published run is announced to the DAGs that follow it.

    Raises:
        AirflowFailException: The run did not do all its work, or did not publish, or this last attempt could not
            record its publication or give the lock back.
        TimeoutError: A cluster was not seen ended; a retry looks again, and the last one says so in run.json.
        ClientError, BotoCoreError: AWS does not answer; a retry asks again, and the last one writes what is known,
            unless run.json is what cannot be written.
    """
    attempt = Attempt(is_last_attempt(context))
    with notify_unjudged(settings, context, "the run", passes=(AirflowFailException, TimeoutError)):
        _judge(settings, context, attempt)


def _judge(settings: Settings, context: Context, attempt: Attempt) -> None:
    run, mode = RunContext.of(context, settings), mode_of(settings, context["params"])
    plan = run.run_plan
    lock = run.lock(plan.database if plan else database_of(settings, context["params"]))
    facts = _read_facts(run, task_states(context), attempt)
    has_notes, lock_held = not attempt.undone, None
    with attempt.trying(f"the lock of {lock.database} cannot be read"):
        # Before the clusters end: a run that is cleared from now on keeps the lock that it asks for.
        lock_held = lock.read()
    facts = _end_clusters(run, facts, attempt)
    problems = problems_of(facts.states, facts.stages, plan, facts.failure) if has_notes else []
    problems += facts.unusable if has_notes else []
    problems += [str(facts.lost_sight)] if facts.lost_sight else []
    digests: dict[str, str] = {}
    if not facts.stopped:
        digests, tampering = _read_digests(run, facts, attempt)
        problems += tampering
    record = assemble_record(run, mode, facts.stages, ended=facts.lost_sight is None, whole=not attempt.is_last)
    if plan and EDITED not in facts.unusable:
        with attempt.trying(f"the state of {lock.database} cannot be written"):
            _record_publication(run, plan, facts.stages, published=not (problems or attempt.undone))
    if not facts.lost_sight:
        with attempt.trying(f"the lock of {lock.database} cannot be given back"):
            lock.release(lock_held)
    if facts.stopped and not attempt.undone:
        log.info("%s: %s", facts.stopped.state, facts.stopped.reason)
        _emit_lineage(run, context, facts.stopped.state, {})
        if facts.stopped.state == "refused":
            notify(settings, Notice.of_refusal(run.identity, facts.stopped.reason))
            raise AirflowFailException(f"refused: {facts.stopped.reason}")
        return

    problems = [*([facts.stopped.reason] if facts.stopped else problems), *attempt.undone]
    record = record.ended("failed" if problems else "succeeded", "; ".join(problems))
    if plan or attempt.undone:
        # A run marked failed by hand skips report; a run resumed after it has more to report.
        written = write_report_if_possible(run, record, facts.stages, replace=bool(facts.ended or problems))
        digests |= {name: hashlib.sha256(content).hexdigest() for name, content in written.items()}
    write_record(run.lake, record.model_copy(update={"digests": digests}))
    if problems:
        # Here and not in a callback of the DAG: that would run in the dag-processor, once, if it is up.
        task = failed_task(facts.states)
        notify(settings, Notice(facts.anchor, run.identity, record.reason, record.cost.estimate_eur, task))
    _emit_lineage(run, context, record.state, facts.stages)
    if facts.lost_sight:
        raise facts.lost_sight
    if problems:
        raise AirflowFailException(f"the run did not do its work: {record.reason}")
    log.info("succeeded: %s", record.pca)
    announce(settings, context, lock.database, record)


def _emit_lineage(run: RunContext, context: Context, state: str, stages: Mapping[str, StageMetrics]) -> None:
    try:
        from fruits_airflow.runs import lineage

        lineage.emit(run, context["dag_run"].start_date, state, stages)
    except Exception:
        log.warning("The run's lineage is not complete, which does not decide how a run ended", exc_info=True)


def _read_facts(run: RunContext, states: Mapping[str, str | None], attempt: Attempt) -> Facts:
    # Read outside of `trying`: the last attempt must not write over what the plan has decided, either.
    decided = None if run.plan else read_record(run.lake, run.identity.run_id)
    stages, unusable, failure = dict[str, StageMetrics](), list[str](), None
    with attempt.trying("the run's notes cannot be read"):
        stages = read_stages(run.lake, run.identity.run_id, unusable)
        failure = run.journal.read(LAST_FAILURE)
        unusable += [EDITED] if run.is_edited else []
    return Facts(states, stages, unusable, run.run_plan, decided, failure)


def _end_clusters(run: RunContext, facts: Facts, attempt: Attempt) -> Facts:
    """End the clusters that are alive, and add the outcome to the facts.

    Raises:
        TimeoutError: One may be alive, and this is not the last attempt: the next may see it ended.
    """
    try:
        return replace(facts, ended=run.end_clusters())
    except TimeoutError as lost_sight:
        if not attempt.is_last:
            raise
        return replace(facts, lost_sight=lost_sight)


def _read_digests(run: RunContext, facts: Facts, attempt: Attempt) -> tuple[dict[str, str], list[str]]:
    """Return the digests of the run's files, and what is wrong: outside the EU, or changed since it was read."""
    problems, digests = residency_problems(run), dict[str, str]()
    with attempt.trying("the run's files cannot be read"):
        digests = digest_files(run.lake, run.identity.run_id, NODE_FILES + CONTROL_FILES)
        problems += [
            f"{name} changed while the run was judged: was it written by another cluster?"
            for stage, metrics in facts.stages.items()
            if digests and digests.get(name := stage_file(stage)) != metrics.sha256
        ]
    return digests, problems


def _record_publication(run: RunContext, plan: RunPlan, stages: Mapping[str, StageMetrics], *, published: bool) -> None:
    fingerprint = replace(plan.fingerprint, code_digest=run.code_digest)
    settled = Settled.now(run.identity.run_id, "succeeded")

    def settle(state: PublicationState) -> PublicationState:
        require_not_overtaken(state, run.identity.run_id)
        if published:
            return PublicationState(published=fingerprint, settled=settled)
        return replace(state, gate_failed=fingerprint) if gate_refused(stages) else state

    try:
        change_state(run.lake, plan.database, settle)
    except RunOvertaken as reason:
        log.warning("The state of %s stays as it is: %s", plan.database, reason)
