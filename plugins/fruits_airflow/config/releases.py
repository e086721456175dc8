"""EMR releases that this project knows: their Spark, and until when AWS supports them.

Source: the EMR release guide's tables of versions and of standard support. Every release here reads `s3://` by S3A:
EMRFS is gone since 8.0. Why emr-spark-8.1.0 is not in the table: docs/adr/0014. A test fails when the label in
include/settings.yaml and the pinned pyspark part, and warns when support ends within 90 days.
"""

import re
from dataclasses import dataclass
from datetime import date

from fruits_airflow.config.errors import ConfigError


@dataclass(frozen=True)
class Release:
    """An EMR release."""

    spark: str  # version of Spark, as `pyspark` on the package index names it
    iceberg: str  # version of Iceberg that the release ships
    end_of_support: date  # last day of standard support
    applications: frozenset[str]  # applications that a cluster may request
    instance_families: frozenset[str]  # families of instance types with prices in this project that it runs on


RELEASES: dict[str, Release] = {
    "emr-spark-8.0.0": Release(
        spark="4.0.2",
        iceberg="1.10.1",
        end_of_support=date(2028, 5, 20),
        applications=frozenset(
            {"AmazonCloudWatchAgent", "Delta", "Hudi", "Iceberg", "JupyterEnterpriseGateway", "Livy", "Spark"}
        ),
        instance_families=frozenset({"c5", "c6g", "c6i", "c7g", "m5", "m6g", "m6i", "m7g", "r5", "r6g", "r6i", "r7g"}),
    )
}

GIB_PER_CORE = {"c": 2, "m": 4, "r": 8}  # memory per virtual CPU, by the first letter of a type
_GRAVITON = re.compile(r"[a-z]\d+g[a-z]*\.")


def architecture(instance_type: str) -> str:
    """Return `arm64` for Graviton (a g after the generation, as in m7g), else `x86_64`."""
    return "arm64" if _GRAVITON.match(instance_type) else "x86_64"


def release(label: str) -> Release:
    """Look a release label up.

    Raises:
        ConfigError: The label is not in the table.
    """
    try:
        return RELEASES[label]
    except KeyError:
        raise ConfigError(
            f"release_label: {label!r} is unknown; use one of {', '.join(RELEASES)}, or add the label with "
            "its Spark version and end of support to fruits_airflow/config/releases.py"
        ) from None
