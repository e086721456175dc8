"""A cluster's own thread: whatever breaks in it, the cluster ends and says why."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ConnectionClosedError

from local_aws.clients import Clients
from local_aws.credentials import Credentials
from local_aws.emr.clock import Clock
from local_aws.emr.cluster import Cluster
from local_aws.emr.execution.runtime import Node, Runtime, StepDone
from local_aws.emr.hooks import ClusterView, Hooks
from local_aws.emr.models import EmrBackend
from local_aws.emr.responses import EmrResponse
from local_aws.emr.steps import Step
from local_aws.settings import Settings
from tests.local_aws.server import PRIMARY

ACTION = {"Name": "a", "ScriptBootstrapAction": {"Path": "s3://lake/bootstrap.sh"}}
REQUEST: dict[str, Any] = {
    "Name": "test",
    "Instances": {"InstanceFleets": [PRIMARY], "KeepJobFlowAliveWhenNoSteps": True},
    "BootstrapActions": [ACTION],
}
STEP = {"Name": "s", "HadoopJarStep": {"Jar": "command-runner.jar", "Args": ["false"]}}


class SilentClients(Clients):
    """Clients of an S3 whose every reply is lost."""

    def get(self, service: str, region: str) -> Any:
        return self

    def head_object(self, **_: str) -> None:
        raise ConnectionClosedError(endpoint_url="http://127.0.0.1/lake/bootstrap.sh")


class Raises(Hooks):
    """Hooks that break when the cluster enters a state."""

    def __init__(self, state: str) -> None:
        self.state = state

    def entered(self, cluster: ClusterView) -> None:
        if cluster.state == self.state:
            raise RuntimeError(f"broken in {self.state}")


class JumpingClock(Clock):
    """A clock that goes to the moment that somebody waits for."""

    def __init__(self) -> None:
        self.moment = datetime(2026, 1, 1, tzinfo=UTC)

    def now(self) -> datetime:
        return self.moment

    def wait(self, changed: threading.Condition, until: datetime | None) -> None:
        if until is None:
            super().wait(changed, None)
        else:
            self.moment = max(self.moment, until)


class EndedStep:
    """The process of a step that ends, without a process, an hour after its start."""

    def __init__(self, node: Node, step: Step, done: StepDone) -> None:
        self.clock, self.done = node.runtime.clock, done
        threading.Thread(target=self.run).start()

    def run(self) -> None:
        assert isinstance(self.clock, JumpingClock)
        self.clock.moment += timedelta(hours=1)
        self.done(0, "")

    def stop(self, *, at_once: bool) -> None:
        """Do nothing: the step ends by itself."""

    def join(self, timeout: float) -> None:
        """Return at once."""


def runtime_in(folder: Path, hooks: Hooks | None = None, clock: Clock | None = None) -> Runtime:
    settings = Settings(state_dir=folder, start_seconds=0, bootstrap_seconds=0, terminate_seconds=0, kill_seconds=0)
    clients = SilentClients("http://127.0.0.1:1", Credentials.random())
    return Runtime(settings, clients, EndedStep, hooks or Hooks(), clock or Clock())


def cluster_of(runtime: Runtime, **request: Any) -> Cluster:
    return Cluster(REQUEST | request, runtime, "eu-west-1", "arn:aws:elasticmapreduce:eu-west-1:1")


def ended(runtime: Runtime, **request: Any) -> Cluster:
    cluster = cluster_of(runtime, **request)
    cluster.start()
    cluster.join(10)
    return cluster


def test_a_cluster_is_idle_for_as_long_as_its_policy_says_after_its_last_step(tmp_path: Path) -> None:
    policy = {"IdleTimeout": 86_400}
    runtime = runtime_in(tmp_path, clock=JumpingClock())
    cluster = ended(runtime, BootstrapActions=[], Steps=[STEP], AutoTerminationPolicy=policy)
    assert (cluster.state, cluster.reason["Message"]) == ("TERMINATED", "Cluster auto-terminated because it was idle")
    step, ended_at = cluster.steps[0], cluster.timeline.ended
    assert step.ended is not None
    assert ended_at is not None
    assert (step.state, step.ended - step.created) == ("COMPLETED", timedelta(hours=1))
    assert ended_at - step.ended == timedelta(seconds=86_400)


def test_a_bootstrap_script_that_s3_does_not_answer_for_fails_the_bootstrap(tmp_path: Path) -> None:
    cluster = ended(runtime_in(tmp_path))
    assert (cluster.state, cluster.reason["Code"]) == ("TERMINATED_WITH_ERRORS", "BOOTSTRAP_FAILURE")
    assert "failed attempting to download bootstrap action 1" in cluster.reason["Message"]


@pytest.mark.parametrize("state", ["STARTING", "BOOTSTRAPPING", "WAITING", "TERMINATING"])
def test_whatever_breaks_in_its_thread_ends_a_cluster_with_the_reason(tmp_path: Path, state: str) -> None:
    ending = {"keep_alive": False} if state == "TERMINATING" else {}
    instances = REQUEST["Instances"] | {"KeepJobFlowAliveWhenNoSteps": not ending}
    cluster = ended(runtime_in(tmp_path, Raises(state)), BootstrapActions=[], Instances=instances)
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
    cluster = cluster_of(runtime_in(tmp_path))
    step = cluster.add_steps([STEP])[0]
    backend = EmrBackend("eu-west-1", "1")
    backend._clusters[cluster.id] = cluster
    monkeypatch.setattr(EmrResponse, "backend", backend)
    monkeypatch.setattr(
        EmrResponse, "_get_param", lambda _, name: {"ClusterId": cluster.id, "StepId": step.id}.get(name)
    )
    monkeypatch.setattr(EmrResponse, "_get_params", lambda _: {"ClusterId": cluster.id})
    seen: list[dict[str, Any]] = []
    reader = threading.Thread(target=lambda: seen.append(read(EmrResponse())["Status"]))
    set_state = type(step).end

    def end(self: Any, *args: Any) -> None:
        """Set the state, and let somebody read before the details follow."""
        set_state(self, *args)
        reader.start()
        reader.join(0.5)

    monkeypatch.setattr(type(step), "end", end)
    cluster._step_ended(step, 1, "ValueError: rotten")
    reader.join(10)
    assert (seen[0]["State"], seen[0]["FailureDetails"]["Message"]) == ("FAILED", "ValueError: rotten")
