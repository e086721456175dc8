"""A cluster's own thread: whatever breaks in it, the cluster ends and says why."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ConnectionClosedError

from local_aws.clients import Clients
from local_aws.credentials import Credentials
from local_aws.emr.cluster import Cluster
from local_aws.emr.execution.runtime import Runtime
from local_aws.emr.hooks import Hooks
from local_aws.emr.models import EmrBackend
from local_aws.emr.responses import EmrResponse
from local_aws.settings import Settings

ACTION = {"Name": "a", "ScriptBootstrapAction": {"Path": "s3://lake/bootstrap.sh"}}
REQUEST: dict[str, Any] = {
    "Name": "test",
    "Instances": {
        "InstanceGroups": [{"InstanceRole": "MASTER", "InstanceType": "m5.xlarge", "InstanceCount": 1}],
        "KeepJobFlowAliveWhenNoSteps": True,
    },
    "BootstrapActions": [ACTION],
}
STEP = {"Name": "s", "HadoopJarStep": {"Jar": "command-runner.jar", "Args": ["false"]}}


class Silent:
    """An S3 whose every reply is lost."""

    def head_object(self, **_: str) -> None:
        raise ConnectionClosedError(endpoint_url="http://127.0.0.1/lake/bootstrap.sh")


class Raises(Hooks):
    """Hooks that break when the cluster enters a state."""

    def __init__(self, state: str) -> None:
        self.state = state

    def entered(self, cluster: Cluster) -> None:
        if cluster.state == self.state:
            raise RuntimeError(f"broken in {self.state}")


def ended(folder: Path, hooks: Hooks | None, monkeypatch: pytest.MonkeyPatch, **request: Any) -> Cluster:
    settings = Settings(
        state_dir=folder, start_seconds=0, bootstrap_seconds=0, terminate_seconds=0, kill_seconds=0
    )
    runtime = Runtime(settings, Clients("http://127.0.0.1:1", Credentials.random()), hooks)
    monkeypatch.setattr(runtime, "s3", lambda region: Silent())
    cluster = Cluster(REQUEST | request, runtime, "eu-west-1", "arn:aws:elasticmapreduce:eu-west-1:1")
    cluster.start()
    cluster.join(10)
    return cluster


def test_a_bootstrap_script_that_s3_does_not_answer_for_fails_the_bootstrap(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster = ended(tmp_path, None, monkeypatch)
    assert (cluster.state, cluster.reason["Code"]) == ("TERMINATED_WITH_ERRORS", "BOOTSTRAP_FAILURE")
    assert "failed attempting to download bootstrap action 1" in cluster.reason["Message"]


@pytest.mark.parametrize("state", ["STARTING", "BOOTSTRAPPING", "WAITING", "TERMINATING"])
def test_whatever_breaks_in_its_thread_ends_a_cluster_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, state: str
) -> None:
    ending = {"keep_alive": False} if state == "TERMINATING" else {}
    instances = REQUEST["Instances"] | {"KeepJobFlowAliveWhenNoSteps": not ending}
    cluster = ended(tmp_path, Raises(state), monkeypatch, BootstrapActions=[], Instances=instances)
    assert (cluster.state, cluster.reason["Code"]) == ("TERMINATED_WITH_ERRORS", "INTERNAL_ERROR")
    assert f"RuntimeError: broken in {state}" in cluster.reason["Message"]
    assert cluster.timeline.ended is not None


READ_STEPS: list[Callable[[EmrResponse], Any]] = [
    lambda api: api.describe_step().result["Step"],
    lambda api: api.list_steps().result["Steps"][0],
]


@pytest.mark.parametrize("read", READ_STEPS, ids=["DescribeStep", "ListSteps"])
def test_nobody_sees_a_failed_step_before_its_failure_details(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, read: Callable[[EmrResponse], Any]
) -> None:
    runtime = Runtime(Settings(state_dir=tmp_path), Clients("http://127.0.0.1:1"))
    monkeypatch.setattr(runtime, "s3", lambda region: Silent())
    cluster = Cluster(REQUEST, runtime, "eu-west-1", "arn:aws:elasticmapreduce:eu-west-1:1")
    step = cluster.add_steps([STEP])[0]
    backend = EmrBackend("eu-west-1", "1")
    backend._clusters[cluster.id] = cluster
    monkeypatch.setattr(EmrResponse, "backend", backend)
    monkeypatch.setattr(
        EmrResponse, "_get_param", lambda _, name: {"ClusterId": cluster.id, "StepId": step.id}.get(name)
    )
    seen: list[dict[str, Any]] = []
    reader = threading.Thread(target=lambda: seen.append(read(EmrResponse())["Status"]))
    set_state = type(step).end

    def end(self: Any, *args: Any) -> None:
        """Sets the state, and lets somebody read before the details follow."""
        set_state(self, *args)
        reader.start()
        reader.join(0.5)

    monkeypatch.setattr(type(step), "end", end)
    cluster._step_ended(step, 1, "ValueError: rotten")
    reader.join(10)
    assert (seen[0]["State"], seen[0]["FailureDetails"]["Message"]) == ("FAILED", "ValueError: rotten")
