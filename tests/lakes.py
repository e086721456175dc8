"""Two publications as readers find them: in Glue and S3, and in the folder of `make local`."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from fruits.base import objects

from tests.aws_keys import FOR_SERVER, KEYS
from tests.spark_jobs.conftest import ROOT, Nights
from tests.spark_jobs.pictures import encoded, fruit, orchard

REGION = "eu-west-1"
GLUE = {
    "": "org.apache.iceberg.spark.SparkCatalog",
    ".type": "glue",
    ".cache-enabled": "false",
    ".io-impl": "org.apache.iceberg.aws.s3.S3FileIO",
    ".warehouse": "s3://lake/tables",
    ".client.region": REGION,
    ".s3.path-style-access": "true",
}


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The AWS emulator, whose address this process finds where boto3 looks for it."""
    command = [ROOT / ".venv-airflow" / "bin" / "python", "-m", "tests.emulator", "--port", "0", "--ui-port", "0"]
    process = subprocess.Popen(
        [*command, "--state-dir", tmp_path_factory.mktemp("aws")],
        **{"cwd": ROOT, "env": os.environ | FOR_SERVER, "stdout": subprocess.PIPE, "text": True},
    )
    assert process.stdout is not None
    address = process.stdout.readline().split()[-1]
    with pytest.MonkeyPatch.context() as patch:
        for name, value in KEYS.environment.items():
            patch.setenv(name, value)
        patch.setenv("AWS_ENDPOINT_URL", address)
        patch.setenv("AWS_REGION", REGION)
        objects.find_s3.cache_clear()
        location = {"LocationConstraint": REGION}
        boto3.client("s3").create_bucket(Bucket="lake", CreateBucketConfiguration=location)
        yield address
    objects.find_s3.cache_clear()
    process.terminate()
    process.wait(30)


def session(spark: Any, settings: dict[str, str]) -> Any:
    """A session with a catalog `lake` of its own."""
    own = spark.newSession()
    for key, value in settings.items():
        own.conf.set(f"spark.sql.catalog.lake{key}", value)
    own.conf.set("spark.sql.session.timeZone", "UTC")
    own.conf.set("spark.sql.shuffle.partitions", "4")
    for each in (spark, own):  # a catalog gets the settings of the session that is active when it is first used
        each.sql("SHOW NAMESPACES IN lake")
    return own


def two_nights(nights: Nights) -> Nights:
    """Publish two bases: of three photos, then of six."""
    nights.photos.mkdir(exist_ok=True)
    orchard(nights.photos, labels=1, each=3)
    nights.night("--k", "2")
    for number in range(3):
        (nights.photos / "Label 0" / f"r9_{number}_100.jpg").write_bytes(encoded(fruit(70 + number)))
    nights.night("--k", "3")
    return nights


@pytest.fixture(scope="module")
def glue(spark: Any, model: dict[str, Any], endpoint: str, tmp_path_factory: pytest.TempPathFactory) -> Nights:
    """The lake of an account: tables in Glue and S3, runs and the model in its bucket."""
    folder = tmp_path_factory.mktemp("glue")
    own = session(spark, GLUE | {".glue.endpoint": endpoint, ".s3.endpoint": endpoint})
    nights = two_nights(Nights(own, "lake.fruits", folder / "photos", folder / "runs", model))
    for path in [*nights.folder.rglob("*"), *Path(model["folder"]).iterdir()]:
        name = path.relative_to(folder if path.is_relative_to(folder) else Path(model["folder"]).parents[1])
        if path.is_file():
            boto3.client("s3").upload_file(str(path), "lake", str(name))
    return nights


@pytest.fixture(scope="module")
def local(spark: Any, model: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository's folder in which `make local` has run twice."""
    folder = tmp_path_factory.mktemp("local")
    (folder / ".cache").symlink_to(ROOT / ".cache")
    lake = folder / "build" / "local"
    warehouse = lake / "tables"
    warehouse.mkdir(parents=True)
    shutil.copytree(model["folder"], lake / "models" / model["model_id"])
    own = session(spark, {".type": "hadoop", ".warehouse": str(warehouse)})
    two_nights(Nights(own, "lake.fruits", folder / "photos", lake / "runs", model))
    return folder
