"""What this Airflow knows about runs other than the one that asks.

Tasks have no access to Airflow's database; the count of runs is among the questions that a task's supervisor passes
on (the state of a run is too, but is an error for a run that is unknown).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

_ALIVE = ["queued", "running"]
_ENDED = ["success", "failed"]


class AirflowRuns(Protocol):
    """Which runs are alive, and which have ended; a run that is unknown is neither."""

    def has_ended(self, dag_id: str, run_id: str) -> bool:
        """Whether this Airflow has such a run, and it is over; one that was cleared is not."""
        ...

    def is_alive(self, dag_id: str, run_id: str) -> bool:
        """Whether it is queued or running."""
        ...


@dataclass(frozen=True)
class SupervisedRuns:
    """Asks through the task instance that is running.

    Attributes:
        ti: the running task instance, as in the context.
    """

    ti: Any

    def has_ended(self, dag_id: str, run_id: str) -> bool:
        """Whether this Airflow has such a run, and it is over; one that was cleared is not."""
        return int(self.ti.get_dr_count(dag_id=dag_id, run_ids=[run_id], states=_ENDED)) > 0

    def is_alive(self, dag_id: str, run_id: str) -> bool:
        """Whether it is queued or running."""
        return int(self.ti.get_dr_count(dag_id=dag_id, run_ids=[run_id], states=_ALIVE)) > 0
