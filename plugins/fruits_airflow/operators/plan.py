"""The operator of the task `plan` of a run."""

from typing import Any, NoReturn

from airflow.sdk import Context
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException

from fruits_airflow.config.errors import LockHeld
from fruits_airflow.operators.lock_waiting import LockWaitingOperator
from fruits_airflow.runs import preparation
from fruits_airflow.runs.failures import record_failure
from fruits_airflow.runs.run_context import PLAN_TASK


class PlanOperator(LockWaitingOperator):
    """Plans the run as soon as no other run holds its database."""

    def work(self, context: Context) -> dict[str, Any]:
        """Return the plan."""
        unrecorded = (LockHeld, AirflowSkipException, AirflowFailException)  # `give_up` or `plan_run` writes run.json
        with record_failure(self.settings, context, PLAN_TASK, unrecorded=unrecorded):
            return preparation.plan_run(self.settings, context)

    def give_up(self, context: Context, held: LockHeld) -> NoReturn:
        """Refuse the run."""
        preparation.refuse_run(self.settings, context, held)
