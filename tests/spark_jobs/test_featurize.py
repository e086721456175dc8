from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from fruits.base.errors import ModelMismatchError
from fruits.model.embedding import LiteRtEmbedder, embed_all

from tests.spark_jobs.conftest import Nights, record_mapped_column
from tests.spark_jobs.pictures import encoded, fruit, orchard

pytestmark = pytest.mark.spark


def features(nights: Nights) -> dict[str, np.ndarray]:
    return {row["image_id"]: np.array(row["features"], np.float32) for row in nights.rows("features")}


def test_features_are_those_of_the_model_and_a_rerun_computes_and_commits_nothing(nights):
    orchard(nights.photos, labels=2, each=4)
    nights.load()
    metrics = nights.run("featurize")
    images = nights.table("images").select("image_id", "pixels").toArrow()
    flatbuffer = (Path(nights.model["folder"]) / "model.tflite").read_bytes()
    expected = embed_all(LiteRtEmbedder(flatbuffer, 1), images.column("pixels").combine_chunks())
    computed = features(nights)
    for image_id, row in zip(images.column("image_id").to_pylist(), expected, strict=True):
        assert computed[image_id].tobytes() == row.tobytes()
    assert metrics["features"] == {
        "rows": 8,
        "computed": 8,
        "model_id": nights.model["model_id"],
        "engine": "litert",
        "weights": nights.model["weights"],
        "network": "MobileNetV2",
        "dims": 1280,
    }
    assert nights.run("featurize")["features"]["computed"] == 0
    assert nights.commits("features") == 1


def test_only_changed_images_are_computed_again_and_features_of_gone_ones_leave(nights):
    orchard(nights.photos, labels=1, each=4)
    nights.load()
    nights.run("featurize")
    before = features(nights)
    (nights.photos / "Label 0" / "r0_0_100.jpg").write_bytes(encoded(fruit(77)))
    (nights.photos / "Label 0" / "r1_1_100.jpg").unlink()
    nights.load()
    assert nights.run("featurize")["features"]["computed"] == 1
    after = features(nights)
    ids = {row["image_id"]: row["source_key"] for row in nights.rows("images")}
    assert set(after) == set(ids)
    changed = {ids[image_id] for image_id in after if after[image_id].tobytes() != before[image_id].tobytes()}
    assert changed == {"Label 0/r0_0_100.jpg"}


def test_a_full_refresh_gives_equal_bytes(nights):
    orchard(nights.photos, labels=1, each=5)
    nights.load()
    nights.run("featurize")
    before = nights.rows("features")
    assert nights.run("featurize", "--full-refresh", "--batch-size", "4")["features"]["computed"] == 5
    assert nights.rows("features") == before


def test_no_image_is_computed_twice_for_a_merge(nights, tmp_path, monkeypatch):
    import featurize

    orchard(nights.photos, labels=1, each=5)
    nights.load()
    nights.run("featurize")
    seen = tmp_path / "seen"
    record_mapped_column(monkeypatch, featurize.embedding, "embed_mapper", "image_id", seen)
    nights.run("featurize", "--full-refresh")
    computed = seen.read_text().split()
    assert len(computed) == len(set(computed)) == 5


def test_equal_bytes_whatever_the_partitions_and_the_order_of_the_images(nights, monkeypatch):
    import featurize

    orchard(nights.photos, labels=3, each=9)
    nights.load()
    nights.run("featurize")
    before = features(nights)
    cuts = []
    partitions = featurize.job_run.partition_count
    monkeypatch.setattr(featurize.job_run, "partition_count", lambda *how: cuts.append(partitions(*how)) or cuts[-1])
    monkeypatch.setattr(featurize, "ROWS_PER_PARTITION", 2)
    nights.run("featurize", "--full-refresh", "--batch-size", "2")
    assert cuts[0] > 10
    after = features(nights)
    assert after.keys() == before.keys()
    assert all(after[key].tobytes() == before[key].tobytes() for key in before)


def spread(nights: Nights, monkeypatch: pytest.MonkeyPatch, parts: int) -> list[int]:
    """Run featurize as if the work were cut into so many parts; give the partitions of what is read from files."""
    import featurize

    straight: list[int] = []
    map_rows = featurize.data_files.Selection.map

    def record_tasks(*arguments):
        mapped = map_rows(*arguments)
        straight.append(mapped.tasks)
        return mapped

    monkeypatch.setattr(featurize.job_run, "partition_count", lambda *_: parts)
    monkeypatch.setattr(featurize.data_files.Selection, "map", record_tasks)
    nights.run("featurize")
    return straight


def load_more(nights: Nights, *numbers: int) -> None:
    for number in numbers:
        (nights.photos / "Label 0" / f"{number}_100.jpg").write_bytes(encoded(fruit(number)))
    nights.load()


@pytest.mark.parametrize(
    ("files", "named", "parts", "straight"),
    [
        ([range(4, 16)], 12, 1, [1]),
        ([range(4, 10), range(10, 16)], 12, 2, [2]),
        ([range(4, 10), range(10, 16)], 11, 2, []),  # too many to name
        ([range(4, 9), range(9, 16)], 12, 2, []),  # uneven
        ([range(4, 10), range(10, 16)], 12, 1, [2]),  # all cores read what few rows may lie in
    ],
)
def test_new_images_are_read_straight_from_their_files_or_shuffled(nights, monkeypatch, files, named, parts, straight):
    orchard(nights.photos, labels=1, each=4)
    nights.load()
    nights.run("featurize")
    before = features(nights)
    for photos in files:
        load_more(nights, *photos)
    monkeypatch.setattr("featurize._NAMED_ROWS", named)
    assert spread(nights, monkeypatch, parts) == straight
    after = features(nights)
    assert len(after) == 16
    assert all(after[key].tobytes() == before[key].tobytes() for key in before)


@pytest.mark.parametrize(("most", "straight"), [(12, [2]), (11, [])])
def test_all_images_are_read_straight_from_their_files_up_to_a_number(nights, monkeypatch, most, straight):
    orchard(nights.photos, labels=1, each=6)
    nights.load()
    load_more(nights, *range(6, 12))
    monkeypatch.setattr("featurize._NAMED_ROWS", 0)
    monkeypatch.setattr("featurize._BROADCAST_ROWS", most)
    assert spread(nights, monkeypatch, 2) == straight
    assert len(features(nights)) == 12


def test_an_image_that_is_only_touched_is_not_computed_beside_new_ones(nights, monkeypatch):
    """Its row is one of this run's, in the files of the new ones."""
    orchard(nights.photos, labels=1, each=4)
    nights.load()
    nights.run("featurize")
    os.utime(nights.photos / "Label 0" / "r0_0_100.jpg", (0, 0))
    load_more(nights, 4)
    assert sorted(row["run_id"] for row in nights.rows("images")) == ["run-1"] * 3 + ["run-2"] * 2
    assert spread(nights, monkeypatch, 1)
    assert len(nights.rows("features")) == 5


def test_rows_that_another_writer_marked_as_deleted_are_not_computed(nights, monkeypatch):
    orchard(nights.photos, labels=1, each=4)
    nights.load()
    images = f"{nights.database}.images"
    nights.spark.sql(f"ALTER TABLE {images} SET TBLPROPERTIES ('write.delete.mode' = 'merge-on-read')")
    nights.spark.sql(f"DELETE FROM {images} WHERE source_key = 'Label 0/r0_0_100.jpg'")
    assert spread(nights, monkeypatch, 1) == []
    assert len(features(nights)) == 3


def test_features_that_are_only_added_are_written_where_they_are_computed(nights):
    """By Arrow, in the workers, and not by Spark: a file says who wrote it."""
    orchard(nights.photos, labels=2, each=4)
    nights.load()
    nights.run("featurize")
    files = nights.spark.table(f"{nights.database}.features.files").select("file_path").collect()
    writers = {pq.read_metadata(file.file_path).created_by.split()[0] for file in files}
    assert writers == {"parquet-cpp-arrow"}
    assert len(features(nights)) == 8


def test_both_engines_agree_to_a_thousandth(nights, models):
    orchard(nights.photos, labels=1, each=4)
    nights.load()
    nights.run("featurize")
    reference = nights.model["reference_model_id"]
    nights.run(
        "featurize",
        *("--model", str(models / reference), "--model-id", reference, "--engine", "tensorflow", "--batch-size", "4"),
    )
    rows = nights.rows("features")
    assert {row["model_id"] for row in rows} == {nights.model["model_id"], reference}
    by_image: dict[str, list[list[float]]] = {}
    for row in rows:
        by_image.setdefault(row["image_id"], []).append(row["features"])
    assert len(by_image) == 4
    for first, second in by_image.values():
        assert first != second
        np.testing.assert_allclose(first, second, atol=1e-3)


def test_executors_never_read_the_model_only_what_the_driver_broadcast(nights, tmp_path, monkeypatch):
    """Once the driver has read it the artifact is gone; whoever looked for it then would fail."""
    import featurize

    folder = tmp_path / "model"
    shutil.copytree(nights.model["folder"], folder)
    read = featurize.artifacts.read

    def read_and_remove(*arguments):
        artifact = read(*arguments)
        shutil.rmtree(folder)
        return artifact

    monkeypatch.setattr(featurize.artifacts, "read", read_and_remove)
    orchard(nights.photos, labels=1, each=2)
    nights.load()
    assert nights.run("featurize", "--model", str(folder))["features"]["computed"] == 2


def test_a_model_of_another_digest_stops_the_job_before_anything_is_computed(nights, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(nights.model["folder"], folder)
    with (folder / "model.tflite").open("ab") as file:
        file.write(b"!")
    orchard(nights.photos, labels=1, each=2)
    nights.load()
    with pytest.raises(ModelMismatchError, match="SHA-256"):
        nights.run("featurize", "--model", str(folder))
    assert nights.rows("features") == []
    assert not (nights.run_folder / "stages" / "featurize.json").exists()
    assert json.loads((nights.run_folder / "stages" / "load_images.json").read_text())
