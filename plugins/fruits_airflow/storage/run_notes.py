"""Notes of a run that outlive its tasks: Airflow deletes the XComs of a cleared task, these notes stay.

A note is a small JSON object in the run's folder, `<folder>/journal/<name>.json`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from fruits_airflow.config.dag_ids import ERASURE_DAG
from fruits_airflow.storage.lake import Lake, erasure_key, run_key

LAST_FAILURE = "last_failure"  # the failure of a stage, for the run record


@dataclass(frozen=True)
class Journal:
    """The notes below the folder of a run."""

    lake: Lake
    folder: str

    def read(self, name: str) -> dict[str, Any] | None:
        """Return the note, or None if it was never written."""
        return self.lake.read_json(self._key(name))

    def note(self, name: str, /, **facts: Any) -> None:
        """Write a note with the current time as `at`."""
        self.lake.write_json(self._key(name), {"at": datetime.now(UTC).isoformat(), **facts})

    def forget(self, name: str) -> None:
        """Remove a note; a missing note is not an error."""
        self.lake.remove(self._key(name))

    def _key(self, name: str) -> str:
        return f"{self.folder}/journal/{name}.json"


def age_s(note: Mapping[str, Any]) -> float:
    """Return the seconds since a note was written."""
    return (datetime.now(UTC) - datetime.fromisoformat(note["at"])).total_seconds()


def folder_of(dag_id: str, run_id: str) -> str:
    """Return the key of the folder with a run's notes; an erasure keeps them beside its receipt."""
    return erasure_key(run_id) if dag_id == ERASURE_DAG else run_key(run_id)
