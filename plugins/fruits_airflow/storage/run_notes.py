"""What a run must remember when its task dies or is cleared: XComs go then, these notes stay.

Notes are small JSON objects in the run's folder, `<folder>/journal/<name>.json`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from fruits_airflow.config.dag_ids import ERASURE_DAG
from fruits_airflow.storage.lake import Lake, erasure_key, run_key

LAST_FAILURE = "last_failure"  # what a stage failed of, for the record: an exception ends with its task


@dataclass(frozen=True)
class Journal:
    """The notes of one run.

    Attributes:
        lake: the lake bucket.
        folder: key of the run's folder.
    """

    lake: Lake
    folder: str

    def read(self, name: str) -> dict[str, Any] | None:
        """The note, or None when it was never written."""
        return self.lake.read_json(self._key(name))

    def note(self, name: str, /, **facts: Any) -> None:
        """Writes a note with the present time as `at`."""
        self.lake.write_json(self._key(name), {"at": datetime.now(UTC).isoformat(), **facts})

    def forget(self, name: str) -> None:
        """Removes a note; one that was never written is fine."""
        self.lake.remove(self._key(name))

    def _key(self, name: str) -> str:
        return f"{self.folder}/journal/{name}.json"


def age_s(note: Mapping[str, Any]) -> float:
    """Seconds since a note was written."""
    return (datetime.now(UTC) - datetime.fromisoformat(note["at"])).total_seconds()


def folder_of(dag_id: str, run_id: str) -> str:
    """Key of where a run keeps its notes: an erasure beside its receipt, since it is no run among `runs/`."""
    return erasure_key(run_id) if dag_id == ERASURE_DAG else run_key(run_id)
