"""What a small night asks of Spark: each Spark job costs more than a second photo does, and they creep in unseen."""

from __future__ import annotations

import pytest

from tests.spark_jobs.conftest import Nights
from tests.spark_jobs.pictures import orchard

pytestmark = pytest.mark.spark

AT_MOST = {"load_images": 7, "featurize": 1, "reduce_pca": 1, "publish": 6}
"""What there is now. Fewer is better: then lower these."""


def started(nights: Nights) -> int:
    """How many Spark jobs this session has started, those of broadcasts and subqueries too."""
    return int(nights.spark.sparkContext._jsc.sc().dagScheduler().numTotalJobs())


def counted(nights: Nights, stage: str, *arguments: str) -> int:
    before = started(nights)
    nights.run(stage, *arguments)
    return started(nights) - before


def test_a_night_with_few_new_photos_starts_few_spark_jobs(nights: Nights) -> None:
    orchard(nights.photos, labels=3, each=6)
    nights.night("--k", "8")
    orchard(nights.photos, labels=3, each=7)
    nights.list_photos()
    found = {
        "load_images": counted(nights, "load_images", "--complete"),
        "featurize": counted(nights, "featurize"),
        "reduce_pca": counted(nights, "reduce_pca", "--k", "8"),
        "publish": counted(nights, "publish"),
    }
    assert {stage: jobs for stage, jobs in found.items() if jobs > AT_MOST[stage]} == {}
    assert counted(nights, "reduce_pca", "--k", "8") == 0, "nothing has changed since"
