"""The second opinion: what it refuses, where it is no different any more, and that a difference is seen."""

from __future__ import annotations

from typing import Any

import pytest

from tests.infra import second_opinion, simulation
from tests.infra.second_opinion import RENAMED, allowed
from tests.infra.test_simulation import HERE, KEY, LAKE, allow, policy_of, via_s3

OBJECT = f"{LAKE}/a/x"


def test_a_difference_between_both_evaluators_fails_the_test(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(simulation, "evaluate", lambda *_: False)
    with pytest.raises(AssertionError, match="False here, True by iam-simulate"):
        simulation.allowed([allow()], simulation.Request("s3:GetObject", OBJECT))


@pytest.mark.parametrize(
    ("policy", "action", "context", "why"),
    [
        ([allow(Effect="Permit")], "s3:GetObject", {}, "identityPolicyErrors"),
        ([allow()], "s3:ReadObject", {}, "invalid.action"),
        ([allow()], "s3:ListBucket", {}, "no.resource.types"),
        ([allow()], "s3:GetObject", {"s3:prefix": "x"}, "has no condition key s3:prefix"),
    ],
)
def test_what_aws_has_not_is_refused(
    policy: list[dict[str, Any]], action: str, context: dict[str, str], why: str
) -> None:
    with pytest.raises(ValueError, match=why):
        allowed(policy, action, OBJECT, context)


def test_a_key_without_a_policy_is_closed_and_its_policy_hands_over_to_roles() -> None:
    may_decrypt = [{"Effect": "Allow", "Action": "kms:Decrypt", "Resource": KEY}]
    decrypt = simulation.Request("kms:Decrypt", KEY, HERE)
    assert not simulation.allowed(may_decrypt, decrypt)
    assert simulation.allowed(may_decrypt, decrypt, policy_of("Key"))


@pytest.mark.parametrize("key", RENAMED)
def test_a_renamed_key_is_judged_and_is_dropped_under_its_own_name(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    policy = [{"Effect": "Allow", "Action": "kms:*", "Resource": "*", "Condition": {"ArnEquals": {key: LAKE}}}]
    assert allowed(policy, "kms:Decrypt", KEY, via_s3(LAKE), policy_of("Key"))
    assert not allowed(policy, "kms:Decrypt", KEY, via_s3("arn:aws:s3:::another"), policy_of("Key"))
    monkeypatch.setattr(second_opinion, "RENAMED", {})
    with pytest.raises(ValueError, match=f"has no condition key {key}"):
        allowed(policy, "kms:Decrypt", KEY, via_s3(LAKE), policy_of("Key"))


def test_an_end_of_the_simulator_names_its_exit_status_and_the_question() -> None:
    second_opinion._simulator.cache_clear()
    try:
        with pytest.raises(RuntimeError, match="exit status 1 at nonsense"):
            second_opinion.ask("nonsense")
    finally:
        second_opinion._simulator.cache_clear()
