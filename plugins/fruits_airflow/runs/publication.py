"""What a database last published, what was begun after it, and what its quality gate refused.

The state is a JSON object per database in the lake, `state/<database>.json`. A change is written only if the object is
still what was read: a `verdict` that is late, or is cleared after its run's end, has no lock any more.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from pydantic import TypeAdapter

from fruits_airflow.config.errors import LockHeld, NothingToDo, RunOvertaken, RunRefused
from fruits_airflow.storage.lake import Lake
from fruits_airflow.storage.listing import Changes

_ATTEMPTS = 5  # one fails only when another run has just changed the state


@dataclass(frozen=True)
class Fingerprint:
    """What decides what a run publishes, and the run."""

    run_id: str
    listing_digest: str
    code_digest: str
    model_id: str
    settings_digest: str

    def same_work_as(self, other: Fingerprint | None) -> bool:
        """Tell whether both would publish the same, whichever run did it."""
        return other is not None and replace(other, run_id=self.run_id) == self


@dataclass(frozen=True)
class Settled:
    """A run that ended well: it published, or was skipped for a reason; `at` is ISO 8601 with a zone."""

    run_id: str
    at: str
    outcome: Literal["succeeded", "skipped"]
    reason: str = ""

    @classmethod
    def now(cls, run_id: str, outcome: Literal["succeeded", "skipped"], reason: str = "") -> Settled:
        """Return a run that ends well now."""
        return cls(run_id, datetime.now(UTC).isoformat(), outcome, reason)


@dataclass(frozen=True)
class PublicationState:
    """The state of a database."""

    published: Fingerprint | None = None  # the last run that published
    begun: Fingerprint | None = None  # a run that began after it and has not published; its rows may be in the tables
    gate_failed: Fingerprint | None = None  # the last run whose quality gate refused
    settled: Settled | None = None  # the last run that ended well, which the check for missing publications reads


_STATE = TypeAdapter(PublicationState)


def settings_digest(values: Mapping[str, Any]) -> str:
    """Compute the SHA-256 of the settings that change what is published."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def read_state(lake: Lake, database: str) -> PublicationState:
    """Read the state of `database`; empty when it never published."""
    return _read(lake, database)[0]


def change_state(lake: Lake, database: str, change: Callable[[PublicationState], PublicationState]) -> None:
    """Change the state of `database`, but never what another run has written meanwhile.

    `change` returns the new state from the present one, again when another run was faster.

    Raises:
        LockHeld: Other runs changed it each time.
    """
    for _ in range(_ATTEMPTS):
        before, etag = _read(lake, database)
        after = change(before)
        if after == before or _replace(lake, database, after, etag):
            return
    raise LockHeld(f"{lake.uri(_key(database))} was changed by other runs {_ATTEMPTS} times")


def require_work(state: PublicationState, now: Fingerprint, force: bool) -> None:
    """Check that there is work to do.

    Raises:
        NothingToDo: The same is published already, and nothing was begun since.
        RunRefused: The quality gate refused exactly this.
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


def reason_to_wait(
    state: PublicationState,
    planned: Fingerprint,
    changes: Changes,
    now: datetime,
    min_new_images: int | None,
    max_wait_days: int | None,
) -> str | None:
    """Return what a run waits for; None where it must not wait.

    A run waits only where new photos are all that differs from the publication. Removed photos, an unfinished
    publication (an erasure leaves one) and other code, model or settings never wait.
    """
    if min_new_images is None or max_wait_days is None or state.published is None or state.begun is not None:
        return None
    differs_otherwise = not planned.same_work_as(replace(state.published, listing_digest=planned.listing_digest))
    ends_at = datetime.fromtimestamp(changes.oldest_new_s, UTC) + timedelta(days=max_wait_days)
    if differs_otherwise or changes.removed or changes.new >= min_new_images or ends_at <= now:
        return None
    return (
        f"waiting for {min_new_images - changes.new} more new photos: {changes.new} of {min_new_images} "
        f"(min_new_images) have come, and none is {max_wait_days} days old (max_wait_days) before "
        f"{ends_at:%Y-%m-%d %H:%M} UTC; trigger with force to publish at once"
    )


def require_not_overtaken(state: PublicationState, run_id: str) -> None:
    """Check that no other run has worked on the database since this one was planned.

    Raises:
        RunOvertaken: One has; this run's listing is older than what is there.
    """
    last = state.begun or state.published
    if last is not None and last.run_id != run_id:
        raise RunOvertaken(
            f"run {last.run_id} has worked on the database since this run was planned; going on would bring older "
            "results back: trigger a new run instead"
        )


def _read(lake: Lake, database: str) -> tuple[PublicationState, str | None]:
    """Read the state, and the ETag of its object; None when there is no object."""
    version = lake.read_version(_key(database))
    if version is None:
        return PublicationState(), None
    content, etag = version
    return _STATE.validate_json(content), etag


def _replace(lake: Lake, database: str, state: PublicationState, etag: str | None) -> bool:
    content = json.dumps(asdict(state), indent=1, sort_keys=True).encode()
    if etag is None:
        return lake.write_once(_key(database), content)
    return lake.replace_version(_key(database), content, etag)


def _key(database: str) -> str:
    return f"state/{database}.json"
