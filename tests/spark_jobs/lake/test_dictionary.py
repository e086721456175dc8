"""Every block of the data dictionary and of its tutorial runs as written, in the engine named, on a laptop's lake."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import pytest
from fruits.base import schemas
from fruits.lake import tables

from tests.lakes import endpoint as endpoint
from tests.lakes import glue as glue
from tests.lakes import local as local
from tests.lakes import session
from tests.spark_jobs.conftest import ROOT, Nights, current_pca
from tests.spark_jobs.pictures import orchard

pytestmark = [pytest.mark.spark, pytest.mark.timeout(600)]

PAGE = ROOT / "docs" / "data_dictionary.md"


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


def test_the_page_names_an_engine_for_each_block() -> None:
    engines = {block.engine for block in blocks()}
    assert engines == {"Spark SQL", "Athena", "Spark", "Spark on a laptop", "Python", "Python on a laptop", "DuckDB"}


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


def test_python_and_duckdb(glue: Nights, capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, Any] = {}
    for block in [*of("Python"), *of("DuckDB")]:
        exec(block, names)
    assert names["vectors"].num_rows == 6, "of the PCA model published last"
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


def test_python_on_a_laptop(local: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(local)
    names: dict[str, Any] = {}
    [block] = of("Python on a laptop")
    exec(block, names)
    assert names["vectors"].num_rows == 6


@pytest.mark.parametrize(
    ("page", "words"),
    [
        ("tutorials/query.md", ("6 photos, 3 components", "  Label 0  Label 0/", "'published_by': 'run-2'")),
        ("fruits_lake.md", ("(6, 3)", "Label 0", "(100, 100)")),
    ],
)
def test_the_blocks_of_a_page_run(
    local: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], page: str, words: tuple[str, ...]
) -> None:
    monkeypatch.chdir(local)
    names: dict[str, Any] = {}
    for block in re.findall(r"^```python\n(.*?)^```", (ROOT / "docs" / page).read_text(), re.MULTILINE | re.DOTALL):
        exec(block, names)
    shown = capsys.readouterr().out
    assert [text for text in words if text not in shown] == []


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
    assert current_pca(cached, nights.database).count() == 5


def test_before_the_first_publication_there_are_no_rows(nights: Nights) -> None:
    tables.ensure(nights.spark, nights.database)
    assert current_pca(nights.spark, nights.database).collect() == []
