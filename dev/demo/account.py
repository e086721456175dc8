"""The account of a demo: the AWS emulator, its stack, and the photos and the model in its buckets."""

import json
import secrets
import shutil
import subprocess
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config

from dev.demo.preflight import image_files
from dev.demo.processes import Processes
from ops.stack import Deployment, settings_of

REPOSITORY = Path(__file__).resolve().parents[2]
PARAMETERS = {"RawPrefix": "images/", "AlarmEmail": "accounts@example.org"}
"""Of the stack. What a real account may leave out is created, too: it costs nothing here, and it is tested."""
READY_SECONDS = 60
UPLOAD_THREADS = 16
KEY_NAMES = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")


class AccountFailed(Exception):
    """The AWS emulator or the model could not be made ready."""


@dataclass(frozen=True)
class Account:
    """An AWS account by its endpoint; never a real one, whatever the caller's environment says."""

    endpoint: str  # URL of local_aws
    region: str  # region of every client
    keys: Mapping[str, str] = field(repr=False)  # has AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY

    @property
    def env(self) -> dict[str, str]:
        """The environment by which boto3 in other processes finds it."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            **{name: self.keys[name] for name in KEY_NAMES},
            "AWS_REGION": self.region,
            "AWS_DEFAULT_REGION": self.region,
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def client(self, service: str) -> Any:
        """Return a boto3 client."""
        return boto3.client(  # type: ignore[call-overload]
            service,
            endpoint_url=self.endpoint,
            region_name=self.region,
            aws_access_key_id=self.keys["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=self.keys["AWS_SECRET_ACCESS_KEY"],
            # The access log tells by it what the demo does itself from what a role does (tests/e2e/test_policies.py).
            config=Config(max_pool_connections=UPLOAD_THREADS, user_agent_extra="fruits-demo", proxies={}),
        )

    def deployment(self, deployment_id: str) -> Deployment:
        """Return a deployment in this account, which asks nobody and prints nothing."""
        return Deployment(self, deployment_id, log=lambda _: None, confirm=lambda _: True, poll_s=0.1)

    def upload_folder(self, folder: Path, bucket: str, prefix: str, report: Callable[[str], object] = print) -> int:
        """Upload the photos of `folder` below `prefix`; return how many. `report` receives what is left out."""
        s3 = self.client("s3")
        files = image_files(folder, report)

        def put(path: Path) -> None:
            key = f"{prefix.strip('/')}/{path.relative_to(folder).as_posix()}"
            s3.put_object(Bucket=bucket, Key=key, Body=path.read_bytes())

        with ThreadPoolExecutor(UPLOAD_THREADS) as pool:
            for _ in pool.map(put, files):
                pass
        return len(files)

    def download(self, bucket: str, prefix: str, folder: Path) -> None:
        """Download the objects below a prefix, which ends with a slash, into a folder."""
        s3 = self.client("s3")
        pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
        for entry in pages.search("Contents || `[]`"):
            path = folder / entry["Key"].removeprefix(prefix)
            path.parent.mkdir(parents=True, exist_ok=True)
            s3.download_file(bucket, entry["Key"], str(path))

    def download_lake(self, bucket: str, database: str, folder: Path) -> None:
        """Replace a folder with the lake's runs and tables, laid out as Iceberg's catalog in a folder."""
        shutil.rmtree(folder, ignore_errors=True)
        self.download(bucket, "runs/", folder / "runs")
        for table in self.client("glue").get_tables(DatabaseName=database)["TableList"]:
            location, _, name = table["Parameters"]["metadata_location"].rpartition("/metadata/")
            path = folder / "tables" / database / table["Name"]
            self.download(bucket, f"{location.removeprefix(f's3://{bucket}/')}/", path)
            shutil.copyfile(path / "metadata" / name, path / "metadata" / "v1.metadata.json")
            (path / "metadata" / "version-hint.text").write_text("1")


def emulator_settings(stack: Mapping[str, str], model_id: str) -> dict[str, str]:
    """Return the settings of a deployment in the emulator, from its stack's outputs, as environment variables."""
    return {
        **settings_of(stack),
        "FRUITS_AIRFLOW_ROLE": "",  # Airflow acts as the user of the emulator's key pair
        "FRUITS_MODEL_ID": model_id,
        "FRUITS_NODE_ENVIRONMENT": "preinstalled",  # there is no node that could install anything
    }


def upload_model(s3: Any, model: Path, bucket: str) -> None:
    """Upload a converted model to models/<model_id>/."""
    for path in model.iterdir():
        s3.upload_file(str(path), bucket, f"models/{model.name}/{path.name}")


def start_account(processes: Processes, argv: list[str | Path], env: dict[str, str], region: str) -> Account:
    """Start local_aws with a random key pair and wait until it says that it is ready.

    Raises:
        AccountFailed: It is not ready after READY_SECONDS.
        ProcessEnded: It ended; the message has the end of its log.
    """
    keys = dict(zip(KEY_NAMES, ("DEMO" + secrets.token_hex(8).upper(), secrets.token_urlsafe(30)), strict=True))
    processes.start("local_aws", argv, env | {f"LOCAL_{name}": value for name, value in keys.items()})
    deadline = time.monotonic() + READY_SECONDS
    while True:
        for line in processes.log_path("local_aws").read_text(errors="replace").splitlines():
            if "ready on " in line:
                return Account(line.split("ready on ")[1].strip(), region, keys)
        processes.check()
        if time.monotonic() > deadline:
            raise AccountFailed(f"local_aws was not ready after {READY_SECONDS} s; see its log")
        time.sleep(0.1)


def make_model(
    python: Path, models: Path, weights: Path | None, log: Path, warn: Callable[[str], None], network: str = ""
) -> dict[str, Any]:
    """Convert the weights, once for each weights file; return the LiteRT model's model.json.

    Raises:
        AccountFailed: The weights do not fit; the message is the converter's last line.
    """
    argv: list[str | Path] = [python, REPOSITORY / "dev" / "make_model.py", "--out", models]
    if weights:
        argv += ["--weights", weights]
    if network:
        argv += ["--network", network]
    with log.open("wb") as err:
        converted = subprocess.run(
            [str(part) for part in argv], check=False, stdout=subprocess.PIPE, stderr=err, text=True
        )
    words = log.read_text(errors="replace").splitlines()
    if converted.returncode:
        raise AccountFailed(
            words[-1].removeprefix("ERROR ") if words else f"make_model.py ended with {converted.returncode}"
        )
    model: dict[str, Any] = json.loads(converted.stdout.splitlines()[-1])
    if model["weights"] == "random":
        warn("weights: random — Keras' ImageNet weights could not be fetched and none were given.")
        warn("The vectors of this run mean nothing; give real ones with WEIGHTS=file.h5.")
    return model
