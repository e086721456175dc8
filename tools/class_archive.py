"""Makes the archive of classes from which Spark's driver starts on this machine, beside the Iceberg jars.

Loading and verifying some 17,000 classes is a quarter of what a short step takes. Java's class-data sharing (JEP 350)
keeps them: a small job that does what ours do (typical_job.py) dumps what it has loaded as it ends. Java itself
compares the archive with its own build and with the class path of each start, and does without it where they differ.
Run by `make setup` in .venv-spark.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from tools import fetch_jars

FILE_NAME = "spark.jsa"
_TYPICAL_JOB = Path(__file__).with_name("typical_job.py")


class TrainingFailed(Exception):
    """The job whose classes are to be kept did not end well."""


def options(folder: Path) -> list[str]:
    """The options of spark-submit for the jars and, where it is there, the archive of `folder`."""
    archive = folder / FILE_NAME
    return _class_path(folder) + (_java(f"-XX:SharedArchiveFile={archive}") if archive.is_file() else [])


def make(folder: Path) -> bool:
    """Makes `folder` hold the archive, in place of the one that is there.

    Args:
        folder: Where the Iceberg jars are.

    Returns:
        Whether there is one now: a Java without an archive of its own classes writes none.

    Raises:
        TrainingFailed: With Spark's own last words.
    """
    with tempfile.TemporaryDirectory(dir=folder) as work:
        # A JVM that maps half an archive dies of it: it gets its name when it is whole.
        made = Path(work, FILE_NAME)
        trained = _submit(
            *("--master", "local[2]"),
            *_class_path(folder),
            *_java(f"-XX:ArchiveClassesAtExit={made} -Xlog:cds*=error"),
            *("--conf", "spark.ui.enabled=false", "--conf", f"spark.pyspark.python={sys.executable}"),
            *(
                "--conf",
                "spark.sql.extensions=org.apache.iceberg.spark.extensions.IcebergSparkSessionExtensions",
            ),
            *("--conf", "spark.sql.catalog.lake=org.apache.iceberg.spark.SparkCatalog"),
            *("--conf", "spark.sql.catalog.lake.type=hadoop"),
            *("--conf", f"spark.sql.catalog.lake.warehouse={work}/tables"),
            str(_TYPICAL_JOB),
        )
        if trained.returncode:
            raise TrainingFailed(trained.stdout[-2000:])
        (folder / FILE_NAME).unlink(missing_ok=True)
        if made.is_file():
            made.rename(folder / FILE_NAME)
    return (folder / FILE_NAME).is_file()


def _class_path(folder: Path) -> list[str]:
    return ["--driver-class-path", os.pathsep.join(map(str, fetch_jars.paths(folder)))]


def _java(option: str) -> list[str]:
    return ["--conf", f"spark.driver.defaultJavaOptions={option}"]


def _submit(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(Path(sys.executable).with_name("spark-submit")), *arguments],
        check=False,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,  # where Spark puts a job's own
        text=True,
        env=os.environ | {"PYSPARK_PYTHON": sys.executable, "SPARK_LOCAL_IP": "127.0.0.1"},
    )


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path(".cache/jars"))
    folder = parser.parse_args().folder.resolve()
    try:
        if not make(folder):
            print("NOTE: this Java keeps no archive of classes: each Spark step starts some seconds later.")
    except TrainingFailed as error:
        sys.exit(
            f"{error}\nERROR: Spark did not run a small job here (cause above). Check JAVA_HOME (17 or 21), free"
            " memory and disk, then run make setup again."
        )


if __name__ == "__main__":
    main()
