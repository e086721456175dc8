"""Which tables the stages say that they read and write, beside those that they do change."""

from __future__ import annotations

import pytest
from fruits.base import schemas

from tests.spark_jobs.pictures import orchard

pytestmark = pytest.mark.spark


def test_a_stage_names_each_table_that_it_changes_with_its_columns(nights):
    orchard(nights.photos, labels=2, each=6)
    (nights.photos / "no_photo.jpg").write_text("a reject")
    nights.list_photos()
    commits, changed = dict.fromkeys(schemas.TABLES, 0), {}
    for stage, arguments in {
        **{"load_images": ["--complete"], "featurize": [], "reduce_pca": ["--k", "2"], "publish": []}
    }.items():
        metrics = nights.run(stage, *arguments)
        now = {name: nights.commits(name) for name in schemas.TABLES}
        changed[stage] = {name for name in now if now[name] != commits[name]}
        commits = now
        assert set(metrics["writes"]) == changed[stage], stage
        assert set(metrics.get("reads", ())) <= set(schemas.TABLES)
        for name, columns in metrics["writes"].items():
            assert [column for column, _ in columns] == [field.name for field in nights.table(name).schema]
    # So few photos have no classifier; tests/spark_jobs/publish/test_naming.py looks at the tables of one.
    assert set.union(*changed.values()) == set(schemas.TABLES) - {"classifiers", "predictions"}
