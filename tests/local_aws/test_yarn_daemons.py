"""Real daemons of YARN: they end with their server, and say why they cannot start (`make test-yarn` has the jars)."""

from __future__ import annotations

import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
import requests

from local_aws.emr.execution.runtime import Node
from tests.local_aws.server import PRIMARY, REPOSITORY, Server, until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]
SECONDS = 300
ON_ONE_NODE = {"InstanceFleets": [{**PRIMARY, "InstanceTypeConfigs": [{"InstanceType": "m7g.xlarge"}]}]}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    java = (REPOSITORY / ".cache/ready/java_home").read_text().strip()
    options = ("--master", "yarn", "--java-home", java, "--start-seconds", "10")
    server = Server(tmp_path, *options, module="local_aws")
    server.make_account()
    yield server
    server.stop()


def daemons(folder: Path) -> list[psutil.Process]:
    """The processes that were started below a state directory."""
    processes = []
    for process in psutil.process_iter():
        try:
            if str(folder) in process.environ().get("HADOOP_CONF_DIR", ""):
                processes.append(process)
        except psutil.Error:
            continue
    return processes


def test_no_daemon_outlives_a_server_that_is_killed(server: Server) -> None:
    cluster_id = server.run_job_flow(Instances={**ON_ONE_NODE, "KeepJobFlowAliveWhenNoSteps": True})
    assert server.reach(cluster_id, "WAITING", "TERMINATED_WITH_ERRORS", seconds=SECONDS)["State"] == "WAITING"
    started = daemons(server.state_dir)
    assert {argument for process in started for argument in process.cmdline()} >= {
        "org.apache.hadoop.yarn.server.resourcemanager.ResourceManager",
        "org.apache.hadoop.yarn.server.nodemanager.NodeManager",
    }
    addresses = {listener.laddr.ip for process in started for listener in process.net_connections("tcp")}
    assert all(address.removeprefix("::ffff:").startswith("127.") for address in addresses)
    primary = Node.host(SimpleNamespace(cluster_id=cluster_id), 0)  # type: ignore[arg-type]
    page = {"Host": "evil.example:8088", "Origin": "http://evil.example:8088"}
    url = f"http://{primary}:8088/ws/v1/cluster/apps/new-application"
    assert requests.post(url, headers=page, timeout=60).status_code == 403, "a web page may submit a command"
    server.stop(signal.SIGKILL)
    until(lambda: not daemons(server.state_dir), SECONDS)


def test_a_port_that_is_taken_fails_the_cluster_with_a_line_that_names_it(server: Server) -> None:
    cluster_id = server.run_job_flow(Instances={**ON_ONE_NODE, "KeepJobFlowAliveWhenNoSteps": True})
    with socket.socket() as other:  # before the daemons, which start after --start-seconds
        other.bind((Node.host(SimpleNamespace(cluster_id=cluster_id), 0), 8031))  # type: ignore[arg-type]
        other.listen()
        reason = server.reach(cluster_id, "WAITING", "TERMINATED_WITH_ERRORS", seconds=SECONDS)["StateChangeReason"]
    assert reason["Code"] == "BOOTSTRAP_FAILURE"
    assert "ResourceManager on 127." in reason["Message"]
    assert "8031" in reason["Message"]
    assert daemons(server.state_dir) == []
