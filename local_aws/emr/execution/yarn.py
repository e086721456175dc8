"""YARN's daemons of a cluster: a ResourceManager, and a NodeManager for each instance that runs executors.

They run as steps do, below the supervisor, so that no container outlives them, the cluster or this server. Each node
has an address of its own in 127.0.0.0/8. The scheduler counts the memory and the cores of the instance types; processes
use what this machine has.
"""

import logging
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import requests

from local_aws.emr import releases
from local_aws.emr.execution import command
from local_aws.emr.execution.bootstrap import BootstrapError
from local_aws.emr.execution.runtime import SITES, Node, StepProcess
from local_aws.emr.instances import Fleet
from local_aws.emr.steps import Step

log = logging.getLogger(__name__)


class Yarn:
    """The daemons of one cluster, given its primary node and its fleets; none where steps run without YARN."""

    def __init__(self, node: Node, fleets: Sequence[Fleet]) -> None:
        self._node, self._folder = node, node.folder("yarn")
        machines = [(fleet.role, machine) for fleet in fleets for machine in fleet.instances]
        workers = [worker for worker in machines if worker[0] != "MASTER"] or machines
        self._workers = workers if node.runtime.settings.master == command.YARN else []
        configured = command.properties(node.classifications)
        self._sites = {name: properties | configured.get(name, {}) for name, properties in SITES.items()}
        self._daemons: list[StepProcess] = []
        self._failure = ""

    def start(self) -> None:
        """Start the daemons and return at once."""
        if not self._workers:
            return
        for name, properties in self._sites.items():
            pairs = [f"<name>{escape(key)}</name><value>{escape(value)}</value>" for key, value in properties.items()]
            site = "".join(f"<property>{pair}</property>\n" for pair in pairs)
            self._folder.mkdir(parents=True, exist_ok=True)
            (self._folder / f"{name}.xml").write_text(f"<configuration>{site}</configuration>", encoding="utf-8")
        self._start("ResourceManager", self._node.host(0), 384)
        types = releases.instance_types(self._node.request["ReleaseLabel"])
        for _, machine in self._workers:
            gib = math.ceil(types[machine.instance_type]["MemoryGB"])  # 15.25 of 16 in the snapshot
            memory_mb = int(1024 * (gib - min(gib / 4, 8)))  # as EMR: the rest is the system's
            sizes = (f"YARN_NODE_MB={memory_mb}", f"YARN_NODE_VCORES={types[machine.instance_type]['VCPU']}")
            self._start("NodeManager", self._node.host(machine.address), 256, *sizes)

    def _start(self, daemon: str, host: str, heap_mb: int, *variables: str) -> None:
        argv = ["env", f"YARN_NODE={host}", f"SPARK_LOCAL_IP={host}", *variables]
        argv += ["bash", str(Path(__file__).with_name("yarn.sh")), daemon, str(heap_mb)]
        config = {"Name": daemon, "HadoopJarStep": {"Jar": command.COMMAND_RUNNER, "Args": argv}}
        step = Step(config, self._node.runtime.clock.now(), f"{daemon}-{host}")

        def ended(status: int | None, reason: str) -> None:
            self._failure = f"The {daemon} on {host} ended with {status}: {reason} (see {self._node.folder(step.id)})"

        self._daemons.append(self._node.runtime.run_step(self._node, step, ended))

    def is_ready(self) -> bool:
        """Whether the ResourceManager knows all nodes; label the core nodes then, as EMR does where labels are on.

        Raises:
            BootstrapError: A daemon has ended.
        """
        if not self._workers:
            return True
        if self._failure:
            raise BootstrapError(self._failure)
        try:
            nodes = self._call("nodes?states=RUNNING")["nodes"]
        except (OSError, ValueError):
            return False  # it does not listen yet, or is not active
        if len(nodes) < len(self._workers):
            return False
        if self._sites["yarn-site"].get("yarn.node-labels.enabled") == "true":
            core = [self._node.host(machine.address) for role, machine in self._workers if role == "CORE"]
            self._call("add-node-labels", {"nodeLabelsInfo": [{"name": "CORE", "exclusivity": False}]})
            labels = [{"nodeId": f"{host}:8041", "nodeLabels": ["CORE"]} for host in core]
            self._call("replace-node-to-labels", {"nodeToLabels": labels})
        return True

    def _call(self, path: str, body: dict[str, Any] | None = None) -> Any:
        url = f"http://{self._node.host(0)}:8088/ws/v1/cluster/{path}"
        reply = requests.request("POST" if body else "GET", url, json=body, timeout=10)
        reply.raise_for_status()
        return reply.json() if body is None else None

    def stop(self, seconds: float) -> None:
        """End the daemons with their containers, and write the containers' logs to S3 as EMR does."""
        for daemon in self._daemons:
            daemon.stop(at_once=True)
        for daemon in self._daemons:
            daemon.join(seconds)
        for folder in self._folder.glob("*/application_*/container_*"):
            files = {name: folder / name for name in ("stdout", "stderr")}
            if problem := self._node.logs.ship(f"containers/{folder.parent.name}/{folder.name}", files):
                log.warning("%s", problem)
