"""What a database last published, what was begun after it, and what its quality gate refused.

One JSON object per database in the lake, `state/<database>.json`. It is only ever changed on condition that it still is
what was read: a verdict that is late, or is cleared after its run's end, has no lock any more.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from fruits_airflow.config.errors import (
    LockHeld,
    NothingToDo,
    RunOvertaken,
    RunRefused,
)
from fruits_airflow.storage.lake import Lake

_ROUNDS = 5  # each is lost only to another run that has just changed the state


@dataclass(frozen=True)
class Fingerprint:
    """All that decides what a run publishes, and the run that had it."""

    run_id: str
    listing_digest: str
    code_digest: str
    model_id: str
    settings_digest: str

    def same_work_as(self, other: Fingerprint | None) -> bool:
        """Whether both would publish the same, whichever run did it."""
        return other is not None and _work(self) == _work(other)


@dataclass(frozen=True)
class Settled:
    """A night that ended well: it published, or found nothing to do.

    Attributes:
        run_id: the run.
        at: when, ISO 8601 with a zone.
        outcome: succeeded or skipped.
    """

    run_id: str
    at: str
    outcome: Literal["succeeded", "skipped"]

    @classmethod
    def now(cls, run_id: str, outcome: Literal["succeeded", "skipped"]) -> Settled:
        """Settled at this moment."""
        return cls(run_id, datetime.now(UTC).isoformat(), outcome)


@dataclass(frozen=True)
class PublicationState:
    """How far a database has come.

    Attributes:
        published: the last run that published.
        begun: a run that began after it and has not published; its facts may be in the tables.
        gate_failed: the last run whose quality gate refused.
        settled: the last run that ended well, which the check for missing publications reads.
    """

    published: Fingerprint | None = None
    begun: Fingerprint | None = None
    gate_failed: Fingerprint | None = None
    settled: Settled | None = None


def settings_digest(values: Mapping[str, Any]) -> str:
    """SHA-256 over the settings that change what is published."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def read_state(lake: Lake, database: str) -> PublicationState:
    """The state of `database`; empty when it never published."""
    return _read(lake, database)[0]


def change_state(lake: Lake, database: str, change: Callable[[PublicationState], PublicationState]) -> None:
    """Changes the state of `database`, and nothing that another run has written meanwhile.

    Args:
        lake: the lake bucket.
        database: which.
        change: gives the state after from the one before; asked again when another run was faster.

    Raises:
        LockHeld: others changed it each time.
    """
    for _ in range(_ROUNDS):
        before, etag = _read(lake, database)
        after = change(before)
        if after == before or _replace(lake, database, after, etag):
            return
    raise LockHeld(f"{lake.uri(_key(database))} was changed by other runs {_ROUNDS} times")


def require_work(state: PublicationState, now: Fingerprint, force: bool) -> None:
    """Returns when there is work to do.

    Raises:
        NothingToDo: the same is published already, and nothing was begun since.
        RunRefused: the quality gate refused exactly this.
    """
    if force:
        return
    if state.gate_failed and now.same_work_as(state.gate_failed):
        raise RunRefused(
            f"the quality gate of run {state.gate_failed.run_id} refused this same input, code, model and settings; "
            "look at its report, change one of them, or trigger with force"
        )
    if state.published and state.begun is None and now.same_work_as(state.published):
        raise NothingToDo(
            f"nothing to do: run {state.published.run_id} published this same input, code, model and settings; "
            "trigger with force to do it again"
        )


def require_not_overtaken(state: PublicationState, run_id: str) -> None:
    """Returns when no other run has worked on the database since this one was planned.

    Raises:
        RunOvertaken: one has; this run's listing is older than what is there.
    """
    last = state.begun or state.published
    if last is not None and last.run_id != run_id:
        raise RunOvertaken(
            f"run {last.run_id} has worked on the database since this run was planned; going on would bring older "
            "results back: trigger a new run instead"
        )


def _read(lake: Lake, database: str) -> tuple[PublicationState, str | None]:
    """The state, and the ETag of its object; None when there is none."""
    found = lake.read_version(_key(database))
    if found is None:
        return PublicationState(), None
    content = json.loads(found[0])
    settled = content.pop("settled", None)
    runs = {name: Fingerprint(**one) for name, one in content.items() if one}
    return PublicationState(**runs, settled=Settled(**settled) if settled else None), found[1]


def _replace(lake: Lake, database: str, state: PublicationState, etag: str | None) -> bool:
    content = json.dumps(asdict(state), indent=1, sort_keys=True).encode()
    if etag is None:
        return lake.write_once(_key(database), content)
    return lake.replace_version(_key(database), content, etag)


def _work(fingerprint: Fingerprint) -> dict[str, str]:
    return {name: value for name, value in asdict(fingerprint).items() if name != "run_id"}


def _key(database: str) -> str:
    return f"state/{database}.json"
