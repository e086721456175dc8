"""The operator of the task `plan` of an erasure."""

from typing import Any, NoReturn

from airflow.sdk import Context
from airflow.sdk.exceptions import AirflowFailException

from fruits_airflow.aws.clients import require_role
from fruits_airflow.config.errors import ConfigError, LockHeld
from fruits_airflow.erasure.plan import plan_erasure
from fruits_airflow.operators.lock_waiting import LockWaitingOperator
from fruits_airflow.runs.failures import fail_without_retry, record_failure
from fruits_airflow.runs.run_context import PLAN_TASK, RunContext
from fruits_airflow.storage.run_notes import LAST_FAILURE


class ErasurePlanOperator(LockWaitingOperator):
    """Plans the erasure as soon as no other run holds any of its databases."""

    def work(self, context: Context) -> dict[str, Any]:
        """Return the plan."""
        # A ConfigError is only logged: its text may name a photo, or the bucket is not a lake of this deployment.
        unrecorded = (LockHeld, ConfigError)
        with (
            fail_without_retry(passes=(LockHeld,)),
            record_failure(self.settings, context, PLAN_TASK, unrecorded=unrecorded),
        ):
            require_role(self.settings)
            return plan_erasure(self.settings, context)

    def give_up(self, context: Context, held: LockHeld) -> NoReturn:
        """Fail: nothing is erased, and the suppression list is unchanged."""
        journal = RunContext.of(context, self.settings).journal
        journal.note(LAST_FAILURE, stage="plan", cause=f"{type(held).__name__}: {held}")
        raise AirflowFailException(f"{held}; nothing is erased yet: trigger the erasure again") from held
