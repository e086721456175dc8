"""What is sent again, and what never is."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from botocore.exceptions import ClientError, ReadTimeoutError
from fruits_airflow.run_cluster import RunCluster
from fruits_airflow.single_calls import is_refused, send_announced

from tests.plugins.bash_steps import bash
from tests.plugins.doubles import Double


def refusal(code: str, status: int) -> ClientError:
    answer: Any = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return ClientError(answer, "RunJobFlow")


THROTTLED = refusal("ThrottlingException", 400)
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


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    slept: list[float] = []
    monkeypatch.setattr(time, "sleep", slept.append)
    return slept


def test_a_throttled_request_is_announced_and_sent_again(pauses: list[float]) -> None:
    order: list[str] = []
    request = Asked(THROTTLED, THROTTLED, real=lambda: order.append("sent") or "made")
    assert send_announced(lambda: order.append("announced"), request) == "made"
    assert order == ["announced", "announced", "announced", "sent"]
    assert [pause <= most for pause, most in zip(pauses, (1, 2), strict=True)] == [True, True]


def test_a_request_that_goes_on_being_throttled_is_given_up(pauses: list[float]) -> None:
    request = Asked(*[THROTTLED] * 9)
    with pytest.raises(ClientError, match="ThrottlingException"):
        send_announced(lambda: None, request)
    assert request.times == 6
    assert len(pauses) == 5


@pytest.mark.parametrize(
    "error", [LOST, refusal("AccessDeniedException", 400), refusal("InternalFailure", 500)]
)
def test_a_request_that_may_have_had_its_effect_or_never_will_is_sent_once(error: Exception) -> None:
    request = Asked(error)
    with pytest.raises(type(error)):
        send_announced(lambda: None, request)
    assert request.times == 1


@pytest.mark.parametrize(
    ("error", "refused"),
    [
        (THROTTLED, True),
        (refusal("ValidationException", 499), True),
        (refusal("InternalFailure", 500), False),
        (ClientError({"Error": {"Code": "unknown"}}, "RunJobFlow"), False),
        (LOST, False),
    ],
)
def test_only_an_answer_that_blames_the_request_means_that_nothing_was_made(
    error: Exception, refused: bool
) -> None:
    assert is_refused(error) is refused


def test_a_throttled_cluster_and_step_are_made_by_the_same_attempt(run: RunCluster) -> None:
    create = Asked(THROTTLED, real=run.client.run_job_flow)
    desk = replace(run.desk, single_attempt_client=Double(run.client, run_job_flow=create))
    cluster = desk.adopt_or_create(run.body)
    add = Asked(THROTTLED, real=run.client.add_job_flow_steps)
    step = replace(
        run.step_desk(cluster.job_flow_id),
        single_attempt_client=Double(run.client, add_job_flow_steps=add),
    ).adopt_or_add(bash("true"))
    assert (create.times, add.times) == (2, 2)
    steps = run.client.list_steps(ClusterId=cluster.job_flow_id)["Steps"]
    assert [one["Id"] for one in steps] == [step.step_id]
