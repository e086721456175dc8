"""Faults that need a hand at the right moment: changed inputs, two runs, two deployments, an Airflow that is gone."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from tests.faults import invariants
from tests.faults.world import LIVE, Aws, Deployment, Pipeline, closing_all, until

pytestmark = pytest.mark.timeout(400)
Record = Callable[..., list[str]]


def check(deployment: Deployment, run: Any, **more: Any) -> list[str]:
    return invariants.check(deployment, run, invariants.scripted_tables, **more)


def held(aws: Aws, number: int) -> None:
    until(lambda: aws.fault(number)["holding"], "a call to be held", 90)


# F23: the input changes during the run


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["before", "during", "after"])
def test_f23_an_input_that_changes_during_the_run_is_accounted_for(
    deployment: Deployment, pipeline: Pipeline, record: Record, moment: str
) -> None:
    broken = record(
        "F23", moment, "scripted", f"photos are changed, deleted and added {moment} the load step reads"
    )
    aws, s3 = deployment.aws, deployment.aws.client("s3")
    spec: dict[str, dict[str, Any]] = {
        "before": {"operation": "RunJobFlow"},
        "during": {"operation": "GetObject", "key": ".*Training/.*", "skip": 3, "agent": "^$"},
        "after": {"operation": "PutObject", "key": ".*stages/load_images.json"},
    }
    number = aws.arm(kind="held", times=1, **spec[moment])
    wait = pipeline.start()
    held(aws, number)
    keys = sorted(key for key in deployment.photo_bodies() if "Training" in key)
    s3.put_object(Bucket=deployment.raw, Key=keys[-1], Body=b'{"pixels": [9, 9, 9]}')
    s3.delete_object(Bucket=deployment.raw, Key=keys[-2])
    s3.put_object(Bucket=deployment.raw, Key="images/Training/New/n.jpg", Body=b'{"pixels": [7]}')
    aws.disarm(number)
    run = wait()
    broken += check(deployment, run)  # what the listing named, and nothing else, is there
    assert broken == []
    assert (deployment.record(run.run_id) or {})["state"] == "succeeded"

    again = pipeline.run()
    broken += check(deployment, again, listed=aws.keys(deployment.raw))
    assert broken == []
    assert again.tasks["plan"] == "success", "what changed after the listing is work for the next night"


# F24: the code changes in S3 after its upload


@pytest.mark.slow
@pytest.mark.parametrize(("moment", "operation"), [("before", "RunJobFlow"), ("during", "AddJobFlowSteps")])
def test_f24_code_that_was_changed_after_its_upload_is_not_run(
    deployment: Deployment, pipeline: Pipeline, record: Record, undisturbed: str, moment: str, operation: str
) -> None:
    broken = record(
        "F24", moment, "scripted", f"fruits.zip is replaced in S3 while {operation} is on its way"
    )
    aws, s3 = deployment.aws, deployment.aws.client("s3")
    number = aws.arm(kind="held", operation=operation, times=1)
    wait = pipeline.start()
    held(aws, number)
    (key,) = (key for key in aws.keys(deployment.lake, "code/") if key.endswith("fruits.zip"))
    s3.put_object(Bucket=deployment.lake, Key=key, Body=b"somebody else's code")
    aws.disarm(number)
    run = wait()
    broken += check(deployment, run)
    assert broken == []
    assert (deployment.record(run.run_id) or {})["state"] == "failed"
    assert "CodeMismatch" in pipeline.tail(4000)

    for one in aws.keys(deployment.lake, "code/"):
        s3.delete_object(Bucket=deployment.lake, Key=one)
    again = pipeline.run(force=True)
    broken += check(deployment, again)
    assert broken == []
    assert invariants.digest(invariants.scripted_tables(deployment)) == undisturbed


# F26: the night of a clock change


@pytest.mark.parametrize(
    ("moment", "night"), [("before", "2026-03-28"), ("during", "2026-03-29"), ("after", "2026-10-25")]
)
def test_f26_a_night_of_a_clock_change_has_one_run(record: Record, moment: str, night: str) -> None:
    record(
        "F26", moment, "scripted", f"the night of {night}: the hour of the schedule is skipped or comes twice"
    )
    from airflow.sdk import CronTriggerTimetable
    from airflow.serialization.encoders import coerce_to_core_timetable
    from airflow.timetables.base import TimeRestriction
    from fruits_airflow.settings import Settings

    default = Settings(deployment_id="clock", raw_bucket="raw", lake_bucket="lake")
    assert default.schedule is not None
    paris = ZoneInfo(default.timezone)
    table = coerce_to_core_timetable(CronTriggerTimetable(default.schedule, timezone=default.timezone))
    first = datetime.fromisoformat(night).replace(hour=12, tzinfo=paris) - timedelta(days=2)
    import pendulum

    start = pendulum.instance(first)
    found, last = [], None
    for _ in range(4):
        info = table.next_dagrun_info(
            last_automated_data_interval=last, restriction=TimeRestriction(start, None, True)
        )
        assert info is not None
        last = info.data_interval
        found.append(info.run_after.astimezone(paris).date())
    nights = [(first + timedelta(days=n + 1)).date() for n in range(4)]
    assert found == nights, "each night once, none left out"


# F22: two runs for one night


@pytest.fixture
def second_pipeline(shared_deployment: Deployment, tmp_path: Path) -> Iterator[Pipeline]:
    pipeline = Pipeline(shared_deployment, tmp_path / "airflow")
    with closing_all(pipeline):
        yield pipeline


@pytest.mark.slow
def test_f22_two_runs_for_one_night_come_one_after_the_other(
    deployment: Deployment, pipeline: Pipeline, second_pipeline: Pipeline, record: Record, undisturbed: str
) -> None:
    broken = record("F22", "during", "scripted", "two Airflows run the same night of one deployment at once")
    aws = deployment.aws
    number = aws.arm(kind="held", operation="RunJobFlow", times=1)
    first = pipeline.start(force=True)
    held(aws, number)
    second = second_pipeline.start(at="2026-02-02T02:00:00+00:00", force=True)
    until(lambda: "is locked by" in second_pipeline.tail(4000), "the second run to wait for the lock", 120)
    assert aws.clusters(deployment.cluster_prefix, LIVE) == []
    aws.disarm(number)
    runs = [first(), second()]
    for run in runs:
        broken += check(deployment, run)
        assert run.state == "success"
    spans = sorted(
        (c["Status"]["Timeline"]["CreationDateTime"], c["Status"]["Timeline"]["EndDateTime"])
        for c in aws.clusters(deployment.cluster_prefix)
        if any(c["Name"].endswith(run.run_id) for run in runs)
    )
    if spans[0][1] > spans[1][0]:
        broken.append("both runs had a cluster at the same time")
    assert broken == []
    assert invariants.digest(invariants.scripted_tables(deployment)) == undisturbed


# two deployments in one account, with the same run ids


@pytest.mark.slow
def test_two_deployments_with_the_same_run_ids_do_not_touch_each_other(
    deployment: Deployment, pipeline: Pipeline, record: Record, tmp_path: Path
) -> None:
    broken = record(
        "two deployments", "during", "scripted", "two deployments in one account run the same run id"
    )
    aws = deployment.aws
    other = Deployment(aws, name="other", photos=7)
    other.create()
    at = "2026-03-03T02:00:00+00:00"
    neighbour = Pipeline(other, tmp_path / "airflow")
    with closing_all(neighbour):
        hung = aws.arm(kind="step_hangs", cluster="fruits/other/.*", step="featurize/.*", times=1)
        theirs = neighbour.start(at=at, force=True)
        until(lambda: aws.fault(hung)["struck"], "their step to hang", 120)
        run = pipeline.run(at=at, force=True)
        alive = [c["Status"]["State"] for c in aws.clusters(other.cluster_prefix, LIVE)]
        assert alive == ["RUNNING"], "our run, its end included, has left their cluster alone"
        broken += check(deployment, run)
        assert run.state == "success"
        their_run = theirs()
    assert their_run.run_id == run.run_id
    broken += check(other, their_run)
    assert broken == []
    assert (other.record(their_run.run_id) or {})["state"] == "failed"
    assert (deployment.record(run.run_id) or {})["state"] == "succeeded"
    assert len(invariants.scripted_tables(deployment)["features"]) == deployment.photos


# F28: Airflow is dead for good


class ShortLived(Deployment):
    """A deployment whose clusters may live for a minute."""

    def environment(self) -> dict[str, str]:
        return super().environment() | {"FRUITS_MAX_CLUSTER_MINUTES": "1"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("moment", "what"), [("before", "STARTING"), ("during", "a hung step"), ("after", "an idle cluster")]
)
def test_f28_without_airflow_the_cluster_ends_by_itself(
    account: Aws, record: Record, tmp_path: Path, moment: str, what: str
) -> None:
    broken = record("F28", moment, "scripted", f"Airflow is gone for good with {what}")
    name = f"dead-{moment}"
    deployment = ShortLived(account, name=name) if moment == "during" else Deployment(account, name=name)
    deployment.create()
    pipeline = Pipeline(deployment, tmp_path / "airflow")
    spec: dict[str, Any] = {
        "before": {"kind": "held", "operation": "RunJobFlow", "when": "after"},
        "during": {"kind": "step_hangs", "step": "featurize/.*", "cluster": f"fruits/{name}/.*"},
        "after": {"kind": "held", "operation": "AddJobFlowSteps", "when": "before"},
    }[moment]
    with closing_all(pipeline):
        number = account.arm(**spec)
        pipeline.start()
        until(lambda: account.fault(number)["holding" if "held" in spec.values() else "struck"], what, 120)
        pipeline.kill()
    account.disarm()
    assert account.clusters(deployment.cluster_prefix, LIVE), (
        "the cluster must outlive Airflow for this to say anything"
    )
    until(lambda: not account.clusters(deployment.cluster_prefix, LIVE), "the cluster to end", 200, 0.5)
    (cluster,) = account.clusters(deployment.cluster_prefix)
    reason = cluster["Status"]["StateChangeReason"]
    expected = "INSTANCE_FAILURE" if moment == "during" else "ALL_STEPS_COMPLETED"
    if reason["Code"] != expected:
        broken.append(f"the cluster ended with {json.dumps(reason)}, not by itself")
    assert broken == []
