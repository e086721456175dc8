"""The state of a database, set as a test needs it."""

from __future__ import annotations

from fruits_airflow.runs.publication import PublicationState, change_state
from fruits_airflow.storage.lake import Lake


def set_state(lake: Lake, database: str, state: PublicationState) -> None:
    """Replaces the state, whatever it was."""
    change_state(lake, database, lambda _: state)
