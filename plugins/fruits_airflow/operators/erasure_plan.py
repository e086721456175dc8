"""The operator of the task `plan` of an erasure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn

from airflow.sdk.exceptions import AirflowFailException

from fruits_airflow.config.errors import ConfigError, LockHeld
from fruits_airflow.erasure.plan import plan_erasure
from fruits_airflow.operators.lock_waiting import LockWaitingOperator
from fruits_airflow.runs.failures import fail_without_retry, record_failure
from fruits_airflow.runs.run_context import PLAN_TASK, RunContext
from fruits_airflow.storage.run_notes import LAST_FAILURE

if TYPE_CHECKING:
    from airflow.sdk import Context


class ErasurePlanOperator(LockWaitingOperator):
    """Plans the erasure as soon as no other run works on either database.

    Args:
        settings: of the deployment.
        **kwargs: of the task.
    """

    def work(self, context: Context) -> dict[str, Any]:
        """Returns the plan."""
        # A refused parameter or bucket is told by the log alone: the words may name a photo, or no lake of ours.
        unnoted = (LockHeld, ConfigError)
        with (
            fail_without_retry(passes=(LockHeld,)),
            record_failure(self.settings, context, PLAN_TASK, unrecorded=unnoted),
        ):
            return plan_erasure(self.settings, context)

    def give_up(self, context: Context, held: LockHeld) -> NoReturn:
        """Fails: nothing was erased, and the suppression list is as it was."""
        journal = RunContext.of(context, self.settings).journal
        journal.note(LAST_FAILURE, stage="plan", cause=f"{type(held).__name__}: {held}")
        raise AirflowFailException(f"{held}; nothing is erased yet: trigger the erasure again") from held
