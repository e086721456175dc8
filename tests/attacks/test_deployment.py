"""Attacks on a deployment, executed from where the attacker stands: a web page, a user, a node, a photo."""

from __future__ import annotations

import gzip
import hashlib
import http.client
import io
import json
import resource
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import boto3
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from botocore.exceptions import ClientError
from fruits_airflow.config.errors import ConfigError
from fruits_airflow.config.settings import Settings
from fruits_airflow.records.sharing import share_run
from fruits_airflow.report.archive import RunArchive
from fruits_airflow.report.page import Navigation, render
from fruits_airflow.report.runs_page import record_of
from fruits_airflow.report.step_page import render_step

from ops.notebook import notebook_cluster
from tests.emr_rules import add_rules, create_default_groups, reaches
from tests.faults.world import RAW_PREFIX, REGION, REPOSITORY, Aws, Deployment, Pipeline, Run
from tests.infra.simulation import Request, allowed
from tests.plugins.searching import find_everywhere

pytestmark = pytest.mark.timeout(600)

Evidence = Callable[[str], None]
SPARK_PYTHON = REPOSITORY / ".venv-spark" / "bin" / "python"
STEP = {"Name": "x", "HadoopJarStep": {"Jar": "command-runner.jar", "Args": ["touch", "/tmp/owned"]}}
COMMAND = json.dumps({"Name": "owned", "Steps": [STEP]}).encode()


# A website, and another user of the laptop


def ask(deployment: Deployment, target: str, method: str = "GET", body: bytes = b"", **headers: str) -> Any:
    connection = http.client.HTTPConnection(deployment.aws.endpoint.removeprefix("http://"), timeout=30)
    connection.request(method, target, body, {name.replace("_", "-"): value for name, value in headers.items()})
    reply = connection.getresponse()
    reply.read()
    return reply


def test_a_page_and_a_poisoned_photo_start_no_cluster(deployment: Deployment, evidence: Evidence) -> None:
    aws, key = deployment.aws, f"{RAW_PREFIX}poisoned.jpg"
    aws.client("s3").put_object(Bucket=deployment.raw, Key=key, Body=b"<script>fetch('/', {method: 'POST'})</script>")
    before = len(aws.clusters(""))
    page = ask(deployment, f"/{deployment.raw}/{key}?response-content-type=text/html&Signature=x&X-Amz-Signature=x")
    target = {"X_Amz_Target": "ElasticMapReduce.RunJobFlow", "Content_Type": "application/x-amz-json-1.1"}
    posted = [
        ask(deployment, "/", "POST", COMMAND, **target, Origin=origin)
        for origin in (aws.endpoint, "null", "https://evil.example")
    ]
    posted.append(ask(deployment, "/", "POST", COMMAND, **target, Sec_Fetch_Site="same-origin"))
    assert {reply.status for reply in (page, *posted)} == {403}
    assert page.headers["Content-Security-Policy"] == "sandbox"
    assert len(aws.clusters("")) == before
    aws.client("s3").delete_object(Bucket=deployment.raw, Key=key)
    evidence(f"5 requests of a page answered 403; {before} clusters before and after")


def test_another_user_of_the_machine_starts_no_cluster(deployment: Deployment, evidence: Evidence) -> None:
    before = len(deployment.aws.clusters(""))
    target = {"X_Amz_Target": "ElasticMapReduce.RunJobFlow", "Content_Type": "application/x-amz-json-1.1"}
    assert ask(deployment, "/", "POST", COMMAND, **target).status == 400, "MissingAuthenticationToken, as of AWS"
    emr = boto3.client(
        "emr", REGION, endpoint_url=deployment.aws.endpoint, aws_access_key_id="local", aws_secret_access_key="local"
    )
    with pytest.raises(ClientError, match="UnrecognizedClient"):
        emr.run_job_flow(**json.loads(COMMAND), Instances={})
    assert deployment.aws.state_dir.stat().st_mode & 0o077 == 0
    assert len(deployment.aws.clusters("")) == before
    evidence(f"unsigned: 400; with a guessed key: UnrecognizedClientException; {before} clusters before and after")


# A node that a photo has taken over


def statements(deployment: Deployment, profile: str) -> list[dict[str, Any]]:
    """Statements of the role in an instance profile, as IAM has them."""
    iam = deployment.aws.client("iam")
    role = iam.get_instance_profile(InstanceProfileName=deployment.outputs[profile])["InstanceProfile"]["Roles"][0]
    names = iam.list_role_policies(RoleName=role["RoleName"])["PolicyNames"]
    policies = [iam.get_role_policy(RoleName=role["RoleName"], PolicyName=name)["PolicyDocument"] for name in names]
    return [statement for policy in policies for statement in policy["Statement"]]


def may(deployment: Deployment, profile: str, action: str, bucket: str, key: str) -> bool:
    request = Request(f"s3:{action}", f"arn:aws:s3:::{bucket}/{key}", {"aws:RequestedRegion": REGION})
    return allowed(statements(deployment, profile), request)


def put_back(deployment: Deployment, key: str, body: bytes | None) -> None:
    """The object as it was; None: there was none."""
    if body is None:
        deployment.aws.client("s3").delete_object(Bucket=deployment.lake, Key=key)
    else:
        deployment.aws.client("s3").put_object(Bucket=deployment.lake, Key=key, Body=body)


def test_a_node_may_not_write_what_the_control_plane_says(deployment: Deployment, evidence: Evidence) -> None:
    ours = ("run.json", "residency.json", "report.html", "slides.pdf", "journal/cluster.json", "listing.parquet")
    forged = [f"runs/r/{name}" for name in (*ours, "lineage.json", "model_card.md", "datasheet.md")]
    forged += ["erasures/e/receipt.json", "suppression/e.parquet", "code/x/bootstrap.sh", "models/m/model.tflite"]
    forged += ["state/fruits.json", "locks/fruits.json"]
    assert [key for key in forged if may(deployment, "InstanceProfile", "PutObject", deployment.lake, key)] == []
    assert not may(deployment, "InstanceProfile", "PutObject", deployment.raw, "images/a.jpg")
    assert not may(deployment, "InstanceProfile", "GetObject", deployment.lake, "erasures/e/keys.json")
    assert may(deployment, "InstanceProfile", "PutObject", deployment.lake, "runs/r/pca.parquet"), (
        "else this says nothing"
    )
    evidence(f"{len(forged)} kinds of files and all photos refused by the role as IAM has it")


def test_a_notebook_reads_no_photo_and_writes_no_row_of_production(deployment: Deployment, evidence: Evidence) -> None:
    table = f"tables/{deployment.database}.db/images/data/x.parquet"
    own = f"tables/{deployment.outputs['NotebookDatabase']}.db/images/data/x.parquet"
    profile = "NotebookInstanceProfile"
    assert not may(deployment, profile, "GetObject", deployment.raw, "images/a.jpg")
    refused = [
        action
        for action in ("PutObject", "DeleteObject")
        if not may(deployment, profile, action, deployment.lake, table)
    ]
    assert refused == ["PutObject", "DeleteObject"]
    assert may(deployment, profile, "PutObject", deployment.lake, own), "else this says nothing"
    evidence("raw photos, writes and deletes of the nightly tables refused by the role as IAM has it")


@dataclass
class Account:
    """The emulator as ops/ wants an account."""

    aws: Aws
    region: str = REGION

    def client(self, service: str, attempts: int = 1) -> Any:
        return self.aws.client(service)


def test_no_rule_lets_a_notebooks_node_reach_a_node_of_a_night(deployment: Deployment, evidence: Evidence) -> None:
    outputs = deployment.outputs
    settings = Settings(
        deployment_id=deployment.name, raw_bucket=deployment.raw, lake_bucket=deployment.lake,
        service_role=outputs["ServiceRole"], instance_profile=outputs["InstanceProfile"],
        security_configuration=outputs["SecurityConfiguration"], subnet_id=outputs["SubnetId"],
        node_environment="preinstalled", poll_s=0.1, list_consistency_s=0.5,
    )  # fmt: skip
    cluster = notebook_cluster(settings, "mallory", Account(deployment.aws))
    attributes = cluster.description["Ec2InstanceAttributes"]
    deployment.aws.client("emr").terminate_job_flows(JobFlowIds=[cluster.job_flow_id])
    ec2 = deployment.aws.client("ec2")
    [subnet] = ec2.describe_subnets(SubnetIds=[outputs["SubnetId"]])["Subnets"]
    nights = create_default_groups(ec2, subnet["VpcId"])  # of each cluster that names no groups
    own = nights
    if "EmrManagedMasterSecurityGroup" in attributes:
        own = (attributes["EmrManagedMasterSecurityGroup"], attributes["EmrManagedSlaveSecurityGroup"])
        add_rules(ec2, *own)
    assert reaches(ec2, *own), "else the nodes of a notebook do not work"
    assert [(a, b) for a in own for b in nights if reaches(ec2, a, b) or reaches(ec2, b, a)] == []
    evidence(f"by EMR's rules {len(own)} groups of a notebook and {len(nights)} of a night reach none of each other")


def test_forged_results_are_shown_as_changed_and_never_shared(
    deployment: Deployment, night: Run, evidence: Evidence
) -> None:
    s3, key = deployment.aws.client("s3"), f"runs/{night.run_id}/pca.parquet"
    before = deployment.aws.read(deployment.lake, key)
    share_run(s3, deployment.lake, night.run_id, 1)
    try:
        s3.put_object(Bucket=deployment.lake, Key=key, Body=b"<script>forged</script>")
        with pytest.raises(ConfigError, match="No link is made") as refused:
            share_run(s3, deployment.lake, night.run_id, 1)
    finally:
        put_back(deployment, key, before)
    metrics = f"runs/{night.run_id}/stages/publish.json"
    genuine = deployment.aws.read(deployment.lake, metrics) or b""
    s3.put_object(Bucket=deployment.lake, Key=metrics, Body=genuine + b" ")
    stored = RunArchive(s3, deployment.lake).run(night.run_id)
    s3.put_object(Bucket=deployment.lake, Key=metrics, Body=genuine)
    assert stored is not None
    assert any("publish.json" in change for change in stored.changes)
    evidence(f"{str(refused.value)[:100]}…")


def test_no_malformed_record_stops_the_next_night(
    deployment: Deployment, pipeline: Pipeline, night: Run, evidence: Evidence
) -> None:
    record = deployment.record(night.run_id) or {}
    bad: list[Any] = [
        record | {"images": {"loaded": "<text>"}},
        record | {"images": None, "seconds": None, "stages": None},
        record | {"seconds": [1], "vcpus": {"a": 1}, "cost": []},
        [[[]]],
        "text",
    ]
    keys = [
        f"runs/scheduled__{2027 + n if n % 2 else 9999}-01-0{n + 1}T02:00:00+00:00/run.json" for n in range(len(bad))
    ]
    for key, content in zip(keys, bad, strict=True):
        deployment.aws.client("s3").put_object(Bucket=deployment.lake, Key=key, Body=json.dumps(content).encode())
    run = pipeline.run(force=True)
    for key in keys:
        deployment.aws.client("s3").delete_object(Bucket=deployment.lake, Key=key)
    assert run.state == "success", pipeline.tail()
    assert run.tries["plan"] == 1
    evidence(
        f"{len(bad)} malformed run.json with late dates; the next night ended in {run.state}, plan at its first try"
    )


def test_bombs_in_a_runs_folder_make_a_small_page_in_little_memory(
    deployment: Deployment, night: Run, evidence: Evidence
) -> None:
    s3, folder = deployment.aws.client("s3"), f"runs/{night.run_id}"
    out = io.BytesIO()
    pq.write_table(pa.table({"label": ["a" * 400_000_000], "pc1": [1.0], "pc2": [1.0]}), out, compression="zstd")
    names = [f"r{n}" for n in range(60_000)]
    bombs = {"sample.parquet": out.getvalue()}
    for stage in ("load_images", "featurize", "reduce_pca", "publish"):
        bombs[f"stages/{stage}.json"] = json.dumps({"seconds": 1, "rejects_by_code": dict.fromkeys(names, 1)}).encode()
    genuine = {name: deployment.aws.read(deployment.lake, f"{folder}/{name}") for name in bombs}
    for name, body in bombs.items():
        assert len(body) < 1_000_000
        s3.put_object(Bucket=deployment.lake, Key=f"{folder}/{name}", Body=body)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    stored = RunArchive(s3, deployment.lake).run(night.run_id)
    assert stored is not None
    page = render(
        record_of(stored, None),
        stored.stages,
        stored.sample,
        stored.residency,
        Navigation("../", "../page.js", []),
        stored.problems,
        stored.changes,
    )
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    for name, body in genuine.items():
        put_back(deployment, f"{folder}/{name}", body)
    assert len(page) < 2_000_000
    assert grown < 200
    assert "cannot be shown" in page
    evidence(f"a page of {len(page) / 1e3:.0f} kB, at most {grown:.0f} MB more memory")


def test_a_log_that_inflates_to_gigabytes_shows_its_end_in_little_memory(
    deployment: Deployment, evidence: Evidence
) -> None:
    key = "logs/j-BOMB/steps/s-BOMB/stderr.gz"
    bomb = _gzip_of_zeros(2600)
    deployment.aws.client("s3").put_object(Bucket=deployment.lake, Key=key, Body=bomb)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    page = render_step(deployment.aws.client("s3"), deployment.lake, "j-BOMB", "s-BOMB")
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    deployment.aws.client("s3").delete_object(Bucket=deployment.lake, Key=key)
    assert len(page) < 2_000_000
    assert grown < 100
    evidence(f"{len(bomb) / 1e6:.1f} MB of gzip that hold 2.6 GB: {grown:.0f} MB more memory")


# A photo that takes over the decoder


@pytest.fixture
def metadata_service() -> Iterator[tuple[int, list[object]]]:
    """Stands for the instance metadata service, which gives every process of a node the node's role."""
    visitors: list[object] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            while True:
                try:
                    connection, visitor = server.accept()
                except OSError:
                    return
                connection.close()
                visitors.append(visitor)

        threading.Thread(target=serve, daemon=True).start()
        yield server.getsockname()[1], visitors
        server.shutdown(socket.SHUT_RDWR)


def test_a_decoder_that_is_taken_over_gets_no_credentials_and_sends_nothing(
    metadata_service: tuple[int, list[object]], tmp_path: Path, evidence: Evidence
) -> None:
    port, visitors = metadata_service
    loot = tmp_path / "credentials"
    loot.write_text("secret")
    exploits = {
        "the metadata service": f"socket.create_connection(('127.0.0.1', {port})).recv(1)",
        "the memory of the worker": "open(f'/proc/{os.getppid()}/mem', 'rb')",
        "a file of credentials": f"print(open({str(loot)!r}).read())",
        "a shell": "os.posix_spawn('/bin/sh', ['sh', '-c', 'echo reached'], {})",
    }

    def exploit(code: str, confine: str) -> subprocess.CompletedProcess[str]:
        program = f"import os, socket\nfrom fruits.images.sandbox import confine\n{confine}\n{code}\nprint('reached')"
        environment = {"PYTHONPATH": str(REPOSITORY / "spark_jobs"), "OPENBLAS_NUM_THREADS": "1"}
        return subprocess.run(
            [SPARK_PYTHON, "-c", program], env=environment, capture_output=True, text=True, check=False, timeout=120
        )

    assert "reached" in exploit(exploits["the metadata service"], "").stdout, "else this says nothing"
    assert len(visitors) == 1
    ends = {name: exploit(code, "confine()") for name, code in exploits.items()}
    assert {name: done.stdout for name, done in ends.items()} == dict.fromkeys(exploits, "")
    assert {done.returncode for done in ends.values()} == {-31}, "SIGSYS: ended by the kernel"
    assert len(visitors) == 1
    evidence(f"ended by the kernel at the first system call: {', '.join(exploits)}")


# A person who may trigger DAGs, and one whose photos are to be erased

NAMES = (
    "Screenshot\u202f2026.png",
    'O\'Neil "and" sons.jpg',
    "Fish &amp; Chips <1>.jpg",
    "Le\u0301a \u00e9t\u00e9.jpg",
)
SPELLINGS: dict[str, Callable[[str], str]] = {
    "plain": str,
    "Python": repr,
    "JSON": json.dumps,
    "URL": quote,
    "XML": lambda key: key.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace('"', "&quot;"),
    "XML of JSON": lambda key: json.dumps(key).replace("&", "&amp;").replace('"', "&#34;"),
}


@pytest.mark.slow
def test_an_erasure_is_confirmed_by_its_number_and_leaves_no_name_in_any_spelling(
    deployment: Deployment, pipeline: Pipeline, night: Run, evidence: Evidence
) -> None:
    aws, s3 = deployment.aws, deployment.aws.client("s3")
    folder = f"{RAW_PREFIX}Training/Mine/"
    keys = [folder + name for name in NAMES]
    s3.put_object(Bucket=deployment.raw, Key=folder, Body=b"")
    for number, key in enumerate(keys):
        s3.put_object(Bucket=deployment.raw, Key=key, Body=json.dumps({"pixels": [900 + number, 5]}).encode())
    for _ in range(2):
        assert pipeline.run(force=True).state == "success", pipeline.tail()
    lines = [f"26/11/30 WARN Task: lost {spell(key)} in stage 3" for key in keys for spell in SPELLINGS.values()]
    filler = "26/11/30 INFO BlockManager: Removed broadcast_7_piece0\n" * 2000
    hour = "".join(filler + line + "\n" for line in lines)
    s3.put_object(Bucket=deployment.lake, Key="logs/j-HOUR/steps/s-HOUR/stderr.gz", Body=gzip.compress(hour.encode()))
    s3.put_object(Bucket=deployment.lake, Key="staging/mine/copy.jpg", Body=b"a copy of a photo")
    needles = {name: name for name in NAMES}
    assert all(find_everywhere(s3, [deployment.raw, deployment.lake], needles).values()), "else this says nothing"

    photos = {key: aws.read(deployment.raw, key) for key in aws.keys(deployment.raw)}
    refused = [
        pipeline.run(dag="erase_images", prefix=folder),
        pipeline.run(dag="erase_images", prefix=RAW_PREFIX, expected_photos=4),
        pipeline.run(dag="erase_images", prefix="/", expected_photos=4),
    ]
    assert {run.state for run in refused} == {"failed"}
    assert {key: aws.read(deployment.raw, key) for key in aws.keys(deployment.raw)} == photos
    assert aws.keys(deployment.lake, "suppression/") == []

    erasure = pipeline.run(dag="erase_images", prefix=folder, expected_photos=len(keys))
    assert erasure.state == "success", pipeline.tail()
    places = find_everywhere(s3, [deployment.raw, deployment.lake], needles)
    # The scripted tables keep their old files; those of Iceberg are searched in tests/spark_jobs/test_erase_images.py.
    assert {name: {key for key in found if not key.startswith("tables/")} for name, found in places.items()} == {
        name: set() for name in NAMES
    }
    assert aws.keys(deployment.raw, folder) == [folder], "an empty object that stands for a folder is no photo"
    assert aws.keys(deployment.lake, "staging/") == []
    receipt = json.loads(aws.read(deployment.lake, f"erasures/{erasure.run_id}/receipt.json") or b"{}")
    assert hashlib.sha256(b"").hexdigest() not in receipt["content_sha256"]
    again = pipeline.run(force=True)
    assert again.state == "success", pipeline.tail()
    evidence(
        f"3 requests without the right number erased nothing; {len(keys)} names in {len(SPELLINGS)} spellings, "
        f"{len(hour) / 1e6:.0f} MB of log, three runs: a decoded search of every object beside the tables finds none"
    )


def test_the_network_of_the_stack_lets_nobody_in_and_leads_to_its_own_buckets(
    deployment: Deployment, evidence: Evidence
) -> None:
    ec2 = deployment.aws.client("ec2")
    [subnet] = ec2.describe_subnets(SubnetIds=[deployment.outputs["SubnetId"]])["Subnets"]
    groups = ec2.describe_security_groups(Filters=[{"Name": "vpc-id", "Values": [subnet["VpcId"]]}])["SecurityGroups"]
    open_to = {
        source["CidrIp"] for group in groups for rule in group["IpPermissions"] for source in rule.get("IpRanges", [])
    }
    assert open_to == set()
    [endpoint] = ec2.describe_vpc_endpoints(Filters=[{"Name": "vpc-id", "Values": [subnet["VpcId"]]}])["VpcEndpoints"]
    policy = endpoint["PolicyDocument"]
    policy = json.loads(policy) if isinstance(policy, str) else policy
    foreign = Request("s3:PutObject", "arn:aws:s3:::stolen/x", {"aws:RequestedRegion": REGION})
    own = Request("s3:PutObject", f"arn:aws:s3:::{deployment.lake}/tables/x", {"aws:RequestedRegion": REGION})
    assert [allowed([], request, policy["Statement"]) for request in (foreign, own)] == [False, True]
    evidence("no security group has an address range that may come in; the S3 endpoint refuses a foreign bucket")


def _gzip_of_zeros(megabytes: int) -> bytes:
    out = io.BytesIO()
    with gzip.GzipFile(fileobj=out, mode="wb", compresslevel=9) as file:
        for _ in range(megabytes):
            file.write(bytes(1_000_000))
    return out.getvalue()
