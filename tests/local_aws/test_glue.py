"""Glue: of two commits from one version, one is refused."""

from __future__ import annotations

import json
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.aws_keys import KEYS
from tests.local_aws.server import Server, environment_without
from tests.models import ROOT

# Two writers append to one table, round after round; prints the rows that landed. Both have read the same version
# before either sends its first update of a round, so that one of the two updates is always refused.
TWO_WRITERS = """
import json, os, sys, threading
import pyarrow as pa
from pyiceberg.catalog import load_catalog
from pyiceberg.exceptions import CommitFailedException

def catalog():
    endpoint = os.environ["AWS_ENDPOINT_URL"]
    return load_catalog("lake", **{
        "type": "glue", "glue.endpoint": endpoint, "s3.endpoint": endpoint, "client.region": "eu-west-1",
        "client.access-key-id": os.environ["AWS_ACCESS_KEY_ID"],
        "client.secret-access-key": os.environ["AWS_SECRET_ACCESS_KEY"], "warehouse": "s3://iceberg/tables",
    })

rows = pa.table({"writer": pa.array([0], pa.int64()), "round": pa.array([0], pa.int64())})
first = catalog()
first.create_namespace_if_not_exists("fruits")
first.create_table("fruits.t", rows.schema)
ROUNDS = 4
barrier = threading.Barrier(2)

def write(writer):
    mine = catalog()
    met = set()

    def meet(**_):
        if number not in met:
            met.add(number)
            barrier.wait(60)

    mine.glue.meta.events.register("before-call.glue.UpdateTable", meet)
    for number in range(ROUNDS):
        barrier.wait(60)
        table = mine.load_table("fruits.t")
        while True:
            try:
                table.append(pa.table({"writer": [writer], "round": [number]}))
                break
            except CommitFailedException:
                table = mine.load_table("fruits.t")

threads = [threading.Thread(target=write, args=(writer,)) for writer in range(2)]
for thread in threads: thread.start()
for thread in threads: thread.join()
landed = first.load_table("fruits.t").scan().to_arrow().to_pylist()
print(json.dumps(sorted([row["writer"], row["round"]] for row in landed)))
"""

# Appends to three tables, deletes the current metadata file of two (of the last also the previous one), and repairs as
# a job does; prints what was repaired, and the rows of each table that can be read.
REPAIR = """
import json, os, types
import boto3
import pyarrow as pa
from fruits.job import glue_tables
from pyiceberg.catalog import load_catalog

endpoint, region = os.environ["AWS_ENDPOINT_URL"], os.environ["AWS_REGION"]
catalog = load_catalog("lake", **{
    "type": "glue", "glue.endpoint": endpoint, "s3.endpoint": endpoint, "client.region": region,
    "client.access-key-id": os.environ["AWS_ACCESS_KEY_ID"],
    "client.secret-access-key": os.environ["AWS_SECRET_ACCESS_KEY"], "warehouse": "s3://repair/tables",
})
rows = pa.table({"n": pa.array([1], pa.int64())})
catalog.create_namespace("repaired")

def delete(uri):
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    boto3.client("s3").delete_object(Bucket=bucket, Key=key)

for name, deleted in (("images", 0), ("features", 1), ("pca", 2)):
    table = catalog.create_table(("repaired", name), rows.schema)
    table.append(rows)
    previous = table.metadata_location
    table.append(rows)
    for uri in (table.metadata_location, previous)[:deleted]:
        delete(uri)

prefix = "spark.sql.catalog.lake"
conf = {f"{prefix}.type": "glue", f"{prefix}.client.region": region, f"{prefix}.glue.endpoint": endpoint}
spark = types.SimpleNamespace(sparkContext=types.SimpleNamespace(getConf=lambda: conf))
repaired = [glue_tables.repair(spark, "lake.repaired") for _ in range(2)]
readable = {name: len(catalog.load_table(("repaired", name)).scan().to_arrow()) for name in ("images", "features")}
print(json.dumps([repaired, readable]))
"""


@pytest.fixture
def database(aws: Server, request: pytest.FixtureRequest) -> str:
    name = request.node.name[:40]
    aws.client("glue").create_database(DatabaseInput={"Name": name})
    aws.client("glue").create_table(DatabaseName=name, TableInput=table("v0"))
    return name


def table(location: str) -> dict[str, Any]:
    return {"Name": "t", "Parameters": {"metadata_location": location}}


def now(aws: Server, database: str) -> tuple[str, str]:
    """Return the table's version and the location of its metadata."""
    seen = aws.client("glue").get_table(DatabaseName=database, Name="t")["Table"]
    return seen["VersionId"], seen["Parameters"]["metadata_location"]


def run_script(aws: Server, python: str, folder: Path, script: str) -> Any:
    """Run Python of the jobs' environment against the emulator; return the JSON that it prints last."""
    path = folder / "script.py"
    path.write_text(script)
    ended = subprocess.run(
        [python, str(path)],
        env=environment_without("PYTHONPATH")
        | {"AWS_ENDPOINT_URL": aws.endpoint, **KEYS.environment, "AWS_REGION": "eu-west-1"}
        | {"PYTHONPATH": str(ROOT / "spark_jobs")},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr[-3000:]
    return json.loads(ended.stdout.splitlines()[-1])


def test_an_update_of_the_current_version_is_taken(aws: Server, database: str) -> None:
    version, _ = now(aws, database)
    aws.client("glue").update_table(DatabaseName=database, TableInput=table("v1"), VersionId=version)
    assert now(aws, database) == (str(int(version) + 1), "v1")


def test_an_update_of_an_old_version_is_refused(aws: Server, database: str) -> None:
    glue, (version, _) = aws.client("glue"), now(aws, database)
    glue.update_table(DatabaseName=database, TableInput=table("v1"), VersionId=version)
    with pytest.raises(ClientError) as caught:
        glue.update_table(DatabaseName=database, TableInput=table("v2"), VersionId=version)
    assert caught.value.response["Error"]["Code"] == "ConcurrentModificationException"
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 400
    assert now(aws, database)[1] == "v1"


def test_an_update_without_a_version_replaces_what_is_there(aws: Server, database: str) -> None:
    aws.client("glue").update_table(DatabaseName=database, TableInput=table("v1"))
    assert now(aws, database)[1] == "v1"


def test_of_many_updates_of_one_version_at_once_one_is_taken(aws: Server, database: str) -> None:
    glue = aws.client("glue")

    def update(version: str, number: int) -> bool:
        try:
            glue.update_table(DatabaseName=database, TableInput=table(f"w{number}"), VersionId=version)
        except glue.exceptions.ConcurrentModificationException:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        for _ in range(10):
            version, _location = now(aws, database)
            assert sum(pool.map(update, [version] * 8, range(8))) == 1


def test_old_versions_are_kept_unless_they_are_skipped(aws: Server, database: str) -> None:
    glue = aws.client("glue")
    glue.update_table(DatabaseName=database, TableInput=table("v1"))
    assert len(glue.get_table_versions(DatabaseName=database, TableName="t")["TableVersions"]) == 2
    glue.update_table(DatabaseName=database, TableInput=table("v2"), SkipArchive=True)
    kept = glue.get_table_versions(DatabaseName=database, TableName="t")["TableVersions"]
    assert {version["Table"]["Parameters"]["metadata_location"] for version in kept} == {"v0", "v2"}


def test_of_two_creations_at_once_one_is_taken(aws: Server, database: str) -> None:
    glue = aws.client("glue")

    def create(number: int) -> bool:
        try:
            glue.create_table(DatabaseName=database, TableInput={"Name": f"n{number // 4}"})
        except glue.exceptions.AlreadyExistsException:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        outcomes = list(pool.map(create, range(40)))
    assert [sum(outcomes[at : at + 4]) for at in range(0, 40, 4)] == [1] * 10


def test_two_iceberg_writers_at_once_both_land(aws: Server, spark_python: str, tmp_path: Path) -> None:
    aws.make_bucket("iceberg")
    before = len(aws.access_log())
    rows = run_script(aws, spark_python, tmp_path, TWO_WRITERS)
    assert rows == [[writer, number] for writer in range(2) for number in range(4)]
    updates = [line["status"] for line in aws.access_log()[before:] if line["operation"] == "UpdateTable"]
    assert updates.count(400) == 4, "one refusal a round: else the writers did not meet"


def test_a_table_that_names_a_missing_file_is_returned_to_the_file_before(
    aws: Server, spark_python: str, tmp_path: Path
) -> None:
    aws.make_bucket("repair")
    (once, again), rows = run_script(aws, spark_python, tmp_path, REPAIR)
    assert once == ["features"], "not the table that can be read, nor one whose previous file is missing too"
    assert again == []
    assert rows == {"images": 2, "features": 1}
