from __future__ import annotations

import pytest

from dev.demo import account as demo_account
from dev.demo.account import REPOSITORY, Account, AccountFailed
from tests.aws_keys import KEYS

TEMPLATE = REPOSITORY / "include" / "stack.yaml"


def test_a_stack_that_is_not_as_its_template_says_stops_the_demo(aws, monkeypatch):
    monkeypatch.setattr(demo_account, "compare_stack", lambda *_: (25, ["RawBucket.Tags: not there"]))
    with pytest.raises(AccountFailed, match=r"RawBucket\.Tags: not there"):
        Account(aws.endpoint, "eu-north-1", KEYS.environment).deploy(TEMPLATE, "stopped")


def test_the_stack_of_a_demo_is_deployed_whole(aws, monkeypatch):
    monkeypatch.setattr(demo_account, "STACK", "fruits-whole")
    names = Account(aws.endpoint, "eu-south-1", KEYS.environment).deploy(TEMPLATE, "whole")
    assert names["SubnetId"].startswith("subnet-")
