"""When there is nothing to do, and when what a gate refused may be tried again."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from fruits_airflow.config.errors import LockHeld, NothingToDo, RunRefused
from fruits_airflow.config.settings import Settings
from fruits_airflow.runs.publication import (
    Fingerprint,
    PublicationState,
    change_state,
    read_state,
    reason_to_wait,
    require_work,
    settings_digest,
)
from fruits_airflow.storage.lake import Lake
from fruits_airflow.storage.listing import Changes

from tests.plugins import laptop
from tests.plugins.published import set_state

NOW = Fingerprint("now", "listing", "code", "model", "settings")
BEFORE = replace(NOW, run_id="before")


def test_the_first_run_has_work() -> None:
    require_work(PublicationState(), NOW, force=False)


def test_what_is_published_is_not_done_again() -> None:
    with pytest.raises(NothingToDo, match="before"):
        require_work(PublicationState(published=BEFORE), NOW, force=False)


@pytest.mark.parametrize("part", ["listing_digest", "code_digest", "model_id", "settings_digest"])
def test_any_change_is_work(part: str) -> None:
    require_work(PublicationState(published=replace(BEFORE, **{part: "x"})), NOW, force=False)


def test_an_unfinished_publication_is_work() -> None:
    begun = replace(BEFORE, run_id="died", listing_digest="x")
    require_work(PublicationState(published=BEFORE, begun=begun), NOW, force=False)


def test_what_a_gate_refused_stays_refused() -> None:
    with pytest.raises(RunRefused, match=r"before.*force"):
        require_work(PublicationState(begun=BEFORE, gate_failed=BEFORE), NOW, force=False)


def test_another_input_after_a_refusing_gate_is_work() -> None:
    require_work(PublicationState(gate_failed=replace(BEFORE, listing_digest="x")), NOW, force=False)


@pytest.mark.parametrize("state", [PublicationState(published=BEFORE), PublicationState(gate_failed=BEFORE)])
def test_force_does_it_anyway(state: PublicationState) -> None:
    require_work(state, NOW, force=True)


AT = datetime(2026, 1, 10, 2, 0, tzinfo=UTC)
GREW = replace(NOW, listing_digest="grown")
DONE = PublicationState(published=BEFORE)


def uploaded(**ago: float) -> int:
    return int((AT - timedelta(**ago)).timestamp())


@pytest.mark.parametrize(
    ("why", "state", "planned", "changes", "limits", "waits"),
    [
        ("too few, and all are young", DONE, GREW, Changes(99, 5, 0, uploaded(days=6)), (100, 7), True),
        ("none is new", DONE, GREW, Changes(0, 5, 0, 0), (100, 7), False),
        ("enough", DONE, GREW, Changes(100, 5, 0, uploaded(days=6)), (100, 7), False),
        ("one second before its time", DONE, GREW, Changes(1, 5, 0, uploaded(days=7, seconds=-1)), (100, 7), True),
        ("the first has waited long enough", DONE, GREW, Changes(1, 5, 0, uploaded(days=7)), (100, 7), False),
        ("an upload of unknown time", DONE, GREW, Changes(1, 5, 0, 0), (100, 7), False),
        ("off", DONE, GREW, Changes(1, 5, 0, uploaded(days=0)), (None, None), False),
        ("a removal", DONE, GREW, Changes(1, 5, 1, uploaded(days=0)), (100, 7), False),
        (
            "an unfinished publication, or an erasure",
            replace(DONE, begun=BEFORE),
            GREW,
            Changes(1, 5, 0, uploaded(days=0)),
            (100, 7),
            False,
        ),
        ("nothing is published", PublicationState(), GREW, Changes(1, 0, 0, uploaded(days=0)), (100, 7), False),
        *(
            (f"another {part}", DONE, replace(GREW, **{part: "x"}), Changes(1, 5, 0, uploaded()), (100, 7), False)
            for part in ("code_digest", "model_id", "settings_digest")
        ),
    ],
)
def test_when_a_run_waits_for_more_photos(
    why: str, state: PublicationState, planned: Fingerprint, changes: Changes, limits: Any, waits: bool
) -> None:
    assert (reason_to_wait(state, planned, changes, AT, *limits) is not None) is waits, why


def test_a_run_that_waits_says_for_what_and_until_when() -> None:
    changes = Changes(3, 5, 0, uploaded(days=2))
    reason = reason_to_wait(DONE, GREW, changes, AT, 10, 7)
    assert reason is not None
    assert reason.startswith("waiting for 7 more new photos: 3 of 10 (min_new_images)")
    assert "2026-01-15 02:00 UTC" in reason
    assert "trigger with force" in reason


def test_the_state_of_each_database_is_kept_in_the_lake(account: Settings) -> None:
    lake = Lake(laptop.client("s3"), account.lake_bucket)
    assert read_state(lake, "fruits") == PublicationState()
    set_state(lake, "fruits", PublicationState(published=BEFORE, begun=NOW))
    assert read_state(lake, "fruits") == PublicationState(published=BEFORE, begun=NOW)
    assert read_state(lake, "fruits_demo") == PublicationState()


@pytest.mark.parametrize("first", [PublicationState(), PublicationState(published=BEFORE)])
def test_a_change_loses_nothing_that_another_run_wrote_meanwhile(account: Settings, first: PublicationState) -> None:
    lake = Lake(laptop.client("s3"), account.lake_bucket)
    set_state(lake, "fruits", first)
    seen: list[PublicationState] = []

    def begin(state: PublicationState) -> PublicationState:
        if not seen:
            set_state(lake, "fruits", replace(state, gate_failed=BEFORE))
        seen.append(state)
        return replace(state, begun=NOW)

    change_state(lake, "fruits", begin)
    assert seen == [first, replace(first, gate_failed=BEFORE)]
    assert read_state(lake, "fruits") == replace(first, begun=NOW, gate_failed=BEFORE)


def test_a_state_that_others_change_each_time_is_left_to_them(account: Settings) -> None:
    lake = Lake(laptop.client("s3"), account.lake_bucket)
    rounds = iter(range(100))

    def late(state: PublicationState) -> PublicationState:
        set_state(lake, "fruits", PublicationState(begun=replace(NOW, run_id=f"other-{next(rounds)}")))
        return PublicationState(published=BEFORE)

    with pytest.raises(LockHeld, match="state/fruits.json was changed by other runs 5 times"):
        change_state(lake, "fruits", late)
    assert read_state(lake, "fruits").published is None


def test_the_digest_of_settings_does_not_depend_on_their_order() -> None:
    assert settings_digest({"a": 1, "b": 2}) == settings_digest({"b": 2, "a": 1})
    assert settings_digest({"a": 1}) != settings_digest({"a": 2})
