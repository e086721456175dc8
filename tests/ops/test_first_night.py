"""make first-night on an account of this machine: a real Airflow, and Spark steps that a script stands for."""

from __future__ import annotations

import gzip
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import boto3
import pytest
from fruits_airflow.emr.cluster_body import CLUSTER_FILE, load_profile
from fruits_airflow.records.models import ClusterFacts, ImageCounts, RunRecord, StageSeconds

from ops import __main__ as command_line
from ops import evidence, first_night
from ops.environment import Packed
from ops.evidence import collect, write
from ops.preflight import Preflight
from ops.removal import destroy
from ops.stack import Declined, Deployment, DeploymentFailed
from tests.aws_keys import KEYS
from tests.faults.world import MODEL, Aws
from tests.local_aws.server import PRIMARY, Server
from tests.ops.conftest import Account
from tests.ops.test_preflight import ADMINISTRATOR, AccountOf

pytestmark = pytest.mark.server
ENVIRONMENT = {
    "FRUITS_POLL_S": "0.2", "FRUITS_LIST_CONSISTENCY_S": "2", "FRUITS_LOG_WAIT_S": "5", "FRUITS_MAX_REJECT_RATE": "0.5",
    **KEYS.environment, "AWS_DEFAULT_REGION": "eu-west-1", "AWS_EC2_METADATA_DISABLED": "true",
}  # fmt: skip


@pytest.fixture(scope="module")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Aws]:
    aws = Aws(tmp_path_factory.mktemp("aws"), "--start-seconds", "20", "--idle-scale", "1")
    yield aws
    aws.close()


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    for number in range(10):
        path = folder / f"Apple {number % 3}" / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"pixels": [number, number * number]}))
    return folder


@pytest.fixture
def preflight(
    aws: Aws, deployment_id: str, databases: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Preflight:
    """The preflight of an empty account, whose caller may deploy, with a small model and small libraries."""
    for name, value in (ENVIRONMENT | {"AWS_ENDPOINT_URL": aws.endpoint}).items():
        monkeypatch.setenv(name, value)
    model = {"model_id": MODEL, "engine": "litert", "file": "model.tflite", "weights": "path"}
    folder = tmp_path / "models" / MODEL
    folder.mkdir(parents=True)
    (folder / "model.json").write_text(json.dumps(model))
    (folder / "model.tflite").write_bytes(b"weights")
    monkeypatch.setattr(first_night, "MODELS", folder.parent)
    monkeypatch.setattr(first_night, "make_model", lambda *_: model)
    archive = tmp_path / "environment.tar.gz"
    archive.write_bytes(b"libraries")
    monkeypatch.setattr(first_night, "pack", lambda _: Packed("e" * 64, archive, 9, 9))
    account = AccountOf(aws, f"deployer-{deployment_id}", ADMINISTRATOR)  # type: ignore[arg-type]  # has clients too
    return Preflight(Deployment(account, deployment_id, lambda _: None, lambda _: True, poll_s=0.05), databases)


Run = Callable[[], int]


@pytest.fixture
def run(preflight: Preflight, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Call the command as far as its exit status; what it leaves is in `tmp_path`."""
    monkeypatch.setenv("IMAGES", str(photos))
    return lambda: first_night.first_night(replace(preflight), tmp_path / "night")


def read_evidence(tmp_path: Path) -> dict[str, Any]:
    [path] = (tmp_path / "night").glob("*/first_night.json")
    return dict(json.loads(path.read_text()))


def test_a_preflight_that_says_no_begins_nothing(preflight: Preflight, run: Run, aws: Aws) -> None:
    bucket = f"fruits-{preflight.deployment.deployment_id}-raw-123456789012-eu-west-1"
    aws.client("s3").create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": "eu-west-1"})
    asked: list[str] = []
    object.__setattr__(preflight, "deployment", replace(preflight.deployment, confirm=asked.append))
    assert run() == 1
    assert (asked, preflight.deployment.describe()) == ([], None)


def test_a_preflight_that_cannot_look_begins_nothing(preflight: Preflight, run: Run, aws: Aws) -> None:
    fault = aws.arm(kind="refused", service="servicequotas", error="AccessDenied")
    assert run() == 2
    aws.disarm(fault)
    assert preflight.deployment.describe() is None


def test_a_no_to_the_cost_begins_nothing(preflight: Preflight, run: Run) -> None:
    asked: list[str] = []
    object.__setattr__(preflight, "deployment", replace(preflight.deployment, confirm=asked.append))
    with pytest.raises(Declined):
        run()
    assert "at most 0.90 EUR" in asked[0]
    assert preflight.deployment.describe() is None


@pytest.mark.timeout(1800)  # two starts of Airflow
def test_a_night_that_is_interrupted_goes_on_and_leaves_evidence(
    preflight: Preflight,
    run: Run,
    aws: Aws,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    log = first_night.ConsoleReporter.log

    def interrupt(reporter: Any, what: str, text: str) -> None:
        log(reporter, what, text)
        if what == "cluster_ready" and text.startswith("deferred"):
            raise KeyboardInterrupt

    monkeypatch.setattr(first_night.ConsoleReporter, "log", interrupt)
    with pytest.raises(KeyboardInterrupt):
        run()
    monkeypatch.setattr(first_night.ConsoleReporter, "log", log)
    assert run() == 0
    printed = capsys.readouterr().out
    assert f"FRUITS_MODEL_ID={MODEL}\nFRUITS_NODE_ENVIRONMENT={'e' * 64}\n" in printed
    assert "AWS_SECRET" not in printed
    content = read_evidence(tmp_path)
    assert (content["state"], content["simulated"], content["images"]["loaded"]) == ("succeeded", True, 10)
    clusters = aws.clusters(f"fruits/{preflight.deployment.deployment_id}/")
    names = {cluster["Name"] for cluster in clusters}  # a machine may be so slow that the first one ended idle
    assert names == {f"fruits/{preflight.deployment.deployment_id}/fruits_pipeline/{content['run_id']}"}
    assert content["start_up_minutes"] > 0
    assert len(content["nodes"]) == 2
    assert content["answers"]["DescribeCluster of an unknown id"] == "InvalidRequestException"
    assert [quota["state"] for quota in content["answers"]["quotas"]] == ["ok"] * 3  # the VPC exists when it goes on
    assert "buckets: none" in destroy(preflight.deployment)


class ScriptedAirflow:
    """An Airflow whose runs end at once, and red: `cluster_id` is in their run.json."""

    url, password = "http://127.0.0.1:1", "secret"
    cluster_id: str | None = None
    runs: ClassVar[list[str]] = []

    def __init__(self, _processes: Any, _folder: Path, _port: int, env: dict[str, str]) -> None:
        self.env = env

    migrate = start = wait = lambda *_: None

    def knows(self, _dag_id: str, run_id: str) -> bool:
        return run_id in self.runs

    def run_state(self, *_: str) -> str:
        return "failed"

    def trigger(self, _dag_id: str, run_id: str, _conf: dict[str, str]) -> None:
        self.runs.append(run_id)
        cluster = {"id": self.cluster_id, "vcpus": 4}
        run = {"state": "failed", "reason": "EMR refused", "run_id": run_id, "cluster": cluster, "region": "eu-west-1"}
        counts = {"images": {"loaded": 0, "rejected": 0}, "cost": {}, "simulated": True}
        seconds = {"load_images": 0.0, "featurize": 0.0, "cluster_start": 0.0}
        body = json.dumps(run | counts | {"seconds": seconds}).encode()
        keys = {name: self.env[name.upper()] for name in first_night.KEYS}
        s3 = boto3.client("s3", endpoint_url=self.env["AWS_ENDPOINT_URL"], region_name="eu-west-1", **keys)
        s3.put_object(Bucket=self.env["FRUITS_LAKE_BUCKET"], Key=f"runs/{run_id}/run.json", Body=body)


@pytest.fixture
def red(monkeypatch: pytest.MonkeyPatch) -> type[ScriptedAirflow]:
    """Every night is red."""
    monkeypatch.setattr(first_night, "Airflow", ScriptedAirflow)
    monkeypatch.setattr(first_night, "watch_run", lambda *_: "failed")
    monkeypatch.setattr(first_night, "print_failure", lambda *_: sys.stdout.write("the end of its log"))
    monkeypatch.setattr(ScriptedAirflow, "runs", [])
    return ScriptedAirflow


def test_a_night_without_a_cluster_is_red_and_the_next_call_begins_another(
    preflight: Preflight, run: Run, red: type[ScriptedAirflow], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(DeploymentFailed, match="created no cluster: EMR refused"):
        run()
    assert "the end of its log" in capsys.readouterr().out
    red.runs[0] = first = red.runs[0].replace("first_night__2", "first_night__1")  # this second is another one's
    [note] = (tmp_path / "night").glob("*/run_id")
    note.write_text(first)
    with pytest.raises(DeploymentFailed):
        run()
    assert len(red.runs) == 2
    assert "buckets: none" in destroy(preflight.deployment)


def test_a_red_night_leaves_its_evidence_and_is_destroyed_on_request_only(
    preflight: Preflight,
    run: Run,
    red: type[ScriptedAirflow],
    aws: Aws,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    deployment = preflight.deployment
    settings = deployment.deploy(preflight.parameters)
    red.cluster_id = aws.client("emr").run_job_flow(
        Name="red", ReleaseLabel="emr-spark-8.0.0", ServiceRole=settings["ServiceRole"],
        JobFlowRole=settings["InstanceProfile"], Applications=[{"Name": "Spark"}],
        Instances={"InstanceFleets": [PRIMARY]},
    )["JobFlowId"]  # fmt: skip
    monkeypatch.setattr(command_line, "_deployment", lambda _: deployment)
    monkeypatch.setattr(command_line, "first_night", lambda _: run())
    call = ["first-night", "--destroy", *(f"--parameter={key}={value}" for key, value in preflight.parameters.items())]
    assert command_line.main(call) == 1
    assert read_evidence(tmp_path)["state"] == "failed"
    assert deployment.describe(), "a red night is not destroyed: its logs say why"
    monkeypatch.setattr(command_line, "first_night", lambda _: 0)
    assert command_line.main(call) == 0
    assert deployment.describe() is None


# ---- what is measured, without a night -----------------------------------------------------------------------------


def test_logs_nodes_and_network_answer_what_documentation_leaves_open(
    tmp_path: Path, deployment_id: str, databases: dict[str, str]
) -> None:
    server = Server(tmp_path)
    deployment = Deployment(Account(server), deployment_id, lambda _: None, lambda _: True, poll_s=0.05)
    server.make_account()
    lake = deployment.deploy(databases)["LakeBucket"]
    cluster_id = server.run_job_flow(LogUri=f"s3://{lake}/logs/")
    server.reach(cluster_id, "WAITING")
    server.step_reaches(cluster_id, server.add_step(cluster_id, "true"), "COMPLETED")
    server.client("emr").terminate_job_flows(JobFlowIds=[cluster_id])
    server.reach(cluster_id, "TERMINATED")
    log = gzip.compress(b"bootstrap.sh: python3.11 comes from the repository of the image\n")
    key = f"logs/{cluster_id}/node/i-1/bootstrap-actions/1/stdout.gz"
    server.client("s3").put_object(Bucket=lake, Key=key, Body=log)
    ec2 = server.client("ec2")
    [vpc] = ec2.describe_vpcs(Filters=[{"Name": "tag:deployment", "Values": [deployment_id]}])["Vpcs"]
    group = ec2.create_security_group(GroupName="ElasticMapReduce-Core", Description="x", VpcId=vpc["VpcId"])["GroupId"]
    ec2.create_tags(Resources=[group], Tags=[{"Key": "for-use-with-amazon-emr-managed-policies", "Value": "true"}])
    run = RunRecord(
        state="succeeded",
        cluster=ClusterFacts(id=cluster_id, vcpus=4),
        images=ImageCounts(loaded=90, rejected=10),
        seconds=StageSeconds(load_images=10.0, featurize=15.0, cluster_start=90.0),
    )
    content = collect(deployment, server.client("emr"), run, [])
    assert server.stop() == 0
    assert content["images_per_s_per_vcpu"] == 1.0
    assert content["start_up_minutes"] == 1.5
    assert content["log_delay_s"] is not None
    assert [node["market"] for node in content["nodes"]] == ["ON_DEMAND"]
    assert content["answers"]["Python 3.11 before the applications"] == ["comes from the repository of the image"]
    assert content["answers"]["encryption of the logs"] == ["aws:kms"]
    assert content["answers"]["what EMR leaves in the network"] == ["ElasticMapReduce-Core"]


def night(**values: Any) -> dict[str, Any]:
    return {
        "state": "succeeded", "simulated": False, "fixed_minutes": 11.5,
        "arn": "arn:aws:iam::123456789012:role/x", **values,
    }  # fmt: skip


def test_measured_minutes_replace_the_assumed_ones_and_the_account_is_masked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster_file = tmp_path / "cluster.yaml"
    cluster_file.write_text(CLUSTER_FILE.read_text())
    monkeypatch.setattr(evidence, "EVIDENCE", tmp_path / "docs" / "first_night.json")
    text = cluster_file.read_text()  # with the profile demo as the second
    for name, other in (("demo", "first"), ("nightly", "demo"), ("first", "nightly")):
        text = text.replace(f"\n  {name}:\n", f"\n  {other}:\n")
    cluster_file.write_text(text)
    before = load_profile("nightly", cluster_file)
    path = write(night(), tmp_path, "123456789012", cluster_file)
    assert path == evidence.EVIDENCE
    assert "123456789012" not in path.read_text()
    assert load_profile("demo", cluster_file).fixed_minutes == 11.5
    assert load_profile("nightly", cluster_file) == before


@pytest.mark.parametrize("values", [{"simulated": True}, {"state": "failed"}])
def test_a_night_of_the_emulator_or_a_red_one_measures_nothing(tmp_path: Path, values: dict[str, Any]) -> None:
    cluster_file = tmp_path / "cluster.yaml"
    cluster_file.write_text(CLUSTER_FILE.read_text())
    assert write(night(**values), tmp_path, "123456789012", cluster_file) == tmp_path / "first_night.json"
    assert cluster_file.read_text() == CLUSTER_FILE.read_text()
