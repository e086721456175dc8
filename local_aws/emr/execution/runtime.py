"""What the clusters of this server run with, and what the steps of one cluster run with."""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import yaml

from local_aws.clients import Clients
from local_aws.emr.clock import Clock
from local_aws.emr.execution import command
from local_aws.emr.execution.logs import LogFolder
from local_aws.emr.hooks import Hooks
from local_aws.emr.steps import Step
from local_aws.settings import Settings

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

SITES = command.properties(yaml.safe_load(Path(__file__).with_name("yarn.yaml").read_text(encoding="utf-8")))
"""The properties of a node's site files where steps run on YARN, by classification."""
_ICEBERG_JARS = ("iceberg-spark-runtime-*.jar", "iceberg-aws-bundle-*.jar")
# Written by dev/class_archive.py for a class path of these jars in this order.
_CLASS_ARCHIVE = "spark.jsa"


class StepProcess(Protocol):
    """A step that runs."""

    def stop(self, *, at_once: bool) -> None:
        """End the step without waiting for its end: SIGTERM, then SIGKILL; only SIGKILL if `at_once`."""

    def join(self, timeout: float) -> None:
        """Wait at most `timeout` seconds until no process of the step is left."""


StepDone = Callable[[int | None, str], None]
"""Takes a step's exit status (None when nothing was started) and the reason of a failure."""
StepRunner = Callable[["Node", Step, StepDone], StepProcess]
"""Starts a step, and calls `StepDone` in another thread when the step has ended."""


@dataclass(frozen=True)
class Runtime:
    """What all clusters of a server share."""

    settings: Settings  # settings of the server
    clients: Clients  # clients of this server's own API
    run_step: StepRunner  # starts the process of a step
    hooks: Hooks = field(default_factory=Hooks)  # change the life of clusters, for tests
    clock: Clock = field(default_factory=Clock)  # the time that clusters go by


@dataclass(frozen=True)
class Node:
    """The primary node of a cluster, where its steps run."""

    runtime: Runtime  # what all clusters share
    cluster_id: str  # id of the cluster
    region: str  # region of the cluster
    request: dict[str, Any]  # parameters of the cluster's RunJobFlow request

    @property
    def cluster_name(self) -> str:
        """Name of the cluster."""
        return str(self.request["Name"])

    @property
    def classifications(self) -> list[dict[str, Any]]:
        """The cluster's `Configurations`."""
        return self.request.get("Configurations") or []

    @property
    def s3(self) -> S3Client:
        """Client of this server's own S3."""
        client: S3Client = self.runtime.clients.get("s3", self.region)
        return client

    @cached_property
    def logs(self) -> LogFolder:
        """Where the cluster's logs go."""
        return LogFolder(self.s3, self.request.get("LogUri"), self.cluster_id)

    def folder(self, step_id: str) -> Path:
        """Return the folder of a step's logs."""
        return self.runtime.settings.state_dir / "clusters" / self.cluster_id / "steps" / step_id

    def scratch(self, step_id: str) -> Path:
        """Return the folder of a step's temporary files."""
        return self.runtime.settings.state_dir / "tmp" / step_id

    def host(self, number: int) -> str:
        """Return the loopback address of a machine of the cluster; 0 is the primary node."""
        block = zlib.crc32(self.cluster_id.encode())
        return f"127.{block % 254 + 1}.{block // 254 % 256}.{number + 4}"

    def spark(self) -> command.SparkInstallation:
        """Return the Spark that runs the steps."""
        settings = self.runtime.settings
        jars = [sorted(settings.jars_dir.rglob(pattern)) for pattern in _ICEBERG_JARS]
        archive = settings.jars_dir / _CLASS_ARCHIVE
        python = settings.spark_python
        # the script beside Spark's jars; that beside Python fails below a folder with a space in its name
        scripts = python.parents[1].glob("lib/python3*/site-packages/pyspark/bin/spark-submit")
        spark_submit = settings.spark_submit or next(scripts, python.with_name("spark-submit"))
        return command.SparkInstallation(
            spark_submit=str(spark_submit),
            python=str(python),
            master=settings.master,
            ui_port=settings.ui_port,
            endpoint=self.runtime.clients.endpoint,
            region=self.region,
            iceberg_jars=tuple(str(versions[-1]) for versions in jars) if all(jars) else (),
            class_archive=str(archive) if archive.is_file() else None,
            defaults=SITES["spark-defaults"] if settings.master == command.YARN else {},
        )

    def environment(self, step_id: str) -> dict[str, str]:
        """Return the environment of a step: this server's AWS, this machine's Python and Java."""
        settings, clients, scratch = self.runtime.settings, self.runtime.clients, str(self.scratch(step_id))
        python = str(settings.spark_python)
        path = [str(settings.spark_python.parent), os.environ.get("PATH", os.defpath)]
        java: dict[str, str] = {}
        if settings.java_home is not None:
            java = {"JAVA_HOME": str(settings.java_home)}
            path.insert(0, str(settings.java_home / "bin"))
        elif "JAVA_HOME" in os.environ:
            java = {"JAVA_HOME": os.environ["JAVA_HOME"]}
        yarn: dict[str, str] = {}
        if settings.master == command.YARN:
            spark = self.spark()
            yarn = {
                "HADOOP_CONF_DIR": str(self.folder("yarn")),  # also has the containers' logs
                "JARS": str(settings.jars_dir),
                "SPARK_JARS": str(Path(spark.spark_submit).parents[1] / "jars"),
                # with the AWS SDK of Iceberg's bundle
                "SPARK_DIST_CLASSPATH": os.pathsep.join([f"{settings.jars_dir}/yarn/*", *spark.iceberg_jars[1:]]),
                "PYSPARK_ARCHIVES_PATH": f"local:{Path(spark.spark_submit).parents[2]}",  # in place of zip files
                "YARN_PRIMARY": self.host(0),
            }
        return {
            "LC_ALL": "C.UTF-8",  # Java takes the encoding of file names from it
            **command.exports(self.classifications),
            **java,
            **yarn,
            "PATH": os.pathsep.join(path),
            "HOME": scratch,
            "TMPDIR": scratch,
            "SPARK_LOCAL_DIRS": scratch,
            # the JVM does not look at TMPDIR
            "SPARK_SUBMIT_OPTS": f'"-Djava.io.tmpdir={scratch}"',
            "SPARK_LOCAL_IP": "127.0.0.1",
            "PYSPARK_PYTHON": python,
            "PYSPARK_DRIVER_PYTHON": python,
            "AWS_ENDPOINT_URL": clients.endpoint,
            "AWS_ALLOW_HTTP": "true",
            **clients.credentials.environment,
            "AWS_REGION": self.region,
            "AWS_DEFAULT_REGION": self.region,
            "AWS_EC2_METADATA_DISABLED": "true",
            "EMR_CLUSTER_ID": self.cluster_id,
            "EMR_STEP_ID": step_id,
        }
