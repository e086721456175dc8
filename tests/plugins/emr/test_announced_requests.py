"""What is sent again, and what never is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any

import pytest
from botocore.exceptions import BotoCoreError, ClientError, ReadTimeoutError
from fruits_airflow.emr.announced_requests import CREATED_ID, REQUESTS, send_announced
from fruits_airflow.emr.clusters import find_clusters
from fruits_airflow.runs.run_context import RunContext

from tests.plugins.bash_steps import bash
from tests.plugins.doubles import Double


def answer(code: str, status: int | None) -> ClientError:
    metadata = {} if status is None else {"ResponseMetadata": {"HTTPStatusCode": status}}
    refusal: Any = {"Error": {"Code": code, "Message": "no"}, **metadata}
    return ClientError(refusal, "RunJobFlow")


THROTTLED = answer("ThrottlingException", 400)
LOST = ReadTimeoutError(endpoint_url="emr")


class FailingRequest:
    """Fails with each of some errors in turn, then calls `real`."""

    def __init__(self, *errors: Exception, real: Callable[..., Any] = lambda: "made") -> None:
        self._errors, self._real, self.times = list(errors), real, 0

    def __call__(self, *args: Any, **request: Any) -> Any:
        self.times += 1
        if self._errors:
            raise self._errors.pop(0)
        return self._real(*args, **request)


def nothing() -> None:
    """Finds nothing."""


def never() -> str | None:
    raise AssertionError("what AWS answered or refused needs no looking for")


@dataclass
class Notes:
    """A journal in memory."""

    written: list[dict[str, Any]] = field(default_factory=list)

    def note(self, name: str, /, **facts: Any) -> None:
        self.written.append({"note": name, **facts})


ANNOUNCED, ANSWERED = {"note": "call", "known": 1}, {"note": "call", "known": 1, CREATED_ID: "made"}


def send(notes: Any, request: Callable[[], Any], find: Callable[[], str | None]) -> str:
    return send_announced(notes, "call", request, find, known=1)


def test_what_was_made_is_announced_before_and_named_after() -> None:
    notes, seen = Notes(), list[dict[str, Any]]()
    assert send(notes, lambda: seen.extend(notes.written) or "made", never) == "made"
    assert seen == [ANNOUNCED]
    assert notes.written == [ANNOUNCED, ANSWERED]


def test_a_throttled_request_that_made_nothing_is_announced_and_sent_again() -> None:
    notes, looks = Notes(), FailingRequest(real=lambda: None)
    request = FailingRequest(THROTTLED, THROTTLED, real=lambda: "made")
    assert send(notes, request, looks) == "made"
    assert (request.times, looks.times) == (3, 2)
    assert notes.written == [ANNOUNCED, ANNOUNCED, ANNOUNCED, ANSWERED]


def test_a_throttled_request_that_had_its_effect_all_the_same_is_not_sent_again() -> None:
    notes, request = Notes(), FailingRequest(THROTTLED)
    assert send(notes, request, lambda: "made") == "made"
    assert request.times == 1
    assert notes.written == [ANNOUNCED, ANSWERED]


def test_a_request_that_goes_on_being_throttled_is_given_up() -> None:
    request = FailingRequest(*[THROTTLED] * 9)
    with pytest.raises(ClientError, match="ThrottlingException"):
        send(Notes(), request, nothing)
    assert request.times == REQUESTS


@pytest.mark.parametrize("status", [400, 403, 499])
def test_a_refused_request_is_sent_once_and_not_looked_for(status: int) -> None:
    request = FailingRequest(answer("AccessDeniedException", status))
    with pytest.raises(ClientError, match="AccessDenied"):
        send(Notes(), request, never)
    assert request.times == 1


@pytest.mark.parametrize("existing_id", ["made", None])
@pytest.mark.parametrize("error", [LOST, answer("InternalFailure", 500), answer("Odd", 399), answer("Odd", None)])
def test_without_an_answer_what_was_made_is_looked_for_and_nothing_is_sent_again(
    error: BotoCoreError | ClientError, existing_id: str | None
) -> None:
    notes, request = Notes(), FailingRequest(error)
    if existing_id:
        assert send(notes, request, lambda: existing_id) == existing_id
        assert notes.written == [ANNOUNCED, ANSWERED]
    else:
        with pytest.raises(type(error)) as raised:
            send(notes, request, nothing)
        assert raised.value is error
    assert request.times == 1


def test_a_look_that_is_throttled_sends_nothing_again() -> None:
    request = FailingRequest(LOST)
    with pytest.raises(ClientError, match="ThrottlingException"):
        send(Notes(), request, FailingRequest(THROTTLED))
    assert request.times == 1


def test_without_its_announcement_nothing_is_sent() -> None:
    request = FailingRequest()
    with pytest.raises(ReadTimeoutError):
        send(SimpleNamespace(note=FailingRequest(LOST)), request, never)
    assert request.times == 0


@pytest.mark.parametrize("had_its_effect", [False, True])
def test_a_throttled_cluster_is_made_once_by_the_same_attempt(run: RunContext, had_its_effect: bool) -> None:
    client = throttled_once(run, "run_job_flow", had_its_effect)
    cluster = replace(run.lifecycle, single_attempt_client=client).find_or_create(run.body)
    assert [one.job_flow_id for one in find_clusters(run.client, run.identity)] == [cluster.job_flow_id]


@pytest.mark.parametrize("had_its_effect", [False, True])
def test_a_throttled_step_is_added_once_by_the_same_attempt(run: RunContext, had_its_effect: bool) -> None:
    submitter = run.step_submitter(run.find_or_create().job_flow_id)
    client = throttled_once(run, "add_job_flow_steps", had_its_effect)
    step = replace(submitter, single_attempt_client=client).find_or_add(bash("true"))
    listed = run.client.list_steps(ClusterId=submitter.job_flow_id)["Steps"]
    assert [item["Id"] for item in listed] == [step.step_id]


def throttled_once(run: RunContext, method: str, had_its_effect: bool) -> Any:
    """A client whose `method` says once that it is throttled."""
    times: list[None] = []

    def call(**request: Any) -> Any:
        times.append(None)
        first = len(times) == 1
        result = getattr(run.client, method)(**request) if had_its_effect or not first else None
        if first:
            raise THROTTLED
        return result

    return Double(run.client, **{method: call})
