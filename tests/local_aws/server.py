"""A `local_aws` process for tests, and an account in it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import boto3
import psutil
from botocore.config import Config

from tests.aws_keys import FOR_CLIENT, FOR_SERVER, signing

REPOSITORY = Path(__file__).resolve().parents[2]
SPARK_PYTHON = REPOSITORY / ".venv-spark" / "bin" / "python"
REGION = "eu-west-1"
SERVICE_ROLE, INSTANCE_PROFILE = "emr-service", "emr-node"
PRIMARY = {
    "InstanceFleetType": "MASTER",
    "TargetOnDemandCapacity": 1,
    "InstanceTypeConfigs": [{"InstanceType": "m5.xlarge"}],
}
TRUST = json.dumps({"Version": "2012-10-17", "Statement": []})


def command(state_dir: Path, *options: str, module: str = "tests.emulator") -> list[str]:
    return [
        *(sys.executable, "-m", module, "--port", "0", "--state-dir", str(state_dir)),
        *("--start-seconds", "0.2", "--bootstrap-seconds", "0.2", "--terminate-seconds", "0.2"),
        *("--kill-seconds", "2", "--idle-scale", "0.005", "--ui-port", "0", *options),
    ]


def tables_in_glue(**more: str) -> list[dict[str, Any]]:
    """Return Configurations whose catalog `lake` is Iceberg over Glue; `more` are further defaults of Spark."""
    catalog = {
        "spark.sql.extensions": "org.apache.iceberg.spark.extensions.IcebergSparkSessionExtensions",
        "spark.sql.catalog.lake": "org.apache.iceberg.spark.SparkCatalog",
        "spark.sql.catalog.lake.type": "glue",
        "spark.sql.catalog.lake.cache-enabled": "false",
        "spark.sql.catalog.lake.io-impl": "org.apache.iceberg.aws.s3.S3FileIO",
        "spark.sql.catalog.lake.warehouse": "s3://lake/tables",
    }
    return [
        {"Classification": "iceberg-defaults", "Properties": {"iceberg.enabled": "true"}},
        {"Classification": "spark-defaults", "Properties": catalog | more},
    ]


def until(ready: Callable[[], Any], seconds: float = 20.0) -> Any:
    """Wait for a true result and return it."""
    deadline = time.monotonic() + seconds
    while not (result := ready()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"no result after {seconds} s")
        time.sleep(0.03)
    return result


class Server:
    """A running server."""

    def __init__(
        self,
        state_dir: Path,
        *options: str,
        environment: Mapping[str, str] = FOR_SERVER,
        module: str = "tests.emulator",
    ) -> None:
        self.state_dir = state_dir
        self.process = subprocess.Popen(
            command(state_dir, *options, module=module),
            cwd=REPOSITORY,
            env={**os.environ, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(self.process.communicate()[1])
        self.endpoint = line.split()[-1]
        self._clients: dict[tuple[str, str], Any] = {}

    @property
    def port(self) -> int:
        return int(self.endpoint.rsplit(":", 1)[1])

    def client(self, service: str, region: str = REGION, keys: Mapping[str, str] = FOR_CLIENT) -> Any:
        if (service, region) not in self._clients:
            self._clients[service, region] = boto3.client(  # type: ignore[call-overload]  # a name at run time
                service,
                endpoint_url=self.endpoint,
                region_name=region,
                **keys,
                config=Config(retries={"total_max_attempts": 1}, max_pool_connections=40, **signing(service)),
            )
        return self._clients[service, region]

    def make_account(self) -> None:
        """Create roles, an instance profile and a bucket for logs."""
        iam = self.client("iam")
        for role in (SERVICE_ROLE, INSTANCE_PROFILE):
            iam.create_role(RoleName=role, AssumeRolePolicyDocument=TRUST)
        iam.create_instance_profile(InstanceProfileName=INSTANCE_PROFILE)
        iam.add_role_to_instance_profile(InstanceProfileName=INSTANCE_PROFILE, RoleName=INSTANCE_PROFILE)
        self.make_bucket("lake")

    def make_bucket(self, name: str) -> str:
        self.client("s3").create_bucket(Bucket=name, CreateBucketConfiguration={"LocationConstraint": REGION})
        return name

    def access_log(self) -> list[dict[str, Any]]:
        lines = (self.state_dir / "access.jsonl").read_text().splitlines()
        return [json.loads(line) for line in lines]

    # EMR

    def run_job_flow(self, **changes: Any) -> str:
        """Start a cluster that stays; `Instances` in `changes` is merged into the default."""
        instances = {"InstanceFleets": [PRIMARY], "KeepJobFlowAliveWhenNoSteps": True} | changes.pop("Instances", {})
        request = {
            "Name": "test",
            "ReleaseLabel": "emr-spark-8.0.0",
            "LogUri": "s3://lake/logs/",
            "ServiceRole": SERVICE_ROLE,
            "JobFlowRole": INSTANCE_PROFILE,
            "Applications": [{"Name": "Spark"}],
            "Instances": instances,
        } | changes
        parameters = {name: value for name, value in request.items() if value is not None}
        return str(self.client("emr").run_job_flow(**parameters)["JobFlowId"])

    def cluster(self, cluster_id: str) -> dict[str, Any]:
        return dict(self.client("emr").describe_cluster(ClusterId=cluster_id)["Cluster"])

    def state(self, cluster_id: str) -> str:
        return str(self.cluster(cluster_id)["Status"]["State"])

    def reach(self, cluster_id: str, *states: str, seconds: float = 20.0) -> dict[str, Any]:
        """Wait until the cluster is in one of the states and return its Status."""
        until(lambda: self.state(cluster_id) in states, seconds)
        return dict(self.cluster(cluster_id)["Status"])

    def add_step(self, cluster_id: str, *args: str, on_failure: str = "CONTINUE", name: str = "step") -> str:
        steps = self.client("emr").add_job_flow_steps(JobFlowId=cluster_id, Steps=[step(*args, on_failure=on_failure)])
        return str(steps["StepIds"][0])

    def step(self, cluster_id: str, step_id: str) -> dict[str, Any]:
        return dict(self.client("emr").describe_step(ClusterId=cluster_id, StepId=step_id)["Step"]["Status"])

    def step_reaches(self, cluster_id: str, step_id: str, *states: str, seconds: float = 20.0) -> dict[str, Any]:
        """Wait until the step is in one of the states and return its Status."""
        until(lambda: self.step(cluster_id, step_id)["State"] in states, seconds)
        return self.step(cluster_id, step_id)

    def step_log(self, cluster_id: str, step_id: str, name: str) -> str:
        import gzip

        key = f"logs/{cluster_id}/steps/{step_id}/{name}.gz"
        return gzip.decompress(self.client("s3").get_object(Bucket="lake", Key=key)["Body"].read()).decode()

    # its end

    def stop(self, number: int = signal.SIGTERM, seconds: float = 20.0) -> int:
        """Send a signal, wait, and return the exit status."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        self.process.communicate(timeout=seconds)
        return self.process.returncode


def step(*args: str, on_failure: str = "CONTINUE", name: str = "step") -> dict[str, Any]:
    """Return a `StepConfig` that runs a command."""
    return {
        "Name": name,
        "ActionOnFailure": on_failure,
        "HadoopJarStep": {"Jar": "command-runner.jar", "Args": list(args)},
    }


def alive(pid: int) -> bool:
    """Whether a process runs (a zombie does not)."""
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def environment_without(*names: str) -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name not in names}
