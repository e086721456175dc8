"""The last task of an erasure: end its clusters, give the locks back, and fail unless everything is erased."""

import logging

from airflow.sdk import Context
from airflow.sdk.exceptions import AirflowFailException

from fruits_airflow.config.errors import ErasureRefused
from fruits_airflow.config.settings import Settings
from fruits_airflow.emr.stage_steps import ERASURE_STAGES
from fruits_airflow.erasure.plan import locks_of
from fruits_airflow.erasure.tasks import has_receipt, remove_notes
from fruits_airflow.runs.failures import is_lock_timeout, notify_unjudged
from fruits_airflow.runs.notices import Anchor, Notice, notify
from fruits_airflow.runs.run_context import RunContext
from fruits_airflow.runs.run_status import failed_task, list_unfinished, task_states
from fruits_airflow.storage.lake import erasure_key
from fruits_airflow.storage.run_notes import LAST_FAILURE

log = logging.getLogger(__name__)

# What must have succeeded for a photo to be gone.
WORK_TASKS = (
    *("plan", "upload_code", "create_cluster", "cluster_ready"),
    *(f"{stage}.{task}" for stage in ERASURE_STAGES for task in ("add", "wait")),
    *("erase_exports", "erase_photos", "write_receipt"),
)


def judge_erasure(settings: Settings, context: Context) -> None:
    """Fail unless the photos are gone; give both locks back once no cluster is alive.

    An erasure that is not done, or that cannot be judged, sends a notice: it was promised to a person.

    Raises:
        AirflowFailException: A task did not do its work; the suppression list stands, and clearing the task goes on.
        TimeoutError: A cluster was not seen ended; a retry looks again.
    """
    with notify_unjudged(settings, context, "the erasure"):
        _judge(settings, context)


def _judge(settings: Settings, context: Context) -> None:
    run = RunContext.of(context, settings)
    states = task_states(context, WORK_TASKS)
    problems = list_unfinished(states)
    locks = locks_of(run)
    try:
        # First: a run that is cleared from now on keeps the locks that it asks for.
        holdings = [lock.read() for lock in locks]
    finally:
        run.end_clusters()  # also when the lake denies
    for lock, holding in zip(locks, holdings, strict=True):
        lock.release(holding)
    if not problems and not has_receipt(run.lake, run.identity.run_id):
        problems.append("no receipt is written: was a task marked as success?")
    if problems:
        _fail(run, problems, failed_task(states))
    remove_notes(run.lake, run.identity.run_id)
    log.info("erased: %s", run.lake.uri(erasure_key(run.identity.run_id, "receipt.json")))


def _fail(run: RunContext, problems: list[str], task: str) -> None:
    """Send a notice of what is not erased, and fail with it."""
    anchor: Anchor = "red-run"
    if failure := run.journal.read(LAST_FAILURE):
        problems = [f"{failure['stage']}: {failure['cause']}", *problems]
        if is_lock_timeout(failure):
            anchor = "lock-held"
        elif str(failure["cause"]).startswith(ErasureRefused.__name__):
            anchor = "refused"
    cause = f"not everything is erased: {'; '.join(problems)}; clear what failed"
    notify(run.settings, Notice(anchor, run.identity, cause, run.cost_so_far(), task))
    raise AirflowFailException(cause)
