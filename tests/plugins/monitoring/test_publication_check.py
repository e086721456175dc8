"""Whether a missing night is noticed, and a quiet one is not."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException
from airflow.timetables.trigger import CronTriggerTimetable
from fruits_airflow.config.settings import Settings
from fruits_airflow.monitoring import publication_check
from fruits_airflow.monitoring.publication_check import check_publication, check_schedule, last_due
from fruits_airflow.runs.notices import Notice
from fruits_airflow.runs.publication import Fingerprint, PublicationState, Settled, read_state
from fruits_airflow.storage.lake import Lake, run_key
from pendulum import DateTime

from tests.plugins import laptop
from tests.plugins.published import set_state

NOW = datetime(2026, 1, 10, 7, 0, tzinfo=UTC)  # 08:00 in Paris; the night was due at 01:00 UTC
BEGUN = Fingerprint("n2", "l", "c", "m", "s")


@pytest.fixture
def lake(account: Settings) -> Lake:
    return Lake(laptop.client("s3"), account.lake_bucket)


@pytest.fixture
def notices(monkeypatch: pytest.MonkeyPatch) -> list[Notice]:
    notices: list[Notice] = []
    monkeypatch.setattr(publication_check, "notify", lambda _, notice: notices.append(notice))
    return notices


@pytest.mark.parametrize("outcome", ["succeeded", "skipped"])
def test_a_night_that_ended_well_is_fine(account: Settings, lake: Lake, notices: list[Notice], outcome: str) -> None:
    set_state(lake, "fruits", PublicationState(settled=Settled("n1", "2026-01-10T01:40:00+00:00", outcome)))  # type: ignore[arg-type]
    assert check_publication(account, NOW) == "n1"
    assert notices == []


def test_without_a_schedule_the_check_is_skipped_and_says_why(account: Settings, notices: list[Notice]) -> None:
    with pytest.raises(AirflowSkipException, match="schedule: not set"):
        check_publication(replace(account, schedule=None), NOW)
    assert notices == []


def test_a_night_that_waits_for_photos_is_fine_and_says_so(
    account: Settings, lake: Lake, notices: list[Notice], caplog: pytest.LogCaptureFixture
) -> None:
    settled = Settled("n1", "2026-01-10T01:40:00+00:00", "skipped", "waiting for 7 more new photos")
    set_state(lake, "fruits", PublicationState(settled=settled))
    with caplog.at_level("INFO"):
        assert check_publication(account, NOW) == "n1"
    assert "skipped: waiting for 7 more new photos" in caplog.text
    assert notices == []


def test_a_state_of_an_earlier_release_has_no_reason(account: Settings, lake: Lake) -> None:
    old = {"settled": {"run_id": "n1", "at": "2026-01-10T01:40:00+00:00", "outcome": "skipped"}}
    lake.write_json("state/fruits.json", old)
    assert check_publication(account, NOW) == "n1"


def test_yesterdays_night_is_not_todays(account: Settings, lake: Lake, notices: list[Notice]) -> None:
    settled = Settled("n1", "2026-01-10T00:59:59+00:00", "succeeded")
    set_state(lake, "fruits", PublicationState(settled=settled, begun=BEGUN))
    lake.write_json(run_key("n2", "run.json"), {"state": "failed", "cost": {"estimate_eur": 0.4}})
    with pytest.raises(AirflowFailException, match=r"since 2026-01-10 02:00 CET.*n1.*n2 began"):
        check_publication(account, NOW)
    assert [(notice.anchor, notice.run.run_id, notice.cost_eur) for notice in notices] == [
        ("no-publication", "n2", 0.4)
    ]


def test_a_pipeline_that_never_ran_is_noticed(account: Settings, notices: list[Notice]) -> None:
    with pytest.raises(AirflowFailException, match="none ever did.*paused"):
        check_publication(account, NOW)
    assert len(notices) == 1


def test_a_lake_that_cannot_be_read_is_no_reason_to_keep_quiet(account: Settings, notices: list[Notice]) -> None:
    with pytest.raises(AirflowFailException, match="cannot be read: .*NoSuchBucket"):
        check_publication(replace(account, lake_bucket="no-such-lake"), NOW)
    assert [(notice.anchor, notice.cost_eur) for notice in notices] == [("no-publication", None)]


@pytest.mark.parametrize(
    "state",
    [
        b"{",
        b"[]",
        b'{"begun": {"run_id": "n2"}}',
        b'{"settled": {"run_id": "n1", "at": "this morning", "outcome": "succeeded"}}',
        b'{"settled": {"run_id": "n1", "at": "2026-01-10T01:40:00", "outcome": "succeeded"}}',  # in which zone?
    ],
)
def test_a_broken_state_is_no_reason_to_keep_quiet(
    account: Settings, lake: Lake, notices: list[Notice], state: bytes
) -> None:
    lake.write("state/fruits.json", state)
    with pytest.raises(AirflowFailException, match="cannot be read: .*Error"):
        check_publication(account, NOW)
    assert [(notice.anchor, notice.cost_eur) for notice in notices] == [("no-publication", None)]


@pytest.mark.parametrize("record", [b"{", b"{}", b'{"cost": null}', b'{"cost": {"estimate_eur": "?"}}'])
def test_a_broken_record_is_no_reason_to_keep_quiet(
    account: Settings, lake: Lake, notices: list[Notice], record: bytes
) -> None:
    set_state(lake, "fruits", PublicationState(begun=BEGUN))
    lake.write(run_key("n2", "run.json"), record)
    with pytest.raises(AirflowFailException, match="n2 began"):
        check_publication(account, NOW)
    assert [notice.cost_eur for notice in notices] == [None]


@pytest.mark.parametrize(
    ("now", "due"),
    [
        ("2026-03-29T06:00+00:00", "2026-03-29T01:00+00:00"),  # the hour from 2 to 3 is left out in Paris
        ("2026-10-25T07:00+00:00", "2026-10-25T01:00+00:00"),  # it comes twice; Airflow begins in the second
        ("2026-01-10T07:00+00:00", "2026-01-10T01:00+00:00"),
    ],
)
def test_a_night_is_due_when_airflow_begins_it_also_when_clocks_change(account: Settings, now: str, due: str) -> None:
    timetable = CronTriggerTimetable(account.schedule or "", timezone=account.timezone)
    assert timetable._get_prev(DateTime.fromisoformat(now)) == datetime.fromisoformat(due)
    assert last_due(account, datetime.fromisoformat(now)).astimezone(UTC) == datetime.fromisoformat(due)


def test_without_nights_or_an_hour_there_is_nothing_to_check(account: Settings) -> None:
    assert check_schedule(account) == "0 8 * * *"
    assert check_schedule(replace(account, publish_by_hour=None)) is None
    assert check_schedule(replace(account, schedule=None)) is None


def test_the_state_of_a_database_is_read_as_it_was_written(lake: Lake) -> None:
    state = PublicationState(published=BEGUN, settled=Settled.now("n2", "succeeded"))
    set_state(lake, "fruits", state)
    assert read_state(lake, "fruits") == state
