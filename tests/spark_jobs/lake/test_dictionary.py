"""Every block of the data dictionary and of its tutorial runs as written, in the engine named, on a laptop's lake."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import duckdb
import pytest
from fruits.base import objects, schemas
from fruits.lake import tables

from tests.aws_keys import FOR_SERVER
from tests.spark_jobs.conftest import ROOT, Nights
from tests.spark_jobs.pictures import encoded, fruit, orchard

pytestmark = [pytest.mark.spark, pytest.mark.timeout(600)]

PAGE = ROOT / "docs" / "data_dictionary.md"
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


@dataclass(frozen=True)
class Block:
    """A code block of the page.

    Attributes:
        engine: The words in bold before it.
        language: sql or python.
        text: The code, with the names of the test's lake and run for what stands in angle brackets.
    """

    engine: str
    language: str
    text: str


def blocks() -> list[Block]:
    """Read the blocks of the page, in its order."""
    code_blocks, engine = [], ""
    pattern = r"^\*\*([^*]+)\*\*|^```(\w+)\n(.*?)^```"
    for match in re.finditer(pattern, PAGE.read_text(), re.MULTILINE | re.DOTALL):
        engine = match[1] or engine
        if match[2]:
            text = match[3].replace("<lake bucket>", "lake").replace("<run_id>", "run-2")
            code_blocks.append(Block(engine, match[2], text))
    return code_blocks


def of(engine: str) -> list[str]:
    return [block.text for block in blocks() if block.engine == engine]


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
    """The lake of a demo: tables in Glue and S3."""
    folder = tmp_path_factory.mktemp("glue")
    own = session(spark, GLUE | {".glue.endpoint": endpoint, ".s3.endpoint": endpoint})
    nights = two_nights(Nights(own, "lake.fruits", folder / "photos", folder / "runs", model))
    boto3.client("s3").upload_file(
        str(nights.run_folder / "pca.parquet"), "lake", f"runs/{nights.runs[-1]}/pca.parquet"
    )
    return nights


@pytest.fixture(scope="module")
def local(spark: Any, model: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository's folder in which `make local` has run twice."""
    folder = tmp_path_factory.mktemp("local")
    (folder / ".cache").symlink_to(ROOT / ".cache")
    warehouse = folder / "build" / "local" / "tables"
    warehouse.mkdir(parents=True)
    own = session(spark, {".type": "hadoop", ".warehouse": str(warehouse)})
    two_nights(Nights(own, "lake.fruits", folder / "photos", folder / "runs", model))
    return folder


def test_the_page_names_an_engine_for_each_block() -> None:
    engines = {block.engine for block in blocks()}
    assert engines == {
        "Spark SQL",
        "Athena",
        "Spark",
        "Spark on a laptop",
        "pyiceberg",
        "pyiceberg on a laptop",
        "DuckDB",
    }


def test_spark_on_a_cluster(glue: Nights, capsys: pytest.CaptureFixture[str]) -> None:
    [query] = of("Spark SQL")
    current = glue.spark.sql(query).collect()
    assert len(current) == 6
    assert {row.pca_id for row in current} == {glue.current_pca_id()}
    assert glue.table("pca_models").count() == 2, "as many publications as the page says are kept"
    for block in of("Spark"):
        exec(block, {"spark": glue.spark})
    shown = capsys.readouterr().out
    assert re.search(r"Label 0\|\s+6\|", shown)


def test_pyiceberg_and_duckdb(glue: Nights, capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, Any] = {}
    for block in [*of("pyiceberg"), *of("DuckDB")]:
        exec(block, names)
    assert names["vectors"].num_rows == 9, "of both bases"
    assert names["vectors"].column_names == ["image_id", "label", "pca"]
    assert len(names["current"]) == 6
    assert names["export"].num_rows == 6
    assert re.search(r"Label 0\s*│\s*6", capsys.readouterr().out)


def test_the_sql_for_athena_in_duckdb(glue: Nights) -> None:
    con = duckdb.connect()
    con.execute("CREATE SCHEMA fruits")
    for name in ("images", "pca", "pca_models"):
        rows = glue.table(name).toArrow()
        con.register("rows", rows)
        con.execute(f"CREATE TABLE fruits.{name} AS SELECT * FROM rows")
    current, by_label = (con.execute(query).fetchall() for query in of("Athena"))
    assert len(current) == 6
    assert by_label == [("Label 0", 6)]
    con.execute("DELETE FROM fruits.pca WHERE pca_id = (SELECT max_by(pca_id, published_at) FROM fruits.pca_models)")
    with pytest.raises(duckdb.ConversionException, match="pca is older than pca_models"):
        con.execute(of("Athena")[0])


def test_spark_on_a_laptop(local: Path) -> None:
    [block] = of("Spark on a laptop")
    done = subprocess.run(
        [sys.executable, "-c", block], cwd=local, capture_output=True, text=True, check=False, timeout=300
    )
    assert re.search(r"Label 0\|\s+6\|", done.stdout), done.stderr[-2000:]


def test_pyiceberg_on_a_laptop(local: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(local)
    names: dict[str, Any] = {}
    [block] = of("pyiceberg on a laptop")
    exec(block, names)
    assert names["vectors"].num_rows == 9


def test_the_tutorial_finds_what_looks_alike(
    local: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(local)
    tutorial = (ROOT / "docs" / "tutorials" / "query.md").read_text()
    names: dict[str, Any] = {}
    for block in re.findall(r"^```python\n(.*?)^```", tutorial, re.MULTILINE | re.DOTALL):
        exec(block, names)
    shown = capsys.readouterr().out
    assert "6 photos, 3 components" in shown
    assert re.search(r"0\.00  Label 0", shown)


def test_a_session_that_is_open_while_a_night_publishes_sees_it_or_says_that_it_does_not(nights: Nights) -> None:
    orchard(nights.photos, labels=1, each=3)
    nights.night("--k", "2")
    query = schemas.CURRENT_PCA.format(database=nights.database)
    fresh = session(nights.spark, {})  # as clusters and laptops have it
    # Iceberg's default, without its half a minute, which a slow machine outlasts.
    cached = session(nights.spark, {".cache-enabled": "true", ".cache.expiration-interval-ms": "-1"})
    assert fresh.sql(query).count() == 3
    cached.table(f"{nights.database}.pca").count()
    orchard(nights.photos, labels=1, each=5)
    nights.night("--k", "3")
    assert fresh.sql(query).count() == 5
    with pytest.raises(Exception, match="pca is older than pca_models"):
        cached.sql(query).collect()
    assert tables.current_pca(cached, nights.database).count() == 5


def test_before_the_first_publication_there_are_no_rows(nights: Nights) -> None:
    tables.ensure(nights.spark, nights.database)
    assert tables.current_pca(nights.spark, nights.database).collect() == []
