"""Release labels, their applications, and the instance types they run on.

The lists are moto's snapshots of the answers of AWS. `EXTRA` has labels that a snapshot may lack.
"""

from functools import cache
from typing import Any

from moto.utilities.utils import load_resource

# Version of Spark by label; unknown for other labels.
EXTRA = {"emr-spark-8.0.0": "4.0.2"}

# In lower case; AWS ignores the case.
APPLICATIONS = frozenset(
    (
        *("amazoncloudwatchagent", "delta", "flink", "hadoop", "hbase", "hcatalog", "hive", "hudi", "hue"),
        *("iceberg", "jupyterenterprisegateway", "jupyterhub", "livy", "oozie", "phoenix", "pig", "presto"),
        *("prestodb", "spark", "sqoop", "tensorflow", "tez", "trino", "zeppelin", "zookeeper"),
    )
)


@cache
def release_labels(region: str) -> tuple[str, ...]:
    """Return the labels that a region offers, newest first within each line."""
    try:
        known: list[str] = load_resource(f"emr/resources/release-labels-{region}.json")
    except FileNotFoundError:  # a region younger than the snapshot
        known = load_resource("emr/resources/release-labels-eu-west-1.json")
    return (*(label for label in EXTRA if label not in known), *known)


@cache
def instance_types(label: str) -> dict[str, dict[str, Any]]:
    """Return the instance types that a release supports, by name: `SupportedInstanceType`."""
    try:
        names = set(load_resource(f"emr/resources/instance-types-{label}.json"))
    except FileNotFoundError:
        names = set(load_resource("emr/resources/instance-types-emr-7.10.0.json"))
    types: dict[str, dict[str, Any]] = load_resource("emr/resources/instance_types.json")
    return {name: details for name, details in types.items() if name in names}


def applications(label: str, requested: list[dict[str, Any]]) -> list[dict[str, str]]:
    """Return the applications of a cluster, with the version in the release where it is known."""
    versions = {"Spark": EXTRA.get(label, "")}
    return [
        {"Name": item["Name"], "Version": item.get("Version") or versions.get(item["Name"], "")} for item in requested
    ]
