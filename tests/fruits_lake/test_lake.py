"""`fruits_lake` says of the same photos the same, in a folder, in a copy of it and in Glue and S3."""

from __future__ import annotations

import doctest
import hashlib
import io
import json
import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import boto3
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fruits.images import decoding
from fruits.images.rejects import ImageRejected
from fruits.lake import tables
from PIL import Image
from pyiceberg.catalog.glue import GlueCatalog
from pyiceberg.io.pyarrow import PyArrowFileIO
from pyiceberg.schema import Schema
from pyiceberg.table import DataScan

import fruits_lake
from fruits_lake import Lake, LakeError, matrix, storage
from fruits_lake import __main__ as entry
from fruits_lake.storage import BoundedFileIO
from tests.lakes import REGION
from tests.spark_jobs.conftest import ROOT, Nights
from tests.spark_jobs.pictures import encoded, fruit, orchard

pytestmark = [pytest.mark.spark, pytest.mark.timeout(600)]

UNKNOWN = "0" * 64


@pytest.fixture
def lake(local: Path) -> Lake:
    return Lake.open(local / "build" / "local")


@pytest.fixture
def account(glue: Nights) -> Lake:
    return Lake.open("s3://lake")


def as_lake(nights: Nights, folder: Path) -> Lake:
    """Open a copy of the tables and runs of a test's own database."""
    copy_lake(nights, folder)
    return Lake.open(folder)


def copy_lake(nights: Nights, folder: Path) -> None:
    """Copy the tables and runs as they are now, over an earlier copy."""
    table = f"{nights.database}.{nights.spark.sql(f'SHOW TABLES IN {nights.database}').first().tableName}"
    facts = nights.spark.sql(f"DESCRIBE TABLE EXTENDED {table}").where("col_name = 'Location'").first()
    database = Path(facts.data_type.removeprefix("file:")).parent  # another test may have opened the catalog first
    shutil.copytree(database, folder / "tables" / database.name, dirs_exist_ok=True)
    if nights.folder.exists():
        shutil.copytree(nights.folder, folder / "runs", dirs_exist_ok=True)


def ids_of(photos: Path) -> dict[str, Path]:
    """The photos of a folder by their image_id."""
    return {hashlib.sha256(str(path.relative_to(photos)).encode()).hexdigest(): path for path in photos.rglob("*.jpg")}


def test_the_examples_hold(local: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(local)
    results = doctest.testmod(fruits_lake)
    assert (results.failed, results.attempted) == (0, 5)


@pytest.mark.parametrize("place", ["lake", "account"])
def test_vectors_are_those_of_the_pca_model_published_last(place: str, request: pytest.FixtureRequest) -> None:
    lake: Lake = request.getfixturevalue(place)
    vectors = lake.vectors()
    about = json.loads(vectors.schema.metadata[b"fruits"])
    assert (about["k"], about["n"], about["run_id"]) == (3, 6, "run-2")
    assert set(vectors["pca_id"].to_pylist()) == {about["pca_id"]}
    assert set(vectors["run_id"].to_pylist()) == {"run-2"}
    assert set(vectors["label"].to_pylist()) == {"Label 0"}
    for row in vectors.to_pylist():
        assert hashlib.sha256(row["source_key"].encode()).hexdigest() == row["image_id"]
    assert (matrix(vectors).shape, matrix(vectors).dtype) == ((6, 3), np.float32)
    assert vectors.to_pandas().shape == (6, 8)
    assert vectors["predicted"].null_count == 6, "six photos are too few for a classifier"


@pytest.mark.parametrize("place", ["lake", "account"])
def test_vectors_of_a_run_are_those_that_it_published(place: str, request: pytest.FixtureRequest) -> None:
    lake: Lake = request.getfixturevalue(place)
    current, first, second = lake.vectors(), lake.vectors("run-1"), lake.vectors("run-2")
    assert first.num_rows == 3
    assert matrix(first).shape == (3, 2)
    assert second.sort_by("image_id").to_pylist() == current.sort_by("image_id").to_pylist()
    assert second.column_names == first.column_names == current.column_names
    assert json.loads(first.schema.metadata[b"fruits"])["run_id"] == "run-1"


def test_folder_and_account_say_the_same(lake: Lake, account: Lake) -> None:
    image_id = lake.vectors()["image_id"][0].as_py()
    for table in (
        lambda lake: lake.runs(),
        lambda lake: lake.neighbours(image_id, 3),
        lambda lake: lake.photo(image_id),
    ):
        changing = {"loaded_at", "etag"} & set(table(lake).column_names)
        assert table(lake).drop(changing).equals(table(account).drop(changing))
    runs = account.runs().to_pylist()
    assert [(run["run_id"], run["state"], run["seen"], run["k"]) for run in runs] == [
        ("run-1", "succeeded", 3, 2),
        ("run-2", "succeeded", 6, 3),
    ]


def test_why_names_the_object_the_runs_and_the_models(local: Path, lake: Lake, model: dict[str, Any]) -> None:
    photos = ids_of(local / "photos")
    assert len(photos) == 6
    for image_id, path in photos.items():
        (why,) = lake.why(image_id).to_pylist()
        assert why["content_sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
        assert why["source_key"] == str(path.relative_to(local / "photos"))
        first = "r9" not in path.name
        assert (why["loaded_by"], why["features_by"]) == (("run-1", "run-1") if first else ("run-2", "run-2"))
        assert (why["projected_by"], why["published_by"], why["asked"]) == ("run-2", "run-2", "k=3")
        assert (why["model_id"], why["weights"]) == (model["model_id"], model["weights"])
        assert why["is_current"]


@pytest.mark.parametrize("place", ["lake", "account"])
def test_a_photo_is_nearest_to_itself_by_the_features_that_the_jobs_computed(
    place: str, local: Path, request: pytest.FixtureRequest
) -> None:
    lake: Lake = request.getfixturevalue(place)
    for image_id, path in list(ids_of(local / "photos").items())[:2]:
        by_file, by_bytes = lake.neighbours(path), lake.neighbours(path.read_bytes())
        assert by_file.equals(by_bytes)
        first, second = by_file.to_pylist()[:2]
        assert first["image_id"] == image_id
        assert first["distance"] < 1e-4 < second["distance"]
        others = lake.neighbours(image_id, k=9)
        assert image_id not in others["image_id"].to_pylist()
        assert others.num_rows == 5
        assert others["image_id"][0].as_py() == second["image_id"]
        np.testing.assert_allclose(others["distance"][0].as_py(), second["distance"], atol=1e-4)
        assert others["distance"].type == pa.float32()
        assert others["distance"].to_pylist() == sorted(others["distance"].to_pylist())


def test_what_is_no_photo_has_the_code_that_loading_gives_it(lake: Lake) -> None:
    with pytest.raises(ImageRejected) as rejected:
        lake.neighbours(b"<!doctype html>")
    assert rejected.value.code == "not_an_image"


def test_compare_tells_what_was_added_removed_and_changed(nights: Nights, tmp_path: Path) -> None:
    orchard(nights.photos, labels=1, each=6)
    nights.night("--k", "3")
    changed, removed, *kept = sorted(nights.photos.rglob("*.jpg"))
    changed.write_bytes(encoded(fruit(99)))
    removed.unlink()
    (nights.photos / "Label 0" / "r9_1_100.jpg").write_bytes(encoded(fruit(70)))
    nights.load("--max-removed-share", "1")
    nights.run("featurize")
    nights.run("reduce_pca", "--k", "3", "--max-drift-degrees", "90", "--max-variance-loss", "1")
    nights.run("publish")
    lake = as_lake(nights, tmp_path / "lake")
    assert len(set(lake.runs()["pca_id"].to_pylist())) == 1, "one PCA model, so that vectors can be compared"
    rows = {row["image_id"]: row for row in lake.compare("run-1", "run-2").to_pylist()}
    names = {hashlib.sha256(f"Label 0/{name}".encode()).hexdigest(): name for name in (removed.name, "r9_1_100.jpg")}
    outcome = {
        names.get(image_id): (row["change"], row["distance"]) for image_id, row in rows.items() if image_id in names
    }
    assert outcome == {removed.name: ("removed", None), "r9_1_100.jpg": ("added", None)}
    by_path = {path.name: rows[image_id] for image_id, path in ids_of(nights.photos).items()}
    assert [by_path[path.name]["distance"] for path in kept] == [0.0] * len(kept)
    assert next(iter(rows.values())) == by_path[changed.name], "what moved furthest is first"
    assert by_path[changed.name]["distance"] > 0
    assert {row["label"] for row in rows.values()} == {"Label 0"}
    # The vector of a photo that is loaded again, and not published yet, is no longer the current photo's.
    image_id = hashlib.sha256(f"Label 0/{changed.name}".encode()).hexdigest()
    assert lake.why(image_id)["is_current"].to_pylist() == [True]
    changed.write_bytes(encoded(fruit(98)))
    nights.load()
    lake = as_lake(nights, tmp_path / "later")
    assert lake.why(image_id)["is_current"].to_pylist() == [False]


def test_vectors_of_two_pca_models_have_no_distance(lake: Lake) -> None:
    assert set(lake.compare("run-1", "run-2")["distance"].to_pylist()) == {None}


def test_a_copy_is_read_where_it_is(local: Path, lake: Lake, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(local / "build" / "local", copy)
    assert Lake.open(copy).vectors().equals(lake.vectors())
    for path in (copy / "tables" / "fruits" / "pca" / "data").iterdir():
        path.unlink()
    with pytest.raises(LakeError, match="has no table pca, or lost it"):
        Lake.open(copy).vectors()
    assert lake.vectors().num_rows == 6, "the original is another lake"


@pytest.mark.parametrize("place", ["/other/pca/a.parquet", "/lake/pca/../a.parquet", "/lake/pca//etc/a.parquet"])
def test_a_file_outside_its_table_is_not_read(place: str, tmp_path: Path) -> None:
    with pytest.raises(LakeError, match=f"{place} is outside /lake/pca/"):
        BoundedFileIO("/lake/pca", tmp_path).new_input(place)


def test_no_link_and_no_name_in_a_folder_leads_out_of_it(local: Path, tmp_path: Path) -> None:
    """The folder may be a stranger's: what it names is read with the rights of whoever opens it."""
    copy = tmp_path / "copy"
    shutil.copytree(local / "build" / "local", copy)
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "run.json").write_text('{"state": "succeeded"}')
    lake = Lake.open(copy)
    run = copy / "runs" / str(lake.runs()["run_id"][0])
    assert lake._record("../../secret")["state"] == "unreadable"
    with pytest.raises(LakeError, match="leads out of the lake's runs"):
        lake.vectors("../../secret")
    (run / "run.json").unlink(missing_ok=True)
    (run / "run.json").symlink_to(tmp_path / "secret" / "run.json")
    assert lake._record(run.name)["state"] == "unreadable"
    for path in (copy / "tables" / "fruits" / "pca" / "data").rglob("*.parquet"):
        path.rename(tmp_path / "secret" / path.name)
        path.symlink_to(tmp_path / "secret" / path.name)
    with pytest.raises(LakeError, match="is outside"):
        lake.vectors()
    hint = copy / "tables" / "fruits" / "pca" / "metadata" / "version-hint.text"
    for version in ("../../pca_models/metadata/v1", "1" * 1_000):
        hint.write_text(version)
        with pytest.raises(LakeError, match="does not name metadata"):
            lake.vectors()


@pytest.mark.parametrize("kind", ["a link", "a pipe"])
@pytest.mark.parametrize(
    "place",
    [
        *(
            "tables/fruits",
            "tables/*/pca_models",
            "tables/*/pca/metadata/version-hint.text",
            "tables/*/pca/metadata/v*",
        ),
        *("runs", "runs/*/stages/*", "models", "models/*/*"),
    ],
)
def test_a_folder_with_a_link_or_a_pipe_is_not_opened(kind: str, place: str, local: Path, tmp_path: Path) -> None:
    """A link leads out, also to `/dev/zero`, which has no end; a pipe waits for ever."""
    copy = tmp_path / "copy"
    shutil.copytree(local / "build" / "local", copy)
    hostile = sorted(copy.glob(place))[-1]
    hostile.rename(tmp_path / "elsewhere")
    hostile.symlink_to(tmp_path / "elsewhere") if kind == "a link" else os.mkfifo(hostile)
    with pytest.raises(LakeError, match=f"{hostile.name} is a link, a pipe or a device"):
        Lake.open(copy)


def test_json_above_the_limit_is_not_read(local: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (fruits_lake, storage):
        monkeypatch.setattr(module, "MAX_JSON_BYTES", 10)
    lake = Lake.open(local / "build" / "local")
    assert set(lake.runs()["state"].to_pylist()) == {"unreadable"}
    with pytest.raises(LakeError, match="at most 10 bytes"):
        lake.vectors()


def test_a_folder_without_a_lake_and_one_with_two_databases_are_refused(tmp_path: Path) -> None:
    with pytest.raises(LakeError, match=r"has databases \[\], not one: name another folder or database"):
        Lake.open(tmp_path)
    for name in ("fruits", "fruits_demo"):
        (tmp_path / "lake" / "tables" / name).mkdir(parents=True)
    with pytest.raises(LakeError, match=r"\['fruits', 'fruits_demo'\], not one: name"):
        Lake.open(tmp_path)
    with pytest.raises(LakeError, match="not other: name"):
        Lake.open(tmp_path, "other")
    with pytest.raises(LakeError, match="has no table pca_models"):
        Lake.open(tmp_path, "fruits").vectors()


def test_before_the_first_publication_there_are_no_vectors(nights: Nights, tmp_path: Path) -> None:
    tables.ensure(nights.spark, nights.database)
    lake = as_lake(nights, tmp_path / "lake")
    with pytest.raises(LakeError, match="nothing is published in .* yet"):
        lake.vectors()


def test_a_run_that_did_not_publish_is_listed_and_has_no_vectors(nights: Nights, tmp_path: Path) -> None:
    orchard(nights.photos, labels=1, each=2)
    nights.load()
    lake = as_lake(nights, tmp_path / "lake")
    assert lake.runs().select(["state", "seen", "pca_id"]).to_pylist() == [
        {"state": "not published", "seen": 2, "pca_id": None}
    ]
    with pytest.raises(LakeError, match=r"runs/run-1/pca.parquet is missing: did the run publish\? runs\(\) says so"):
        lake.vectors("run-1")


def test_no_file_of_a_node_stands_for_a_run_or_hides_the_others(endpoint: str) -> None:
    """A node may write `runs/*/stages/*.json`, whatever the star of the file's name is."""
    s3 = boto3.client("s3")
    s3.create_bucket(Bucket="forged", CreateBucketConfiguration={"LocationConstraint": REGION})
    files = {
        "judged/run.json": {"state": "failed", "images": {"seen": 5}},
        "judged/stages/run.json": {"state": "succeeded", "images": {"seen": 999}},
        "number/stages/publish.json": {"images": 5},
        "list/stages/publish.json": [1],
        "text/stages/publish.json": {"images": {"seen": "many", "run_id": "judged", "state": "succeeded"}},
        "going/stages/load_images.json": {"images": {"seen": 7, "run_id": "judged", "state": "succeeded"}},
    }
    for key, content in files.items():
        s3.put_object(Bucket="forged", Key=f"runs/{key}", Body=json.dumps(content).encode())
    s3.put_object(Bucket="forged", Key="runs/deep/stages/publish.json", Body=b"[" * 100_000)
    runs = {run["run_id"]: (run["state"], run["seen"]) for run in Lake.open("s3://forged").runs().to_pylist()}
    broken = dict.fromkeys(("number", "list", "text", "deep"), ("unreadable", None))
    assert runs == {"judged": ("failed", 5), "going": ("not published", 7)} | broken


def test_a_photo_that_is_not_there_is_named(lake: Lake) -> None:
    for ask in (lake.photo, lake.why, lake.neighbours):
        with pytest.raises(LakeError, match=UNKNOWN):
            ask(UNKNOWN)
    with pytest.raises(LakeError, match=r"a file is given as Path\('me.jpg'\)"):
        lake.neighbours("me.jpg")


def test_a_photo_without_the_libraries_for_it_names_the_extra(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fruits.images.sandbox", None)
    with pytest.raises(LakeError, match=r"needs fruits.images.sandbox: pip install './fruits_lake\[photos\]'"):
        lake.neighbours(b"")


def test_the_tables_of_another_bucket_are_refused(account: Lake) -> None:
    with pytest.raises(LakeError, match="s3://lake/.* is outside s3://other/: name the folder or bucket"):
        Lake.open("s3://other").vectors()
    with pytest.raises(LakeError, match="has no table pca_models"):
        Lake.open("s3://lake", "fruits_demo").vectors()


def test_no_property_of_a_table_chooses_code_or_a_server(
    endpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who may write tables, as a notebook may, would run Python as whoever reads them."""
    (tmp_path / "code_of_a_table.py").write_text("def run(properties):\n    raise SystemExit('it runs')\n")
    monkeypatch.syspath_prepend(tmp_path)
    places = {"client.region": REGION, "glue.endpoint": endpoint, "s3.endpoint": endpoint}
    catalog = GlueCatalog("notebook", **places)
    catalog.create_namespace("hostile", {"location": "s3://lake/tables/hostile.db"})
    key = catalog.create_table("hostile.pca", Schema()).metadata_location.removeprefix("s3://lake/")
    s3 = boto3.client("s3")
    metadata = json.load(s3.get_object(Bucket="lake", Key=key)["Body"])
    metadata["properties"] = {"py-io-impl": "code_of_a_table.run", "s3.endpoint": "http://127.0.0.1:1"}
    s3.put_object(Bucket="lake", Key=key, Body=json.dumps(metadata).encode())
    table = Lake.open("s3://lake", "hostile")._load("pca")
    assert isinstance(table.io, PyArrowFileIO)
    assert table.io.properties["s3.endpoint"] == endpoint


@pytest.mark.parametrize("place", ["s3://stranger/x", "file:///etc/passwd", "hdfs://stranger:8020/x", "gs://x/y", "/x"])
@pytest.mark.parametrize("part", ["metadata", "manifest-list"])
def test_no_file_of_a_table_is_outside_the_bucket(part: str, place: str, endpoint: str) -> None:
    """Who may write tables, as a notebook may, would have their reader ask another server, or read files of its own."""
    catalog = GlueCatalog("notebook", **{"client.region": REGION, "glue.endpoint": endpoint, "s3.endpoint": endpoint})
    if not catalog.namespace_exists("elsewhere"):
        catalog.create_namespace("elsewhere", {"location": "s3://lake/tables/elsewhere.db"})
    rows = pa.table({"image_id": ["a"]})
    table = catalog.create_table(f"elsewhere.t{part[:4]}{hash(place) % 2**32}", rows.schema)
    table.append(rows)
    lake, name, key = Lake.open("s3://lake", "elsewhere"), table.name()[1], table.metadata_location
    assert lake._scan(name).num_rows == 1, "else this says nothing"
    if part == "metadata":
        glue = boto3.client("glue", region_name=REGION)
        found = glue.get_table(DatabaseName="elsewhere", Name=name)["Table"]
        changed = {"Name": name, "TableType": found["TableType"], "StorageDescriptor": found["StorageDescriptor"]}
        changed["Parameters"] = found["Parameters"] | {"metadata_location": place}
        glue.update_table(DatabaseName="elsewhere", TableInput=changed)
    else:
        s3, where = boto3.client("s3"), {"Bucket": "lake", "Key": key.removeprefix("s3://lake/")}
        metadata = json.load(s3.get_object(**where)["Body"])
        metadata["snapshots"][-1]["manifest-list"] = place
        s3.put_object(**where, Body=json.dumps(metadata).encode())
    with pytest.raises(LakeError, match=f"{place} is outside s3://lake/"):
        Lake.open("s3://lake", "elsewhere")._scan(name)


def test_an_account_without_a_region_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_REGION", raising=False)
    with pytest.raises(LakeError, match=f"export AWS_REGION, for example {REGION}"):
        Lake.open("s3://lake")


def recognise(local: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "fruits_lake", *arguments]
    environ = {"PYTHONPATH": f"{ROOT}:{ROOT / 'spark_jobs'}"}
    return subprocess.run(command, cwd=local, env=environ, capture_output=True, text=True, check=False)


def test_recognise_prints_the_nearest_photos_as_a_table_and_as_one_line_of_json(
    local: Path, model: dict[str, Any], tmp_path: Path
) -> None:
    photo = next(iter(ids_of(local / "photos").values()))
    table = recognise(local, "--lake", "build/local", photo)
    assert (table.returncode, len(table.stdout.splitlines())) == (0, 5), table.stderr
    assert table.stdout.splitlines()[0].split(maxsplit=1) == ["0.00", f"Label 0                   Label 0/{photo.name}"]
    assert ("random" in table.stderr) == (model["weights"] == "random")
    picture = ["--picture", tmp_path / "new" / "found.png"]
    (line,) = recognise(local, "--lake", "build/local", "--format", "json", *picture, photo).stdout.splitlines()
    answer = json.loads(line)
    assert [row["label"] for row in answer["neighbours"]] == ["Label 0"] * 5
    assert answer["weights"] == model["weights"]
    unknown = (answer["label"], answer["confidence"], answer["second_label"])
    assert unknown == (None, None, None), "six photos are too few for a classifier"
    with Image.open(tmp_path / "new" / "found.png") as sheet:
        pixels = np.asarray(sheet.convert("RGB"), np.float32)
    mine, nearest, next_one = (pixels[4:104, 232 * place + 4 : 232 * place + 104] for place in range(3))
    assert np.array_equal(mine, nearest), "the photo itself is in the lake"
    assert np.abs(mine - next_one).mean() > 1


def test_what_loading_rejects_has_its_code_in_every_form(lake: Lake, local: Path) -> None:
    """The same photos as of `fruits.images.rejects`, by the very decoder of the jobs."""
    jpeg = next(iter(ids_of(local / "photos").values())).read_bytes()
    animated = io.BytesIO()
    Image.new("RGB", (9, 9)).save(animated, "GIF")
    cases = {
        "empty": b"",
        "not_an_image": b"<!doctype html>",
        "truncated": jpeg[: len(jpeg) // 2],
        "format_not_allowed": animated.getvalue(),
        "too_many_bytes": bytes(decoding.MAX_BYTES + 1),
    }
    for code, photo in cases.items():
        for ask in (lake.recognise, lake.neighbours, lake.clean):
            with pytest.raises(ImageRejected) as rejected:
                ask(photo)
            with pytest.raises(ImageRejected) as of_loading:
                decoding.clean(photo)
            assert (rejected.value.code, of_loading.value.code) == (code, code)


def test_photos_come_in_the_order_in_which_they_are_asked_for(lake: Lake) -> None:
    ids = lake.vectors()["image_id"].to_pylist()[::-1]
    rows = lake.photo(*ids)
    assert rows["image_id"].to_pylist() == ids
    assert rows.slice(2, 1).to_pylist() == lake.photo(ids[2]).to_pylist()
    with pytest.raises(LakeError, match="images has no row"):
        lake.photo(ids[0], UNKNOWN)


def test_a_table_is_read_again_when_it_has_changed_and_only_then(
    nights: Nights, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    orchard(nights.photos, labels=1, each=3)
    nights.night("--k", "2")
    lake = as_lake(nights, tmp_path / "lake")
    shutil.copytree(nights.model["folder"], tmp_path / "lake" / "models" / nights.model["model_id"])
    photo = next(iter(ids_of(nights.photos).values()))
    first = lake.recognise(photo)
    with monkeypatch.context() as patch:
        patch.setattr(DataScan, "to_arrow", None)
        assert lake.recognise(photo)["neighbours"].equals(first["neighbours"])
    (nights.photos / "Label 0" / "r9_1_100.jpg").write_bytes(encoded(fruit(70)))
    nights.night("--k", "2")
    copy_lake(nights, tmp_path / "lake")
    assert lake.recognise(photo)["neighbours"].num_rows == 4
    for number in range(20):
        lake.photo(lake.vectors()["image_id"][number % 4].as_py())
    assert len(lake._scans) <= fruits_lake._KEPT_SCANS + 1, "photos do not pile up"


def test_the_cards_are_those_of_the_last_publication(local: Path, lake: Lake) -> None:
    for run in ("run-1", "run-2"):
        command = [ROOT / ".venv-airflow" / "bin" / "python", "-m", "fruits_airflow.report.cards"]
        environ = {"PYTHONPATH": str(ROOT / "plugins")}
        subprocess.run([*command, local / "build" / "local" / "runs" / run], env=environ, check=True)
    assert "Written from the publication of run run-2, with" in lake.model_card()
    assert "PCA: 2 of 1280 components" in lake.model_card("run-1")
    assert lake.model_card("run-2", "datasheet").startswith("# Datasheet")
    with pytest.raises(LakeError, match=r"runs/run-3/model_card.md is missing: did the run publish\?"):
        lake.model_card("run-3")
    with pytest.raises(LakeError, match="leads out of the lake's runs"):
        lake.model_card("../../other")


def test_no_name_of_a_photo_commands_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    """A label is the name of a folder in the bucket that photos are uploaded to."""
    row = {"distance": 1.0, "label": "\x1b]0;mine\x07", "source_key": "a\r\n\x1b[2Jb.jpg", "image_id": "x"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Lake, "open", lambda _: SimpleNamespace(
            recognise=lambda _: {
                "label": row["label"], "confidence": 1.0, "neighbours": pa.Table.from_pylist([row])
            },
            why=lambda _: pa.table({"weights": ["path"]}),
        ))  # fmt: skip
        patch.setattr(sys, "argv", ["fruits_lake", "photo.jpg"])
        patch.setattr(resource, "setrlimit", lambda *_: None)
        entry.main()
    printed = capsys.readouterr().out
    assert all(char.isprintable() or char == "\n" for char in printed)
    assert printed.count("\n") == 2


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux bounds the memory of a process")
def test_a_small_file_that_holds_more_than_the_memory_is_an_error(local: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(local / "build" / "local", copy)
    for path in (copy / "tables" / "fruits" / "pca" / "data").rglob("*.parquet"):
        rows = pq.read_table(path).take([0] * 100)
        label = pa.DictionaryArray.from_arrays(np.zeros(100, np.int32), ["a" * 40_000_000])
        field = rows.schema.field("label").with_type(label.type)  # with the id that Iceberg knows it by
        rows = rows.set_column(rows.schema.get_field_index("label"), field, label)
        pq.write_table(rows, path, compression="zstd", store_schema=False)
        assert path.stat().st_size < 1_000_000
    photo = next(iter(ids_of(local / "photos").values()))
    small = "import os, runpy; os.sysconf = lambda name: {'SC_PAGE_SIZE': 1 << 30, 'SC_PHYS_PAGES': 3}.get(name, 2)"
    command = [sys.executable, "-c", f"{small}; runpy.run_module('fruits_lake', run_name='__main__')", photo]
    environ = {"PYTHONPATH": f"{ROOT}:{ROOT / 'spark_jobs'}"}
    for lake, end in ((local / "build" / "local", ""), (copy, "ERROR the answer takes more memory than this machine")):
        process = subprocess.run([*command, "--lake", lake], env=environ, capture_output=True, text=True, check=False)
        assert process.returncode == bool(end), process.stderr
        assert process.stderr.splitlines()[-1].startswith(end)


def test_recognise_says_in_one_line_why_it_cannot(local: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.jpg"
    page.write_text("<!doctype html>")
    no_photo = recognise(local, "--lake", "build/local", page)
    assert no_photo.stderr.splitlines()[-1].startswith("ERROR not_an_image: ")  # after what LiteRT logs
    no_lake, no_file = recognise(local, "--lake", tmp_path, page), recognise(local, "--lake", "build/local", "me.jpg")
    assert no_lake.stderr.startswith(f"ERROR {tmp_path} has databases []")
    assert "No such file or directory: 'me.jpg'" in no_file.stderr
    for outcome in (no_photo, no_lake, no_file):
        assert (outcome.returncode, outcome.stdout) == (1, "")
        assert "Traceback" not in outcome.stderr
