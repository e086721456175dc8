"""Repair of Glue tables that name a metadata file which does not exist.

A commit of Iceberg writes a metadata file, and then asks Glue to name it. When Glue answers with an error that the AWS
SDK does not retry, Iceberg takes the commit for failed and deletes the file. Glue can have applied the commit all the
same, for example before an ``OperationTimeoutException``: then no engine can read the table (apache/iceberg#15530).
"""

import logging
from typing import Any

from pyspark.sql import SparkSession

from fruits.base import objects, schemas

_CURRENT, _PREVIOUS = "metadata_location", "previous_metadata_location"
_log = logging.getLogger("fruits")


def repair(spark: SparkSession, database: str) -> list[str]:
    """Return tables whose current metadata file is missing to the file before it.

    The commit that is undone has lost its files, and nobody can have committed after it. Other tables stay as they are.

    Returns:
        The names of the repaired tables; empty when the catalog is not Glue's.
    """
    catalog, _, namespace = database.partition(".")
    conf, prefix = spark.sparkContext.getConf(), f"spark.sql.catalog.{catalog}"
    if conf.get(f"{prefix}.type") != "glue":
        return []
    import boto3  # type: ignore[import-untyped]

    region, endpoint = conf.get(f"{prefix}.client.region"), conf.get(f"{prefix}.glue.endpoint")
    glue: Any = boto3.client("glue", region_name=region, endpoint_url=endpoint)
    pages = glue.get_paginator("get_tables").paginate(DatabaseName=namespace)
    tables = [table for page in pages for table in page["TableList"] if table["Name"] in schemas.TABLES]
    return [table["Name"] for table in tables if _repair_table(glue, table)]


def _repair_table(glue: Any, table: dict[str, Any]) -> bool:
    parameters = table.get("Parameters", {})
    current, previous = parameters.get(_CURRENT), parameters.get(_PREVIOUS)
    if not (current and previous) or objects.exists(current) or not objects.exists(previous):
        return False
    writable = glue.meta.service_model.shape_for("TableInput").members
    definition = {name: value for name, value in table.items() if name in writable}
    definition["Parameters"] = {key: value for key, value in parameters.items() if key != _PREVIOUS}
    definition["Parameters"][_CURRENT] = previous
    glue.update_table(DatabaseName=table["DatabaseName"], TableInput=definition, VersionId=table["VersionId"])
    _log.warning("%s names %s, which does not exist; it is back at %s", table["Name"], current, previous)
    return True
