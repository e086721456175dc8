"""An operator that waits, without a worker slot, while another run holds the database."""

import time
from abc import abstractmethod
from datetime import timedelta
from typing import Any, NoReturn

from airflow.providers.standard.triggers.temporal import TimeDeltaTrigger
from airflow.sdk import BaseOperator, Context
from airflow.sdk.exceptions import TaskDeferralError, TaskDeferralTimeout, TaskDeferred

from fruits_airflow.config.errors import LockHeld
from fruits_airflow.config.settings import Settings
from fruits_airflow.operators.triggers import settle_seconds
from fruits_airflow.runs.failures import record_failure

_MARGIN = timedelta(minutes=5)  # for a triggerer that is busy or starting


class LockWaitingOperator(BaseOperator):
    """Does its work as soon as the database's lock is free, and gives up after `lock_wait_minutes`."""

    def __init__(self, *, settings: Settings, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.settings = settings

    @abstractmethod
    def work(self, context: Context) -> Any:
        """Take the lock and do the work.

        Raises:
            LockHeld: Another run holds the lock; the operator tries again later.
        """

    @abstractmethod
    def give_up(self, context: Context, held: LockHeld) -> NoReturn:
        """Fail the task, since the lock was not free in time."""

    def execute(self, context: Context) -> Any:
        """Return the result of `work`."""
        return self._try(context, since=time.time())

    def execute_again(self, context: Context, since: float | None = None, event: Any = None) -> Any:  # noqa: ARG002
        """Try again after a wait; `dag.test()` does not pass `since`, and so never gives up."""
        return self._try(context, time.time() if since is None else since)

    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context) -> Any:
        """Try again after a wait, or fail because the trigger sent no event; record that failure."""
        try:
            return super().resume_execution(next_method, next_kwargs, context)
        except (TaskDeferralError, TaskDeferralTimeout):
            with record_failure(self.settings, context, self.task_id):
                raise

    def _try(self, context: Context, since: float) -> Any:
        try:
            return self.work(context)
        except LockHeld as held:
            left = since + self.settings.lock_wait_minutes * 60 - time.time()
            if left <= 0:
                self.give_up(context, held)
            self.log.info("%s; waiting, for at most another %.0f minutes", held, left / 60)
        pause = timedelta(seconds=max(min(self.settings.poll_s, left), settle_seconds()))
        raise TaskDeferred(
            trigger=TimeDeltaTrigger(pause),
            method_name=self.execute_again.__name__,
            kwargs={"since": since},
            timeout=pause + _MARGIN,
        )
