"""What a run must remember when its task dies or is cleared: XComs go then, these notes stay.

Notes are small JSON objects in the run's folder, `runs/<run_id>/journal/<name>.json`.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from fruits_airflow.lake import Lake, run_key

LAST_FAILURE = "last_failure"  # what a stage failed of, for the record: an exception ends with its task


@dataclass(frozen=True)
class Journal:
    """The notes of one run."""

    lake: Lake
    run_id: str

    def read(self, name: str) -> dict[str, Any] | None:
        """The note, or None when it was never written."""
        return self.lake.read_json(self._key(name))

    def note(self, name: str, /, **facts: Any) -> None:
        """Writes a note with the present time as `at`."""
        self.lake.write_json(self._key(name), {"at": datetime.now(UTC).isoformat(), **facts})

    def seconds_since(self, name: str) -> float | None:
        """Age of a note in seconds, or None when it was never written."""
        note = self.read(name)
        if note is None:
            return None
        return (datetime.now(UTC) - datetime.fromisoformat(note["at"])).total_seconds()

    def _key(self, name: str) -> str:
        return run_key(self.run_id, f"journal/{name}.json")
