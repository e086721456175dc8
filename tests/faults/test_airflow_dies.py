"""Faults of Airflow itself: its processes and its database die, or a person steps in, at each moment of a run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.faults import invariants
from tests.faults.postgres import Postgres, PostgresMissing, binaries
from tests.faults.processes import ENDED, RealAirflow
from tests.faults.world import LIVE, Aws, Deployment, Run, closing_all, until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

# before, during and after the effect: the call that makes the cluster is held there
HELD = {
    "before": {"kind": "held", "operation": "RunJobFlow", "when": "before", "times": 1},
    "during": {"kind": "held", "operation": "RunJobFlow", "when": "after", "times": 1},
}


@pytest.fixture(scope="module")
def airflow(folder: Path, account: Aws) -> Iterator[RealAirflow]:
    try:
        binaries()
    except PostgresMissing as missing:
        pytest.fail(str(missing))
    deployment = Deployment(account, name="processes")
    deployment.create()
    database = Postgres()
    with closing_all(database):
        airflow = RealAirflow(deployment, database, folder / "processes")
        with closing_all(airflow):
            yield airflow


@pytest.fixture
def world(airflow: RealAirflow) -> Iterator[RealAirflow]:
    airflow.deployment.empty()
    yield airflow
    airflow.deployment.aws.disarm()


_numbers: dict[str, int] = {}


def new_run(world: RealAirflow, fault: str) -> str:
    number = _numbers[fault] = _numbers.get(fault, 0) + 1
    run_id = f"manual__{fault}-{number}"
    world.begin(run_id, force=True)
    return run_id


def check(deployment: Deployment, run: Run, **more: Any) -> list[str]:
    return invariants.check(deployment, run, invariants.scripted_tables, **more)


def judge(world: RealAirflow, run_id: str, broken: list[str], undisturbed: str, end: str, clusters: int = 1) -> None:
    """Waits for the end of the run, checks it, and that another night comes to the undisturbed result."""
    run = world.ends(run_id)
    world.deployment.aws.disarm()
    broken += check(world.deployment, run, clusters=clusters)
    assert broken == [], world.tail()
    assert (world.deployment.record(run_id) or {})["state"] == end
    if end == "failed":
        world.begin(f"{run_id}-again", force=True)
        again = world.ends(f"{run_id}-again")
        broken += check(world.deployment, again)
        assert broken == []
    assert invariants.digest(invariants.scripted_tables(world.deployment)) == undisturbed


def held(world: RealAirflow, number: int) -> None:
    until(lambda: world.deployment.aws.fault(number)["holding"], "a call to be held", 90)


Record = Callable[..., list[str]]


@pytest.mark.parametrize("moment", ["before", "during", "after"])
def test_f4_a_killed_task_process_doubles_nothing(
    world: RealAirflow, record: Record, undisturbed: str, moment: str
) -> None:
    broken = record("F4", moment, "scripted", f"create_cluster's process is killed {moment} RunJobFlow's effect")
    aws = world.deployment.aws
    # after: the call has been answered, and the task writes what it links to when it dies
    spec: dict[str, Any] = HELD.get(moment) or {
        **{"kind": "held", "operation": "DescribeCluster", "when": "after", "times": 1}
    }
    number = aws.arm(**spec)
    run_id = new_run(world, f"f4-{moment}")
    held(world, number)
    world.kill_task(run_id, "create_cluster")
    aws.disarm(number)
    judge(world, run_id, broken, undisturbed, "succeeded")


@pytest.mark.parametrize("moment", ["before", "during", "after"])
def test_f5_a_run_marked_failed_by_hand_leaves_no_cluster(
    world: RealAirflow, record: Record, undisturbed: str, moment: str
) -> None:
    broken = record("F5", moment, "scripted", f"the run is marked failed {moment} the work of a step")
    aws = world.deployment.aws
    if moment == "before":
        aws.arm(kind="stays", state="STARTING")
        run_id = new_run(world, "f5-before")
        world.reaches(run_id, "cluster_ready", "deferred")
    else:
        aws.arm(kind="step_hangs", step="featurize/.*", when="before" if moment == "during" else "after")
        run_id = new_run(world, f"f5-{moment}")
        world.reaches(run_id, "featurize.wait", "deferred")
    world.mark_failed(run_id)
    judge(world, run_id, broken, undisturbed, "failed")


@pytest.mark.parametrize("moment", ["before", "during", "after"])
def test_f5_a_cleared_task_is_done_once_more_and_the_run_goes_on(
    world: RealAirflow, record: Record, undisturbed: str, moment: str
) -> None:
    broken = record("F5", moment, "scripted", f"the wait of a stage is cleared {moment} the work of its step")
    aws = world.deployment.aws
    if moment == "after":
        run_id = new_run(world, "f5c-after")
        world.reaches(run_id, "load_images.wait", "success")
        world.clear(run_id, "load_images.wait")
        judge(world, run_id, broken, undisturbed, "succeeded")
        return
    number = aws.arm(kind="step_hangs", step="load_images/.*", when=moment.replace("during", "after"), times=1)
    run_id = new_run(world, f"f5c-{moment}")
    world.reaches(run_id, "load_images.wait", "deferred")
    until(lambda: aws.fault(number)["struck"], "the step to hang")
    world.watched(run_id, "load_images.wait")
    world.clear(run_id, "load_images.wait")
    judge(world, run_id, broken, undisturbed, "succeeded")


@pytest.mark.parametrize("state", ["success", "failed"])
def test_f5_a_wait_marked_by_hand_turns_the_run_red_and_the_next_night_does_its_work(
    world: RealAirflow, record: Record, undisturbed: str, state: str
) -> None:
    broken = record("F5", "during", "scripted", f"the wait of a stage is marked {state} while its step is at work")
    deployment, aws = world.deployment, world.deployment.aws
    # a night before it, so that the stages after it have something to publish
    new = sorted(deployment.photo_bodies())[0]
    aws.client("s3").delete_object(Bucket=deployment.raw, Key=new)
    assert world.ends(new_run(world, f"f5m-{state}")).state == "success", world.tail()
    deployment.put_photos()
    number = aws.arm(kind="step_hangs", step="load_images/.*", when="before", times=1)
    run_id = new_run(world, f"f5m-{state}")
    world.reaches(run_id, "load_images.wait", "deferred")
    until(lambda: aws.fault(number)["struck"], "the step to hang")
    world.watched(run_id, "load_images.wait")
    world.mark_task(run_id, "load_images.wait", state)
    run = world.ends(run_id)
    # what comes after a task that is marked success is done, on the photos of the night before
    broken += check(deployment, run, red_though_published=state == "success")
    assert broken == [], world.tail()
    assert (deployment.record(run_id) or {})["state"] == "failed"
    next_id = f"{run_id}-next"
    world.begin(next_id)  # nobody forces it
    broken += check(deployment, world.ends(next_id))
    assert broken == [], world.tail()
    assert (deployment.record(next_id) or {})["state"] == "succeeded"
    assert invariants.digest(invariants.scripted_tables(deployment)) == undisturbed


def test_a_failed_run_that_is_cleared_goes_on_with_a_new_cluster(
    world: RealAirflow, record: Record, undisturbed: str
) -> None:
    broken = record(
        "resume", "after", "scripted", "what failed is cleared when the cluster is gone with two stages done"
    )
    deployment, aws = world.deployment, world.deployment.aws
    number = aws.arm(kind="step_killed", step="reduce_pca/.*", seconds=0.05, times=1)
    run_id = new_run(world, "resume")
    failed = world.ends(run_id)
    assert aws.fault(number)["struck"] == 1
    broken += check(deployment, failed)
    assert broken == [], world.tail()
    assert (failed.state, failed.tasks["reduce_pca.wait"]) == ("failed", "failed")
    world.clear(run_id)
    # each stage was completed once, over both clusters: what was done was taken up
    judge(world, run_id, broken, undisturbed, "succeeded", clusters=2)
    assert len(aws.clusters(f"{deployment.cluster_prefix}fruits_pipeline/{run_id}")) == 2


@pytest.mark.parametrize("moment", ["before", "during", "after"])
def test_f6_a_killed_scheduler_doubles_nothing(
    world: RealAirflow, record: Record, undisturbed: str, moment: str
) -> None:
    broken = record("F6", moment, "scripted", f"the scheduler and its tasks are killed {moment} RunJobFlow's effect")
    aws = world.deployment.aws
    if moment == "after":
        # RunJobFlow is answered, and the next task waits for what it made when the scheduler dies
        number = aws.arm(kind="stays", state="STARTING")
        run_id = new_run(world, "f6-after")
        world.reaches(run_id, "cluster_ready", "deferred")
        world.kill("scheduler")
        aws.disarm(number)
    else:
        number = aws.arm(**HELD[moment])
        run_id = new_run(world, f"f6-{moment}")
        held(world, number)
        world.kill("scheduler")
        aws.disarm(number)
    world.start_one("scheduler")
    judge(world, run_id, broken, undisturbed, "succeeded")


@pytest.mark.parametrize("moment", ["before", "during", "after"])
def test_f7_a_killed_triggerer_cancels_nothing(
    world: RealAirflow, record: Record, undisturbed: str, moment: str
) -> None:
    broken = record("F7", moment, "scripted", f"the triggerer is killed {moment} the work of a step it watches")
    aws = world.deployment.aws
    key = "tables/[^/]*/features/current.json"
    number = aws.arm(kind="held", service="s3", operation="PutObject", key=key, when="before", times=1)
    run_id = new_run(world, f"f7-{moment}")
    if moment == "before":
        world.reaches(run_id, "featurize.add", "queued", "running", "success")
        world.kill("triggerer")
        held(world, number)
        aws.disarm(number)
    else:
        held(world, number)
        world.reaches(run_id, "featurize.wait", "deferred")
        world.kill("triggerer")
        aws.disarm(number)
        if moment == "after":
            until(
                lambda: any(
                    step["Name"].startswith("featurize") and step["Status"]["State"] == "COMPLETED"
                    for cluster in aws.clusters(world.deployment.cluster_prefix)
                    for step in cluster["Steps"]
                ),
                "the step to end unseen",
            )
    world.start_one("triggerer")
    judge(world, run_id, broken, undisturbed, "succeeded")


@pytest.mark.parametrize("moment", ["before", "during", "after"])
def test_f8_a_restarted_metadata_database_loses_nothing(
    world: RealAirflow, record: Record, undisturbed: str, moment: str
) -> None:
    broken = record(
        "F8", moment, "scripted", f"PostgreSQL is shut down at once {moment} RunJobFlow's effect, and started"
    )
    aws = world.deployment.aws
    if moment == "after":
        run_id = new_run(world, "f8-after")
        world.reaches(run_id, "cluster_ready", "deferred", "success")
        world.database.stop()
        world.database.start()
    else:
        number = aws.arm(**HELD[moment])
        run_id = new_run(world, f"f8-{moment}")
        held(world, number)
        world.database.stop()
        aws.disarm(number)
        world.database.start()
    world.revive()
    judge(world, run_id, broken, undisturbed, "succeeded")


def test_the_janitor_leaves_the_cluster_of_a_run_alone_though_it_is_throttled(
    world: RealAirflow, record: Record, undisturbed: str, seed: int
) -> None:
    broken = record("janitor", "during", "scripted", "it sweeps, throttled, while a run's step is at work")
    aws = world.deployment.aws
    key = "tables/[^/]*/features/current.json"
    number = aws.arm(kind="held", service="s3", operation="PutObject", key=key, when="before", times=1)
    run_id = new_run(world, "janitor")
    held(world, number)
    (cluster,) = aws.clusters(world.deployment.cluster_prefix, LIVE)
    looks = {"kind": "refused", "service": "emr", "operation": "(List|Describe)Clusters?"}
    first, some = aws.arm(**looks, times=1), aws.arm(**looks, rate=0.3, seed=seed)
    world.trigger("cluster_janitor", f"manual__beside-{run_id}", {})
    until(
        lambda: world.run_state("cluster_janitor", f"manual__beside-{run_id}") in ENDED,
        "the janitor to have swept",
        120,
        0.5,
    )
    assert aws.fault(first)["struck"]
    for throttled in (first, some):
        aws.disarm(throttled)
    if [one["Id"] for one in aws.clusters(world.deployment.cluster_prefix, LIVE)] != [cluster["Id"]]:
        broken.append("the janitor ended the cluster of a run that is at work")
    aws.disarm()
    judge(world, run_id, broken, undisturbed, "succeeded")
