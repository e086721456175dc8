"""Faults that reach into Spark: the real jobs on few photos, with workers and drivers that die."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from typing import Any

import psutil
import pytest

from tests.faults import invariants
from tests.faults.spark_world import LARGE, Nights, SparkDeployment, commit, iceberg_tables, spark_nights
from tests.faults.world import RAW_PREFIX, Pipeline, Run, until
from tests.small_disk import why_no_small_disk

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
Record = Callable[..., list[str]]
NO_SMALL_DISK = why_no_small_disk()
ROOM_BYTES = 8 << 20
"""What a worker may still have: less than the decoder of the large photo asks for."""
OUT_OF_MEMORY = re.compile(
    r"MemoryError|[Cc]annot allocate memory|memory allocation of \d+ bytes failed|malloc of size"
)


@pytest.fixture(scope="module")
def spark(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[SparkDeployment, Pipeline]]:
    # four attempts of a task, as cluster.yaml asks for: local[n] alone gives one
    with spark_nights(tmp_path_factory.mktemp("spark"), "spark", "--master", "local[2,4]") as made:
        yield made


@pytest.fixture
def world(spark: tuple[SparkDeployment, Pipeline]) -> Iterator[Nights]:
    yield Nights(*spark)
    spark[0].aws.disarm()
    spark[0].put_photos()


@pytest.mark.parametrize("moment", ["before", "during", "after"])
def test_f16_a_driver_killed_about_its_commit_leaves_whole_tables(world: Nights, record: Record, moment: str) -> None:
    broken = record("F16", moment, "spark", f"the driver is killed {moment} an Iceberg commit takes effect")
    if moment == "before":
        spec: dict[str, Any] = {
            **{"kind": "held", "service": "s3", "operation": "PutObject", "when": "before", "times": 1},
            "key": "tables/.*metadata.json",
        }
    else:
        spec = commit("before" if moment == "during" else "after")
    number = world.aws.arm(**spec)
    wait = world.begin()
    world.held(number)
    for driver in world.processes("SparkSubmit"):
        driver.kill()
    world.aws.disarm(number)
    world.end(wait, broken, "succeeded")


def night_with_a_commit(world: Nights, broken: list[str], answer: dict[str, Any], expected: str) -> None:
    """Play a night of which one commit takes effect and has this answer."""
    number = world.aws.arm(**(commit("after") | answer))
    wait = world.begin()
    until(lambda: world.aws.fault(number)["struck"], "a commit", 240)
    world.end(wait, broken, expected)


def test_f17_a_commit_whose_reply_is_lost_is_made_once(world: Nights, record: Record) -> None:
    broken = record("F17", "after", "spark", "the reply to an Iceberg commit is lost")
    night_with_a_commit(world, broken, {"kind": "lost"}, "succeeded")


def test_f17_a_commit_that_the_sdk_repeats_after_an_error_is_made_once(world: Nights, record: Record) -> None:
    # apache/iceberg#7151: the repeated request meets the version that the first has made
    broken = record("F17", "after", "spark", "Glue makes an Iceberg commit and answers InternalServiceException")
    night_with_a_commit(world, broken, {"kind": "refused", "error": "InternalError"}, "succeeded")


def test_f17_a_commit_that_glue_makes_after_it_timed_out_leaves_readable_tables(world: Nights, record: Record) -> None:
    # apache/iceberg#15530: Iceberg takes the commit for failed, and deletes the metadata file that Glue names now
    broken = record("F17", "after", "spark", "Glue makes an Iceberg commit and answers OperationTimeoutException")
    night_with_a_commit(world, broken, {"kind": "refused", "error": "OperationTimeout"}, "failed")


def test_f17_a_table_whose_metadata_is_missing_is_repaired_by_the_next_job(world: Nights, record: Record) -> None:
    broken = record("F17", "before", "spark", "the driver is killed when Iceberg has deleted the metadata in Glue")
    glue, s3 = world.aws.client("glue"), world.aws.client("s3")
    for name in ("images", "features"):
        table = glue.get_table(DatabaseName=world.deployment.database, Name=name)["Table"]
        bucket, _, key = table["Parameters"]["metadata_location"].removeprefix("s3://").partition("/")
        s3.delete_object(Bucket=bucket, Key=key)
    world.end(world.begin(), broken, "succeeded")


def test_f17_a_commit_that_somebody_else_came_before_is_made_anew(world: Nights, record: Record) -> None:
    broken = record("F17", "during", "spark", "another writer commits to the table while our commit is on its way")
    number = world.aws.arm(**commit("before"))
    wait = world.begin()
    world.held(number)
    # to every table: also to the one whose commit is held
    said = world.commit_beside("another writer was here")
    assert set(said.values()) == {"another writer was here"}
    world.aws.disarm(number)
    world.end(wait, broken, "succeeded")
    assert world.commit_beside() == said


# names: committed after the rows of pca, then comes the row of pca_models, then that of classifiers


@pytest.mark.parametrize("moment", ["before", "during", "after"])
def test_f16_a_driver_killed_as_it_publishes_names_leaves_those_of_one_classifier(
    world: Nights, record: Record, moment: str
) -> None:
    when = {"before": "its names are committed", "during": "their classifier is published, but its PCA model is"}
    what = (
        f"the driver is killed before {when[moment]}" if moment in when else "the driver is killed at its last commit"
    )
    broken = record("F16", moment, "spark", f"{what} (names)")
    wait, number = world.begin_and_hold("predictions" if moment == "before" else "classifiers")
    if moment == "after":
        committed = world.aws.arm(**commit("after"))
        world.aws.disarm(number)
        world.held(committed)
    again = world.aws.arm(kind="held", service="emr", operation="AddJobFlowSteps", times=1)
    for driver in world.processes("SparkSubmit"):
        driver.kill()
    world.held(again)  # the night tries a killed step once more
    world.compare_names(broken, "other" if moment == "after" else "same", anew=True)
    world.aws.disarm()
    world.end(wait, broken, "succeeded", "other")


@pytest.mark.parametrize(
    ("table", "answer", "expected"),
    [
        ("predictions", {"kind": "refused", "error": "OperationTimeout"}, "failed"),
        ("classifiers", {"kind": "refused", "error": "OperationTimeout"}, "failed"),
        ("classifiers", {"kind": "lost"}, "succeeded"),
    ],
    ids=["predictions", "classifiers", "classifiers-lost"],
)
def test_f17_a_commit_of_names_that_glue_makes_and_does_not_confirm(
    world: Nights, record: Record, table: str, answer: dict[str, Any], expected: str
) -> None:
    says = "does not answer" if answer["kind"] == "lost" else "answers OperationTimeoutException"
    broken = record("F17", "after", "spark", f"Glue commits to {table} and {says}")
    wait, number = world.begin_and_hold(table)
    strikes = world.aws.arm(**(commit("after") | answer))
    world.aws.disarm(number)
    until(lambda: world.aws.fault(strikes)["struck"], "a commit", 240)
    names = "same" if expected == "failed" else "other"  # a commit that timed out is undone
    world.end(wait, broken, expected, names, published=table == "classifiers")


def test_f25_names_that_cannot_be_written_leave_those_of_before(world: Nights, record: Record) -> None:
    broken = record("F25", "during", "spark", "writing a file of names is denied to the step that publishes")
    wait, number = world.begin_and_hold("pca")
    denied = {"kind": "refused", "service": "s3", "operation": "PutObject", "error": "AccessDenied"}
    strikes = world.aws.arm(**denied, key="tables/.*/predictions/data/.*")
    world.aws.disarm(number)
    until(lambda: world.aws.fault(strikes)["struck"], "a file of names", 240)
    world.end(wait, broken, "failed", "same")


@pytest.mark.skipif(bool(NO_SMALL_DISK), reason=f"F20 not run, no disk of its own for a step: {NO_SMALL_DISK}")
@pytest.mark.parametrize("moment", ["before", "during"])
def test_f20_a_full_disk_fails_the_step_and_leaves_whole_tables(world: Nights, record: Record, moment: str) -> None:
    # not after: when the last commit is made, nothing is written to the node's disk any more
    when = {"before": "from the beginning", "during": "once the first photos are read"}
    broken = record("F20", moment, "spark", f"the disk of the node is full {when[moment]}")
    armed = {"kind": "disk_full", "step": "load_images/.*", "times": 1}
    if moment == "before":
        world.aws.arm(**armed, kib=1024)
        wait = world.begin()
    else:
        world.aws.arm(**armed, kib=512 * 1024)
        number = world.aws.arm(kind="held", service="s3", operation="GetObject", key=f"{RAW_PREFIX}.*", times=1)
        wait = world.begin()
        world.held(number)
        world.fill_the_disk()
        world.aws.disarm(number)
    world.end(wait, broken, "failed")
    assert "No space left on device" in world.pipeline.tail(6000)


def workers_at_work(world: Nights, key: str = f"{RAW_PREFIX}.*") -> tuple[Callable[[], Run], int, list[psutil.Process]]:
    """A night whose Python workers wait for a photo: what waits for its end, the fault that holds them, and they."""
    number = world.aws.arm(kind="held", service="s3", operation="GetObject", key=key, times=1)
    wait = world.begin()
    world.held(number)
    found = world.processes("pyspark.daemon")
    # a worker is a fork of the daemon, and looks like it
    workers = [one for one in found if one.ppid() in {other.pid for other in found}]
    assert workers, found
    return wait, number, workers


def test_f15_a_killed_python_worker_costs_a_task_and_no_row(world: Nights, record: Record) -> None:
    broken = record("F15", "during", "spark", "a Python worker is killed while it computes")
    wait, number, workers = workers_at_work(world)
    for one in workers:
        one.kill()
    world.aws.disarm(number)
    world.end(wait, broken, "succeeded")


def test_f15_a_python_worker_out_of_memory_costs_a_task_and_no_row(world: Nights, record: Record) -> None:
    broken = record("F15", "during", "spark", "a Python worker gets no more memory while it computes")
    wait, number, workers = workers_at_work(world, LARGE)
    for one in workers:
        # as `spark.executor.pyspark.memory` does it; a worker that is forked after it has no such limit
        _, hard = one.rlimit(psutil.RLIMIT_AS)
        one.rlimit(psutil.RLIMIT_AS, (one.memory_info().vms + ROOM_BYTES, hard))
    world.aws.disarm(number)
    world.end(wait, broken, "succeeded")
    assert OUT_OF_MEMORY.search(world.step_log("load_images")), "no worker was refused any memory"


# F18 and F19: S3 refuses, resets and loses

OBJECTS = "(Get|Put|Head)Object"
S3_FAULTS: dict[tuple[str, str], tuple[str, dict[str, Any]]] = {
    ("F18", "during"): (
        "S3 answers one of twenty requests with SlowDown",
        {"kind": "refused", "operation": OBJECTS, "error": "SlowDown", "rate": 0.05},
    ),
    ("F19", "before"): (
        "S3 resets one of twenty requests before it has done anything",
        {"kind": "lost", "operation": OBJECTS, "reset": True, "rate": 0.05},
    ),
    ("F19", "after"): (
        "S3's replies to one of ten writes are lost",
        {"kind": "lost", "operation": "PutObject", "when": "after", "rate": 0.1},
    ),
}


@pytest.mark.parametrize(("fault", "moment"), S3_FAULTS)
def test_what_s3_refuses_resets_or_loses_is_asked_once_more(
    world: Nights, record: Record, seed: int, fault: str, moment: str
) -> None:
    what, armed = S3_FAULTS[fault, moment]
    broken = record(fault, moment, "spark", what)
    number = world.aws.arm(service="s3", seed=seed, **armed)
    wait = world.begin()
    until(lambda: world.aws.fault(number)["struck"], "a request to be struck", 240)
    world.end(wait, broken, "succeeded")


def test_f23_a_photo_that_changes_before_it_is_read_is_a_reject(world: Nights, record: Record) -> None:
    broken = record("F23", "before", "spark", "a photo is changed between the listing and its reading")
    number = world.aws.arm(kind="held", operation="RunJobFlow", times=1)
    wait = world.begin()
    world.held(number)
    key = sorted(key for key in world.deployment.photo_bodies() if "Training" in key)[0]
    other = sorted(world.deployment.photo_bodies().items())[1][1]
    world.aws.client("s3").put_object(Bucket=world.deployment.raw, Key=key, Body=other + b"\0")
    world.aws.disarm(number)
    run = wait()
    broken += invariants.check(world.deployment, run, iceberg_tables)
    assert broken == []
    assert (world.deployment.record(run.run_id) or {})["images"]["rejected"] == 2
    world.deployment.put_photos()
    # Anew: one photo more would leave the published basis as it is.
    world.end(world.begin(), broken, "succeeded")


def test_f24_a_model_that_changed_in_s3_is_not_used(world: Nights, record: Record) -> None:
    broken = record("F24", "during", "spark", "the model's file is replaced after the plan has looked at it")
    key = f"models/{world.deployment.model['model_id']}/{world.deployment.model['file']}"
    content = world.aws.read(world.deployment.lake, key)
    number = world.aws.arm(kind="held", operation="RunJobFlow", times=1)
    wait = world.begin()
    world.held(number)
    s3 = world.aws.client("s3")
    s3.put_object(Bucket=world.deployment.lake, Key=key, Body=os.urandom(1000))
    world.aws.disarm(number)

    def restored() -> Run:
        run = wait()
        s3.put_object(Bucket=world.deployment.lake, Key=key, Body=content)
        return run

    world.end(restored, broken, "failed")


def test_f21_a_hung_step_is_cancelled_with_all_its_processes(world: Nights, record: Record) -> None:
    broken = record("F21", "during", "spark", "the driver is stopped in mid-commit until its cluster's end")
    number = world.aws.arm(**commit("before"))
    wait = world.begin()
    world.held(number)
    for driver in world.processes("SparkSubmit"):
        driver.suspend()
    (cluster,) = world.aws.clusters(world.deployment.cluster_prefix, ("RUNNING",))
    world.aws.client("emr").terminate_job_flows(JobFlowIds=[cluster["Id"]])
    world.aws.disarm(number)
    world.end(wait, broken, "failed")
    assert not world.processes("SparkSubmit")
