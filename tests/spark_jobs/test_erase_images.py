"""Erasure of rows, and of every byte behind them."""

from __future__ import annotations

import io
import json
import shutil
import zlib
from argparse import Namespace
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import erase_images
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fruits.base import schemas
from fruits.base.errors import InputError, QualityGateError, ReconciliationError, TableError
from fruits.job import job_run, stage_metrics
from fruits.lake import overwrite, tables
from fruits.lake.iceberg import Table, iterate
from fruits.pca import gramian_store
from fruits.publish import upkeep

from tests.spark_jobs.conftest import Nights
from tests.spark_jobs.pictures import encoded, fruit, orchard

pytestmark = pytest.mark.spark


def erase(nights: Nights, image_ids: list[str], contents: list[str]) -> dict[str, Any]:
    nights.runs.append(f"erasure-{len(nights.runs)}")
    request = nights.run_folder / "request.json"
    request.parent.mkdir(parents=True, exist_ok=True)
    request.write_text(json.dumps({"image_ids": image_ids, "content_sha256": contents}))
    common = ["--database", nights.database, "--run-id", nights.runs[-1]]
    arguments = erase_images.parser().parse_args(
        [*common, "--run-folder", str(nights.run_folder), "--erasure", str(request)]
    )
    erase_images.erase_images(job_run.Run("erase_images", arguments, nights.spark))
    return stage_metrics.read(str(nights.run_folder), "erase_images")


def everything(nights: Nights) -> dict[str, bytes]:
    """The decoded content of every file of the database: Parquet and Avro by their values, all else as it lies."""
    warehouse = Path(nights.spark.conf.get("spark.sql.catalog.lake.warehouse"))
    folder = warehouse / nights.database.split(".")[1]
    contents = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        content = path.read_bytes()
        if path.suffix == ".parquet":
            content += repr([list(row.values()) for row in pq.read_table(io.BytesIO(content)).to_pylist()]).encode()
        if path.suffix == ".avro":
            content += b"".join(blocks(content))
        contents[str(path)] = content
    return contents


def blocks(content: bytes) -> Iterator[bytes]:
    """The inflated blocks of an Avro file, https://avro.apache.org/docs/1.12.0/specification/#object-container-files."""
    file = io.BytesIO(content)

    def long() -> int:
        shift = value = 0
        while True:
            (byte,) = file.read(1)
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return (value >> 1) ^ -(value & 1)

    assert file.read(4) == b"Obj\x01"
    header = {}
    while count := long():
        assert count > 0
        for _ in range(count):
            name = file.read(long())
            header[name] = file.read(long())
    assert header[b"avro.codec"] == b"deflate"
    sync = file.read(16)
    while file.tell() < len(content):
        assert long() > 0
        yield zlib.decompress(file.read(long()), -15)
        assert file.read(16) == sync


def pixels(row: dict[str, Any]) -> bytes:
    """The beginning of a row's pixels as `everything` shows it."""
    return repr(bytes(row["pixels"])).encode()[2:80]


def traces(nights: Nights, *needles: bytes) -> list[str]:
    return [name for name, content in everything(nights).items() if any(needle in content for needle in needles)]


def test_an_erased_image_is_in_no_file_of_any_table_and_the_others_stay(nights):
    orchard(nights.photos, labels=3, each=4)
    nights.night("--k", "3")
    (nights.photos / "Label 0").mkdir(exist_ok=True)
    row = nights.rows("images")[0]
    own = row["image_id"].encode()
    needles = (own, own[:16], pixels(row), row["source_key"].encode())
    assert all(traces(nights, needle) for needle in needles), "the search must find each of it"
    receipt = erase(nights, [row["image_id"]], [])
    assert receipt["rows"] == {"images": 1, "rejects": 0, "features": 1, "pca": 1, "samples": 1, "predictions": 0}
    assert traces(nights, *needles) == []
    for table in ("images", "features", "pca", "samples"):
        assert len(nights.rows(table)) == 11
        assert nights.commits(table) == 1
    again = erase(nights, [row["image_id"]], [])
    assert set(again["rows"].values()) == {0}

    (nights.photos / row["source_key"]).unlink()
    after = nights.night("--k", "3")
    assert after["reduce_pca"]["pca"]["n"] == 11
    assert after["publish"]["published"] is True


def test_an_image_of_a_night_whose_gate_failed_is_erased_and_the_next_night_publishes(nights):
    orchard(nights.photos, labels=3, each=4)
    nights.night("--k", "3")
    late = nights.photos / "Label 0" / "late.jpg"
    late.write_bytes(encoded(fruit(9_999)))
    nights.load()
    nights.run("featurize")
    nights.run("reduce_pca", "--k", "3")
    with pytest.raises(QualityGateError, match="explained_variance"):
        nights.run("publish", "--min-explained-variance", "1")
    (row,) = [row for row in nights.rows("images") if row["source_key"].endswith("late.jpg")]
    (vector,) = [
        features["features"] for features in nights.rows("features") if features["image_id"] == row["image_id"]
    ]
    texts = (row["image_id"], row["image_id"][:16], row["source_key"], row["content_sha256"])
    needles = (*(text.encode() for text in texts), pixels(row), repr(list(vector)).encode()[1:-1])
    assert all(traces(nights, needle) for needle in needles), "the search must find each of it"
    receipt = erase(nights, [row["image_id"]], [])
    assert receipt["rows"] == {"images": 1, "rejects": 0, "features": 1, "pca": 0, "samples": 0, "predictions": 0}
    assert traces(nights, *needles) == []

    late.unlink()
    after = nights.night("--k", "3")
    assert after["reduce_pca"]["pca"]["n"] == 12
    assert after["publish"]["published"] is True


COMPACTED = ("images", "features", "pca")


def small_files(nights: Nights) -> job_run.Run:
    """Three nights that each added photos, so that each table has files to compact; as a run of a job."""
    grown = orchard(nights.photos.with_name("grown"), labels=3, each=4)
    for label in sorted(grown.iterdir()):
        label.rename(nights.photos / label.name)
        nights.night("--k", "3")
    return job_run.Run("upkeep", Namespace(database=nights.database, run_id="upkeep"), nights.spark)


def all_of(nights: Nights) -> tuple[str, tuple[bytes, ...]]:
    """Return an image's id and its traces in files: id, bounds of the id, key, content, pixels, both vectors."""
    row = nights.rows("images")[0]
    own = row["image_id"]
    vectors = [
        next(other[table] for other in nights.rows(table) if other["image_id"] == own) for table in ("features", "pca")
    ]
    cells = [repr(list(vector)).encode()[1:-1] for vector in vectors]
    texts = (own, own[:16], row["source_key"], row["content_sha256"])
    return own, (*(text.encode() for text in texts), pixels(row), *cells)


def images(nights: Nights, table: str) -> int:
    """How many images a table knows; `pca` has rows of each kept basis."""
    return len({row["image_id"] for row in nights.rows(table)})


def test_an_image_in_compacted_files_old_snapshots_and_orphans_is_in_none_of_them_after(nights):
    run = small_files(nights)
    file = Path(nights.table("images.files").first().file_path.removeprefix("file:"))
    orphan = file.with_name("left-by-a-killed-job.parquet")
    shutil.copyfile(file, orphan)
    for name in COMPACTED:
        files = nights.table(f"{name}.files").count()
        assert files > 1, f"nothing to compact in {name}"
        upkeep.compact(run, name)
        assert nights.table(f"{name}.files").count() < files
    image_id, needles = all_of(nights)
    assert all(traces(nights, needle) for needle in needles), "the search must find each of it"
    assert any("/data/" in name for name in traces(nights, needles[0]))
    erase(nights, [image_id], [])
    assert not orphan.exists()
    assert traces(nights, *needles) == []
    assert [images(nights, name) for name in COMPACTED] == [11, 11, 11]
    (model_id,) = gramian_store.stored_models(run)
    assert gramian_store.image_count(run, model_id) == 11


def test_upkeep_after_an_erasure_brings_nothing_of_the_image_back(nights):
    run = small_files(nights)
    image_id, needles = all_of(nights)
    erase(nights, [image_id], [])
    for name in COMPACTED:
        upkeep.compact(run, name)
        upkeep.expire(run, name, datetime.now(UTC) + timedelta(days=1), retain=1)
        upkeep.remove_orphans(run, name, datetime.now(UTC) + timedelta(days=1))
        assert images(nights, name) == 11
    assert traces(nights, *needles) == []
    (model_id,) = gramian_store.stored_models(run)
    with gramian_store.refresh(run, model_id) as kept:
        assert kept.description == "nothing changed since the kept sums"


def test_a_photo_is_erased_under_every_key_by_its_content(nights):
    orchard(nights.photos, labels=2, each=3)
    first = sorted(nights.photos.rglob("*.*"))[0]
    (nights.photos / "copy.jpg").write_bytes(first.read_bytes())
    nights.night("--k", "2")
    twice = next(row for row in nights.rows("images") if row["source_key"] == "copy.jpg")["content_sha256"]
    receipt = erase(nights, [], [twice])
    assert receipt["rows"]["images"] == receipt["rows"]["features"] == 2
    assert "copy.jpg" not in nights.keys("images")


@pytest.mark.parametrize("by", ["id", "content"])
def test_rows_that_are_there_after_all_are_an_error(nights, monkeypatch, by):
    orchard(nights.photos, labels=2, each=3)
    nights.night("--k", "2")
    row = nights.rows("images")[0]
    delete = erase_images._delete
    monkeypatch.setattr(
        erase_images, "_delete", lambda run, name, ids: 0 if name == "features" else delete(run, name, ids)
    )
    request = ([row["image_id"]], []) if by == "id" else ([], [row["content_sha256"]])
    with pytest.raises(ReconciliationError, match="1 rows of erased images are left .*'features': 1"):
        erase(nights, *request)


class Killed(BaseException):
    """A SIGKILL: what is committed by then stays."""


def killed(*_: Any) -> None:
    raise Killed


def test_killed_after_each_commit_an_erasure_by_content_comes_to_every_table(nights, monkeypatch):
    orchard(nights.photos, labels=2, each=3)
    first = sorted(nights.photos.rglob("*.*"))[0]
    (nights.photos / "copy.jpg").write_bytes(first.read_bytes())
    nights.night("--k", "2")
    row = next(row for row in nights.rows("images") if row["source_key"] == "copy.jpg")
    needles = (row["image_id"].encode(), row["image_id"][:16].encode(), b"copy.jpg", pixels(row))
    assert all(traces(nights, needle) for needle in needles), "the search must find each of it"
    merge = tables.merge

    def last_commit(*arguments: Any) -> None:
        merge(*arguments)
        raise Killed

    for _ in ("samples", "pca", "features", "images"):
        with monkeypatch.context() as patch:
            patch.setattr(tables, "merge", last_commit)
            with pytest.raises(Killed):
                erase(nights, [], [row["content_sha256"]])
    erase(nights, [], [row["content_sha256"]])
    assert traces(nights, *needles) == []


@pytest.mark.parametrize("erased", [1, 3])
def test_a_lone_manifest_does_not_keep_the_bounds_of_a_file_that_is_gone(nights, erased):
    orchard(nights.photos, labels=1, each=1)
    for name in ("one", "two", "three"):
        (nights.photos / f"broken {name}.jpg").write_bytes(b"<html>")
    nights.load()
    rejects = nights.spark.createDataFrame(nights.table("rejects").toArrow())
    nights.spark.sql(f"TRUNCATE TABLE {nights.database}.rejects")
    rejects.repartitionByRange(3, "image_id").writeTo(f"{nights.database}.rejects").append()
    assert nights.table("rejects.manifests").count() == 1
    assert nights.table("rejects.files").count() == 3
    gone = nights.rows("rejects")[:erased]
    texts = [text for row in gone for text in (row["image_id"], row["image_id"][:16], row["source_key"])]
    assert all(traces(nights, text.encode()) for text in texts), "the search must find each of it"
    receipt = erase(nights, [row["image_id"] for row in gone], [])
    assert receipt["rows"]["rejects"] == erased
    assert traces(nights, *(text.encode() for text in texts)) == []
    assert len(nights.rows("rejects")) == 3 - erased
    assert nights.table("rejects.manifests").count() <= 1, "a manifest for each file would slow every reader"


def summed(nights: Nights) -> None:
    """A night as far as its sums."""
    orchard(nights.photos, labels=1, each=4)
    nights.load()
    nights.run("featurize")
    nights.run("reduce_pca", "--k", "2")


def own(nights: Nights) -> tuple[bytes, bytes]:
    """Return an image's id and its vector as they appear in a file."""
    row = nights.rows("features")[0]
    return row["image_id"].encode(), repr(list(row["features"])).encode()[1:-1]


def test_a_tag_of_sums_that_were_never_kept_holds_nothing_that_is_erased(nights, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(overwrite, "replace", killed)
        with pytest.raises(Killed):
            summed(nights)
    needles = own(nights)
    assert all(traces(nights, needle) for needle in needles), "the search must find each of it"
    erase(nights, [needles[0].decode()], [])
    assert traces(nights, *needles) == []


def test_a_tag_of_sums_that_went_with_their_last_image_holds_nothing_of_it(nights, monkeypatch):
    summed(nights)
    needles = own(nights)
    assert all(traces(nights, needle) for needle in needles), "the search must find each of it"
    image_ids = [row["image_id"] for row in nights.rows("images")]
    with monkeypatch.context() as patch:
        patch.setattr(Table, "untag", killed)
        with pytest.raises(Killed):
            erase(nights, image_ids, [])
    assert nights.rows("pca_sums") == []
    erase(nights, image_ids, [])
    assert traces(nights, *needles) == []


@pytest.mark.parametrize(
    "request_text", ["", "[]", '{"image_ids": []}', '{"image_ids": ["x\' OR 1=1"], "content_sha256": []}']
)
def test_a_request_that_is_none_is_refused(tmp_path, request_text):
    path = tmp_path / "request.json"
    path.write_text(request_text)
    with pytest.raises(InputError):
        erase_images._read_request(str(path))


def test_a_missing_request_is_refused(tmp_path):
    with pytest.raises(InputError, match="write the request first"):
        erase_images._read_request(str(tmp_path / "none.json"))


def production(nights: Nights) -> tuple[Nights, Path]:
    """Another database with loaded photos, and the folder of its tables."""
    other = replace(nights, database=f"{nights.database}_of_production", folder=nights.folder / "other", runs=[])
    orchard(other.photos, labels=1, each=2)
    other.load()
    warehouse = Path(nights.spark.conf.get("spark.sql.catalog.lake.warehouse"))
    return other, warehouse / other.database.split(".")[1]


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_a_notebooks_table_that_took_files_of_production_does_not_have_them_deleted(nights):
    """A notebook may read production and write its own tables; an erasure deletes files with the rights of a node."""
    other, folder = production(nights)
    before = contents(folder)
    tables.ensure(nights.spark, nights.database)
    append = Table(nights.spark, f"{nights.database}.images").java.newAppend()
    with closing(Table(nights.spark, f"{other.database}.images").java.newScan().planFiles()) as tasks:
        for task in iterate(tasks):
            append.appendFile(task.file())
    append.commit()
    with pytest.raises(TableError, match=r"images refers to .*_of_production/images/data/"):
        erase(nights, [nights.rows("images")[0]["image_id"]], [])
    assert contents(folder) == before


def test_a_notebooks_table_that_claims_the_folder_of_production_does_not_have_it_cleared(nights):
    """`ALTER TABLE … SET LOCATION` in Glue, or the registration of a metadata file that somebody has made."""
    _, folder = production(nights)
    before = contents(folder)
    tables.ensure(nights.spark, nights.database)
    own = Path(nights.spark.conf.get("spark.sql.catalog.lake.warehouse")) / nights.database.split(".")[1] / "images"
    (metadata,) = (own / "metadata").glob("*.metadata.json")
    forged = json.loads(metadata.read_text())
    forged["location"] = str(folder / "images")
    forged["properties"]["write.metadata.path"] = str(own / "metadata")
    metadata.with_name("v2.metadata.json").write_text(json.dumps(forged))
    with pytest.raises(TableError, match=r"images .*_of_production/images"):
        erase(nights, ["0" * 64], [])
    assert contents(folder) == before


def test_no_text_that_a_notebook_writes_is_run_as_sql(nights):
    """An erasure runs statements over the tables of notebooks with the rights of a node, which reads raw photos."""
    (nights.photos / "one.jpg").write_bytes(b"<html>")
    (nights.photos / "two.jpg").write_bytes(b"<html>")
    nights.load()
    model = "x' OR raise_error('executed') IS NULL OR '1'='2"
    row = {"model_id": model, "n": 1, "sums": b"", "features_snapshot": 1, "run_id": "notebook"}
    rows = pa.Table.from_pylist([row, row | {"model_id": "another"}], schemas.PCA_SUMS)
    overwrite.replace(nights.spark, f"{nights.database}.pca_sums", rows, {})
    gramian_store._delete(job_run.Run("x", Namespace(database=nights.database), nights.spark), model)
    assert [row["model_id"] for row in nights.rows("pca_sums")] == ["another"]

    rejects = Table(nights.spark, f"{nights.database}.rejects")
    values = ", ".join(["''"] * len(rejects.columns))
    column = f"c) VALUES ({values}, 0) WHEN NOT MATCHED AND raise_error('executed') IS NULL THEN INSERT (image_id"
    integer = nights.spark._jvm.org.apache.iceberg.types.Types.IntegerType.get()
    rejects.java.updateSchema().addColumn(column, integer).commit()
    (first, second) = nights.rows("rejects", column)
    tables.merge(
        nights.spark,
        nights.database,
        "rejects",
        None,
        nights.spark.createDataFrame([(first["image_id"],)], ["image_id"]),
    )
    assert nights.rows("rejects", column) == [second]
