"""Runs the four Spark jobs over a plain folder of photos, without Airflow and without an AWS endpoint.

The same job files as on the cluster, started by spark-submit one after the other, with an Iceberg catalog in
OUT/tables. A second run over the same folder computes nothing again. Runs in .venv-spark, which converts the weights;
the jobs run in .venv-node, which has what a cluster's node has. Behind `make local`.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
sys.path.insert(0, str(ROOT / "spark_jobs"))

from fruits.base.errors import FruitsError, InputError  # noqa: E402
from fruits.images import decoding as limits  # noqa: E402 - after the path
from fruits.job import stage_metrics  # noqa: E402
from fruits.lake import input_listing  # noqa: E402

from dev import class_archive, fetch_jars, make_model  # noqa: E402

NODE_PYTHON = ROOT / ".venv-node" / "bin" / "python"
STAGES = ("load_images", "featurize", "reduce_pca", "publish")


class StageFailed(FruitsError):
    """A job ended with an error; its own last line says which."""


def _number(kind: type[int] | type[float], least: float, most: float) -> Callable[[str], int | float]:
    """Make the type of an argument: a number in a range, so that a run does not fail of it half-way."""

    def read(text: str) -> int | float:
        number = kind(text)
        if not least <= number <= most:  # NaN is refused too
            raise argparse.ArgumentTypeError(f"{text} is not between {least:g} and {most:g}")
        return number

    read.__name__ = kind.__name__  # what argparse calls it when `kind` refuses the text
    return read


def parser() -> argparse.ArgumentParser:
    """Makes the command line."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--images", type=Path, required=True, help="folder of photos, in one folder per label")
    made.add_argument("--out", type=Path, default=Path("build/local"), help="default: %(default)s")
    made.add_argument("--weights", metavar="PATH|imagenet|random", help="see dev/make_model.py")
    made.add_argument("--models", type=Path, default=Path(".cache/models"), help="default: %(default)s")
    how_many = made.add_mutually_exclusive_group()
    how_many.add_argument(
        "--variance", type=_number(float, 1e-9, 1), default=0.95, help="share to keep (default: %(default)s)"
    )
    how_many.add_argument("--k", type=_number(int, 1, 1280), help="number of components to keep")
    made.add_argument(
        "--engine", choices=("litert", "tensorflow"), default="litert", help="default: %(default)s"
    )
    made.add_argument(
        "--batch-size",
        type=_number(int, 1, 256),
        default=1,
        help="pictures per call of the model (default: 1)",
    )
    made.add_argument(
        "--max-reject-rate", type=_number(float, 0, 1), default=0.2, help="default: %(default)s"
    )
    made.add_argument(
        "--max-bytes",
        type=_number(int, 1, 2**31),
        default=limits.MAX_BYTES,
        help="reject larger files (default: %(default)s)",
    )
    made.add_argument(
        "--max-pixels",
        type=_number(int, 1, 10**9),
        default=limits.MAX_PIXELS,
        help="reject larger pictures (default: %(default)s)",
    )
    made.add_argument(
        "--max-removed-share", type=_number(float, 0, 1), default=0.1, help="default: %(default)s"
    )
    made.add_argument(
        "--max-removed-rows",
        type=_number(int, 0, 10**9),
        default=1000,
        help="stop before more rows than this, and than that share of them, are removed (default: %(default)s)",
    )
    made.add_argument("--force", action="store_true", help="remove the rows of missing photos, however many")
    made.add_argument("--full-refresh", action="store_true", help="load and compute everything again")
    made.add_argument("--master", default="local[*]", help="local[CORES], default: %(default)s")
    made.add_argument(
        "--jars",
        type=Path,
        default=Path(".cache/jars"),
        help="folder of the Iceberg jars (default: %(default)s)",
    )
    return made


def main(argv: list[str] | None = None) -> int:
    """Parses the command line, runs the jobs and prints a summary."""
    arguments = parser().parse_args(argv)
    try:
        print(summary(run(arguments), arguments.out))
    except FruitsError as error:
        if not isinstance(error, StageFailed):  # the job has said it already
            sys.stderr.write(f"ERROR {type(error).__name__}: {error}\n")
        return error.exit_status
    return 0


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """Lists the folder, makes or finds the model and runs the four jobs.

    Returns:
        Each stage's metrics by its name.

    Raises:
        InputError: The folder is missing, empty or not readable throughout, results would be written into it, or
            Java, the jars or the jobs' Python are missing.
        StageFailed: A job failed.
    """
    if shutil.which("java", path=_path_with_java()) is None:
        raise InputError("there is no java on the PATH: install Java 17 or 21, or set JAVA_HOME")
    if missing := [jar for jar in fetch_jars.paths(arguments.jars.resolve()) if not jar.is_file()]:
        raise InputError(
            f"{missing[0]} is missing: run make setup, or name the folder of the jars with --jars"
        )
    if not (python := _python(arguments.engine)).is_file():
        raise InputError(f"{python} is missing: run make setup")
    out = arguments.out.resolve()
    run_id = datetime.now(UTC).strftime("local__%Y-%m-%dT%H-%M-%S.%f")
    run_folder = out / "runs" / run_id
    images = arguments.images.resolve()
    for name, folder in (("--out", out), ("--models", arguments.models.resolve())):
        if folder.is_relative_to(images):
            raise InputError(
                f"{name} {folder} is inside --images {images}: the next run would take what this one writes for "
                "photos; name a folder outside"
            )
    count, size = input_listing.write_folder_listing(images, str(run_folder / "listing.parquet"))
    print(f"{count} photos, {size / 1e6:.1f} MB in {images}")
    card = make_model.make(arguments.weights, arguments.models.resolve())
    model_id = card["model_id"] if arguments.engine == "litert" else card["reference_model_id"]
    specific = {
        "load_images": [
            *("--input", str(images), "--complete"),
            *("--max-bytes", str(arguments.max_bytes), "--max-pixels", str(arguments.max_pixels)),
            *("--max-removed-share", str(1.0 if arguments.force else arguments.max_removed_share)),
            *("--max-removed-rows", str(arguments.max_removed_rows)),
        ],
        "featurize": [
            *("--model", str(arguments.models.resolve() / model_id), "--model-id", model_id),
            *("--engine", arguments.engine, "--batch-size", str(arguments.batch_size)),
        ],
        "reduce_pca": [
            *("--model-id", model_id),
            *(
                ("--k", str(arguments.k))
                if arguments.k is not None
                else ("--variance", str(arguments.variance))
            ),
        ],
        "publish": [
            *("--model-id", model_id, "--weights", card["weights"]),
            *("--max-reject-rate", str(arguments.max_reject_rate)),
        ],
    }
    if arguments.full_refresh:
        specific["load_images"].append("--full-refresh")
        specific["featurize"].append("--full-refresh")
        specific["reduce_pca"].append("--full-refresh")
    code = _zipped(run_folder / "fruits.zip")
    started = time.monotonic()
    for stage in STAGES:
        common = ["--database", "lake.fruits", "--run-id", run_id, "--run-folder", str(run_folder)]
        command = _spark_submit(arguments, out, code, stage) + common + specific[stage]
        environment = class_archive.environment() | {"PYSPARK_PYTHON": str(python)}
        status = subprocess.run(command, env=environment, check=False, cwd=out).returncode
        if status:
            failed = StageFailed(f"{stage} ended with status {status}")
            failed.exit_status = status
            raise failed
    metrics = {stage: stage_metrics.read(str(run_folder), stage) for stage in STAGES}
    return metrics | {"total_seconds": time.monotonic() - started, "run_folder": str(run_folder)}


def summary(metrics: dict[str, Any], out: Path) -> str:
    """Says in a few lines what came out."""
    images, features = metrics["load_images"]["images"], metrics["featurize"]["features"]
    pca = metrics["reduce_pca"]["pca"]
    seconds = ", ".join(f"{stage} {metrics[stage]['seconds']:.1f}" for stage in STAGES)
    rejects = metrics["load_images"]["rejects_by_code"]
    lines = [
        f"images     {images['seen']} seen, {images['loaded']} loaded, {images['unchanged']} unchanged, "
        f"{images['removed']} removed, {images['rejected']} rejected {rejects or ''}",
        f"features   {features['rows']} rows, {features['computed']} computed, weights: {features['weights']}",
        f"pca        {pca['k']} components explain {pca['explained_variance']:.1%} of {pca['n']} images",
        f"seconds    {metrics['total_seconds']:.1f} in all, start of Spark included; {seconds}",
        f"tables     {out / 'tables' / 'fruits'}",
        f"run        {metrics['run_folder']}",
    ]
    return "\n".join(lines)


def _python(engine: str) -> Path:
    """Return the Python of the jobs: a node's, or this one for the reference engine, since a node has no TensorFlow."""
    return Path(sys.executable) if engine == "tensorflow" else NODE_PYTHON


def _spark_submit(arguments: argparse.Namespace, out: Path, code: Path, stage: str) -> list[str]:
    python = _python(arguments.engine)
    conf = {
        "spark.sql.extensions": "org.apache.iceberg.spark.extensions.IcebergSparkSessionExtensions",
        "spark.sql.catalog.lake": "org.apache.iceberg.spark.SparkCatalog",
        "spark.sql.catalog.lake.type": "hadoop",
        "spark.sql.catalog.lake.cache-enabled": "false",
        "spark.sql.catalog.lake.warehouse": str(out / "tables"),
        "spark.pyspark.python": str(python),
        "spark.pyspark.driver.python": str(python),
        "spark.driver.memory": "2g",
        # Short jobs on few cores: the second compiler and a parallel collector cost half of all processor time.
        "spark.driver.extraJavaOptions": "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC",
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.driver.host": "127.0.0.1",
        "spark.ui.enabled": "false",
        "spark.log.level": "WARN",
    }
    return [
        str(python.with_name("spark-submit")),
        *("--master", arguments.master, "--name", stage, "--py-files", str(code)),
        *class_archive.options(arguments.jars.resolve()),
        *(part for key, value in conf.items() for part in ("--conf", f"{key}={value}")),
        str(ROOT / "spark_jobs" / f"{stage}.py"),
    ]


def _path_with_java() -> str:
    java_home = os.environ.get("JAVA_HOME")
    return os.pathsep.join([*([f"{java_home}/bin"] if java_home else []), os.environ.get("PATH", "")])


def _zipped(target: Path) -> Path:
    package = ROOT / "spark_jobs" / "fruits"
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(package.rglob("*.py")):
            archive.write(path, path.relative_to(package.parent).as_posix())
    return target


if __name__ == "__main__":
    sys.exit(main())
