"""Create the archive of classes from which Spark's driver starts on this machine, beside the Iceberg jars.

Loading and verifying some 17,000 classes is a quarter of what a short step takes. Java's class-data sharing (JEP 350)
keeps them: a small job that does what ours do (typical_job.py) dumps what it has loaded as it ends. Java itself
compares the archive with its own build and with the class path of each start, and does without it where they differ.
Run by `make setup` in .venv-node, whose Spark runs the jobs.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from dev import environment, fetch_jars

FILE_NAME = "spark.jsa"
_TYPICAL_JOB = Path(__file__).with_name("typical_job.py")


class TrainingFailed(Exception):
    """The job whose classes are to be kept did not end well."""


def options(folder: Path) -> list[str]:
    """Return the options of spark-submit for the jars and, where it exists, the archive of `folder`."""
    archive = folder / FILE_NAME
    return _class_path(folder) + (_java("SharedArchiveFile", archive) if archive.is_file() else [])


def make(folder: Path) -> bool:
    """Create the archive in `folder`, where the Iceberg jars are, or replace it.

    Returns:
        Whether there is one now: a Java without an archive of its own classes writes none.

    Raises:
        TrainingFailed: With Spark's own last words.
        OSError: The folder is missing or cannot be written.
    """
    with tempfile.TemporaryDirectory(dir=folder) as work:
        # A JVM that maps half an archive dies of it: it gets its name when it is whole.
        archive = Path(work, FILE_NAME)
        conf = {
            "spark.ui.enabled": "false",
            "spark.pyspark.python": sys.executable,
            "spark.sql.extensions": "org.apache.iceberg.spark.extensions.IcebergSparkSessionExtensions",
            "spark.sql.catalog.lake": "org.apache.iceberg.spark.SparkCatalog",
            "spark.sql.catalog.lake.type": "hadoop",
            "spark.sql.catalog.lake.warehouse": f"{work}/tables",
        }
        trained = _submit(
            *("--master", "local[2]"),
            *_class_path(folder),
            *_java("ArchiveClassesAtExit", archive),
            *(part for key, value in conf.items() for part in ("--conf", f"{key}={value}")),
            str(_TYPICAL_JOB),
        )
        if trained.returncode:
            raise TrainingFailed(trained.stdout[-2000:])
        if not archive.is_file():
            (folder / FILE_NAME).unlink(missing_ok=True)
            return False
        archive.replace(folder / FILE_NAME)
        return True


def _class_path(folder: Path) -> list[str]:
    return ["--driver-class-path", os.pathsep.join(map(str, fetch_jars.paths(folder)))]


def _java(option: str, archive: Path) -> list[str]:
    # Java would list what it cannot use of the archive on a job's own stdout.
    return ["--conf", f'spark.driver.defaultJavaOptions=-Xlog:cds*=error -XX:{option}="{archive}"']


def _submit(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [environment.spark_submit(), *arguments],
        check=False,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,  # the job's traceback comes on one of them, Spark's on the other
        text=True,
        env=environment.for_spark(),
    )


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path(".cache/jars"))
    folder = parser.parse_args().folder.resolve()
    try:
        if not make(folder):
            print("NOTE: this Java keeps no archive of classes: each Spark step starts some seconds later.")
    except (TrainingFailed, OSError) as error:
        sys.exit(
            f"{error}\nERROR: Spark did not run a small job here (cause above). Check JAVA_HOME (17 or 21), the Iceberg"
            f" jars in {folder} (removed: run make distclean), free memory and disk, then run make setup again."
        )


if __name__ == "__main__":
    main()
