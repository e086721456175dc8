"""A stage has one successful step, whichever request or reply is lost."""

from __future__ import annotations

import time
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from botocore.exceptions import ClientError, ReadTimeoutError
from fruits_airflow.emr.stage_steps import STAGES, step_for
from fruits_airflow.emr.steps import StepSubmitter
from fruits_airflow.runs.run_context import RunContext

from tests.plugins.bash_steps import bash, ended
from tests.plugins.doubles import Double


@pytest.fixture
def submitter(run: RunContext) -> StepSubmitter:
    return run.step_submitter(run.find_or_create().job_flow_id)


def ids(submitter: StepSubmitter) -> list[str]:
    return [step["Id"] for step in submitter.client.list_steps(ClusterId=submitter.job_flow_id)["Steps"]]


def test_a_pending_running_or_completed_step_is_used(submitter: StepSubmitter) -> None:
    step = bash("sleep 1")
    first = submitter.find_or_add(step).step_id
    assert submitter.find_or_add(step).step_id == first
    assert ended(submitter, first).state == "COMPLETED"
    assert submitter.find_or_add(step).step_id == first
    assert ids(submitter) == [first]


def test_a_failed_step_gets_a_new_attempt(submitter: StepSubmitter) -> None:
    step = bash("exit 1")
    first = submitter.find_or_add(step).step_id
    assert ended(submitter, first).state == "FAILED"
    assert submitter.find_or_add(step).step_id != first


def test_retry_after_lost_reply_finds_the_same_step(submitter: StepSubmitter) -> None:
    def lost(**request: Any) -> Any:
        submitter.client.add_job_flow_steps(**request)
        raise ReadTimeoutError(endpoint_url="emr")

    step = replace(submitter, single_attempt_client=Double(submitter.client, add_job_flow_steps=lost)).find_or_add(
        bash("true")
    )

    assert ids(submitter) == [step.step_id]


def test_a_step_that_the_listing_does_not_show_yet_is_waited_for(submitter: StepSubmitter) -> None:
    step = submitter.find_or_add(bash("true"))
    submitter.journal.note(f"add-load_images-1-{submitter.job_flow_id}", known=0)  # as after a lost reply
    shown_from = time.monotonic() + 0.5

    def stale(name: str) -> Any:
        real = submitter.client.get_paginator(name)
        return Double(real, paginate=lambda **_: [{"Steps": []}]) if time.monotonic() < shown_from else real

    again = replace(submitter, client=Double(submitter.client, get_paginator=stale)).find_or_add(bash("true"))

    assert again.step_id == step.step_id
    assert ids(submitter) == [step.step_id]


def test_a_step_whose_id_is_noted_is_not_added_again_while_the_listing_lags(submitter: StepSubmitter) -> None:
    step = submitter.find_or_add(bash("true"))

    def stale(_: str) -> Any:
        return SimpleNamespace(paginate=lambda **_: [{"Steps": []}])

    again = replace(submitter, client=Double(submitter.client, get_paginator=stale), consistency_s=0.0)
    assert again.find_or_add(bash("true")).step_id == step.step_id
    assert ids(submitter) == [step.step_id]


def test_when_no_reply_and_no_step_comes_the_error_is_raised_after_the_window(submitter: StepSubmitter) -> None:
    def lost(**_: Any) -> Any:
        raise ReadTimeoutError(endpoint_url="emr")

    with pytest.raises(ReadTimeoutError):
        replace(submitter, single_attempt_client=Double(submitter.client, add_job_flow_steps=lost)).find_or_add(
            bash("true")
        )


def test_a_cluster_that_has_ended_takes_no_step(submitter: StepSubmitter, run: RunContext) -> None:
    run.lifecycle.end_all(timeout_s=30)
    begun = time.monotonic()
    with pytest.raises(ClientError):
        replace(submitter, consistency_s=60.0).find_or_add(bash("true"))
    assert time.monotonic() - begun < 10  # a refused step is not looked for


def test_the_name_of_a_step_follows_its_code_and_arguments(plan: dict[str, Any]) -> None:
    name = step_for("featurize", plan, "c0de")["Name"]
    assert name == step_for("featurize", dict(plan), "c0de")["Name"]
    assert name.startswith("featurize/")
    assert name != step_for("featurize", plan, "c0de2")["Name"]
    assert name != step_for("featurize", plan | {"batch_size": 2}, "c0de")["Name"]
    assert name != step_for("featurize", plan | {"run_id": "another"}, "c0de")["Name"]


@pytest.mark.parametrize("stage", STAGES)
def test_a_step_is_a_job_of_the_bundle_in_client_mode(plan: dict[str, Any], stage: str) -> None:
    step = step_for(stage, plan, "c0de")
    arguments = step["HadoopJarStep"]["Args"]
    code = f"s3://{plan['lake_bucket']}/code/c0de"
    assert arguments[:5] == ["spark-submit", "--deploy-mode", "client", "--name", stage]
    assert arguments[5:8] == ["--py-files", f"{code}/fruits.zip", f"{code}/{stage}.py"]
    assert arguments[8:14] == [
        *("--database", "lake.fruits", "--run-id", plan["run_id"], "--run-folder", plan["run_folder"])
    ]
    assert step["ActionOnFailure"] == "CANCEL_AND_WAIT"


def test_the_plan_reaches_the_jobs_arguments(plan: dict[str, Any]) -> None:
    def arguments(stage: str, **changed: Any) -> str:
        return " ".join(step_for(stage, plan | changed, "c0de")["HadoopJarStep"]["Args"])

    assert f"--input s3://{plan['raw_bucket']}/images/ --complete" in arguments("load_images")
    assert "--complete" not in arguments("load_images", complete=False)
    assert "--full-refresh" not in arguments("load_images") + arguments("featurize")
    assert "--full-refresh" in arguments("load_images", full_refresh=True)
    assert "--engine litert --batch-size 1" in arguments("featurize")
    assert "--variance 0.95" in arguments("reduce_pca")
    assert arguments("reduce_pca", k=7).endswith("--k 7")
    assert "--max-reject-rate 0.2" in arguments("publish")
    assert "--weights random" in arguments("publish", weights="random")
    for stage in ("reduce_pca", "publish"):
        assert "--network MobileNetV3Large" in arguments(stage, network="MobileNetV3Large")
    assert "--min-explained-variance 0.5 --min-agreement 0.5" in arguments("publish")
    assert "--max-drift-degrees 90.0 --max-variance-loss 0.01" in arguments("reduce_pca")
    assert "--full-refresh" in arguments("reduce_pca", full_refresh=True)
    assert "--suppression s3://" in arguments("load_images")
