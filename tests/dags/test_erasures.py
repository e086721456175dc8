"""Whole runs of the real erasure DAG: what is gone, what is told, and that no cluster and no lock is left."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from fruits_airflow.erasure.verdict import WORK_TASKS

from tests.dags.test_runs import airflow_environment, fruits_environment
from tests.plugins import laptop
from tests.plugins.searching import find_everywhere

RAW, LAKE = "raw-erasures", "lake-erasures"
KEY, OTHER = "images/Apple/me.jpg", "images/Apple/2.jpg"
ID = hashlib.sha256(KEY.encode()).hexdigest()
SCENARIOS: dict[str, dict[str, Any]] = {
    "nothing named": {"conf": {}},
    "misspelt": {"conf": {"key": KEY}},
    "unconfirmed": {"conf": {"keys": [KEY]}},
    "broken step": {"conf": {"keys": [KEY], "expected_photos": 1}, "fail": "erase_demo_images"},
    "good": {"conf": {"keys": [KEY], "expected_photos": 1}},
    "again": {"conf": {"image_ids": [ID], "expected_photos": 0, "allow_missing": True}},
    # Last: Airflow writes a run's parameters into the DAG, which all runs of this process share.
    "not a number": {"unvalidated": {"keys": [KEY], "expected_photos": "many"}},
}


@dataclass
class Erasure:
    """One scenario's end."""

    run_id: str
    state: str
    tasks: dict[str, str]
    access: dict[str, dict[str, list[str]]]

    @property
    def receipt(self) -> dict[str, Any] | None:
        """The receipt; None when there is none."""
        objects = laptop.client("s3").list_objects_v2(Bucket=LAKE, Prefix=f"erasures/{self.run_id}/")
        names = [entry["Key"] for entry in objects.get("Contents", [])]
        if f"erasures/{self.run_id}/receipt.json" not in names:
            return None
        assert names == [f"erasures/{self.run_id}/receipt.json"], "the request must go"
        body = laptop.client("s3").get_object(Bucket=LAKE, Key=names[0])["Body"].read()
        return dict(json.loads(body))


@dataclass
class World:
    """All erasures, and the output of Airflow."""

    erasures: dict[str, Erasure]
    log: str


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    home = tmp_path_factory.mktemp("airflow")
    with laptop.local_aws(tmp_path_factory.mktemp("aws")) as url, pytest.MonkeyPatch.context() as patch:
        outside = {k: v for k, v in os.environ.items() if not k.startswith(("AWS_", "FRUITS_", "AIRFLOW"))}
        aws = laptop.aws_environment(url)
        for name, value in aws.items():
            patch.setenv(name, value)
        laptop.make_roles()
        for bucket in (RAW, LAKE):
            laptop.make_bucket(bucket)
        s3 = laptop.client("s3")
        s3.put_bucket_versioning(Bucket=RAW, VersioningConfiguration={"Status": "Enabled"})
        laptop.put_photos(RAW, [KEY, OTHER, KEY])
        s3.put_object(Bucket=LAKE, Key="logs/j-0/steps/s-0/stderr", Body=f"no JPEG: {KEY}".encode())
        settings = fruits_environment() | {"FRUITS_RAW_BUCKET": RAW, "FRUITS_LAKE_BUCKET": LAKE}
        settings |= {"FRUITS_ERASURE_ROLE": "Erasure"}
        environment = outside | aws | airflow_environment(home) | settings
        airflow = str(Path(sys.executable).with_name("airflow"))
        subprocess.run([airflow, "db", "migrate"], env=environment, check=True, capture_output=True, timeout=240)
        program = str(Path(__file__).with_name("erasures.py"))
        command = [sys.executable, program, json.dumps([*SCENARIOS.values()])]
        output = home / "output.log"
        with output.open("w") as stream:
            subprocess.run(command, env=environment, stdout=stream, stderr=stream, timeout=280, check=False)
        log = output.read_text()
        results = [json.loads(line[7:]) for line in log.splitlines() if line.startswith("RESULT ")]
        assert len(results) == len(SCENARIOS), log[-4000:]
        yield World({name: Erasure(**result) for name, result in zip(SCENARIOS, results, strict=True)}, log)


def test_a_good_erasure_does_every_task(world: World) -> None:
    erasure = world.erasures["good"]
    assert (erasure.state, set(erasure.tasks.values())) == ("success", {"success"}), world.log
    assert set(WORK_TASKS) == erasure.tasks.keys() - {"terminate_cluster", "verdict"}


def test_its_receipt_says_in_digests_and_counts_what_is_gone(world: World) -> None:
    receipt = world.erasures["good"].receipt
    assert receipt is not None
    assert receipt["image_ids"] == [ID]
    assert receipt["content_sha256"] == [ID], "put_photos writes the key as content"
    assert receipt["photos"] == {"versions": 2, "markers": 0, "uploads": 0}
    assert {name: metrics["rows"] for name, metrics in receipt["tables"].items()} == {
        "fruits": {"images": 1},
        "fruits_demo": {"images": 1},
        "fruits_notebook": {"images": 1},
    }
    assert KEY not in json.dumps(receipt)


def test_nothing_names_the_photo_any_more_but_receipts_and_suppression(world: World) -> None:
    s3 = laptop.client("s3")
    places = find_everywhere(s3, [RAW, LAKE], {"key": KEY, "id": ID, "other": OTHER})
    assert places["other"] == {OTHER}
    assert places["key"] == set()
    runs = {name: world.erasures[name].run_id for name in ("good", "again", "broken step")}
    allowed = {f"suppression/{run_id}.parquet" for run_id in runs.values()}
    allowed |= {f"erasures/{runs[name]}/receipt.json" for name in ("good", "again")}
    assert places["id"] - allowed == {f"erasures/{runs['broken step']}/request.json"}, "it is red, to be cleared"


def test_a_broken_step_leaves_the_photo_suppressed_and_the_erasure_red(world: World) -> None:
    erasure = world.erasures["broken step"]
    assert erasure.state == "failed"
    assert erasure.tasks["erase_demo_images.wait"] == "failed"
    assert erasure.tasks["terminate_cluster"] == "success"
    assert erasure.tasks["erase_photos"] == "upstream_failed", "the object stays to be found by the next attempt"
    assert "ERROR CommitFailed" in world.log
    suppressed = laptop.client("s3").list_objects_v2(Bucket=LAKE, Prefix="suppression/")["Contents"]
    assert f"suppression/{erasure.run_id}.parquet" in {entry["Key"] for entry in suppressed}


def test_the_dag_gives_the_role_of_the_settings_the_right_to_trigger_it(world: World) -> None:
    assert world.erasures["good"].access == {"Erasure": {"DAGs": ["can_edit", "can_read"], "DAG Runs": ["can_create"]}}


def test_a_plan_without_a_number_says_it_and_erases_nothing(world: World) -> None:
    erasure = world.erasures["unconfirmed"]
    assert "1 photos would be erased" in world.log
    assert erasure.receipt is None
    suppressed = laptop.client("s3").list_objects_v2(Bucket=LAKE, Prefix="suppression/")["Contents"]
    assert f"suppression/{erasure.run_id}.parquet" not in {entry["Key"] for entry in suppressed}


def test_a_second_erasure_finds_nothing_and_is_green(world: World) -> None:
    erasure = world.erasures["again"]
    assert erasure.state == "success", world.log
    assert (erasure.receipt or {})["photos"] == {"versions": 0, "markers": 0, "uploads": 0}


@pytest.mark.parametrize("name", ["nothing named", "misspelt", "not a number", "unconfirmed"])
def test_a_request_that_plan_refuses_creates_no_cluster(world: World, name: str) -> None:
    erasure = world.erasures[name]
    assert erasure.state == "failed"
    assert erasure.tasks["plan"] == "failed"
    assert erasure.tasks["create_cluster"] == "upstream_failed"


def test_a_parameter_that_the_form_refuses_fails_neither_the_teardown_nor_the_judgement(world: World) -> None:
    assert world.erasures["not a number"].tasks["terminate_cluster"] == "success"
    assert "params.expected_photos: violates type ['null', 'integer']" in world.log
    assert "not everything is erased: plan is failed" in world.log


def test_no_erasure_leaves_a_cluster_or_a_lock(world: World) -> None:
    assert world.erasures
    clusters = laptop.client("emr").list_clusters()["Clusters"]
    assert len(clusters) == 3, "one for each that came so far"
    assert {cluster["Status"]["State"] for cluster in clusters} == {"TERMINATED"}
    assert "Contents" not in laptop.client("s3").list_objects_v2(Bucket=LAKE, Prefix="locks/")
    assert "Contents" not in laptop.client("s3").list_objects_v2(Bucket=LAKE, Prefix="runs/erase")
