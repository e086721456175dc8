from __future__ import annotations

import json

import featurize
import load_images
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fruits.base import objects
from fruits.base.errors import InputError, ListingError, ReconciliationError
from fruits.base.keys import image_id
from fruits.images import suppression
from fruits.job import job_run
from fruits.lake import input_listing, tables, writing
from fruits.lake.tables import SparkRows

from tests.spark_jobs import pictures
from tests.spark_jobs.pictures import CANARY, encoded, fruit, orchard
from tests.spark_jobs.scripted_s3 import scripted_s3

pytestmark = pytest.mark.spark

WHEN = ("run_id", "loaded_at")


def test_every_listed_object_is_an_image_or_a_reject_with_its_code(nights):
    orchard(nights.photos, labels=2, each=3)
    (nights.photos / "loose.jpg").write_bytes(encoded(fruit(1)))
    broken = {f"broken/{number:02}.jpg": pair for number, pair in enumerate(pictures.broken().values())}
    (nights.photos / "broken").mkdir()
    for key, (data, _) in broken.items():
        (nights.photos / key).write_bytes(data)
    canaries = pictures.with_metadata()
    (nights.photos / "phone").mkdir()
    for number, data in enumerate(canaries.values()):
        (nights.photos / "phone" / f"{number}.jpg").write_bytes(data)
    good = [f"Label {label}/r{i % 2}_{i}_100.jpg" for label in range(2) for i in range(3)]
    good += ["loose.jpg", *(f"phone/{number}.jpg" for number in range(len(canaries)))]

    metrics = nights.load()

    assert nights.keys("images") == sorted(good)
    assert {row["source_key"]: row["error_code"] for row in nights.rows("rejects")} == {
        key: str(code) for key, (_, code) in broken.items()
    }
    labels = {row["source_key"]: row["label"] for row in nights.rows("images")}
    assert labels["loose.jpg"] is None
    assert labels["Label 1/r0_0_100.jpg"] == "Label 1"
    assert all(row["image_id"] == image_id(row["source_key"]) for row in nights.rows("images"))
    assert not any(CANARY in bytes(row["pixels"]) for row in nights.rows("images"))
    listed = len(good) + len(broken)
    assert metrics["images"] == {
        "seen": listed,
        "new": listed,
        "unchanged": 0,
        "removed": 0,
        "loaded": len(good),
        "rejected": len(broken),
        "suppressed": 0,
    }
    assert metrics["metadata_stripped"] == len(canaries)
    assert sum(metrics["rejects_by_code"].values()) == len(broken)
    assert len(metrics["reject_examples"]) == 20
    assert metrics["bytes"]["input"] > 0 < metrics["bytes"]["pixels"]
    assert CANARY.decode() not in json.dumps(metrics)


def test_a_second_load_fetches_nothing_and_commits_nothing(nights):
    orchard(nights.photos, labels=1, each=3)
    (nights.photos / "broken.jpg").write_bytes(b"<html>")
    nights.load()
    before = [nights.rows(table) for table in ("images", "rejects")]
    commits = [nights.commits(table) for table in ("images", "rejects")]
    metrics = nights.load()
    assert metrics["images"]["new"] == 0
    assert metrics["images"]["unchanged"] == 4
    assert [nights.rows(table) for table in ("images", "rejects")] == before
    assert [nights.commits(table) for table in ("images", "rejects")] == commits == [1, 1]


def test_changed_broken_mended_and_removed_objects_replace_and_leave_their_rows(nights):
    for name in ("same", "changes", "breaks", "goes"):
        (nights.photos / f"{name}.jpg").write_bytes(encoded(fruit(len(name))))
    for name in ("mended", "goes too"):
        (nights.photos / f"{name}.jpg").write_bytes(b"<html>")
    nights.load()
    first = {row["source_key"]: row for row in nights.rows("images")}
    (nights.photos / "changes.jpg").write_bytes(encoded(fruit(99, (80, 60))))
    (nights.photos / "breaks.jpg").write_bytes(b"<html>broken</html>")
    (nights.photos / "mended.jpg").write_bytes(encoded(fruit(5)))
    (nights.photos / "goes.jpg").unlink()
    (nights.photos / "goes too.jpg").unlink()

    metrics = nights.load()

    assert nights.keys("images") == ["changes.jpg", "mended.jpg", "same.jpg"]
    assert nights.keys("rejects") == ["breaks.jpg"]
    second = {row["source_key"]: row for row in nights.rows("images")}
    assert second["same.jpg"] == first["same.jpg"]
    assert (second["changes.jpg"]["width_px"], second["changes.jpg"]["run_id"]) == (80, "run-2")
    assert second["changes.jpg"]["content_sha256"] != first["changes.jpg"]["content_sha256"]
    assert metrics["images"] == {
        "seen": 4,
        "new": 3,
        "unchanged": 1,
        "removed": 2,
        "loaded": 2,
        "rejected": 1,
        "suppressed": 0,
    }


def test_a_listing_of_a_part_removes_nothing(nights):
    orchard(nights.photos, labels=1, each=2)
    nights.load()
    (nights.photos / "Label 0" / "r0_0_100.jpg").unlink()
    nights.list_photos()
    assert nights.run("load_images")["images"]["removed"] == 0
    assert len(nights.keys("images")) == 2


@pytest.mark.parametrize(("rows", "stops"), [(2, True), (3, False)])
def test_more_missing_photos_than_both_limits_stop_the_load_before_it_writes(nights, rows, stops):
    photos = sorted(orchard(nights.photos, labels=1, each=6).rglob("*.jpg"))
    seen = nights.load()["images"]["seen"]
    before = [nights.rows(name) for name in ("images", "rejects")]
    for photo in photos[:3]:
        photo.unlink()
    limits = ("--max-removed-share", "0.1", "--max-removed-rows", str(rows))
    if stops:
        with pytest.raises(InputError, match=rf"3 of {seen} photos are no longer in .*force"):
            nights.load(*limits)
        assert [nights.rows(name) for name in ("images", "rejects")] == before
        assert nights.load(*limits, "--expected-removals", "1")["images"]["removed"] == 3
    else:
        assert nights.load(*limits)["images"]["removed"] == 3


def test_erased_photos_do_not_count_as_missing(nights, tmp_path):
    photos = sorted(orchard(nights.photos, labels=1, each=6).rglob("*.jpg"))
    nights.load()
    erased = {"key_sha256": [image_id(path.relative_to(nights.photos).as_posix()) for path in photos[:3]]}
    (tmp_path / "suppression").mkdir()
    pq.write_table(pa.table(erased | {"content_sha256": ["x"] * 3}), tmp_path / "suppression" / "e.parquet")
    for photo in photos[:3]:
        photo.unlink()
    limits = ("--max-removed-share", "0.1", "--max-removed-rows", "2")
    metrics = nights.load(*limits, "--suppression", str(tmp_path / "suppression"))
    assert metrics["images"]["removed"] == 3


def test_an_object_that_changed_or_went_after_the_listing_is_tried_again_by_the_next_run(nights):
    orchard(nights.photos, labels=1, each=3)
    nights.list_photos()
    (nights.photos / "Label 0" / "r0_0_100.jpg").write_bytes(encoded(fruit(50)))
    moved = nights.photos / "Label 0" / "r1_1_100.jpg"
    moved.rename(nights.photos.parent / "aside.jpg")
    metrics = nights.run("load_images", "--complete")
    assert metrics["rejects_by_code"] == {"changed_since_listing": 1, "gone_since_listing": 1}
    (nights.photos.parent / "aside.jpg").rename(moved)  # the same object as before, the same etag
    nights.list_photos()
    moved.rename(nights.photos.parent / "aside.jpg")
    nights.run("load_images", "--complete")
    (again,) = nights.rows("rejects")
    assert again["run_id"] == "run-1", "a reject that is tried again stays one of the run that first met it"
    (nights.photos.parent / "aside.jpg").rename(moved)
    assert nights.load()["images"]["loaded"] == 1
    assert nights.rows("rejects") == []


def test_killed_between_its_two_commits_a_rerun_ends_in_the_same_tables(nights, monkeypatch):
    (nights.photos / "breaks.jpg").write_bytes(encoded(fruit(1)))
    (nights.photos / "mended.jpg").write_bytes(b"<html>")
    nights.load()
    (nights.photos / "breaks.jpg").write_bytes(b"<html>broken</html>")
    (nights.photos / "mended.jpg").write_bytes(encoded(fruit(2)))
    (nights.photos / "new.jpg").write_bytes(encoded(fruit(3)))
    merge = tables.merge

    def killed_before_rejects(spark, database, table, *rows, **hints):
        if table == "rejects":
            raise KeyboardInterrupt
        merge(spark, database, table, *rows, **hints)

    with monkeypatch.context() as patch:
        patch.setattr(load_images.tables, "merge", killed_before_rejects)
        with pytest.raises(KeyboardInterrupt):
            nights.load()
    nights.run("load_images", "--complete")

    assert nights.keys("images") == ["mended.jpg", "new.jpg"]
    assert nights.keys("rejects") == ["breaks.jpg"]
    assert nights.load()["images"]["new"] == 0


def test_killed_between_its_two_appends_a_rerun_adds_the_rejects(nights, monkeypatch):
    orchard(nights.photos, labels=1, each=2)
    (nights.photos / "broken.jpg").write_bytes(b"<html>")
    append = writing.append

    def killed_before_rejects(spark, table, files):
        if table.short_name == "rejects":
            raise KeyboardInterrupt
        append(spark, table, files)

    with monkeypatch.context() as patch:
        patch.setattr(load_images.writing, "append", killed_before_rejects)
        with pytest.raises(KeyboardInterrupt):
            nights.load()
    assert (len(nights.rows("images")), nights.rows("rejects")) == (2, [])
    metrics = nights.run("load_images", "--complete")
    assert (metrics["images"]["new"], metrics["images"]["rejected"]) == (1, 1)
    assert (len(nights.rows("images")), nights.keys("rejects")) == (2, ["broken.jpg"])


def operations(nights, table):
    shown = nights.spark.table(f"{nights.database}.{table}.snapshots").orderBy("committed_at")
    return [row.operation for row in shown.select("operation").collect()]


def files(nights, table):
    return {row.file_path for row in nights.spark.table(f"{nights.database}.{table}.files").collect()}


def test_additions_are_appended_and_rewrite_no_file_of_before(nights):
    orchard(nights.photos, labels=1, each=3)
    (nights.photos / "broken.jpg").write_bytes(b"<html>")
    nights.load()
    nights.run("featurize")
    before = {table: files(nights, table) for table in ("images", "rejects", "features")}
    orchard(nights.photos / "new", labels=1, each=2)
    (nights.photos / "broken too.jpg").write_bytes(b"<html>")
    nights.load()
    nights.run("featurize")
    for table, kept in before.items():
        assert operations(nights, table) == ["append", "append"]
        assert kept < files(nights, table)
    assert len(nights.rows("features")) == len(nights.rows("images")) == 5


def test_a_row_that_changes_is_merged_and_never_doubled(nights):
    orchard(nights.photos, labels=1, each=3)
    nights.load()
    nights.run("featurize")
    (nights.photos / "Label 0" / "r0_0_100.jpg").write_bytes(encoded(fruit(70)))
    nights.load()
    nights.run("featurize")
    assert operations(nights, "images") == operations(nights, "features") == ["append", "overwrite"]
    assert len(nights.rows("features")) == len(nights.rows("images")) == 3


def test_a_commit_that_is_lost_is_an_error_and_the_next_run_mends_it(nights, monkeypatch):
    orchard(nights.photos, labels=1, each=3)
    nights.list_photos()
    with monkeypatch.context() as patch:
        patch.setattr(load_images.writing, "append", lambda *rows, **hints: None)
        with pytest.raises(ReconciliationError, match="0 rows together and should have 3"):
            nights.run("load_images", "--complete")
    assert nights.run("load_images", "--complete")["images"]["loaded"] == 3
    with monkeypatch.context() as patch:
        patch.setattr(featurize.writing, "append", lambda *rows, **hints: None)
        with pytest.raises(ReconciliationError, match="3 images have 0 rows of features"):
            nights.run("featurize")
    assert nights.run("featurize")["features"]["rows"] == 3


def test_an_empty_listing_empties_the_tables_when_complete_and_changes_nothing_else(nights):
    orchard(nights.photos, labels=1, each=2)
    (nights.photos / "broken.jpg").write_bytes(b"<html>")
    nights.load()
    nights.runs.append("run-2")
    nothing = pa.table(
        {"key": pa.array([], pa.string()), "etag": pa.array([], pa.string()), "size_bytes": pa.array([], pa.int64())}
    )
    with objects.writer(str(nights.run_folder / "listing.parquet"), None) as out:
        pq.write_table(nothing, out)
    assert nights.run("load_images")["images"]["removed"] == 0
    assert len(nights.keys("images")) == 2
    assert nights.run("load_images", "--complete")["images"]["removed"] == 3
    assert nights.keys("images") == nights.keys("rejects") == []
    assert nights.run("load_images", "--complete")["images"]["seen"] == 0
    assert nights.run("featurize")["features"]["rows"] == 0


def test_a_full_refresh_loads_everything_again_to_the_same_rows(nights):
    orchard(nights.photos, labels=1, each=3)
    nights.load()
    before = nights.rows("images", *WHEN)
    assert nights.load("--full-refresh")["images"]["loaded"] == 3
    assert nights.rows("images", *WHEN) == before


def test_a_reject_that_a_killed_run_left_beside_an_image_goes_and_the_image_stays(nights):
    orchard(nights.photos, labels=1, each=3)
    nights.load()
    kept, etag = nights.table("images").select("image_id", "etag").orderBy("image_id").first()
    nights.spark.sql(
        f"INSERT INTO {nights.database}.rejects VALUES ('{kept}', 'key', '{etag}', 'not_an_image', 'html', 'run-0')"
    )
    goes = nights.table("images").where(f"image_id <> '{kept}'").first()
    (nights.photos / goes.source_key).unlink()  # so that the night removes rows of images too
    metrics = nights.load("--complete")
    assert metrics["images"]["removed"] == 1
    assert nights.rows("rejects") == []
    images = {row["image_id"] for row in nights.rows("images")}
    assert kept in images
    assert len(images) == 2


def test_a_listing_of_several_row_groups_is_read_whole(nights, monkeypatch):
    orchard(nights.photos, labels=2, each=10)
    monkeypatch.setattr("fruits.lake.input_listing.ROW_GROUP_ROWS", 3)
    listed = input_listing.read(nights.spark, str(nights.list_photos() / "listing.parquet"))
    assert isinstance(listed, SparkRows), "executors read it, not the driver"
    rows = listed.frame.collect()
    assert len({row.source_key for row in rows}) == len(rows) == listed.rows == 20
    assert all(row.image_id == image_id(row.source_key) and row.size_bytes > 0 for row in rows)


def test_a_bucket_is_loaded_with_one_request_per_new_object(nights, monkeypatch):
    keys = {f"photos/Label {n % 2}/{n}.jpg": encoded(fruit(n)) for n in range(6)}
    keys |= {"photos//loose.jpg": encoded(fruit(9)), "photos/page.jpg": b"<html>"}
    with scripted_s3() as bucket:
        monkeypatch.setenv("AWS_ENDPOINT_URL", bucket.location.endpoint)
        monkeypatch.setenv("AWS_REGION", "eu-west-1")
        objects.find_s3.cache_clear()
        bucket.objects = {key: (data, "tag") for key, data in keys.items()}
        listed = pa.table(
            {"key": sorted(keys), "etag": ["tag"] * 8, "size_bytes": [len(keys[key]) for key in sorted(keys)]}
        )
        with objects.writer("s3://raw/runs/run-1/listing.parquet", None) as out:
            pq.write_table(listed, out)
        arguments = ["--database", nights.database, "--run-id", "run-1", "--run-folder", "s3://raw/runs/run-1"]
        arguments += ["--input", "s3://raw/photos/", "--complete"]
        for _ in range(2):
            parsed = load_images.parser().parse_args(arguments)
            load_images.load_images(job_run.Run("load_images", parsed, nights.spark))
        requested = sorted(key for method, key in bucket.requests if key.startswith("photos/"))
        written = json.loads(bucket.objects["runs/run-1/stages/load_images.json"][0])
    objects.find_s3.cache_clear()
    assert requested == sorted(keys), "one GET each, no HEAD, and none in the second run"
    assert written["images"]["unchanged"] == 8
    assert {row["label"] for row in nights.rows("images")} == {None, "Label 0", "Label 1"}
    assert nights.keys("rejects") == ["photos/page.jpg"]


def work_listed(nights, sizes: list[int]):
    """A run whose listing says these sizes, and what it finds to do."""
    nights.runs.append("run-1")
    names = [f"{n:04}.jpg" for n in range(len(sizes))]
    listed = pa.table({"key": names, "etag": ["e"] * len(sizes), "size_bytes": pa.array(sizes, pa.int64())})
    with objects.writer(str(nights.run_folder / "listing.parquet"), None) as out:
        pq.write_table(listed, out)
    tables.ensure(nights.spark, nights.database)
    parsed = load_images.parser().parse_args(nights.arguments("load_images", "--complete"))
    run = job_run.Run("load_images", parsed, nights.spark)
    erased = suppression.read(None)
    return run, *load_images._find_work(run, erased), erased


@pytest.mark.parametrize(
    ("sizes", "partitions"),
    [
        pytest.param([100_000] * 240, 1, id="few small photos"),
        pytest.param([100_000] * 260, 2, id="small photos for both cores"),
        pytest.param([50 * 1024**2] * 120, 6, id="6 GB in 120 photos"),
        pytest.param([1000] * 1990 + [64 * 1024**2] * 100, 8, id="6 GB in 100 of 2,090 photos"),
        pytest.param([100_000] * 259 + [1024**4], 2, id="a terabyte that is refused unread"),
    ],
)
def test_work_is_cut_by_the_bytes_that_are_read(nights, sizes, partitions):
    loaded = load_images._load(*work_listed(nights, sizes))
    assert loaded.tasks == partitions


def test_no_listing_is_a_named_error(nights):
    nights.runs.append("run-1")
    with pytest.raises(ListingError, match=r"listing\.parquet"):
        nights.run("load_images")


def test_tables_delete_by_rewriting_so_that_no_deleted_byte_stays(nights):
    tables.ensure(nights.spark, nights.database)
    for table in ("images", "rejects", "features", "pca", "pca_models"):
        shown = nights.spark.sql(f"SHOW TBLPROPERTIES {nights.database}.{table}").collect()
        properties = {row.key: row.value for row in shown}
        assert properties["format-version"] == "2"
        assert {properties[f"write.{verb}.mode"] for verb in ("delete", "update", "merge")} == {"copy-on-write"}
