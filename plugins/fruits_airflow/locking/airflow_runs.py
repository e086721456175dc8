"""What this Airflow knows about other runs.

Tasks have no access to Airflow's database, but a task's supervisor returns the number of runs in given states. (It
returns the state of a run too, but fails for a run that is unknown.)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

_ALIVE = ["queued", "running"]
_ENDED = ["success", "failed"]


class AirflowRuns(Protocol):
    """Which runs are alive and which have ended; an unknown run is neither."""

    def has_ended(self, dag_id: str, run_id: str) -> bool:
        """Whether the run exists and has ended; a cleared run has not."""
        ...

    def is_alive(self, dag_id: str, run_id: str) -> bool:
        """Whether the run is queued or running."""
        ...


@dataclass(frozen=True)
class SupervisedRuns:
    """AirflowRuns as the supervisor of a task instance knows them."""

    ti: Any

    def has_ended(self, dag_id: str, run_id: str) -> bool:
        """Whether the run exists and has ended; a cleared run has not."""
        return self._count(dag_id, run_id, _ENDED) > 0

    def is_alive(self, dag_id: str, run_id: str) -> bool:
        """Whether the run is queued or running."""
        return self._count(dag_id, run_id, _ALIVE) > 0

    def _count(self, dag_id: str, run_id: str, states: list[str]) -> int:
        return int(self.ti.get_dr_count(dag_id=dag_id, run_ids=[run_id], states=states))
