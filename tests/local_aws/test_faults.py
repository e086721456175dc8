"""The fault switches, each over real HTTP with boto3: what a client sees, and what took effect."""

from __future__ import annotations

import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from botocore.exceptions import (
    ClientError,
    ConnectionClosedError,
    HTTPClientError,
    IncompleteReadError,
    ResponseStreamingError,
)

from tests.aws_keys import control_faults
from tests.local_aws.server import Server, until
from tests.small_disk import why_no_small_disk

Arm = Callable[..., int]
NO_SMALL_DISK = why_no_small_disk()


@pytest.fixture(scope="module")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("aws"))
    server.make_account()
    yield server
    assert server.stop() == 0


def control(aws: Server, method: str, path: str = "", body: object = None) -> Any:
    return control_faults(aws.endpoint, method, path, body)


@pytest.fixture
def arm(aws: Server) -> Iterator[Arm]:
    yield lambda kind, **spec: control(aws, "POST", body={"kind": kind, **spec})["id"]
    control(aws, "DELETE")


def names(aws: Server) -> list[str]:
    return [cluster["Name"] for cluster in aws.client("emr").list_clusters()["Clusters"]]


def put(aws: Server, key: str, body: bytes = b"x") -> Any:
    return aws.client("s3").put_object(Bucket="lake", Key=key, Body=body)


def exists(aws: Server, key: str) -> bool:
    return "Contents" in aws.client("s3").list_objects_v2(Bucket="lake", Prefix=key)


# the control path


def test_the_emulator_itself_has_no_control_path(tmp_path: Any) -> None:
    server = Server(tmp_path, module="local_aws")
    try:
        with pytest.raises(urllib.error.HTTPError) as refused:
            control(server, "POST", body={"kind": "lost"})
        assert refused.value.code >= 400
        put_bucket = server.make_bucket("bucket")
        server.client("s3").put_object(Bucket=put_bucket, Key="k", Body=b"")
    finally:
        server.stop()


@pytest.mark.parametrize(
    ("spec", "why"),
    [
        ({"kind": "earthquake"}, "earthquake"),
        ({"kind": "lost", "colour": "red"}, "colour"),
        ({"kind": "lost", "when": "never"}, "never"),
        ({"kind": "lost", "times": "many"}, "times"),
        ({"kind": "lost", "skip": True}, "skip"),
        ({"kind": "lost", "operation": "("}, "operation"),
        # what would be counted as struck and do nothing, or never strike
        ({"kind": "refused", "when": "during"}, "when 'during' of 'refused': one of before, after"),
        ({"kind": "cut", "when": "before"}, "when 'before' of 'cut': one of after"),
        ({"kind": "delayed", "when": "during"}, "when 'during' of 'delayed'"),
        ({"kind": "held", "when": "during"}, "when 'during' of 'held'"),
        ({"kind": "step_hangs", "when": "during"}, "when 'during' of 'step_hangs'"),
        ({"kind": "stays", "when": "after", "state": "STARTING"}, "when 'after' of 'stays'"),
        ({"kind": "stays"}, "state '' of 'stays': one of STARTING, BOOTSTRAPPING, TERMINATING"),
        ({"kind": "stays", "state": "WAITING"}, "state 'WAITING' of 'stays'"),
        ({"kind": "cluster_lost"}, "state '' of 'cluster_lost': one of STARTING"),
        ({"kind": "cluster_lost", "state": "TERMINATED"}, "state 'TERMINATED' of 'cluster_lost'"),
        ({"kind": "cluster_lost", "step": "s", "state": "PENDING"}, "one of RUNNING, COMPLETED, FAILED"),
        ({"kind": "stale", "service": "s3"}, "service 's3' with operation '.*' of 'stale'"),
        ({"kind": "backward", "operation": "RunJobFlow"}, "must match one of emr:DescribeCluster"),
        ({"kind": "lost", "times": 0}, "times 0"),
        ({"kind": "lost", "rate": 0.0}, "rate 0.0"),
        ({"kind": "lost", "skip": -1}, "skip -1"),
        ({"kind": "refused", "lasts": "long"}, "lasts"),
        ({"kind": "refused", "error": "Sulking"}, "Sulking"),
        ([], "object"),
    ],
)
def test_what_is_no_fault_is_refused_with_the_reason(aws: Server, spec: object, why: str) -> None:
    with pytest.raises(urllib.error.HTTPError) as refused:
        control(aws, "POST", body=spec)
    assert refused.value.code == 400
    assert why in refused.value.read().decode()


def test_the_control_path_tells_how_often_a_fault_matched_and_struck(aws: Server, arm: Arm) -> None:
    arm("refused", service="s3", operation="PutObject", key="counted", skip=1, times=1)
    put(aws, "counted")
    with pytest.raises(ClientError):
        put(aws, "counted")
    put(aws, "counted")
    put(aws, "another")
    (fault,) = control(aws, "GET")
    assert (fault["matched"], fault["struck"]) == (3, 1)


def test_a_rate_draws_the_same_requests_for_the_same_seed(aws: Server, arm: Arm) -> None:
    def drawn(seed: int) -> list[bool]:
        number = arm("refused", service="s3", operation="HeadBucket", rate=0.5, seed=seed)
        struck = []
        for _ in range(24):
            try:
                aws.client("s3").head_bucket(Bucket="lake")
                struck.append(False)
            except ClientError:
                struck.append(True)
        control(aws, "DELETE", f"/{number}")
        return struck

    first = drawn(7)
    assert drawn(7) == first
    assert drawn(8) != first
    assert 4 < sum(first) < 20


# on the wire


@pytest.mark.parametrize("reset", [False, True])
def test_a_reply_lost_after_the_effect_leaves_the_effect(aws: Server, arm: Arm, reset: bool) -> None:
    name = f"lost after {reset}"
    arm("lost", operation="RunJobFlow", when="after", times=1, reset=reset)
    with pytest.raises((ConnectionClosedError, HTTPClientError)):
        aws.run_job_flow(Name=name)
    assert names(aws).count(name) == 1


def test_a_request_lost_before_the_effect_has_none(aws: Server, arm: Arm) -> None:
    arm("lost", operation="RunJobFlow", when="before", times=1)
    with pytest.raises((ConnectionClosedError, HTTPClientError)):
        aws.run_job_flow(Name="lost before")
    assert "lost before" not in names(aws)


def test_a_client_cut_off_during_the_call_sees_the_effect_later(aws: Server, arm: Arm) -> None:
    arm("lost", operation="RunJobFlow", when="during", seconds=0.7, times=1)
    with pytest.raises((ConnectionClosedError, HTTPClientError)):
        aws.run_job_flow(Name="lost during")
    assert "lost during" not in names(aws)
    until(lambda: "lost during" in names(aws))


def test_a_reply_is_cut_after_the_effect_when_nothing_is_said(aws: Server, arm: Arm) -> None:
    arm("cut", operation="PutObject", key="cut", times=1)
    assert control(aws, "GET")[0]["when"] == "after"


def test_a_cut_reply_is_an_error_although_the_effect_is_there(aws: Server, arm: Arm) -> None:
    put(aws, "whole", b"x" * 10_000)
    arm("cut", operation="GetObject", key="whole", when="after", times=1)
    with pytest.raises((IncompleteReadError, ResponseStreamingError)):
        aws.client("s3").get_object(Bucket="lake", Key="whole")["Body"].read()


@pytest.mark.parametrize(
    ("error", "emr", "s3", "iam"),
    [
        ("Throttling", ("ThrottlingException", 400), ("SlowDown", 503), ("Throttling", 400)),
        ("SlowDown", ("ThrottlingException", 400), ("SlowDown", 503), ("Throttling", 400)),
        ("AccessDenied", ("AccessDeniedException", 400), ("AccessDenied", 403), ("AccessDenied", 403)),
        ("ExpiredToken", ("ExpiredTokenException", 400), ("ExpiredToken", 400), ("ExpiredToken", 403)),
        ("InternalError", ("InternalServerException", 500), ("InternalError", 500), ("InternalFailure", 500)),
    ],
)
def test_a_refusal_is_in_the_words_of_each_service(
    aws: Server, arm: Arm, error: str, emr: Any, s3: Any, iam: Any
) -> None:
    arm("refused", error=error)
    for service, ask, expected in (
        ("emr", lambda client: client.list_clusters(), emr),
        ("s3", lambda client: client.get_object(Bucket="lake", Key="k"), s3),
        ("iam", lambda client: client.list_roles(), iam),
    ):
        with pytest.raises(ClientError) as refused:
            ask(aws.client(service))
        answer = refused.value.response
        assert (answer["Error"]["Code"], answer["ResponseMetadata"]["HTTPStatusCode"]) == expected


def test_an_error_after_the_effect_leaves_the_effect(aws: Server, arm: Arm) -> None:
    arm("refused", operation="PutObject", key="half", when="after", error="InternalError", times=1)
    with pytest.raises(ClientError):
        put(aws, "half")
    assert exists(aws, "half")


def test_credentials_that_have_expired_are_refused_by_every_service_until_they_are_new(aws: Server, arm: Arm) -> None:
    def codes() -> list[str]:
        results = []
        for ask in (aws.client("emr").list_clusters, aws.client("s3").list_buckets):
            try:
                ask()
                results.append("fine")
            except ClientError as error:
                results.append(error.response["Error"]["Code"])
        return results

    arm("refused", error="ExpiredToken", skip=2, lasts=1.0)
    assert codes() == ["fine", "fine"], "they are still good"
    assert codes() == ["ExpiredTokenException", "ExpiredToken"]
    assert codes() == ["ExpiredTokenException", "ExpiredToken"]
    time.sleep(1.1)
    assert codes() == ["fine", "fine"]


def test_a_delayed_reply_comes_late(aws: Server, arm: Arm) -> None:
    arm("delayed", operation="HeadBucket", seconds=0.5, times=1)
    started = time.monotonic()
    aws.client("s3").head_bucket(Bucket="lake")
    assert time.monotonic() - started >= 0.5


@pytest.mark.parametrize(("when", "there"), [("before", False), ("after", True)])
def test_a_held_request_waits_until_it_is_let_go(aws: Server, arm: Arm, when: str, there: bool) -> None:
    key = f"held-{when}"
    number = arm("held", operation="PutObject", key=key, when=when)
    with ThreadPoolExecutor() as pool:
        upload = pool.submit(put, aws, key)
        until(lambda: control(aws, "GET")[0]["holding"] == 1)
        assert exists(aws, key) is there
        assert not upload.done()
        control(aws, "DELETE", f"/{number}")
        upload.result(10)
    assert exists(aws, key)


def test_a_conditional_write_meets_a_deletion(aws: Server, arm: Arm) -> None:
    s3, key = aws.client("s3"), "conflict"
    put(aws, key)
    number = arm("held", operation="PutObject", key=key)
    with ThreadPoolExecutor() as pool:
        upload = pool.submit(s3.put_object, Bucket="lake", Key=key, Body=b"y", IfNoneMatch="*")
        until(lambda: control(aws, "GET")[0]["holding"] == 1)
        s3.delete_object(Bucket="lake", Key=key)
        control(aws, "DELETE", f"/{number}")
        with pytest.raises(ClientError) as caught:
            upload.result(10)
    assert caught.value.response["Error"]["Code"] == "ConditionalRequestConflict"
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 409
    assert not exists(aws, key)


def test_a_fault_can_be_for_one_kind_of_client(aws: Server, arm: Arm) -> None:
    arm("refused", operation="HeadBucket", agent="Java")
    aws.client("s3").head_bucket(Bucket="lake")
    arm("refused", operation="HeadBucket", agent="Boto3")
    with pytest.raises(ClientError):
        aws.client("s3").head_bucket(Bucket="lake")


# reads


def test_a_stale_listing_lacks_the_newest_cluster_until_its_time_has_come(aws: Server, arm: Arm) -> None:
    old = aws.run_job_flow(Name="long there")
    aws.reach(old, "WAITING")
    time.sleep(1.0)
    arm("stale", operation="ListClusters", seconds=1.0)
    aws.run_job_flow(Name="just made")
    assert "just made" not in names(aws)
    assert "long there" in names(aws)
    until(lambda: "just made" in names(aws))


def test_a_stale_listing_shows_states_of_a_moment_ago(aws: Server, arm: Arm) -> None:
    ended = aws.run_job_flow(Name="was waiting")
    aws.reach(ended, "WAITING")
    time.sleep(2.0)
    arm("stale", operation="ListClusters", seconds=2.0)
    aws.client("emr").terminate_job_flows(JobFlowIds=[ended])
    aws.reach(ended, "TERMINATED")
    waiting = aws.client("emr").list_clusters(ClusterStates=["WAITING"])["Clusters"]
    assert [cluster["Status"]["State"] for cluster in waiting if cluster["Id"] == ended] == ["WAITING"]
    until(
        lambda: (
            ended
            not in [cluster["Id"] for cluster in aws.client("emr").list_clusters(ClusterStates=["WAITING"])["Clusters"]]
        )
    )


def test_a_backward_read_gives_what_was_before_the_last_change(aws: Server, arm: Arm) -> None:
    cluster = aws.run_job_flow(Name="backward")
    aws.reach(cluster, "WAITING")
    step = aws.add_step(cluster, "sleep", "0.5")
    aws.step_reaches(cluster, step, "RUNNING")
    aws.step_reaches(cluster, step, "COMPLETED")
    arm("backward", operation="DescribeStep", times=1)
    assert aws.step(cluster, step)["State"] == "RUNNING"
    assert aws.step(cluster, step)["State"] == "COMPLETED"


@pytest.mark.parametrize("spec", [{"kind": "stale", "seconds": 0.2}, {"kind": "backward"}])
def test_a_read_that_has_not_changed_is_not_counted_as_bent(aws: Server, arm: Arm, spec: dict[str, Any]) -> None:
    cluster = aws.run_job_flow(Name="steady")
    aws.reach(cluster, "WAITING")
    arm(**spec, operation="ListSteps")
    for _ in range(2):
        assert aws.client("emr").list_steps(ClusterId=cluster)["Steps"] == []
        time.sleep(0.3)
    assert control(aws, "GET")[0]["struck"] == 0


def test_stale_steps_are_those_of_a_moment_ago(aws: Server, arm: Arm) -> None:
    def states() -> list[str]:
        return [step["Status"]["State"] for step in emr.list_steps(ClusterId=cluster)["Steps"]]

    emr = aws.client("emr")
    cluster = aws.run_job_flow(Name="stale steps")
    aws.reach(cluster, "WAITING")
    assert states() == []
    number = arm("stale", operation="(ListSteps|DescribeStep)", seconds=1.0)
    step = aws.add_step(cluster, "sleep", "60")
    assert states() == [], "the step is there, and is not shown"
    assert until(states) == ["RUNNING"]
    control(aws, "DELETE", f"/{number}")
    aws.step_reaches(cluster, step, "RUNNING")
    emr.cancel_steps(ClusterId=cluster, StepIds=[step], StepCancellationOption="TERMINATE_PROCESS")
    aws.step_reaches(cluster, step, "CANCELLED")
    arm("stale", operation="DescribeStep", seconds=1.0)
    assert aws.step(cluster, step)["State"] != "CANCELLED"
    aws.step_reaches(cluster, step, "CANCELLED")


@pytest.mark.parametrize("spec", [{"kind": "stale", "seconds": 1.0}, {"kind": "backward", "times": 1}])
def test_a_catalog_can_show_the_version_before(aws: Server, arm: Arm, spec: dict[str, Any]) -> None:
    glue, name = aws.client("glue"), f"catalog_{spec['kind']}"
    table = {"DatabaseName": name, "Name": "t"}

    def version() -> str:
        return str(glue.get_table(**table)["Table"]["VersionId"])

    glue.create_database(DatabaseInput={"Name": name})
    glue.create_table(DatabaseName=name, TableInput={"Name": "t"})
    old = version()
    arm(**spec, service="glue", operation="GetTable")
    glue.update_table(DatabaseName=name, TableInput={"Name": "t", "Description": "new"}, VersionId=old)
    assert version() == old
    with pytest.raises(ClientError, match="ConcurrentModification"):  # who believed it must look again
        glue.update_table(DatabaseName=name, TableInput={"Name": "t"}, VersionId=old)
    until(lambda: version() != old)


# clusters and steps


@pytest.mark.parametrize("state", ["STARTING", "BOOTSTRAPPING"])
def test_a_stuck_cluster_stays_until_it_is_ended(aws: Server, arm: Arm, state: str) -> None:
    arm("stays", cluster=f"stuck {state}", state=state)
    cluster = aws.run_job_flow(Name=f"stuck {state}")
    aws.reach(cluster, state)
    time.sleep(1.0)
    assert aws.state(cluster) == state
    aws.client("emr").terminate_job_flows(JobFlowIds=[cluster])
    aws.reach(cluster, "TERMINATED")


def test_a_stuck_cluster_is_still_ended_by_its_deadline_only_once_bootstrapped(aws: Server, arm: Arm) -> None:
    from datetime import UTC, datetime, timedelta

    put(aws, "bootstrap.sh")
    arm("stays", cluster="late", state="BOOTSTRAPPING")
    deadline = (datetime.now(UTC) + timedelta(seconds=1.5)).isoformat()
    action = {"Path": "s3://lake/bootstrap.sh", "Args": ["--deadline", deadline]}
    cluster = aws.run_job_flow(Name="late", BootstrapActions=[{"Name": "timer", "ScriptBootstrapAction": action}])
    assert aws.reach(cluster, "TERMINATED_WITH_ERRORS")["StateChangeReason"]["Code"] == "INSTANCE_FAILURE"


def test_a_cluster_that_will_not_end_ends_when_the_fault_is_gone(aws: Server, arm: Arm) -> None:
    number = arm("stays", cluster="undying", state="TERMINATING")
    cluster = aws.run_job_flow(Name="undying")
    aws.reach(cluster, "WAITING")
    aws.client("emr").terminate_job_flows(JobFlowIds=[cluster])
    aws.reach(cluster, "TERMINATING")
    time.sleep(0.7)
    assert aws.state(cluster) == "TERMINATING"
    control(aws, "DELETE", f"/{number}")
    aws.reach(cluster, "TERMINATED")


def test_a_failing_bootstrap_ends_the_cluster_in_the_words_of_emr(aws: Server, arm: Arm) -> None:
    arm("bootstrap_fails", cluster="no boot")
    status = aws.reach(aws.run_job_flow(Name="no boot"), "TERMINATED_WITH_ERRORS")
    assert status["StateChangeReason"]["Code"] == "BOOTSTRAP_FAILURE"
    assert "returned a non-zero return code" in status["StateChangeReason"]["Message"]


def test_a_lost_cluster_takes_its_running_step_along(aws: Server, arm: Arm) -> None:
    cluster = aws.run_job_flow(Name="lost")
    aws.reach(cluster, "WAITING")
    arm("cluster_lost", cluster="lost", step="step", state="RUNNING", seconds=0.3)
    step = aws.add_step(cluster, "sleep", "60")
    status = aws.reach(cluster, "TERMINATED_WITH_ERRORS")
    assert status["StateChangeReason"]["Code"] == "INSTANCE_FAILURE"
    assert aws.step(cluster, step)["State"] == "CANCELLED"


@pytest.mark.parametrize("state", ["STARTING", "BOOTSTRAPPING", "WAITING"])
def test_a_cluster_can_be_lost_in_a_state_of_its_own(aws: Server, arm: Arm, state: str) -> None:
    arm("cluster_lost", cluster=f"lost {state}", state=state, seconds=0)
    status = aws.reach(aws.run_job_flow(Name=f"lost {state}"), "TERMINATED_WITH_ERRORS")
    assert status["StateChangeReason"]["Code"] == "INSTANCE_FAILURE"


@pytest.mark.parametrize(("when", "worked"), [("before", False), ("after", True)])
def test_a_hung_step_never_ends_with_its_work_done_or_not(
    aws: Server, arm: Arm, tmp_path: Any, when: str, worked: bool
) -> None:
    cluster = aws.run_job_flow(Name="hung")
    aws.reach(cluster, "WAITING")
    arm("step_hangs", step="step", when=when)
    trace = tmp_path / "trace"
    step = aws.add_step(cluster, "touch", str(trace))
    aws.step_reaches(cluster, step, "RUNNING")
    if worked:
        until(trace.exists)
    else:
        time.sleep(0.7)
    assert (aws.step(cluster, step)["State"], trace.exists()) == ("RUNNING", worked)
    aws.client("emr").cancel_steps(ClusterId=cluster, StepIds=[step])
    aws.step_reaches(cluster, step, "CANCELLED")


def test_a_killed_step_fails(aws: Server, arm: Arm) -> None:
    cluster = aws.run_job_flow(Name="killed step")
    aws.reach(cluster, "WAITING")
    arm("step_killed", step="step", seconds=0.3, times=1)
    first = aws.add_step(cluster, "sleep", "60")
    aws.step_reaches(cluster, first, "FAILED")
    aws.step_reaches(cluster, aws.add_step(cluster, "true"), "COMPLETED")


@pytest.mark.skipif(bool(NO_SMALL_DISK), reason=f"no disk of its own for a step here: {NO_SMALL_DISK}")
def test_a_step_on_a_full_disk_cannot_write_where_it_keeps_its_files(aws: Server, arm: Arm) -> None:
    cluster = aws.run_job_flow(Name="full disk")
    aws.reach(cluster, "WAITING")
    arm("disk_full", step="step", kib=64, times=2)
    write = 'head -c {} /dev/zero > "$TMPDIR/x" && head -c 1 /dev/zero > "$SPARK_LOCAL_DIRS/y"'
    small = aws.add_step(cluster, "sh", "-c", write.format(1000))
    aws.step_reaches(cluster, small, "COMPLETED")
    large = aws.add_step(cluster, "sh", "-c", write.format(100_000))
    aws.step_reaches(cluster, large, "FAILED")
    until(lambda: exists(aws, f"logs/{cluster}/steps/{large}/stderr.gz"))
    assert "No space left on device" in aws.step_log(cluster, large, "stderr")


def test_late_logs_come_after_the_step_has_ended(aws: Server, arm: Arm) -> None:
    cluster = aws.run_job_flow(Name="late logs")
    aws.reach(cluster, "WAITING")
    arm("logs_late", cluster="late logs", seconds=1.0)
    step = aws.add_step(cluster, "echo", "hello")
    aws.step_reaches(cluster, step, "COMPLETED")
    key = f"logs/{cluster}/steps/{step}/stdout.gz"
    assert not exists(aws, key)
    until(lambda: exists(aws, key))
    assert aws.step_log(cluster, step, "stdout") == "hello\n"
