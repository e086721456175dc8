"""Nights after the demo's first, by the real DAG with real Spark: what they do with the names of photos.

Runs after tests/e2e/test_erasure.py, whose fixtures it uses; one photo of the demo is erased by then, or none.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from pyiceberg.catalog import Catalog

from tests.e2e.conftest import CLUSTER, WEIGHTS
from tests.e2e.test_demo import catalog
from tests.e2e.test_erasure import Airflow, airflow, buckets, s3

__all__ = ["airflow", "buckets", "catalog", "s3"]  # fixtures
pytestmark = [
    *(pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(1800)),
    pytest.mark.skipif(not WEIGHTS.is_file() or CLUSTER == "yarn", reason="photos that do not suffice for names"),
]

DAG = "fruits_pipeline"
PREFIX = "images/demo/"


class Names:
    """The tables that name photos, as they are now."""

    def __init__(self, catalog: Catalog) -> None:
        database = "fruits_demo"  # others have tables, too, once something was erased

        def rows(table: str) -> list[dict[str, Any]]:
            return list(catalog.load_table((database, table)).scan().to_arrow().to_pylist())

        (self.classifier,) = rows("classifiers")
        names = rows("predictions")
        self.by_image = {row["image_id"]: row for row in names}
        self.images = {row["image_id"] for row in rows("images")}
        assert len(self.by_image) == len(names), "a photo has one name"
        assert {row["classifier_id"] for row in names} == {self.classifier["classifier_id"]}


def night(airflow: Airflow, s3: Any, lake: str, run_id: str, **conf: Any) -> dict[str, Any]:
    """Run the pipeline as the demo does; return what `publish` says of the classifier."""
    airflow.run(DAG, run_id, {"input_prefix": PREFIX, **conf})
    metrics = json.loads(s3.get_object(Bucket=lake, Key=f"runs/{run_id}/stages/publish.json")["Body"].read())
    return dict(metrics["classifier"])


def test_the_next_nights_name_what_is_new_and_follow_what_changes_or_goes_and_another_pca_model(
    photos: Path, airflow: Airflow, s3: Any, buckets: list[str], catalog: Catalog
) -> None:
    raw, lake = buckets
    before = Names(catalog)
    labelled = [
        path
        for path in sorted(photos.glob("*/r*.jpg"))
        if hashlib.sha256(f"{PREFIX}{path.relative_to(photos).as_posix()}".encode()).hexdigest() in before.images
    ]
    new, changed, removed = "phone new.jpg", *(path.relative_to(photos).as_posix() for path in labelled[:2])
    ids = {name: hashlib.sha256(f"{PREFIX}{name}".encode()).hexdigest() for name in (new, changed, removed)}
    s3.put_object(Bucket=raw, Key=PREFIX + new, Body=labelled[2].read_bytes())
    s3.put_object(Bucket=raw, Key=PREFIX + changed, Body=labelled[3].read_bytes())
    s3.delete_object(Bucket=raw, Key=PREFIX + removed)
    facts = night(airflow, s3, lake, "manual__second")
    second = Names(catalog)
    assert (facts["is_new"], facts["named"], facts["unlabelled"]) == (False, 2, 1)
    assert second.classifier == before.classifier
    assert second.by_image.keys() == second.images == before.images | {ids[new]} - {ids[removed]}
    assert {key for key, row in second.by_image.items() if row != before.by_image.get(key)} == {ids[new], ids[changed]}

    facts = night(airflow, s3, lake, "manual__third", k=20, force=True)
    third = Names(catalog)
    assert (facts["is_new"], facts["reason"], facts["named"]) == (True, "the PCA model is another", len(third.images))
    assert third.classifier["pca_id"] != before.classifier["pca_id"]
    assert third.by_image.keys() == third.images == second.images
