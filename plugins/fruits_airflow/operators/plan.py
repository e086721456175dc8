"""The operator of the task `plan` of a run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn

from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException

from fruits_airflow.config.errors import LockHeld
from fruits_airflow.operators.lock_waiting import LockWaitingOperator
from fruits_airflow.runs import preparation
from fruits_airflow.runs.failures import record_failure
from fruits_airflow.runs.run_context import PLAN_TASK

if TYPE_CHECKING:
    from airflow.sdk import Context


class PlanOperator(LockWaitingOperator):
    """Plans the run as soon as no other run works on its database.

    Args:
        settings: of the deployment.
        **kwargs: of the task.
    """

    def work(self, context: Context) -> dict[str, Any]:
        """Returns the plan."""
        told = (LockHeld, AirflowSkipException, AirflowFailException)  # by `give_up`, run.json or the log
        with record_failure(self.settings, context, PLAN_TASK, unrecorded=told):
            return preparation.plan_run(self.settings, context)

    def give_up(self, context: Context, held: LockHeld) -> NoReturn:
        """Refuses the run."""
        preparation.refuse_run(self.settings, context, held)
