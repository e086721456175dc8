"""What a night on YARN has beyond any other: executors in containers, and the PCA of a single process, to the bit.

tests/e2e/test_demo.py checks the tables of the same night by key.
"""

from __future__ import annotations

import gzip
import json
import re
import subprocess
from pathlib import Path

import boto3
import pytest

from tests.e2e.conftest import CLUSTER, REPOSITORY, WEIGHTS

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(CLUSTER != "yarn", reason="the demo of this call runs without YARN"),
]
HOST = r"127\.\d+\.\d+\.\d+"


@pytest.fixture(scope="module")
def run(demo):
    return json.loads((demo["folder"] / "run.json").read_text())


@pytest.fixture(scope="module")
def container_logs(demo, run):
    """The logs of the night's containers, by their key."""
    s3 = boto3.client("s3", endpoint_url=demo["endpoint"], region_name="eu-west-1", **demo["keys"])
    lake = next(bucket["Name"] for bucket in s3.list_buckets()["Buckets"] if "-lake-" in bucket["Name"])
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=lake, Prefix=f"logs/{run['cluster']['id']}/containers/")
    keys = [item["Key"] for page in pages for item in page.get("Contents", [])]
    return {key: gzip.decompress(s3.get_object(Bucket=lake, Key=key)["Body"].read()).decode() for key in keys}


def test_the_record_names_yarn_and_its_executors(run):
    cluster = run["cluster"]
    assert (cluster["engine"], cluster["hosts"]) == ("yarn", 1)  # the profile demo has one worker
    assert cluster["executors"] >= 1


def test_each_stage_was_an_application_with_a_master_and_executors(container_logs):
    containers = {key.rsplit("/", 1)[0] for key in container_logs}
    applications = {container.rsplit("/", 1)[0] for container in containers}
    assert len(applications) == 4
    masters = {container for container in containers if re.search(r"_01_000001$", container)}
    assert len(masters) == 4
    assert len(containers) > len(masters)


def test_executors_listen_on_the_address_of_their_node_only(container_logs):
    started = [
        address
        for log in container_logs.values()
        for address in re.findall(r"Starting executor ID \d+ on host (\S+)", log)
    ]
    assert started
    assert all(re.fullmatch(HOST, address) for address in started)


def test_the_pca_is_that_of_one_process_to_the_bit(photos, run, tmp_path):
    command = [REPOSITORY / ".venv-spark/bin/python", "dev/run_local.py", f"--images={photos}", f"--out={tmp_path}"]
    if WEIGHTS.is_file():
        command.append(f"--weights={WEIGHTS}")
    subprocess.run(command, cwd=REPOSITORY, check=True, timeout=900)
    (metrics,) = Path(tmp_path).glob("runs/*/stages/reduce_pca.json")
    assert json.loads(metrics.read_text())["pca"]["pca_id"] == run["pca"]["pca_id"]
