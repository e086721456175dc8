"""Steps: what runs, what it leaves, how it ends."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from botocore.exceptions import ClientError

from tests.aws_keys import KEYS
from tests.local_aws.server import Server, alive, step, until


def test_a_step_goes_from_pending_over_running_to_completed(aws: Server, waiting: str) -> None:
    first, second = aws.add_step(waiting, "sleep", "0.5"), aws.add_step(waiting, "true")
    aws.step_reaches(waiting, first, "RUNNING")
    assert aws.step(waiting, second)["State"] == "PENDING"
    status = aws.step_reaches(waiting, second, "COMPLETED")
    times = [status["Timeline"][name] for name in ("CreationDateTime", "StartDateTime", "EndDateTime")]
    assert times == sorted(times)


def test_its_logs_lie_under_the_log_uri(aws: Server, waiting: str) -> None:
    step_id = aws.add_step(waiting, "bash", "-c", "echo to-out; echo to-err >&2")
    aws.step_reaches(waiting, step_id, "COMPLETED")
    assert aws.step_log(waiting, step_id, "stdout") == "to-out\n"
    assert aws.step_log(waiting, step_id, "stderr") == "to-err\n"
    assert "INFO Step succeeded with exitCode 0 and took " in aws.step_log(waiting, step_id, "controller")


def test_a_failed_step_says_why_and_where_its_log_is(aws: Server, waiting: str) -> None:
    script = "echo fine; echo 'ValueError: no such fruit' >&2; exit 3"
    step_id = aws.add_step(waiting, "bash", "-c", script)
    failure = aws.step_reaches(waiting, step_id, "FAILED")["FailureDetails"]
    assert failure == {
        "Reason": "Unknown Error.",
        "Message": "ValueError: no such fruit",
        "LogFile": f"s3://lake/logs/{waiting}/steps/{step_id}/stderr.gz",
    }
    assert "WARN Step failed with exitCode 3 and took " in aws.step_log(waiting, step_id, "controller")


def test_a_program_that_is_not_there_fails_the_step(aws: Server, waiting: str) -> None:
    step_id = aws.add_step(waiting, "no-such-program")
    aws.step_reaches(waiting, step_id, "FAILED")
    assert 'Cannot run program "no-such-program"' in aws.step_log(waiting, step_id, "stderr")


@pytest.mark.parametrize("option", ["script", "--py-files"])
def test_a_missing_object_fails_the_step_before_anything_runs(aws: Server, waiting: str, option: str) -> None:
    aws.client("s3").put_object(Bucket="lake", Key="code/there.py", Body=b"")
    args = (
        ["s3://lake/gone.py"] if option == "script" else ["--py-files", "s3://lake/gone.py", "s3://lake/code/there.py"]
    )
    step_id = aws.add_step(waiting, "spark-submit", *args)
    failure = aws.step_reaches(waiting, step_id, "FAILED")["FailureDetails"]
    assert "No such file or directory 's3://lake/gone.py'" in failure["Message"]
    assert "No such file or directory 's3://lake/gone.py'" in aws.step_log(waiting, step_id, "stderr")
    assert "started child process" not in aws.step_log(waiting, step_id, "controller")


def test_a_script_runner_step_runs_a_script_from_s3(aws: Server, waiting: str) -> None:
    aws.client("s3").put_object(Bucket="lake", Key="code/hello.sh", Body=b'echo "hello $1"')
    added = aws.client("emr").add_job_flow_steps(
        JobFlowId=waiting,
        Steps=[
            {
                "Name": "script",
                "ActionOnFailure": "CONTINUE",
                "HadoopJarStep": {
                    "Jar": "s3://eu-west-1.elasticmapreduce/libs/script-runner/script-runner.jar",
                    "Args": ["s3://lake/code/hello.sh", "fruit"],
                },
            }
        ],
    )
    aws.step_reaches(waiting, added["StepIds"][0], "COMPLETED")
    assert aws.step_log(waiting, added["StepIds"][0], "stdout") == "hello fruit\n"


def test_a_step_sees_this_aws_and_nothing_else_of_the_environment(aws: Server, waiting: str) -> None:
    step_id = aws.add_step(waiting, "env")
    aws.step_reaches(waiting, step_id, "COMPLETED")
    seen = dict(line.split("=", 1) for line in aws.step_log(waiting, step_id, "stdout").splitlines())
    assert seen["AWS_ENDPOINT_URL"] == aws.endpoint
    assert seen["AWS_REGION"] == seen["AWS_DEFAULT_REGION"] == "eu-west-1"
    assert KEYS.environment.items() <= seen.items()
    assert (seen["AWS_ALLOW_HTTP"], seen["SPARK_LOCAL_IP"]) == ("true", "127.0.0.1")
    assert seen["EMR_STEP_ID"] == step_id
    assert seen["PYSPARK_PYTHON"].endswith(".venv-node/bin/python")
    assert not [name for name in seen if name.startswith(("MOTO", "LOCAL_AWS", "PYTEST", "AIRFLOW", "VIRTUAL_ENV"))]


def test_what_a_step_leaves_in_its_folder_is_removed(aws: Server, waiting: str) -> None:
    step_id = aws.add_step(waiting, "bash", "-c", "pwd; touch left here; mktemp")
    aws.step_reaches(waiting, step_id, "COMPLETED")
    folder, temporary = aws.step_log(waiting, step_id, "stdout").split()
    assert not Path(folder).exists()
    assert Path(temporary).parent == Path(folder)


def test_children_that_outlive_their_step_are_ended(aws: Server, waiting: str) -> None:
    step_id = aws.add_step(waiting, "bash", "-c", "setsid sleep 600 & echo $!")
    aws.step_reaches(waiting, step_id, "COMPLETED")
    pid = int(aws.step_log(waiting, step_id, "stdout"))
    until(lambda: not alive(pid), seconds=5)


def test_continue_goes_on_with_the_next_step(aws: Server, waiting: str) -> None:
    failed, following = aws.add_step(waiting, "false"), aws.add_step(waiting, "true")
    aws.step_reaches(waiting, following, "COMPLETED")
    assert aws.step(waiting, failed)["State"] == "FAILED"


def test_cancel_and_wait_cancels_what_is_pending_and_the_cluster_waits(aws: Server) -> None:
    steps = [step("false", on_failure="CANCEL_AND_WAIT"), step("true")]
    cluster_id = aws.run_job_flow(Steps=steps)
    aws.reach(cluster_id, "WAITING")
    states = [step["Status"]["State"] for step in aws.client("emr").list_steps(ClusterId=cluster_id)["Steps"]]
    assert states == ["CANCELLED", "FAILED"]  # newest first
    aws.client("emr").terminate_job_flows(JobFlowIds=[cluster_id])


@pytest.mark.parametrize("action", ["TERMINATE_CLUSTER", "TERMINATE_JOB_FLOW"])
def test_terminate_cluster_ends_it_with_errors(aws: Server, action: str) -> None:
    cluster_id = aws.run_job_flow(Steps=[step("false", on_failure=action), step("true")])
    status = aws.reach(cluster_id, "TERMINATED_WITH_ERRORS")
    assert status["StateChangeReason"] == {"Code": "STEP_FAILURE", "Message": "Shut down as step failed"}
    states = [step["Status"]["State"] for step in aws.client("emr").list_steps(ClusterId=cluster_id)["Steps"]]
    assert states == ["CANCELLED", "FAILED"]


def test_a_pending_step_can_be_cancelled(aws: Server, waiting: str) -> None:
    running, pending = aws.add_step(waiting, "sleep", "0.5"), aws.add_step(waiting, "true")
    [info] = aws.client("emr").cancel_steps(ClusterId=waiting, StepIds=[pending])["CancelStepsInfoList"]
    assert info == {"StepId": pending, "Status": "SUBMITTED"}
    assert aws.step(waiting, pending)["State"] == "CANCELLED"
    aws.step_reaches(waiting, running, "COMPLETED")


def test_cancelling_a_running_step_ends_its_processes(aws: Server, waiting: str, tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    step_id = aws.add_step(waiting, "bash", "-c", f"setsid sleep 600 & echo $! > {pid_file}; wait")
    until(lambda: pid_file.exists() and pid_file.read_text().strip())
    aws.client("emr").cancel_steps(ClusterId=waiting, StepIds=[step_id])
    status = aws.step_reaches(waiting, step_id, "CANCELLED")
    assert status["StateChangeReason"] == {"Message": "Cancelled by user"}
    assert not alive(int(pid_file.read_text()))


def test_a_step_that_ignores_sigterm_is_killed_after_its_grace(aws: Server, waiting: str) -> None:
    step_id = aws.add_step(waiting, "bash", "-c", 'trap "" TERM; while :; do sleep 0.1; done')
    aws.step_reaches(waiting, step_id, "RUNNING")
    time.sleep(0.3)
    aws.client("emr").cancel_steps(ClusterId=waiting, StepIds=[step_id])
    assert aws.step(waiting, step_id)["State"] == "CANCEL_PENDING"
    aws.step_reaches(waiting, step_id, "CANCELLED")


def test_terminate_process_does_not_wait_for_the_grace(aws: Server, waiting: str) -> None:
    step_id = aws.add_step(waiting, "bash", "-c", 'trap "" TERM; while :; do sleep 0.1; done')
    aws.step_reaches(waiting, step_id, "RUNNING")
    time.sleep(0.3)
    started = time.monotonic()
    aws.client("emr").cancel_steps(ClusterId=waiting, StepIds=[step_id], StepCancellationOption="TERMINATE_PROCESS")
    aws.step_reaches(waiting, step_id, "CANCELLED")
    assert time.monotonic() - started < 1.9  # the grace is 2 s


def test_a_step_that_has_ended_cannot_be_cancelled(aws: Server, waiting: str) -> None:
    step_id = aws.add_step(waiting, "true")
    aws.step_reaches(waiting, step_id, "COMPLETED")
    [info] = aws.client("emr").cancel_steps(ClusterId=waiting, StepIds=[step_id])["CancelStepsInfoList"]
    assert info["Status"] == "FAILED"
    assert aws.step(waiting, step_id)["State"] == "COMPLETED"


def test_terminating_a_cluster_ends_its_running_step(aws: Server, tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    script = f"setsid sleep 600 & echo $! > {pid_file}; wait"
    cluster_id = aws.run_job_flow(Steps=[step("bash", "-c", script), step("true")])
    until(lambda: pid_file.exists() and pid_file.read_text().strip())
    aws.client("emr").terminate_job_flows(JobFlowIds=[cluster_id])
    aws.reach(cluster_id, "TERMINATED")
    assert not alive(int(pid_file.read_text()))
    states = [step["Status"]["State"] for step in aws.client("emr").list_steps(ClusterId=cluster_id)["Steps"]]
    assert states == ["CANCELLED", "CANCELLED"]


def test_steps_run_side_by_side_up_to_the_concurrency_level(aws: Server) -> None:
    cluster_id = aws.run_job_flow(StepConcurrencyLevel=2)
    aws.reach(cluster_id, "WAITING")
    ids = [aws.add_step(cluster_id, "sleep", "0.8") for _ in range(3)]
    until(lambda: sum(aws.step(cluster_id, step_id)["State"] == "RUNNING" for step_id in ids) == 2)
    assert [aws.step(cluster_id, step_id)["State"] for step_id in ids].count("PENDING") == 1
    for step_id in ids:
        aws.step_reaches(cluster_id, step_id, "COMPLETED")
    aws.client("emr").terminate_job_flows(JobFlowIds=[cluster_id])


def test_steps_are_listed_newest_first(aws: Server, waiting: str) -> None:
    emr = aws.client("emr")
    failed, completed = aws.add_step(waiting, "false"), aws.add_step(waiting, "true")
    aws.step_reaches(waiting, completed, "COMPLETED")
    assert [step["Id"] for step in emr.list_steps(ClusterId=waiting)["Steps"]][:2] == [completed, failed]


def test_a_step_shows_what_was_asked_for(aws: Server, waiting: str) -> None:
    step_id = aws.add_step(waiting, "echo", "a b", on_failure="CANCEL_AND_WAIT")
    seen = aws.client("emr").describe_step(ClusterId=waiting, StepId=step_id)["Step"]
    assert seen["Config"]["Jar"] == "command-runner.jar"
    assert seen["Config"]["Args"] == ["echo", "a b"]
    assert (seen["Name"], seen["ActionOnFailure"]) == ("step", "CANCEL_AND_WAIT")
    aws.step_reaches(waiting, step_id, "COMPLETED")


def test_a_cluster_without_a_log_uri_runs_its_steps(aws: Server) -> None:
    cluster_id = aws.run_job_flow(LogUri=None, Steps=[step("false")])
    status = aws.reach(cluster_id, "WAITING")
    assert status["State"] == "WAITING"
    [only] = aws.client("emr").list_steps(ClusterId=cluster_id)["Steps"]
    assert "LogFile" not in only["Status"]["FailureDetails"]
    aws.client("emr").terminate_job_flows(JobFlowIds=[cluster_id])


def test_logs_that_cannot_be_written_fail_no_step(aws: Server) -> None:
    cluster_id = aws.run_job_flow(LogUri="s3://no-such-bucket/logs", Steps=[step("true")])
    aws.reach(cluster_id, "WAITING")
    [only] = aws.client("emr").list_steps(ClusterId=cluster_id)["Steps"]
    assert only["Status"]["State"] == "COMPLETED"
    aws.client("emr").terminate_job_flows(JobFlowIds=[cluster_id])


@pytest.mark.parametrize("name", ["describe_step", "cancel_steps"])
def test_an_unknown_step_is_an_invalid_request(aws: Server, waiting: str, name: str) -> None:
    which = {"StepId": "s-NONE"} if name == "describe_step" else {"StepIds": ["s-NONE"]}
    with pytest.raises(ClientError, match="Step id 's-NONE' is not valid") as caught:
        getattr(aws.client("emr"), name)(ClusterId=waiting, **which)
    assert caught.value.response["Error"]["Code"] == "InvalidRequestException"
