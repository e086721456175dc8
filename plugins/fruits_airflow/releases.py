"""EMR releases that this project knows: their Spark, and until when AWS supports them.

Source: the EMR release guide's tables of versions and of standard support. A test fails when the label in
include/settings.yaml and the pinned pyspark part, and warns when support ends within 90 days.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

from fruits_airflow.errors import ConfigError


@dataclass(frozen=True)
class Release:
    """One EMR release label.

    Attributes:
        spark: version of Spark, as `pyspark` on the package index names it.
        iceberg: version of Iceberg that the release ships.
        end_of_support: last day of standard support.
    """

    spark: str
    iceberg: str
    end_of_support: date


RELEASES: dict[str, Release] = {
    "emr-spark-8.0.0": Release(spark="4.0.2", iceberg="1.10.1", end_of_support=date(2027, 5, 20)),
}


def release(label: str) -> Release:
    """Looks a release label up.

    Raises:
        ConfigError: the label is not in the table.
    """
    try:
        return RELEASES[label]
    except KeyError:
        raise ConfigError(
            f"release_label: {label!r} is unknown; use one of {', '.join(RELEASES)}, or add the label with "
            "its Spark version and end of support to fruits_airflow/releases.py"
        ) from None
