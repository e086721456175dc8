"""An operator that waits, without a worker slot, while another run holds the database."""

from __future__ import annotations

import time
from abc import abstractmethod
from datetime import timedelta
from typing import TYPE_CHECKING, Any, NoReturn

from airflow.providers.standard.triggers.temporal import TimeDeltaTrigger
from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import TaskDeferralError, TaskDeferralTimeout, TaskDeferred

from fruits_airflow.config.errors import LockHeld
from fruits_airflow.config.settings import Settings
from fruits_airflow.operators.triggers import settle_seconds
from fruits_airflow.runs.failures import record_failure

if TYPE_CHECKING:
    from airflow.sdk import Context

_MARGIN = timedelta(minutes=5)  # for a triggerer that is busy or starting


class LockWaitingOperator(BaseOperator):
    """Does its work as soon as the database's lock is free, or says that it will not be.

    Args:
        settings: of the deployment; `lock_wait_minutes` bounds the wait.
        **kwargs: of the task.
    """

    def __init__(self, *, settings: Settings, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.settings = settings

    @abstractmethod
    def work(self, context: Context) -> Any:
        """What the task is for; takes the lock itself.

        Raises:
            LockHeld: another run has it; the work is tried again later.
        """

    @abstractmethod
    def give_up(self, context: Context, held: LockHeld) -> NoReturn:
        """Ends the task in its own words: the lock was not free in time."""

    def execute(self, context: Context) -> Any:
        """Returns what the work returns."""
        return self._try(context, since=time.time())

    def execute_again(self, context: Context, since: float | None = None, event: Any = None) -> Any:  # noqa: ARG002
        """Tries again after a wait; `dag.test()` does not pass `since` on, and so never gives up."""
        return self._try(context, time.time() if since is None else since)

    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context) -> Any:
        """Tries again after a wait, or fails because it gave no news; that cause is noted, as others are by `work`."""
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
