"""YARN's daemons of a cluster, without a process; tests/e2e/test_yarn.py has the real ones."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest
import requests

from local_aws.clients import Clients
from local_aws.credentials import Credentials
from local_aws.emr.cluster import Cluster
from local_aws.emr.execution import command, yarn
from local_aws.emr.execution.runtime import SITES, Node, Runtime, StepDone
from local_aws.emr.steps import Step
from local_aws.settings import Settings

TYPES = {"MASTER": "m7g.xlarge", "CORE": "m7g.xlarge", "TASK": "c7g.2xlarge"}
LABELS = {"yarn.node-labels.enabled": "true", "yarn.nodemanager.vmem-check-enabled": "<&>"}


class Daemon:
    """A step that runs until it is stopped, or ends when a test says so."""

    all: list[Daemon] = []  # noqa: RUF012

    def __init__(self, node: Node, step: Step, done: StepDone) -> None:
        self.args, self.done, self.is_stopped = step.config["HadoopJarStep"]["Args"], done, False
        self.env = node.environment(step.id)
        Daemon.all.append(self)

    def stop(self, *, at_once: bool) -> None:
        self.is_stopped = at_once

    def join(self, timeout: float) -> None:
        """Return at once."""


class Store(Clients):
    """An S3 that keeps what is put."""

    objects: dict[str, bytes] = {}  # noqa: RUF012

    def get(self, service: str, region: str) -> Any:
        return self

    def put_object(self, **request: Any) -> None:
        self.objects[f"{request['Bucket']}/{request['Key']}"] = request["Body"]


class Replies:
    """A ResourceManager's REST API: how many nodes run at each call, and what was posted."""

    def __init__(self, *nodes: int | Exception) -> None:
        self.nodes, self.posted = list(nodes), {}

    def __call__(self, method: str, url: str, json: Any, timeout: float) -> Replies:
        if method == "POST":
            self.posted[url.rpartition("/")[2]] = json
        elif isinstance(self.nodes[0], Exception):
            raise self.nodes.pop(0)
        return self

    def raise_for_status(self) -> None:
        """Do nothing."""

    def json(self) -> Any:
        return {"nodes": [{}] * self.nodes.pop(0)}


def cluster_in(folder: Path, *roles: str, master: str = "yarn") -> Cluster:
    Daemon.all.clear()
    settings = Settings(state_dir=folder, master=master, start_seconds=0, bootstrap_seconds=0, terminate_seconds=0)
    fleets = [
        {
            "InstanceFleetType": role,
            "TargetOnDemandCapacity": roles.count(role),
            "InstanceTypeConfigs": [{"InstanceType": TYPES[role]}],
        }
        for role in dict.fromkeys(roles)
    ]
    request = {
        "Name": "test",
        "ReleaseLabel": "emr-spark-8.0.0",
        "LogUri": "s3://lake/logs/",
        "Instances": {"InstanceFleets": fleets, "KeepJobFlowAliveWhenNoSteps": True},
        "Configurations": [{"Classification": "yarn-site", "Properties": LABELS}],
    }
    runtime = Runtime(settings, Store("http://127.0.0.1:1", Credentials.random()), Daemon)
    return Cluster(request, runtime, "eu-west-1", "arn:aws:elasticmapreduce:eu-west-1:1")


def daemons_of(cluster: Cluster) -> yarn.Yarn:
    return cluster._yarn


def test_a_resource_manager_and_a_node_manager_for_each_worker_with_the_sizes_of_its_type(tmp_path: Path) -> None:
    cluster = cluster_in(tmp_path, "MASTER", "CORE", "TASK", "TASK")
    daemons_of(cluster).start()
    block = Daemon.all[0].env["YARN_PRIMARY"].rpartition(".")[0]
    assert block.startswith("127.")
    started = [
        (args[args.index("bash") + 2], sorted(arg for arg in args if arg.startswith("YARN_NODE")))
        for args in (daemon.args for daemon in Daemon.all)
    ]
    assert started == [
        ("ResourceManager", [f"YARN_NODE={block}.4"]),
        ("NodeManager", [f"YARN_NODE={block}.5", "YARN_NODE_MB=12288", "YARN_NODE_VCORES=4"]),
        ("NodeManager", [f"YARN_NODE={block}.6", "YARN_NODE_MB=12288", "YARN_NODE_VCORES=8"]),
        ("NodeManager", [f"YARN_NODE={block}.7", "YARN_NODE_MB=12288", "YARN_NODE_VCORES=8"]),
    ]


def test_a_single_node_runs_executors_on_its_primary_node(tmp_path: Path) -> None:
    daemons_of(cluster_in(tmp_path, "MASTER")).start()
    assert [daemon.args[-2] for daemon in Daemon.all] == ["ResourceManager", "NodeManager"]


def test_without_yarn_there_is_no_daemon_and_nothing_to_wait_for(tmp_path: Path) -> None:
    daemons = daemons_of(cluster_in(tmp_path, "MASTER", "CORE", master="local[2]"))
    daemons.start()
    assert daemons.is_ready()
    assert Daemon.all == []


def test_the_configurations_of_the_cluster_replace_the_sites_own(tmp_path: Path) -> None:
    cluster = cluster_in(tmp_path, "MASTER", "CORE")
    daemons_of(cluster).start()
    folder = Path(Daemon.all[0].env["HADOOP_CONF_DIR"])
    sites = {
        path.stem: {item.findtext("name"): item.findtext("value") for item in ET.parse(path).getroot()}
        for path in folder.glob("*.xml")
    }
    assert sites["yarn-site"] == SITES["yarn-site"] | LABELS
    assert sites["core-site"] == SITES["core-site"]


def test_no_web_page_that_rebinds_its_name_submits_a_command() -> None:
    """The ResourceManager answers to any Host and asks nobody who he is."""
    assert SITES["yarn-site"]["yarn.webapp.enable-rest-app-submissions"] == "false"


def test_what_a_container_needs_of_the_environment_is_on_the_whitelist(tmp_path: Path) -> None:
    cluster = cluster_in(tmp_path, "MASTER")
    daemons_of(cluster).start()
    listed = set(SITES["yarn-site"]["yarn.nodemanager.env-whitelist"].split(","))
    environment = Daemon.all[0].env
    assert {name for name in environment if name.startswith("AWS_")} <= listed
    assert {"YARN_PRIMARY", "TMPDIR", "SPARK_LOCAL_IP", "PATH"} <= listed & environment.keys()
    # An application master works out what its executors get, and reads these values for it.
    assert set(re.findall(r"\$\{env:(\w+)\}", " ".join(SITES["spark-defaults"].values()))) <= listed


def test_a_cluster_is_ready_when_all_nodes_run_and_core_nodes_have_their_label(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    daemons = daemons_of(cluster_in(tmp_path, "MASTER", "CORE", "TASK"))
    daemons.start()
    replies = Replies(requests.ConnectionError(), 0, 1, 2)
    monkeypatch.setattr(requests, "request", replies)
    assert [daemons.is_ready() for _ in range(3)] == [False, False, False]
    assert replies.posted == {}
    assert daemons.is_ready()
    host = Daemon.all[0].env["YARN_PRIMARY"].removesuffix("4") + "5"
    assert replies.posted == {
        "add-node-labels": {"nodeLabelsInfo": [{"name": "CORE", "exclusivity": False}]},
        "replace-node-to-labels": {"nodeToLabels": [{"nodeId": f"{host}:8041", "nodeLabels": ["CORE"]}]},
    }


def test_a_daemon_that_ends_fails_the_bootstrap_with_its_own_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Store, "head_object", lambda *_, **__: None, raising=False)

    class Broken(Daemon):
        def __init__(self, node: Node, step: Step, done: StepDone) -> None:
            super().__init__(node, step, done)
            done(1, "java.net.BindException: Address already in use")

    cluster = cluster_in(tmp_path, "MASTER")
    object.__setattr__(cluster._node.runtime, "run_step", Broken)
    cluster.start()
    cluster.join(10)
    assert cluster.reason["Code"] == "BOOTSTRAP_FAILURE"
    assert "NodeManager on 127." in cluster.reason["Message"]
    assert "BindException: Address already in use" in cluster.reason["Message"]
    assert all(daemon.is_stopped for daemon in Daemon.all)


def test_the_logs_of_containers_go_where_emr_writes_them(tmp_path: Path) -> None:
    cluster = cluster_in(tmp_path, "MASTER")
    daemons = daemons_of(cluster)
    daemons.start()
    folder = Path(Daemon.all[0].env["HADOOP_CONF_DIR"], "127.1.1.5", "application_1_0001", "container_1_0001_01_000002")
    folder.mkdir(parents=True)
    (folder / "stderr").write_text("an executor's last words")
    (folder / "launch_container.sh").write_text("export AWS_SECRET_ACCESS_KEY=secret")
    daemons.stop(1)
    assert all(daemon.is_stopped for daemon in Daemon.all)
    key = f"lake/logs/{cluster.id}/containers/application_1_0001/container_1_0001_01_000002/stderr.gz"
    assert {name for name in Store.objects if f"/{cluster.id}/" in name} == {key}
    assert SITES["yarn-site"]["yarn.nodemanager.log-container-debug-info.enabled"] == "false"


def test_on_yarn_the_arguments_of_a_step_arrive_unchanged() -> None:
    args = ["spark-submit", "--deploy-mode", "client", "--py-files", "s3://lake/fruits.zip", "s3://lake/job.py", "--x"]
    installation = command.SparkInstallation(
        spark_submit="/spark/bin/spark-submit",
        python="/python",
        master="yarn",
        ui_port=0,
        endpoint="http://127.0.0.1:1",
        region="eu-west-1",
        defaults={"spark.yarn.jars": "local:/jars/*", "spark.yarn.maxAppAttempts": "1"},
    )
    defaults = {"spark.yarn.maxAppAttempts": "2", "spark.default.parallelism": "4"}
    configurations = [{"Classification": "spark-defaults", "Properties": defaults}]

    def refuse(uri: str) -> Path:
        raise AssertionError(f"{uri} is Spark's to fetch")

    argv = command.build("command-runner.jar", args, configurations, installation, refuse).argv
    assert argv[:3] == ["/spark/bin/spark-submit", "--master", "yarn"]
    assert argv[-4:] == ["--py-files", "s3://lake/fruits.zip", "s3://lake/job.py", "--x"]
    conf = {argv[at + 1] for at, arg in enumerate(argv) if arg == "--conf"}
    assert {"spark.yarn.jars=local:/jars/*", "spark.yarn.maxAppAttempts=2", "spark.default.parallelism=4"} <= conf
