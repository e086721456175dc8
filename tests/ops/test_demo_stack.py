"""The stack of the demo and of `make up`: the team's own deployment, in an account by its endpoint."""

from __future__ import annotations

import pytest

from dev.demo.account import PARAMETERS, Account
from ops import stack
from tests.aws_keys import KEYS


def test_a_stack_that_is_not_as_its_template_says_stops_the_demo(aws, monkeypatch):
    monkeypatch.setattr(stack, "compare_stack", lambda *_: (25, ["RawBucket.Tags: not there"]))
    with pytest.raises(stack.DeploymentFailed, match=r"RawBucket\.Tags: not there"):
        Account(aws.endpoint, "eu-north-1", KEYS.environment).deployment("stopped").deploy(PARAMETERS)


def test_the_stack_of_a_demo_is_deployed_whole_and_without_a_word(aws, capsys):
    deployment = Account(aws.endpoint, "eu-south-1", KEYS.environment).deployment("whole")
    outputs = deployment.deploy(PARAMETERS)
    assert outputs["SubnetId"].startswith("subnet-")
    assert (deployment.stack_name, deployment.outputs()) == ("fruits-whole", outputs)
    assert capsys.readouterr().out == ""
