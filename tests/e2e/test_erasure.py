"""A photo of the demo, found in everything that is stored; erased by the real DAG with real Spark; looked for.

Runs after tests/e2e/test_demo.py, which reads the same demo's tables.
"""

from __future__ import annotations

import io
import json
import re
import time
import urllib.request
from typing import Any

import boto3
import pyarrow.parquet as pq
import pytest

from fruits_lake import Lake, LakeError
from tests.e2e.conftest import WEIGHTS
from tests.e2e.test_policies import looks_abroad, names, of_resources, policies, policy_of
from tests.infra.simulation import Names, allowed, requests_of, role_of
from tests.plugins.searching import find_everywhere

__all__ = ["names", "of_resources", "policies"]  # fixtures
pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(1800)]

DAG = "erase_images"
RUN = "manual__erasure"
SECONDS = 900


class Airflow:
    """The REST API of the demo's Airflow."""

    def __init__(self, url: str, password: str) -> None:
        self.url, self.token = url, ""
        login = {"username": "admin", "password": password}
        self.token = self.call("POST", "/auth/token", login)["access_token"]

    def call(self, method: str, path: str, body: Any = None) -> Any:
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {self.token}"}
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, headers, method=method)
        with urllib.request.urlopen(request, timeout=30) as reply:
            return json.loads(reply.read())

    def run(self, dag: str, run_id: str, conf: dict[str, Any]) -> None:
        """Run a DAG, which must succeed."""
        self.call("PATCH", f"/api/v2/dags/{dag}", {"is_paused": False})
        self.call("POST", f"/api/v2/dags/{dag}/dagRuns", {"dag_run_id": run_id, "logical_date": None, "conf": conf})
        deadline = time.monotonic() + SECONDS
        while (state := self.call("GET", f"/api/v2/dags/{dag}/dagRuns/{run_id}")["state"]) in ("queued", "running"):
            assert time.monotonic() < deadline, f"{run_id} is still at work"
            time.sleep(2)
        tasks = self.call("GET", f"/api/v2/dags/{dag}/dagRuns/{run_id}/taskInstances")["task_instances"]
        assert state == "success", {task["task_id"]: task["state"] for task in tasks}


@pytest.fixture(scope="module")
def airflow(demo: dict[str, Any]) -> Airflow:
    """The demo's Airflow, as its admin sees it."""
    password = json.loads((demo["folder"] / "airflow" / "passwords.json").read_text())["admin"]
    return Airflow(re.search(r"Airflow is on (http://[^\s(]+)", demo["out"])[1], password)


@pytest.fixture(scope="module")
def s3(demo: dict[str, Any]) -> Any:
    return boto3.client("s3", endpoint_url=demo["endpoint"], region_name="eu-west-1", **demo["keys"])


@pytest.fixture(scope="module")
def buckets(s3: Any) -> list[str]:
    """Raw bucket and lake; the access log's is neither searched nor erased from (docs/gdpr.md)."""
    names = [bucket["Name"] for bucket in s3.list_buckets()["Buckets"]]
    return [next(name for name in names if f"-{kind}-" in name) for kind in ("raw", "lake")]


def table_cells(s3: Any, lake: str, table: str, image_id: str) -> dict[str, Any]:
    """The row of an image, from the data files of a table."""
    for page in s3.get_paginator("list_objects_v2").paginate(Bucket=lake, Prefix="tables/"):
        for found in page["Contents"]:
            if f"/{table}/data/" in found["Key"]:
                body = s3.get_object(Bucket=lake, Key=found["Key"])["Body"].read()
                for row in pq.read_table(io.BytesIO(body)).to_pylist():
                    if row["image_id"] == image_id:
                        return dict(row)
    raise AssertionError(f"{table} has no row of {image_id}")


def calls_so_far(demo: dict[str, Any]) -> list[dict[str, Any]]:
    """What the endpoint has answered."""
    return [json.loads(line) for line in (demo["folder"] / "aws" / "access.jsonl").read_text().splitlines()]


def refused(
    calls: list[dict[str, Any]], policies: dict[str, Any], of_resources: dict[str, Any], names: Names
) -> set[Any]:
    """Calls that IAM would have refused to the role that made them."""
    return {
        (role, call["operation"], request.action, request.resource)
        for call in calls
        if (role := role_of(call))
        for request in requests_of(call, names)
        if not looks_abroad(call, names)
        and not allowed(policies[role], request, policy_of(request.resource, of_resources))
    }


def test_an_erased_photo_is_in_nothing_but_suppression_list_and_receipt(
    demo: dict[str, Any],
    airflow: Airflow,
    s3: Any,
    buckets: list[str],
    policies: dict[str, Any],
    of_resources: dict[str, Any],
    names: Names,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    raw, lake = buckets
    sample = pq.read_table(demo["folder"] / "pca.parquet")
    image_id, other_id = sample["image_id"].to_pylist()[:2]
    image = table_cells(s3, lake, "images", image_id)
    (run_folder,) = {
        found["Key"].rsplit("/", 1)[0]
        for found in s3.list_objects_v2(Bucket=lake, Prefix="runs/")["Contents"]
        if found["Key"].endswith("/sample.parquet")
    }
    shown = pq.read_table(io.BytesIO(s3.get_object(Bucket=lake, Key=f"{run_folder}/sample.parquet")["Body"].read()))
    needles = {
        "key": image["source_key"],
        "id": image_id,
        "bounds of the id in manifests": image_id[:16],
        "photo": s3.get_object(Bucket=raw, Key=image["source_key"])["Body"].read(),
        "pixels": image["pixels"],
        "features": table_cells(s3, lake, "features", image_id)["features"],
        "pca": table_cells(s3, lake, "pca", image_id)["pca"],
        "thumbnail": next(row["thumbnail"] for row in shown.to_pylist() if row["image_id"] == image_id),
        "somebody else": other_id,
    }
    before = find_everywhere(s3, buckets, needles)
    assert all(before.values()), f"the search must find all of it: {before}"
    assert {key.split("/")[0] for key in before["id"]} >= {"tables", "runs"}

    answered = len(calls_so_far(demo))
    airflow.run(DAG, RUN, {"keys": [image["source_key"]], "expected_photos": 1})
    during = calls_so_far(demo)[answered:]
    assert {role_of(call) for call in during} >= {"AirflowRole", "NodeRole"}
    assert refused(during, policies, of_resources, names) == set()

    after = find_everywhere(s3, buckets, needles)
    allowed = {f"suppression/{RUN}.parquet", f"erasures/{RUN}/receipt.json"}
    for name in ("id", "bounds of the id in manifests"):
        assert after.pop(name) == allowed, name
    assert after.pop("somebody else"), "others stay"
    assert not any(after.values()), after
    for name, value in demo["keys"].items():
        monkeypatch.setenv(name.upper(), value)
    monkeypatch.setenv("AWS_ENDPOINT_URL", demo["endpoint"])
    monkeypatch.setenv("AWS_REGION", "eu-west-1")
    readers = Lake.open(f"s3://{lake}", "fruits_demo")
    for rows in (readers.vectors(), readers.vectors(run_folder.rpartition("/")[2])):
        assert other_id in rows["image_id"].to_pylist()
        assert image_id not in rows["image_id"].to_pylist()
    for ask in (readers.photo, readers.why, readers.neighbours):
        with pytest.raises(LakeError, match=image_id):
            ask(image_id)
    receipt = json.loads(s3.get_object(Bucket=lake, Key=f"erasures/{RUN}/receipt.json")["Body"].read())
    rows = {name: sum(found["rows"].values()) for name, found in receipt["tables"].items()}
    assert sorted(count > 0 for count in rows.values()) == [False, False, True], f"the demo has written to one: {rows}"
    (in_demo,) = (found["rows"] for found in receipt["tables"].values() if sum(found["rows"].values()))
    assert in_demo["predictions"] == int(WEIGHTS.is_file()), "its name, where photos have names"
