"""Altered photos differ more with each strength, and are named as the jobs name photos."""

from __future__ import annotations

import io
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fruits.classifier import split
from PIL import Image

from dev.robustness import measure
from fruits_lake import Lake, LakeError
from tests.lakes import session
from tests.spark_jobs.conftest import Nights
from tests.spark_jobs.pictures import encoded, fruit


def pixels(photo: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(photo)).convert("RGB").resize((100, 80)), np.float64)


@pytest.mark.parametrize("kind", [kind for kind in measure.ALTERATIONS if kind != "none"])
def test_an_alteration_harms_more_with_each_strength_and_is_the_same_each_time(kind: str) -> None:
    photo = encoded(fruit(7, (100, 80)), "PNG")
    unit, strengths, _ = measure.ALTERATIONS[kind]
    altered = [measure.alter(photo, kind, strength) for strength in strengths]
    harm = [np.abs(pixels(after) - pixels(photo)).mean() for after in altered]
    assert 0 < harm[0] < harm[1] < harm[2]
    assert altered == [measure.alter(photo, kind, strength) for strength in strengths]
    assert len({unit.format(strength) for strength in strengths}) == 3


def test_background_is_replaced_and_the_fruit_is_not() -> None:
    photo = encoded(fruit(7), "PNG")
    after = pixels(measure.alter(photo, "background", 100))
    assert not np.array_equal(after[2, 2], [255, 255, 255])
    assert np.array_equal(after[40:50, 45:55], pixels(photo)[40:50, 45:55])


@pytest.mark.spark
@pytest.mark.timeout(1200)
def test_the_photos_as_they_are_get_the_rates_of_the_evaluation(
    spark: Any, model: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(split, "_NEAR_EQUAL", 0.98)  # drawn fruits are all alike
    warehouse = tmp_path / "tables"
    warehouse.mkdir()
    shutil.copytree(model["folder"], tmp_path / "models" / model["model_id"])
    own = session(spark, {".type": "hadoop", ".warehouse": str(warehouse)})
    nights = Nights(own, "lake.fruits", tmp_path / "photos", tmp_path / "runs", model)
    for label, tint in (("Plum", "navy"), ("Apple", "red")):
        (nights.photos / label).mkdir(parents=True)
        for number in range(100):
            picture = Image.blend(fruit(number), Image.new("RGB", (100, 100), tint), 0.5)
            (nights.photos / label / f"r{number // 10}_{number}.jpg").write_bytes(encoded(picture))
    classifier = nights.night("--k", "8")["publish"]["classifier"]
    assert classifier.get("failure") is None
    result = measure.measure(tmp_path, ("none", "darkness"))
    assert (result["classifier_id"], result["labels"]) == (classifier["classifier_id"], 2)
    assert result["photos"] == classifier["judged"] > 30
    assert result["rows"][0]["top1"] == classifier["top1"]
    assert [(row["kind"], row["strength"]) for row in result["rows"]] == [
        ("none", ""),
        *(("darkness", f"{share} % of the light") for share in (60, 30, 10)),
    ]
    assert all(row["answered"]["n"] == result["photos"] for row in result["rows"])
    labels, answers = Lake.open(tmp_path).answer([measure.alter(encoded(fruit(1)), "darkness", 60)])
    assert (labels, answers.ranked.shape) == (["Apple", "Plum"], (1, 2))
    own.sql("DELETE FROM lake.fruits.classifiers")
    with pytest.raises(LakeError, match="no classifier is published"):
        measure.measure(tmp_path)
