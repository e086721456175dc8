"""What is sent again, and what never is."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from botocore.exceptions import BotoCoreError, ClientError, ReadTimeoutError
from fruits_airflow.run_cluster import RunCluster
from fruits_airflow.settings import Settings
from fruits_airflow.single_calls import LONGEST_PAUSE_S, send_announced

from tests.plugins.bash_steps import bash
from tests.plugins.doubles import Double


def answer(code: str, status: int | None) -> ClientError:
    metadata = {} if status is None else {"ResponseMetadata": {"HTTPStatusCode": status}}
    refusal: Any = {"Error": {"Code": code, "Message": "no"}, **metadata}
    return ClientError(refusal, "RunJobFlow")


THROTTLED = answer("ThrottlingException", 400)
LOST = ReadTimeoutError(endpoint_url="emr")


class Asked:
    """Fails with each of some errors in turn, then calls `real`."""

    def __init__(self, *errors: Exception, real: Callable[..., Any] = lambda: "made") -> None:
        self._errors, self._real, self.times = list(errors), real, 0

    def __call__(self, **request: Any) -> Any:
        self.times += 1
        if self._errors:
            raise self._errors.pop(0)
        return self._real(**request)


def nothing() -> None:
    """Announces nothing, or finds nothing."""


def never() -> str | None:
    raise AssertionError("nothing was made, so there is nothing to look for")


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses that were made, each as long as it can be."""
    slept: list[float] = []
    monkeypatch.setattr(time, "sleep", slept.append)
    monkeypatch.setattr(random, "uniform", lambda _, longest: longest)
    return slept


def test_a_throttled_request_is_announced_and_sent_again(
    pauses: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    order: list[str] = []
    request = Asked(THROTTLED, THROTTLED, real=lambda: order.append("sent") or "made")
    with caplog.at_level(logging.WARNING):
        assert send_announced(lambda: order.append("announced"), request, never) == "made"
    assert order == ["announced", "announced", "announced", "sent"]
    assert pauses == [1, 2]
    assert "RunJobFlow operation: no; sending it again in 2.0 s" in caplog.text


def test_a_request_that_goes_on_being_throttled_is_given_up(pauses: list[float]) -> None:
    request = Asked(*[THROTTLED] * 9)
    with pytest.raises(ClientError, match="ThrottlingException"):
        send_announced(nothing, request, never)
    assert request.times == 6
    assert pauses == [1, 2, 4, 8, 8]


def test_no_pause_outlasts_the_announcement() -> None:
    assert Settings.list_consistency_s > LONGEST_PAUSE_S


@pytest.mark.parametrize("status", [400, 403, 499])
def test_a_refused_request_is_sent_once_and_not_looked_for(status: int) -> None:
    request = Asked(answer("AccessDeniedException", status))
    with pytest.raises(ClientError, match="AccessDenied"):
        send_announced(nothing, request, never)
    assert request.times == 1


@pytest.mark.parametrize("found", ["made", None])
@pytest.mark.parametrize(
    "error", [LOST, answer("InternalFailure", 500), answer("Odd", 399), answer("ThrottlingException", None)]
)
def test_without_an_answer_what_was_made_is_looked_for_and_nothing_is_sent_again(
    error: BotoCoreError | ClientError, found: str | None
) -> None:
    request = Asked(error)
    if found:
        assert send_announced(nothing, request, lambda: found) == found
    else:
        with pytest.raises(type(error)) as raised:
            send_announced(nothing, request, nothing)
        assert raised.value is error
    assert request.times == 1


def test_a_look_that_is_throttled_sends_nothing_again() -> None:
    request = Asked(LOST)
    with pytest.raises(ClientError, match="ThrottlingException"):
        send_announced(nothing, request, Asked(THROTTLED))
    assert request.times == 1


def test_without_its_announcement_nothing_is_sent() -> None:
    request = Asked()
    with pytest.raises(ReadTimeoutError):
        send_announced(Asked(LOST), request, never)
    assert request.times == 0


def throttled_once(run: RunCluster, method: str, note: Callable[[], str]) -> tuple[Any, list[Any]]:
    """A client whose `method` is throttled once, and when each request was announced."""
    announced: list[Any] = []

    def call(**request: Any) -> Any:
        announced.append((run.journal.read(note()) or {})["at"])
        if len(announced) == 1:
            raise THROTTLED
        return getattr(run.client, method)(**request)

    return Double(run.client, **{method: call}), announced


def test_a_throttled_cluster_is_made_by_the_same_attempt(run: RunCluster, pauses: list[float]) -> None:
    client, announced = throttled_once(run, "run_job_flow", lambda: "run_job_flow")
    cluster = replace(run.desk, single_attempt_client=client).adopt_or_create(run.body)
    assert cluster.name == run.identity.name
    assert announced[0] < announced[1]


def test_a_throttled_step_is_added_by_the_same_attempt(run: RunCluster, pauses: list[float]) -> None:
    desk, bash_step = run.step_desk(run.adopt_or_create().job_flow_id), bash("true")
    note = f"add-{bash_step['Name'].replace('/', '-')}-{desk.job_flow_id}"
    client, announced = throttled_once(run, "add_job_flow_steps", lambda: note)
    step = replace(desk, single_attempt_client=client).adopt_or_add(bash_step)
    assert step.name == bash_step["Name"]
    assert announced[0] < announced[1]
