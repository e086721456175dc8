"""What the jobs run with where there is no cluster: an Iceberg catalog in a folder, and their library packed."""

from __future__ import annotations

import zipfile
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent.parent / "spark_jobs" / "fruits"


def settings(warehouse: Path, python: Path) -> dict[str, str]:
    """Return Spark's settings for the catalog `lake` in a folder, and for short jobs on few cores.

    Args:
        warehouse: The folder of the tables.
        python: The interpreter of driver and workers.
    """
    return {
        "spark.sql.extensions": "org.apache.iceberg.spark.extensions.IcebergSparkSessionExtensions",
        "spark.sql.catalog.lake": "org.apache.iceberg.spark.SparkCatalog",
        "spark.sql.catalog.lake.type": "hadoop",
        "spark.sql.catalog.lake.cache-enabled": "false",
        "spark.sql.catalog.lake.warehouse": str(warehouse),
        "spark.pyspark.python": str(python),
        "spark.pyspark.driver.python": str(python),
        "spark.driver.memory": "2g",
        # The second compiler and a parallel collector would take half of all processor time.
        "spark.driver.extraJavaOptions": "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC",
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.driver.host": "127.0.0.1",
        "spark.ui.enabled": "false",
        "spark.log.level": "WARN",
    }


def zip_package(target: Path) -> Path:
    """Pack the library of the jobs as it is shipped."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(_PACKAGE.rglob("*.py")):
            archive.write(path, path.relative_to(_PACKAGE.parent).as_posix())
    return target
