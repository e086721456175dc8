"""Handle a step that failed or is past its deadline: cancel it, show its output and decide whether to retry."""

import logging
import time
from typing import NoReturn

from airflow.sdk.exceptions import AirflowFailException
from botocore.exceptions import BotoCoreError, ClientError

from fruits_airflow.config.errors import ClusterLost, StepLost
from fruits_airflow.emr.clusters import LIVE_STATES, Cluster
from fruits_airflow.emr.step_exit import explain
from fruits_airflow.emr.step_logs import show_tails
from fruits_airflow.emr.steps import TERMINAL_STATES, Step, describe_step
from fruits_airflow.runs.run_context import RunContext

log = logging.getLogger(__name__)

_LAST_LOGS_S = 60.0  # an ending cluster uploads its logs; what is missing after this time is lost with its nodes
_CANCELLED_STATES = ("CANCEL_PENDING", "CANCELLED")


def failure_note(step_id: str) -> str:
    """Return the name of the note that a task has reported the failure of a step."""
    return f"failed-{step_id}"


def fail_step(run: RunContext, cluster: Cluster, step: Step) -> NoReturn:
    """Log the end of a failed step's output, and raise its failure.

    A step may be repeated safely. What is transient is tried again once in a run: what fails twice is no accident.

    Raises:
        AirflowFailException: The step failed, or its cluster ended on purpose or at its deadline.
        StepLost: The step failed for a transient cause, for the first time in its run; a retry adds it again.
        ClusterLost: The cluster ended before the step; a retry creates a new one.
    """
    if cluster.state not in LIVE_STATES:
        _fail_with_cluster(run, cluster, step)
    run.journal.note(failure_note(step.step_id), state=step.state, reason=step.reason)
    tails = show_tails(run.lake.client, cluster, step, run.settings.log_wait_s, run.settings.poll_s)
    ended = explain(step, tails)
    message, retried = f"step {step.step_id} is {step.state}: {ended.cause}", f"retried-{step.name.partition('/')[0]}"
    if ended.is_transient and run.journal.read(retried) is None:
        run.journal.note(retried, step_id=step.step_id, cause=ended.cause)
        raise StepLost(f"{message}; a retry runs it once more")
    raise AirflowFailException(f"{message}; a retry did not help" if ended.is_transient else message)


def _fail_with_cluster(run: RunContext, cluster: Cluster, step: Step) -> NoReturn:
    """Raise the end of the cluster: a failed step never ends its cluster (ActionOnFailure), so that it ended first."""
    wait_s = min(run.settings.log_wait_s, _LAST_LOGS_S)
    show_tails(run.lake.client, cluster, step, wait_s, run.settings.poll_s)
    message = f"step {step.step_id} is {step.state}: {cluster.job_flow_id} is {cluster.state} ({cluster.reason})"
    if _is_overdue(cluster) or cluster.reason.startswith("USER_REQUEST"):
        raise AirflowFailException(f"{message}; ended on purpose or at its deadline, so that it is not retried")
    raise ClusterLost(f"{message}; a retry creates a new cluster")


def cancel_step(run: RunContext, job_flow_id: str, step_id: str) -> bool:
    """Cancel a step and return whether EMR accepted that; EMR may refuse if the trigger has cancelled it already."""
    log.warning("Cancelling step %s of %s", step_id, job_flow_id)
    try:
        answer = run.client.cancel_steps(
            ClusterId=job_flow_id, StepIds=[step_id], StepCancellationOption="TERMINATE_PROCESS"
        )
    except (BotoCoreError, ClientError) as error:
        log.warning("Cannot cancel it: %s; terminate_cluster ends it with its cluster", error)
        return False
    refusals = [info.get("Reason") for info in answer["CancelStepsInfoList"] if info.get("Status") == "FAILED"]
    for reason in refusals:
        log.warning("EMR did not cancel it: %s", reason)
    return not refusals


def show_cancelled(run: RunContext, cluster: Cluster, step: Step, is_accepted: bool) -> None:
    """Wait until a cancelled step has ended, and log the end of its output; `log_wait_s` bounds both waits.

    Wait for less time where the cluster would only cost: when the step goes on, or the cluster is past its deadline.
    """
    wait_s, poll_s = run.settings.log_wait_s, run.settings.poll_s
    if not (is_accepted or step.state in _CANCELLED_STATES) or _is_overdue(cluster):
        wait_s = min(wait_s, _LAST_LOGS_S)
    give_up = time.monotonic() + wait_s
    while (left := give_up - time.monotonic()) > 0:
        try:
            if describe_step(run.client, cluster.job_flow_id, step.step_id).state in TERMINAL_STATES:
                break
        except (BotoCoreError, ClientError) as error:
            log.warning("Cannot read %s: %s; trying again", step.step_id, error)
        time.sleep(min(poll_s, left))
    show_tails(run.lake.client, cluster, step, max(0.0, left), poll_s)


def _is_overdue(cluster: Cluster) -> bool:
    return cluster.deadline is not None and cluster.deadline.timestamp() <= time.time()
