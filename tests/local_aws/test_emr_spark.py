"""Steps that are Spark: real spark-submit, its script and libraries in the bucket, its tables in Glue."""

from __future__ import annotations

import gzip
import io
import json
import socket
import urllib.request
import zipfile
from itertools import takewhile
from pathlib import Path

import psutil
import pytest

from tests.local_aws.server import REPOSITORY, Server, alive, tables_in_glue, until

pytestmark = pytest.mark.spark

TABLE_JOB = """
import argparse, json
from pyspark.sql import SparkSession
import orchard                                     # from --py-files

arguments = argparse.ArgumentParser()
arguments.add_argument("--input")
options = arguments.parse_args()
spark = SparkSession.builder.getOrCreate()
spark.sql("CREATE NAMESPACE IF NOT EXISTS lake.orchard")
spark.range(10).writeTo("lake.orchard.t").using("iceberg").create()
spark.range(5).writeTo("lake.orchard.t").append()
java = spark.sparkContext._jvm.java.lang.management.ManagementFactory.getRuntimeMXBean().getInputArguments()
print(json.dumps({
    "rows": spark.table("lake.orchard.t").count(), "fruit": orchard.FRUIT, "input": options.input,
    "archive": [option for option in java if option.startswith("-XX:SharedArchiveFile")],
}))
"""

BUSY_JOB = """
import os, sys, time
from pyspark.sql import SparkSession

folder = sys.argv[1]

def work(rows):
    open(f"{folder}/worker-{os.getpid()}", "w").close()
    time.sleep(600)
    yield from rows

SparkSession.builder.getOrCreate().sparkContext.parallelize(range(2), 2).mapPartitions(work).count()
"""


@pytest.fixture(scope="module")
def code(aws: Server, spark_python: str) -> str:
    """Upload jobs and a library to a folder of the lake."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("orchard.py", "FRUIT = 'quince'\n")
    s3 = aws.client("s3")
    s3.put_object(Bucket="lake", Key="code/abc/orchard.zip", Body=archive.getvalue())
    s3.put_object(Bucket="lake", Key="code/abc/table.py", Body=TABLE_JOB.encode())
    s3.put_object(Bucket="lake", Key="code/abc/busy.py", Body=BUSY_JOB.encode())
    s3.put_object(Bucket="lake", Key="code/abc/broken.py", Body=b"print('before')\nraise ValueError('rotten')\n")
    return "s3://lake/code/abc"


@pytest.mark.skipif(not list((REPOSITORY / ".cache" / "jars").glob("*.jar")), reason="no Iceberg jars: run make setup")
def test_a_job_reads_its_code_from_the_bucket_and_keeps_tables_in_glue(aws: Server, code: str) -> None:
    defaults = {
        "spark.pyspark.python": "/usr/bin/python3.11",
        # As steps run, but that Java ends at once rather than start without the archive.
        "spark.driver.extraJavaOptions": "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC -Xshare:on",
    }
    cluster_id = aws.run_job_flow(Configurations=tables_in_glue(**defaults))
    step_id = aws.add_step(
        *(cluster_id, "spark-submit", "--deploy-mode", "client", "--name", "table"),
        *("--py-files", f"{code}/orchard.zip", f"{code}/table.py", "--input", "s3://raw/images"),
    )
    status = aws.step_reaches(cluster_id, step_id, "COMPLETED", "FAILED", seconds=120)
    assert status["State"] == "COMPLETED", aws.step_log(cluster_id, step_id, "stderr")[-3000:]
    printed = json.loads(aws.step_log(cluster_id, step_id, "stdout").splitlines()[-1])
    archive = [f"-XX:SharedArchiveFile={REPOSITORY}/.cache/jars/spark.jsa"]
    assert printed == {"rows": 15, "fruit": "quince", "input": "s3://raw/images", "archive": archive}
    table = aws.client("glue").get_table(DatabaseName="orchard", Name="t")["Table"]
    assert table["Parameters"]["metadata_location"].startswith("s3://lake/tables/orchard.db/t/metadata/")
    aws.client("emr").terminate_job_flows(JobFlowIds=[cluster_id])


def test_termination_ends_the_jvm_and_its_python_workers(aws: Server, code: str, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    cluster_id = aws.run_job_flow()
    aws.add_step(cluster_id, "spark-submit", "--conf", f"spark.ui.port={port}", f"{code}/busy.py", str(tmp_path))
    workers = until(lambda: [int(path.name.split("-")[1]) for path in tmp_path.glob("worker-*")], seconds=120)
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/v1/applications", timeout=10) as reply:
        [application] = json.load(reply)
    assert application["attempts"][0]["completed"] is False
    chain = list(takewhile(lambda process: process.pid != aws.process.pid, psutil.Process(workers[0]).parents()))
    names = [process.name() for process in chain]
    assert "java" in names
    aws.client("emr").terminate_job_flows(JobFlowIds=[cluster_id])
    aws.reach(cluster_id, "TERMINATED")
    assert [pid for pid in [*workers, *(process.pid for process in chain)] if alive(pid)] == []


def test_in_deploy_mode_cluster_the_output_is_in_the_containers_logs(aws: Server, code: str) -> None:
    cluster_id = aws.run_job_flow()
    step_id = aws.add_step(cluster_id, "spark-submit", "--deploy-mode", "cluster", f"{code}/broken.py")
    status = aws.step_reaches(cluster_id, step_id, "FAILED", "COMPLETED", seconds=120)
    assert status["FailureDetails"]["Message"] == "ValueError: rotten"
    s3, prefix = aws.client("s3"), f"logs/{cluster_id}/"
    keys = [item["Key"] for item in s3.list_objects_v2(Bucket="lake", Prefix=prefix)["Contents"]]
    assert f"{prefix}steps/{step_id}/stdout.gz" not in keys
    [stdout] = [
        key for key in keys if key.startswith(f"{prefix}containers/application_") and key.endswith("/stdout.gz")
    ]
    assert "before" in gzip.decompress(s3.get_object(Bucket="lake", Key=stdout)["Body"].read()).decode()
    aws.client("emr").terminate_job_flows(JobFlowIds=[cluster_id])
