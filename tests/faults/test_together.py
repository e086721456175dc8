"""Faults that need a hand at the right moment: changed inputs, two runs, two deployments, an Airflow that is gone."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from tests.faults import invariants
from tests.faults.world import LIVE, Aws, Deployment, Pipeline, Run, closing_all, until

pytestmark = pytest.mark.timeout(400)
Record = Callable[..., list[str]]


def check(deployment: Deployment, run: Any, **more: Any) -> list[str]:
    return invariants.check(deployment, run, invariants.scripted_tables, **more)


def assert_next_night_is_undisturbed(
    deployment: Deployment, pipeline: Pipeline, broken: list[str], undisturbed: str
) -> None:
    again = pipeline.run(force=True)
    broken += check(deployment, again)
    assert broken == []
    assert again.state == "success", pipeline.tail()
    assert invariants.digest(invariants.scripted_tables(deployment)) == undisturbed


def held(aws: Aws, number: int) -> None:
    until(lambda: aws.fault(number)["holding"], "a call to be held", 90)


# F23: the input changes during the run


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["before", "during", "after"])
def test_f23_an_input_that_changes_during_the_run_is_accounted_for(
    deployment: Deployment, pipeline: Pipeline, record: Record, moment: str
) -> None:
    broken = record("F23", moment, "scripted", f"photos are changed, deleted and added {moment} the load step reads")
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
def test_f24_code_that_was_changed_after_it_was_run_is_not_run_by_the_next_night(
    deployment: Deployment, pipeline: Pipeline, record: Record, undisturbed: str
) -> None:
    broken = record("F24", "after", "scripted", "fruits.zip is replaced in S3 when the last step has ended")
    aws, s3 = deployment.aws, deployment.aws.client("s3")
    number = aws.arm(kind="held", operation="TerminateJobFlows", times=1)
    wait = pipeline.start()
    held(aws, number)
    (key,) = (key for key in aws.keys(deployment.lake, "code/") if key.endswith("fruits.zip"))
    s3.put_object(Bucket=deployment.lake, Key=key, Body=b"somebody else's code")
    aws.disarm(number)
    run = wait()
    broken += check(deployment, run)
    assert broken == []
    assert (deployment.record(run.run_id) or {})["state"] == "succeeded"

    again = pipeline.run(force=True)
    broken += check(deployment, again)
    assert broken == []
    if again.state != "success":  # refused, or put right: never run
        assert "CodeMismatch" in pipeline.tail(4000)
    assert invariants.digest(invariants.scripted_tables(deployment)) == undisturbed


@pytest.mark.slow
@pytest.mark.parametrize(("moment", "operation"), [("before", "RunJobFlow"), ("during", "AddJobFlowSteps")])
def test_f24_code_that_was_changed_after_its_upload_is_not_run(
    deployment: Deployment, pipeline: Pipeline, record: Record, undisturbed: str, moment: str, operation: str
) -> None:
    broken = record("F24", moment, "scripted", f"fruits.zip is replaced in S3 while {operation} is on its way")
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
    assert_next_night_is_undisturbed(deployment, pipeline, broken, undisturbed)


# F25: S3 denies everything to everybody, run.json included


LAKE_DENIED: dict[str, tuple[str, str, dict[str, Any]]] = {
    "during": (
        *("AccessDenied", "S3 denies the lake to steps and Airflow while a step is at work"),
        {"operation": "PutObject", "key": "tables/[^/]*/features/current.json"},
    ),
    "after": (
        *("ExpiredToken", "the credentials for S3 have expired when a run that has published ends its cluster"),
        {"operation": "TerminateJobFlows"},
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("moment", LAKE_DENIED)
def test_f25_a_lake_that_is_denied_until_the_end_leaves_a_red_run_and_no_cluster(
    deployment: Deployment, pipeline: Pipeline, record: Record, undisturbed: str, moment: str
) -> None:
    error, what, at_work = LAKE_DENIED[moment]
    broken = record("F25", moment, "scripted", what)
    aws = deployment.aws
    number = aws.arm(kind="held", times=1, **at_work)
    wait = pipeline.start()
    held(aws, number)
    denial = aws.arm(kind="refused", service="s3", bucket=deployment.lake, error=error)
    aws.disarm(number)
    run = wait()
    assert aws.fault(denial)["struck"]
    aws.disarm()
    assert run.state == "failed", pipeline.tail()
    broken += [f"{one['Id']} lives" for _, one in deployment.live_clusters()]
    if (deployment.record(run.run_id) or {}).get("state", "failed") != "failed":
        broken.append("run.json could be written, and does not say that the run failed")
    assert broken == []

    # it could not give its lock back: the janitor sees that nothing of it is left
    assert pipeline.run(dag="cluster_janitor").state == "success", pipeline.tail()
    assert_next_night_is_undisturbed(deployment, pipeline, broken, undisturbed)


@pytest.mark.slow
def test_f25_credentials_of_airflow_that_expire_for_some_seconds_leave_a_truthful_run(
    deployment: Deployment, pipeline: Pipeline, record: Record, undisturbed: str
) -> None:
    broken = record("F25", "during", "scripted", "Airflow's credentials have expired for two seconds, for all of AWS")
    aws = deployment.aws
    number = aws.arm(kind="held", operation="PutObject", key="tables/[^/]*/features/current.json", times=1)
    wait = pipeline.start()
    held(aws, number)
    # the nodes have a role of their own, and so have the logs
    expired = aws.arm(kind="refused", error="ExpiredToken", lasts=2.0, agent="^(?!.*local_aws).*[Bb]oto")
    until(lambda: aws.fault(expired)["struck"], "a call to be refused", 60)
    aws.disarm(number)
    run = wait()
    aws.disarm()
    # whether a task's attempts outlast them is a matter of this clock, in which a pause of minutes takes 0.3 s
    broken += check(deployment, run)
    assert broken == [], pipeline.tail()
    assert_next_night_is_undisturbed(deployment, pipeline, broken, undisturbed)


# F26: the night of a clock change


@pytest.mark.parametrize(
    ("moment", "night"), [("before", "2026-03-28"), ("during", "2026-03-29"), ("after", "2026-10-25")]
)
def test_f26_a_night_of_a_clock_change_has_one_run(
    deployment: Deployment, pipeline: Pipeline, record: Record, undisturbed: str, moment: str, night: str
) -> None:
    broken = record(
        "F26", moment, "scripted", f"the night of {night}: the hour of the schedule is skipped or comes twice"
    )
    from airflow.sdk import CronTriggerTimetable
    from airflow.serialization.encoders import coerce_to_core_timetable
    from airflow.timetables.base import TimeRestriction
    from fruits_airflow.config.settings import Settings

    default = Settings(deployment_id="clock", raw_bucket="raw", lake_bucket="lake")
    assert default.schedule is not None
    paris = ZoneInfo(default.timezone)
    table = coerce_to_core_timetable(CronTriggerTimetable(default.schedule, timezone=default.timezone))
    first = datetime.fromisoformat(night).replace(hour=12, tzinfo=paris) - timedelta(days=2)
    import pendulum

    start = pendulum.instance(first)
    due, last = [], None
    for _ in range(4):
        info = table.next_dagrun_info(last_automated_data_interval=last, restriction=TimeRestriction(start, None, True))
        assert info is not None
        last = info.data_interval
        due.append(info.run_after)
    nights = [(first + timedelta(days=n + 1)).date() for n in range(4)]
    assert [one.astimezone(paris).date() for one in due] == nights, "each night once, none left out"
    run = pipeline.run(at=due[1].isoformat(), force=True)
    broken += check(deployment, run)
    assert broken == []
    assert run.state == "success", pipeline.tail()
    assert invariants.digest(invariants.scripted_tables(deployment)) == undisturbed


# F22: two runs for one night


@pytest.fixture(scope="module")
def second_pipeline(shared_deployment: Deployment, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pipeline]:
    pipeline = Pipeline(shared_deployment, tmp_path_factory.mktemp("second") / "airflow")
    with closing_all(pipeline):
        yield pipeline


# none that `pipeline` has already had: a run id is of one run
NIGHTS = {"before": "2027-02-01", "during": "2027-02-02", "after": "2027-02-03"}
# what the first of two runs is about when the second begins
AT_WORK: dict[str, dict[str, Any]] = {
    "before": {"operation": "PutObject", "key": "locks/.*", "times": 2},
    "during": {"operation": "RunJobFlow", "times": 1},
    "after": {"operation": "TerminateJobFlows", "times": 1},
}


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["before", "during", "after"])
def test_f22_two_runs_for_one_night_come_one_after_the_other(
    deployment: Deployment, pipeline: Pipeline, second_pipeline: Pipeline, record: Record, undisturbed: str, moment: str
) -> None:
    when = {"before": "take the lock at once", "during": "begin together", "after": "meet as the first has published"}
    broken = record(
        "F22", moment, "scripted", f"two Airflows run the same night of one deployment: they {when[moment]}"
    )
    aws = deployment.aws
    number = aws.arm(kind="held", **AT_WORK[moment])
    first = pipeline.start(force=True)
    held(aws, number)
    second = second_pipeline.start(at=f"{NIGHTS[moment]}T02:00:00+00:00", force=True)
    if moment == "before":
        until(lambda: aws.fault(number)["holding"] == 2, "both to take the lock", 120)
        aws.disarm(number)
        both = (pipeline, second_pipeline)
        until(lambda: any("is locked by" in one.tail(4000) for one in both), "one of them to wait", 120)
    else:
        until(lambda: "is locked by" in second_pipeline.tail(4000), "the second run to wait for the lock", 120)
        assert len(aws.clusters(deployment.cluster_prefix, LIVE)) == (moment == "after")
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


# F22: an erasure beside a run


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["before", "during", "after"])
def test_f22_an_erasure_and_a_run_come_one_after_the_other(
    deployment: Deployment, pipeline: Pipeline, second_pipeline: Pipeline, record: Record, moment: str
) -> None:
    when = {"before": "and the run comes while it erases", "during": "while a run is at work"}
    said = when.get(moment, "while a run that has published ends its cluster")
    broken = record("F22", moment, "scripted", f"a photo is to be erased, {said}")
    aws = deployment.aws
    key = sorted(key for key in deployment.photo_bodies() if "Training" in key)[0]
    image_id = hashlib.sha256(key.encode()).hexdigest()
    assert pipeline.run().state == "success"
    number = aws.arm(kind="held", **AT_WORK["during" if moment == "before" else moment])
    night = {"at": f"{NIGHTS[moment]}T04:00:00+00:00"}

    def erase() -> Callable[[], Run]:
        return second_pipeline.start(dag="erase_images", image_ids=[image_id], expected_photos=1, **night)

    def work() -> Callable[[], Run]:
        return pipeline.start(force=True)

    first, second, waits = (erase, work, pipeline) if moment == "before" else (work, erase, second_pipeline)
    said_before = waits.tail(4000).count("is locked by")
    begun = first()
    held(aws, number)
    then = second()
    until(lambda: waits.tail(4000).count("is locked by") > said_before, "the second to wait", 120)
    aws.disarm(number)
    ended = [begun(), then()]
    run, erasure = reversed(ended) if moment == "before" else ended

    assert (run.state, erasure.state) == ("success", "success"), second_pipeline.tail()
    left = [one for one in aws.keys(deployment.raw) if one != key]
    assert key not in aws.keys(deployment.raw)
    assert aws.read(deployment.lake, f"erasures/{erasure.run_id}/receipt.json")
    for name, rows in invariants.scripted_tables(deployment).items():
        if any(row.get("image_id") == image_id for row in rows):
            broken.append(f"{name} still holds the erased photo")
    again = pipeline.run(force=True)
    broken += check(deployment, again, listed=left)
    assert broken == []
    assert again.state == "success", pipeline.tail()


# the janitor, when a fault has left a cluster, and when one strikes itself


class Patient(Deployment):
    """A deployment whose idle clusters outlive eighteen refusals to end them, and then a janitor's."""

    def environment(self) -> dict[str, str]:
        return super().environment() | {
            "FRUITS_IDLE_TIMEOUT_S": "3600",
            "FRUITS_TERMINATE_TIMEOUT_MINUTES": "1",  # the janitor's are real ones: no policy shortens them
        }


@pytest.fixture
def patient_pipeline(account: Aws, tmp_path: Path, moment: str) -> Iterator[Pipeline]:
    deployment = Patient(account, name=f"janitor-{moment}")
    deployment.create()
    pipeline = Pipeline(deployment, tmp_path / "airflow")
    with closing_all(pipeline):
        yield pipeline
    account.disarm()


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["before", "after"])
def test_the_janitor_ends_what_a_run_could_not(
    patient_pipeline: Pipeline, record: Record, undisturbed: str, moment: str
) -> None:
    pipeline, deployment = patient_pipeline, patient_pipeline.deployment
    what = {"before": "TerminateJobFlows is denied at first", "after": "TerminateJobFlows' reply is lost"}
    broken = record("janitor", moment, "scripted", f"a run could never end its cluster; to the janitor, {what[moment]}")
    aws = deployment.aws
    number = aws.arm(kind="refused", service="emr", operation="TerminateJobFlows", error="AccessDenied")
    run = pipeline.run()
    (cluster,) = aws.clusters(deployment.cluster_prefix, LIVE)
    assert run.state == "failed", "its cluster was not seen ended"
    lock = f"locks/{deployment.database}.json"
    if moment == "before":
        assert pipeline.run(dag="cluster_janitor").tasks["end_clusters"] == "failed"
        assert aws.clusters(deployment.cluster_prefix, LIVE), "nobody has ended it"
        assert aws.read(deployment.lake, lock), "its cluster may be at work"
        aws.disarm(number)
    else:
        aws.disarm(number)
        number = aws.arm(kind="lost", service="emr", operation="TerminateJobFlows", when="after", times=1)
    sweep = pipeline.run(dag="cluster_janitor")
    if moment == "after":
        assert aws.fault(number)["struck"] == 1
        aws.disarm(number)
    assert sweep.state == "success", pipeline.tail()
    (now,) = (one for one in aws.clusters(deployment.cluster_prefix) if one["Id"] == cluster["Id"])
    assert now["Status"]["StateChangeReason"]["Code"] == "USER_REQUEST", "the janitor's doing, not its idleness"
    if aws.read(deployment.lake, lock):  # the two tasks of a sweep do not wait for each other
        assert pipeline.run(dag="cluster_janitor").state == "success", pipeline.tail()
    broken += check(deployment, run, red_though_published=True)
    assert broken == []
    assert_next_night_is_undisturbed(deployment, pipeline, broken, undisturbed)


# two deployments in one account, with the same run ids


@pytest.mark.slow
def test_two_deployments_with_the_same_run_ids_do_not_touch_each_other(
    deployment: Deployment, pipeline: Pipeline, record: Record, tmp_path: Path
) -> None:
    broken = record("two deployments", "during", "scripted", "two deployments in one account run the same run id")
    aws = deployment.aws
    other = Deployment(aws, name="other", photos=7)
    other.create()
    at = "2027-03-03T02:00:00+00:00"
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


class SoonIdle(Deployment):
    """A deployment whose clusters end after twenty idle seconds: `local_aws` counts a tenth."""

    def environment(self) -> dict[str, str]:
        return super().environment() | {"FRUITS_IDLE_TIMEOUT_S": "200"}


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
    deployment = ShortLived(account, name=name) if moment == "during" else SoonIdle(account, name=name)
    deployment.create()
    pipeline = Pipeline(deployment, tmp_path / "airflow")
    night = "2027-04-01T02:00:00+00:00"
    spec: dict[str, Any] = {
        "before": {"kind": "held", "operation": "RunJobFlow", "when": "after"},
        "during": {"kind": "step_hangs", "step": "featurize/.*", "cluster": f"fruits/{name}/.*"},
        "after": {"kind": "held", "operation": "AddJobFlowSteps", "when": "before"},
    }[moment]
    with closing_all(pipeline):
        number = account.arm(**spec)
        pipeline.start(night)
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

    again = Deployment(
        account,
        name,
        outputs=deployment.outputs,
        airflow_homes=deployment.airflow_homes,
        metadata_databases=deployment.metadata_databases,
    )
    back = Pipeline(again, tmp_path / "airflow")
    with closing_all(back):
        run = back.run(at=night)
        # It begins the run anew, where a scheduler would go on after the step that is done.
        done = "nothing_was_done_twice: load_images was completed 2 times"
        broken += [one for one in check(again, run, clusters=2) if moment == "before" or one != done]
        assert broken == [], back.tail()
        assert run.state == "success", "Airflow is back, and takes the night up"
