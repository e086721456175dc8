"""What this Airflow knows about other runs.

Tasks have no access to Airflow's database, but a task's supervisor returns the number of runs in given states. (It
returns the state of a run too, but fails for a run that is unknown.)
"""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class AirflowRuns:
    """Which runs are alive and which have ended, as a task instance's supervisor knows; an unknown run is neither."""

    ti: Any

    def has_ended(self, dag_id: str, run_id: str) -> bool:
        """Whether the run exists and has ended; a cleared run has not."""
        return self._count(dag_id, run_id, ["success", "failed"]) > 0

    def is_alive(self, dag_id: str, run_id: str) -> bool:
        """Whether the run is queued or running."""
        return self._count(dag_id, run_id, ["queued", "running"]) > 0

    def _count(self, dag_id: str, run_id: str, states: list[str]) -> int:
        return int(self.ti.get_dr_count(dag_id=dag_id, run_ids=[run_id], states=states))
