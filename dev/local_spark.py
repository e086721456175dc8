"""Spark's settings where there is no cluster: an Iceberg catalog in a folder, and short jobs on few cores."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

ROOT = Path(__file__).resolve().parent.parent
JAVA_OPTIONS = "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC"
"""Of a driver: the second compiler and a parallel collector would take half of all processor time."""


def settings(warehouse: Path, python: Path) -> dict[str, str]:
    """Return Spark's settings for the catalog `lake` in a folder, and for short jobs of a Python on few cores."""
    return {
        "spark.sql.extensions": "org.apache.iceberg.spark.extensions.IcebergSparkSessionExtensions",
        "spark.sql.catalog.lake": "org.apache.iceberg.spark.SparkCatalog",
        "spark.sql.catalog.lake.type": "hadoop",
        "spark.sql.catalog.lake.cache-enabled": "false",
        "spark.sql.catalog.lake.warehouse": str(warehouse),
        "spark.pyspark.python": str(python),
        "spark.pyspark.driver.python": str(python),
        "spark.driver.memory": "2g",
        "spark.driver.extraJavaOptions": JAVA_OPTIONS,
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.driver.host": "127.0.0.1",
        "spark.authenticate": "true",  # other users of this machine reach the driver's port
        "spark.ui.enabled": "false",
        "spark.log.level": "WARN",
    }


def open_session(lake: str) -> SparkSession:
    """Open the session of a notebook on this machine, over the tables in `lake`/tables."""
    from pyspark.sql import SparkSession

    os.environ["SPARK_LOCAL_IP"] = "127.0.0.1"
    os.environ["PYSPARK_PYTHON"] = sys.executable  # a session in Python ignores its setting
    jars = ":".join(map(str, (ROOT / ".cache" / "jars").glob("iceberg-spark-*.jar")))
    conf: dict[str, bool | float | str | None] = {
        **settings(Path(lake, "tables"), Path(sys.executable)),
        "spark.master": "local[*]",
        "spark.driver.extraClassPath": jars,
        "spark.ui.showConsoleProgress": "false",
    }
    return SparkSession.builder.config(map=conf).appName("fruits notebook").getOrCreate()
