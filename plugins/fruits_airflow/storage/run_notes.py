"""What a run must remember when its task dies or is cleared: XComs go then, these notes stay. And what it must forget.

Notes are small JSON objects in the run's folder, `<folder>/journal/<name>.json`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeGuard

from fruits_airflow.config.errors import LockHeld
from fruits_airflow.emr.stage_steps import STAGES
from fruits_airflow.erasure.request import ERASURE_DAG, erasure_key
from fruits_airflow.records.models import RecordError, parse_metrics, stage_file
from fruits_airflow.storage.lake import Lake, run_key

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


def forget_earlier_attempt(lake: Lake, run_id: str) -> None:
    """Removes what a cleared attempt of this run left, so that nothing old is reported as new."""
    Journal(lake, run_key(run_id)).forget(LAST_FAILURE)
    for name in ("run.json", "report.html", *(stage_file(stage) for stage in STAGES)):
        lake.remove(run_key(run_id, name))


def forget_failure(lake: Lake, folder: str) -> None:
    """What an earlier attempt failed of is not what this one will have failed of; what it published stays so."""
    Journal(lake, folder).forget(LAST_FAILURE)
    publish = f"{folder}/{stage_file('publish')}"
    content = lake.read(publish)
    try:
        published = content is not None and parse_metrics(content, publish).published
    except RecordError:
        published = False
    if not published:
        lake.remove(publish)


def waited_in_vain(failure: Mapping[str, Any] | None) -> TypeGuard[Mapping[str, Any]]:
    """Whether the note on the last failure says that another run had the database."""
    return failure is not None and str(failure["cause"]).startswith(LockHeld.__name__)
