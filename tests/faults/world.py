"""An account with photos in the AWS emulator, faults to arm in it, and what can be seen of it from outside."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config
from fruits_airflow.config.regions import EU_REGIONS

from tests.aws_keys import FOR_CLIENT, FOR_SERVER, KEYS, control_faults

REPOSITORY = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent
REGION = "eu-west-1"
DAG = "fruits_pipeline"
MODEL = "a" * 64
RAW_PREFIX = "images/"
CANARY = "CANARY-48.8584N-2.2945E"
"""Stands in the metadata of each photo, as GPS would, and must be found nowhere in the lake."""
LIVE = ("STARTING", "BOOTSTRAPPING", "RUNNING", "WAITING", "TERMINATING")


def until(ready: Callable[[], Any], what: str, seconds: float = 60.0, pause: float = 0.05) -> Any:
    """Waits for something true; gives it."""
    deadline = time.monotonic() + seconds
    while not (found := ready()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {seconds:.0f} s for {what}")
        time.sleep(pause)
    return found


@dataclass(frozen=True)
class Run:
    """How a run ended, as Airflow has it."""

    run_id: str
    state: str
    tasks: Mapping[str, str]
    tries: Mapping[str, int] = field(default_factory=dict)
    deployment: str = "faults"


class Aws:
    """A `local_aws` of its own that takes faults.

    Args:
        folder: for its state.
        options: further ones of its command line.
    """

    def __init__(self, folder: Path, *options: str) -> None:
        self.state_dir = folder / "aws"
        jars = folder / "jars"
        jars.mkdir(parents=True, exist_ok=True)
        for name in ("iceberg-spark-runtime-scripted.jar", "iceberg-aws-bundle-scripted.jar"):
            (jars / name).touch()
        scripted = ["--spark-python", sys.executable, "--spark-submit", str(HERE / "spark-submit")]
        command = [
            *(sys.executable, "-m", "tests.emulator", "--port", "0", "--state-dir", str(self.state_dir)),
            *("--start-seconds", "0.3", "--bootstrap-seconds", "0.1", "--kill-seconds", "1"),
            *("--terminate-seconds", "0.2", "--ui-port", "0", "--idle-scale", "0.1", "--threads", "32"),
            *(() if "--spark-python" in options else (*scripted, "--jars-dir", str(jars))),
            *options,
        ]
        self._log = (folder / "local_aws.log").open("w")
        self.process = subprocess.Popen(
            command,
            cwd=REPOSITORY,
            env={**os.environ, **FOR_SERVER},
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError((folder / "local_aws.log").read_text())
        self.endpoint = line.split()[-1]
        self._clients: dict[tuple[str, str], Any] = {}

    def close(self) -> None:
        """Ends the server."""
        self.control("DELETE")
        self.process.terminate()
        self.process.wait(60)
        self._log.close()

    def client(self, service: str, region: str = REGION) -> Any:
        """A client that tries each call once."""
        if (service, region) not in self._clients:
            self._clients[service, region] = boto3.client(  # type: ignore[call-overload]  # a name at run time
                service,
                endpoint_url=self.endpoint,
                region_name=region,
                **FOR_CLIENT,
                config=Config(retries={"total_max_attempts": 1}, max_pool_connections=40),
            )
        return self._clients[service, region]

    def control(self, method: str, path: str = "", body: object = None) -> Any:
        """A request of the private control path."""
        return control_faults(self.endpoint, method, path, body)

    def arm(self, **spec: Any) -> int:
        """Arms a fault; gives its id."""
        return int(self.control("POST", body=spec)["id"])

    def disarm(self, number: int | None = None) -> None:
        """Disarms a fault, or all."""
        self.control("DELETE", "" if number is None else f"/{number}")

    def fault(self, number: int) -> dict[str, Any]:
        """What has become of a fault."""
        return next(one for one in self.control("GET") if one["id"] == number)

    def requests(self) -> list[dict[str, Any]]:
        """The access log."""
        return [json.loads(line) for line in (self.state_dir / "access.jsonl").read_text().splitlines()]

    # what is there

    def keys(self, bucket: str, prefix: str = "") -> list[str]:
        """Keys of a bucket."""
        pages = self.client("s3").get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
        return [one["Key"] for page in pages for one in page.get("Contents", [])]

    def read(self, bucket: str, key: str) -> bytes | None:
        """An object's bytes, or None."""
        s3 = self.client("s3")
        try:
            return bytes(s3.get_object(Bucket=bucket, Key=key)["Body"].read())
        except s3.exceptions.NoSuchKey:
            return None

    def clusters(
        self, name_prefix: str = "fruits/", states: Sequence[str] = (), region: str = REGION
    ) -> list[dict[str, Any]]:
        """Clusters of a region as DescribeCluster shows them, with `Steps`, oldest first."""
        emr = self.client("emr", region)
        pages = emr.get_paginator("list_clusters").paginate(ClusterStates=list(states))
        ids = [c["Id"] for page in pages for c in page["Clusters"] if c["Name"].startswith(name_prefix)]
        found = []
        for one in reversed(ids):
            cluster = emr.describe_cluster(ClusterId=one)["Cluster"]
            steps = [s for page in emr.get_paginator("list_steps").paginate(ClusterId=one) for s in page["Steps"]]
            found.append({**cluster, "Steps": steps[::-1]})
        return found


@dataclass
class Deployment:
    """One deployment in an account: its buckets, its photos, and what its runs left.

    Attributes:
        aws: the account.
        name: its deployment_id.
        photos: number of good photos; three broken ones come on top of every ten.
        outputs: of its stack.
        airflow_homes: folders of the Airflows that have run its DAGs.
        metadata_databases: of these Airflows, as SQLAlchemy's URLs.
    """

    aws: Aws
    name: str = "faults"
    photos: int = 10

    outputs: dict[str, str] = field(default_factory=dict)
    airflow_homes: list[Path] = field(default_factory=list)
    metadata_databases: list[str] = field(default_factory=list)

    @property
    def raw(self) -> str:
        """The input bucket."""
        return self.outputs["RawBucket"]

    @property
    def lake(self) -> str:
        """The lake bucket."""
        return self.outputs["LakeBucket"]

    @property
    def database(self) -> str:
        """Where a nightly run writes."""
        return self.outputs["NightlyDatabase"]

    def environment(self) -> dict[str, str]:
        """What Airflow must see to be this deployment, and nothing of ours."""
        outside = {k: v for k, v in os.environ.items() if not k.startswith(("AWS_", "FRUITS_", "AIRFLOW"))}
        return outside | {
            "AWS_ENDPOINT_URL": self.aws.endpoint,
            **KEYS.environment,
            "AWS_DEFAULT_REGION": REGION,
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_MAX_ATTEMPTS": "4",
            "PYTHONPATH": str(REPOSITORY / "plugins"),
            "FRUITS_DEPLOYMENT_ID": self.name,
            "FRUITS_RAW_BUCKET": self.raw,
            "FRUITS_LAKE_BUCKET": self.lake,
            "FRUITS_MODEL_ID": MODEL,
            "FRUITS_DATABASE": self.database,
            "FRUITS_DEMO_DATABASE": self.outputs["DemoDatabase"],
            "FRUITS_NOTEBOOK_DATABASE": self.outputs["NotebookDatabase"],
            "FRUITS_SERVICE_ROLE": self.outputs["ServiceRole"],
            "FRUITS_INSTANCE_PROFILE": self.outputs["InstanceProfile"],
            "FRUITS_SECURITY_CONFIGURATION": self.outputs["SecurityConfiguration"],
            "FRUITS_SUBNET_ID": self.outputs["SubnetId"],
            "FRUITS_NODE_ENVIRONMENT": "preinstalled",
            "FRUITS_MAX_REJECT_RATE": "0.5",
            "FRUITS_POLL_S": "0.2",
            "FRUITS_LIST_CONSISTENCY_S": "2",
            "FRUITS_LOG_WAIT_S": "5",
            "FRUITS_START_TIMEOUT_MINUTES": "5",
            "FRUITS_STEP_TIMEOUT_MINUTES": "10",
            "FRUITS_TERMINATE_TIMEOUT_MINUTES": "20",
        }

    def create(self) -> None:
        """Deploys the stack; puts the model and the photos."""
        formation, s3 = self.aws.client("cloudformation"), self.aws.client("s3")
        names = {"DeploymentId": self.name, "CreateVpc": "true"}
        suffix = self.name.replace("-", "_")
        names |= {f"{kind}Database": f"fruits_{kind.lower()}_{suffix}" for kind in ("Nightly", "Demo", "Notebook")}
        formation.create_stack(
            StackName=f"fruits-{self.name}",
            TemplateBody=(REPOSITORY / "include" / "stack.yaml").read_text(),
            Parameters=[{"ParameterKey": name, "ParameterValue": value} for name, value in names.items()],
            Capabilities=["CAPABILITY_NAMED_IAM"],
        )
        stack = formation.describe_stacks(StackName=f"fruits-{self.name}")["Stacks"][0]
        if stack["StackStatus"] != "CREATE_COMPLETE":
            raise RuntimeError(f"the stack was not deployed: {stack}")
        self.outputs = {one["OutputKey"]: one["OutputValue"] for one in stack["Outputs"]}
        model = {"model_id": MODEL, "engine": "litert", "file": "model.tflite", "weights": "path"}
        s3.put_object(Bucket=self.lake, Key=f"models/{MODEL}/model.json", Body=json.dumps(model).encode())
        s3.put_object(Bucket=self.lake, Key=f"models/{MODEL}/model.tflite", Body=b"weights")
        self.put_photos()

    def put_photos(self) -> None:
        """Puts the photos, good and broken, as they are at the beginning."""
        s3 = self.aws.client("s3")
        for key in set(self.aws.keys(self.raw)) - self.photo_bodies().keys():
            s3.delete_object(Bucket=self.raw, Key=key)
        for key, body in self.photo_bodies().items():
            s3.put_object(Bucket=self.raw, Key=key, Body=body)

    def photo_bodies(self) -> dict[str, bytes]:
        """The photos by key."""
        good = {
            f"{RAW_PREFIX}Training/Apple {n % 3}/{n}.jpg": json.dumps({"pixels": [n, n * n], "exif": CANARY})
            for n in range(self.photos)
        }
        broken = {f"{RAW_PREFIX}broken/{n}.jpg": f"<html>{CANARY}" for n in range(3)}
        return {key: body.encode() for key, body in (good | broken).items()}

    def empty(self) -> None:
        """Ends what lives and empties the lake, but for the model: as on the first day."""
        self.aws.disarm()
        s3, emr = self.aws.client("s3"), self.aws.client("emr")
        live = [c["Id"] for c in self.aws.clusters(self.cluster_prefix, LIVE)]
        if live:
            emr.set_termination_protection(JobFlowIds=live, TerminationProtected=False)
            emr.terminate_job_flows(JobFlowIds=live)
            until(lambda: not self.aws.clusters(self.cluster_prefix, LIVE), "clusters to end")
        for key in self.aws.keys(self.lake):
            if not key.startswith("models/"):
                s3.delete_object(Bucket=self.lake, Key=key)
        for upload in s3.list_multipart_uploads(Bucket=self.lake).get("Uploads", []):
            s3.abort_multipart_upload(Bucket=self.lake, Key=upload["Key"], UploadId=upload["UploadId"])
        self.put_photos()

    @property
    def cluster_prefix(self) -> str:
        """How the names of its clusters begin."""
        return f"fruits/{self.name}/"

    def live_clusters(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """What is alive or on its way out of what bears its tags or its name, in every region that a run can use."""
        for region in EU_REGIONS:
            for cluster in self.aws.clusters("", LIVE, region):
                tags = {one["Key"]: one["Value"] for one in cluster["Tags"]}
                tagged = tags.get("deployment") == self.name
                if tagged or cluster["Name"].startswith(self.cluster_prefix):
                    yield region, cluster

    def record(self, run_id: str) -> dict[str, Any] | None:
        """run.json of a run."""
        content = self.aws.read(self.lake, f"runs/{run_id}/run.json")
        return None if content is None else dict(json.loads(content))


class Pipeline:
    """An Airflow without a scheduler that runs the DAG of a deployment (see pipeline.py).

    Args:
        deployment: whose DAG.
        home: becomes AIRFLOW_HOME; that of an Airflow that was killed may be taken up.
    """

    def __init__(self, deployment: Deployment, home: Path) -> None:
        self.deployment = deployment
        self._moments = _moments()
        self._one_at_a_time = threading.Lock()
        self.log_path = home / "log.txt"
        environment = deployment.environment() | airflow_environment(deployment, home)
        if not (home / "airflow.db").exists():
            (home / "airflow.db").write_bytes(_new_metadata_database())
        self._log = self.log_path.open("a")
        self._process = subprocess.Popen(
            [sys.executable, str(HERE / "pipeline.py")],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
        )
        self._answer("READY", 180)

    def run(self, at: str | None = None, seconds: float = 240, dag: str = DAG, **conf: Any) -> Run:
        """Runs the DAG to its end; the same `at` runs the same run once more."""
        assert self._process.stdin is not None
        asked = {"dag": dag, "conf": conf, "at": at or next(self._moments)}
        with self._one_at_a_time:  # a test that failed may have left one at work
            self._process.stdin.write(json.dumps(asked) + "\n")
            self._process.stdin.flush()
            ended = self._answer("RESULT", seconds)
        return Run(**json.loads(ended), deployment=self.deployment.name)

    def start(self, at: str | None = None, seconds: float = 240, dag: str = DAG, **conf: Any) -> Callable[[], Run]:
        """Runs the DAG in the background; gives what waits for its end."""
        found: list[Run | BaseException] = []

        def work() -> None:
            try:
                found.append(self.run(at, seconds, dag, **conf))
            except BaseException as error:  # noqa: BLE001  raised again in the thread that waits
                found.append(error)

        thread = threading.Thread(target=work, daemon=True)
        thread.start()

        def wait() -> Run:
            thread.join(seconds + 60)
            if not found:
                raise TimeoutError("the run has not ended")
            if isinstance(found[0], BaseException):
                raise found[0]
            return found[0]

        return wait

    def kill(self) -> None:
        """SIGKILL, as when the machine goes."""
        self._process.kill()
        self._process.wait(20)

    def close(self) -> None:
        """Ends it."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it was killed
            self._process.stdin.close()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(20)
        self._log.close()

    def _answer(self, word: str, seconds: float) -> str:
        assert self._process.stdout is not None
        watchdog = threading.Timer(seconds, self._process.kill)
        watchdog.start()
        try:
            for line in self._process.stdout:
                self._log.write(line)
                if line.startswith(word):
                    return line.removeprefix(word).strip()
        finally:
            watchdog.cancel()
        raise RuntimeError(f"Airflow ended, or took more than {seconds} s; the end of {self.log_path}:\n" + self.tail())

    def tail(self, lines: int = 60) -> str:
        """The end of the log."""
        self._log.flush()
        return "\n".join(self.log_path.read_text(errors="replace").splitlines()[-lines:])


def airflow_environment(deployment: Deployment, home: Path, database: str | None = None) -> dict[str, str]:
    """An Airflow of a deployment, with the test's clock; its metadata is in `database`, or in SQLite in its home."""
    database = database or f"sqlite:///{home}/airflow.db"
    if database not in deployment.metadata_databases:
        deployment.metadata_databases.append(database)
    if home not in deployment.airflow_homes:
        home.mkdir(parents=True, exist_ok=True)
        (home / "config").symlink_to(HERE / "config")
        deployment.airflow_homes.append(home)
    return {
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__DAGS_FOLDER": str(REPOSITORY / "dags"),
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(REPOSITORY / "plugins"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "false",
        "AIRFLOW__CORE__FERNET_KEY": "",  # what is encrypted cannot be searched for the photos' metadata
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": database,
        "AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL": "0",  # nothing to settle without a scheduler
        "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "false",
        "NO_COLOR": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
    }


@cache
def _new_metadata_database() -> bytes:
    """That of an Airflow in which nothing has run yet; made once, since it takes seconds."""
    with tempfile.TemporaryDirectory() as home:
        subprocess.run(
            [sys.executable, "-m", "airflow", "db", "migrate"],
            env={k: v for k, v in os.environ.items() if not k.startswith("AIRFLOW")} | {"AIRFLOW_HOME": home},
            check=True,
            capture_output=True,
            timeout=300,
        )
        return (Path(home) / "airflow.db").read_bytes()


def _moments() -> Iterator[str]:
    moment = datetime(2026, 1, 1, 2, tzinfo=UTC)
    while True:
        yield moment.isoformat()
        moment += timedelta(days=1)


@contextmanager
def closing_all(*things: Any) -> Iterator[None]:
    """Closes everything, the last first."""
    try:
        yield
    finally:
        for thing in reversed(things):
            thing.close()
