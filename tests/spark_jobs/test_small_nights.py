"""The number of Spark jobs of a small run: each costs more than a second photo, and they increase unnoticed."""

from __future__ import annotations

import pytest

from tests.spark_jobs.conftest import Nights
from tests.spark_jobs.pictures import orchard

pytestmark = pytest.mark.spark

AT_MOST = {"load_images": 7, "featurize": 1, "reduce_pca": 1, "publish": 6}
"""The current numbers; lower them after an improvement."""


def count_started(nights: Nights) -> int:
    """Count the Spark jobs that this session has started, including broadcasts and subqueries."""
    return int(nights.spark.sparkContext._jsc.sc().dagScheduler().numTotalJobs())


def count_jobs(nights: Nights, stage: str, *arguments: str) -> int:
    before = count_started(nights)
    nights.run(stage, *arguments)
    return count_started(nights) - before


def test_a_run_with_few_new_photos_starts_few_spark_jobs(nights: Nights) -> None:
    orchard(nights.photos, labels=3, each=6)
    nights.night("--k", "8")
    orchard(nights.photos, labels=3, each=7)
    nights.list_photos()
    numbers = {
        "load_images": count_jobs(nights, "load_images", "--complete"),
        "featurize": count_jobs(nights, "featurize"),
        "reduce_pca": count_jobs(nights, "reduce_pca", "--k", "8"),
        "publish": count_jobs(nights, "publish"),
    }
    assert {stage: jobs for stage, jobs in numbers.items() if jobs > AT_MOST[stage]} == {}
    assert count_jobs(nights, "reduce_pca", "--k", "8") == 0, "nothing has changed since"
