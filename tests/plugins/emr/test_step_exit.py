"""The cause of a failed step, and whether it may be tried again by itself."""

from __future__ import annotations

from dataclasses import replace

import pytest
from fruits_airflow.emr.step_exit import explain
from fruits_airflow.emr.steps import Step

STEP = Step("s-1", "featurize/1", "FAILED", "Unknown Error.", None)
LOST = (
    "ERROR JavaError: SparkException: Job aborted due to stage failure: Task 0 in stage 1.0 failed 4 times, most "
    "recent failure: Lost task 0.3 in stage 1.0 (TID 3) (ip-10-0-0-1 executor 2): ExecutorLostFailure (executor 2 "
    "exited caused by one of the running tasks) Reason: Container from a bad node. Exit status: 137. Run the step again"
)


def controller(status: int) -> list[str]:
    return [
        "2026-11-30T01:00:00.000Z INFO startExec 'command-runner.jar'",
        f"x WARN Step failed with exitCode {status} and took 9 seconds",
    ]


@pytest.mark.parametrize(
    ("status", "stderr", "cause", "is_transient"),
    [
        (137, ["Killed"], "the Spark driver was killed: exit status 137, SIGKILL, mostly for lack of memory", True),
        (143, [], "the Spark driver was killed: exit status 143, SIGTERM", True),
        (128 + 99, [], "the Spark driver was killed: exit status 227, signal 99", True),
        (1, [LOST, "later"], LOST + " (exit status 1)", True),
        (
            1,
            ["ERROR JavaError: SparkException: Job cancelled because SparkContext was shut down"],
            "ERROR JavaError",
            True,
        ),
        (1, ["ERROR JavaError: lake.fruits.images: AccessDenied"], "ERROR JavaError: lake.fruits.images: ", False),
        (2, ["ERROR InputError: no listing"], "ERROR InputError: no listing (exit status 2)", False),
        (3, ["ERROR QualityGateError: reject_rate"], "ERROR QualityGateError: reject_rate (exit status 3)", False),
        (1, [], "Unknown Error. (exit status 1); see the end of its log", False),
    ],
)
def test_a_failure_has_its_cause_and_only_what_is_transient_may_be_tried_again(status, stderr, cause, is_transient):
    ended = explain(STEP, {"controller": controller(status), "stderr": stderr})
    assert ended.cause.startswith(cause)
    assert ended.is_transient is is_transient


def test_the_error_of_a_python_job_is_in_stdout_where_spark_submit_writes_both_of_its_streams() -> None:
    logs = {
        "controller": controller(3),
        "stderr": ["INFO Utils"],
        "stdout": ["publish: done", "ERROR QualityGateError: x"],
    }
    assert explain(STEP, logs).cause == "ERROR QualityGateError: x (exit status 3)"
    assert explain(STEP, {"controller": controller(1), "stdout": [LOST]}).is_transient


def test_a_step_that_was_cancelled_is_not_tried_again_whatever_its_process_ended_with():
    cancelled = replace(STEP, state="CANCELLED", reason="Cancelled by user")
    assert explain(cancelled, {"controller": controller(143)}).cause == "Cancelled by user"
    assert not explain(cancelled, {"controller": controller(143)}).is_transient


def test_without_any_log_the_reason_of_emr_stands():
    assert explain(replace(STEP, reason="Unknown Error.; s3://x"), {}).cause.startswith("Unknown Error.; s3://x;")
