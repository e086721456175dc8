"""One Spark with a local Iceberg catalog, one model, and runs of the jobs in the form that tests read best."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import boto3
import featurize
import load_images
import publish
import pyarrow as pa
import pytest
import reduce_pca
from fruits.base import schemas
from fruits.base.batches import Mapper
from fruits.job import job_run, stage_metrics
from fruits.lake import input_listing

from dev import fetch_jars
from tests.aws_keys import KEYS
from tests.models import ROOT, SHARED
from tests.models import model as model
from tests.models import models as models

PHOTOS = SHARED / "images" / "fruits360_sample"
JOBS: dict[str, ModuleType] = {module.STAGE: module for module in (load_images, featurize, reduce_pca, publish)}


@pytest.fixture(autouse=True)
def _no_kept_credentials() -> Iterator[None]:
    """boto3 keeps a session of its own, with the credentials of the test that first made a client."""
    yield
    boto3.DEFAULT_SESSION = None


@pytest.fixture(scope="session")
def spark(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A real Spark on two cores; its workers import `fruits` from the checkout."""
    from pyspark.sql import SparkSession

    jars = sorted((ROOT / ".cache" / "jars").glob("iceberg-*.jar"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYSPARK_PYTHON", sys.executable)
        patch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT / "spark_jobs"), str(ROOT)]))
        patch.setenv("SPARK_LOCAL_IP", "127.0.0.1")
        # For the scripted S3 and for local_aws. Workers get the address from the driver, and never credentials.
        for name, value in KEYS.environment.items():
            patch.setenv(name, value)
        conf = {
            "spark.jars" if jars else "spark.jars.packages": ",".join(map(str, jars)) or fetch_jars.RUNTIME,
            "spark.sql.extensions": "org.apache.iceberg.spark.extensions.IcebergSparkSessionExtensions",
            "spark.sql.catalog.lake": "org.apache.iceberg.spark.SparkCatalog",
            "spark.sql.catalog.lake.type": "hadoop",
            "spark.sql.catalog.lake.cache-enabled": "false",
            "spark.sql.catalog.lake.warehouse": str(tmp_path_factory.mktemp("tables")),
            "spark.local.dir": str(tmp_path_factory.mktemp("spark")),
            "spark.driver.extraJavaOptions": "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC",
            "spark.driver.memory": "1g",
            # Tables of a few rows: compiling a class for each query takes longer than running it. The end-to-end
            # tests run as in production.
            "spark.sql.codegen.wholeStage": "false",
            "spark.sql.codegen.factoryMode": "NO_CODEGEN",
            "spark.sql.adaptive.enabled": "false",
            "spark.ui.enabled": "false",
            "spark.log.level": "ERROR",
        }
        builder = SparkSession.builder.master("local[2]")
        for key, value in conf.items():
            builder = builder.config(key, value)
        builder.getOrCreate()
        session = job_run.open_session("tests")
        session.sparkContext.setLogLevel("ERROR")
        yield session
        session.stop()


@dataclass
class Nights:
    """A database of its own, a folder of photos, and the jobs over them.

    Attributes:
        spark: The session.
        database: ``lake.<name of the test>``.
        photos: The folder that runs list.
        model: The model's card.
        folder: Where run folders are.
    """

    spark: Any
    database: str
    photos: Path
    folder: Path
    model: dict[str, Any]
    runs: list[str] = field(default_factory=list)

    def list_photos(self) -> Path:
        """Begin a run: list the folder."""
        self.runs.append(f"run-{len(self.runs) + 1}")
        input_listing.write_folder_listing(self.photos, str(self.run_folder / "listing.parquet"))
        return self.run_folder

    @property
    def run_folder(self) -> Path:
        """The folder of the run begun last."""
        return self.folder / self.runs[-1]

    def arguments(self, stage: str, *more: str) -> list[str]:
        """The command line of one job in the run begun last."""
        common = ["--database", self.database, "--run-id", self.runs[-1], "--run-folder", str(self.run_folder)]
        if stage == "load_images":
            common += ["--input", str(self.photos)]
        else:
            common += ["--model-id", self.model["model_id"]]
        if stage == "featurize":
            common += ["--model", self.model["folder"]]
        if stage in ("reduce_pca", "publish"):
            common += ["--network", self.model["network"]]
        if stage == "publish":
            common += ["--weights", "random", "--min-explained-variance", "0"]
        return [*common, *more]

    def run(self, stage: str, *arguments: str) -> dict[str, Any]:
        """Run one job as its script would, in this process, and give its metrics."""
        parsed = JOBS[stage].parser().parse_args(self.arguments(stage, *arguments))
        getattr(JOBS[stage], stage)(job_run.Run(stage, parsed, self.spark))
        return stage_metrics.read(str(self.run_folder), stage)

    def load(self, *arguments: str) -> dict[str, Any]:
        """List the folder and load it completely."""
        self.list_photos()
        return self.run("load_images", "--complete", *arguments)

    def night(self, *how_many: str) -> dict[str, dict[str, Any]]:
        """One whole run."""
        loaded = self.load()
        return {
            "load_images": loaded,
            "featurize": self.run("featurize"),
            "reduce_pca": self.run("reduce_pca", *(how_many or ("--variance", "0.9"))),
            "publish": self.run("publish"),
        }

    def table(self, name: str) -> Any:
        """A table as a frame."""
        return self.spark.table(f"{self.database}.{name}")

    def rows(self, name: str, *without: str) -> list[dict[str, Any]]:
        """A table's rows in a fixed order, without some columns."""
        frame = self.table(name).drop(*without)
        return sorted((row.asDict() for row in frame.collect()), key=lambda row: tuple(map(str, row.values())))

    def current_pca_id(self) -> str | None:
        """The PCA model published last; None before the first publication."""
        rows = self.table("pca_models").orderBy("published_at", ascending=False).limit(1).collect()
        return rows[0].pca_id if rows else None

    def keys(self, name: str) -> list[str]:
        """The object keys in `images` or `rejects`."""
        return sorted(row.source_key for row in self.table(name).select("source_key").collect())

    def commits(self, name: str) -> int:
        """How many snapshots a table has."""
        return int(self.spark.table(f"{self.database}.{name}.snapshots").count())


@pytest.fixture
def nights(spark: Any, model: dict[str, Any], tmp_path: Path, request: pytest.FixtureRequest) -> Nights:
    """Photos, a database and a run folder of this test's own."""
    photos = tmp_path / "photos"
    photos.mkdir()
    name = "".join(c if c.isalnum() else "_" for c in request.node.name)
    return Nights(spark, f"lake.{name}", photos, tmp_path / "runs", model)


def record_mapped_column(
    monkeypatch: pytest.MonkeyPatch, module: ModuleType, maker: str, column: str, seen: Path
) -> None:
    """Make the mappers of `module.maker` append each row's `column` to the file `seen`, a line each."""
    make_mapper, path = getattr(module, maker), str(seen)

    def make_recorder(*arguments: Any) -> Mapper:
        mapper = make_mapper(*arguments)

        def record(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
            for batch in mapper(batches):
                with open(path, "a") as file:  # noqa: PTH123 - a worker has no imports of this module
                    file.writelines(f"{value}\n" for value in batch.column(column).to_pylist())
                yield batch

        return record

    monkeypatch.setattr(module, maker, make_recorder)


def current_pca(spark: Any, database: str) -> Any:
    """The rows of the current PCA model, by the query that readers are given."""
    for table in ("pca_models", "pca"):
        spark.catalog.refreshTable(f"{database}.{table}")  # in case the session's catalog caches tables
    return spark.sql(schemas.CURRENT_PCA.format(database=database))
