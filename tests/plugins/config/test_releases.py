"""The table of EMR releases: the deployment's release is what is pinned here, and is supported."""

from __future__ import annotations

import re
import warnings
from datetime import UTC, date, datetime, timedelta

from fruits_airflow.config.releases import RELEASES, release
from fruits_airflow.config.settings import load_settings

from dev.fetch_jars import ICEBERG_VERSION
from tests.plugins.laptop import REPOSITORY

LABEL = load_settings(environment={
    "FRUITS_DEPLOYMENT_ID": "test", "FRUITS_RAW_BUCKET": "raw", "FRUITS_LAKE_BUCKET": "lake",
}).release_label  # fmt: skip


def test_the_dates_and_versions_are_those_of_the_release_guide() -> None:
    stated = {label: (entry.spark, entry.iceberg, entry.end_of_support) for label, entry in RELEASES.items()}
    assert stated == {"emr-spark-8.0.0": ("4.0.2", "1.10.1", date(2028, 5, 20))}


def test_the_pinned_pyspark_and_icebergs_jar_are_the_releases() -> None:
    pinned = re.search(r"^pyspark==(\S+)", (REPOSITORY / "requirements" / "spark.lock").read_text(), re.M)
    assert pinned is not None
    assert (pinned[1], ICEBERG_VERSION) == (release(LABEL).spark, release(LABEL).iceberg)


def test_the_release_is_supported() -> None:
    left = release(LABEL).end_of_support - datetime.now(UTC).date()
    assert left > timedelta(0), f"{LABEL} has no support since {release(LABEL).end_of_support}"
    if left < timedelta(days=90):
        warnings.warn(f"{LABEL} loses its support in {left.days} days: see docs/adr/0014", stacklevel=1)
