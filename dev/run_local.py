"""Run the four Spark jobs over a plain folder of photos, without Airflow and without an AWS endpoint.

`make local` runs this script in .venv-spark, which converts the weights. It starts the same job files as a cluster with
spark-submit, in .venv-node, which holds the packages of a cluster's node, with an Iceberg catalog in OUT/tables. A
second run over the same folder computes nothing again.
"""

import argparse
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
JOBS = ROOT / "spark_jobs"
sys.path.insert(0, str(ROOT))
sys.path.insert(0, str(JOBS))

from fruits.base.errors import FruitsError, InputError  # noqa: E402
from fruits.images import decoding as limits  # noqa: E402 - after the path
from fruits.job import stage_metrics  # noqa: E402
from fruits.lake import input_listing  # noqa: E402
from fruits.model.networks import MOBILENET_V2, NETWORKS  # noqa: E402

from dev import class_archive, environment, fetch_jars, local_spark, make_model  # noqa: E402

AIRFLOW_PYTHON = ROOT / ".venv-airflow" / "bin" / "python"
NODE_PYTHON = ROOT / ".venv-node" / "bin" / "python"
STAGES = ("load_images", "featurize", "reduce_pca", "publish")


class StageFailed(FruitsError):
    """A job failed; its own last line names the error."""


def _number(kind: type[int] | type[float], least: float, most: float) -> Callable[[str], int | float]:
    """Make the type of an argument: a number in a range, checked before the run starts."""

    def read(text: str) -> int | float:
        number = kind(text)
        if not least <= number <= most:  # NaN is refused too
            raise argparse.ArgumentTypeError(f"{text} is not between {least:g} and {most:g}")
        return number

    read.__name__ = kind.__name__  # the name in argparse's message when `kind` refuses the text
    return read


def parser() -> argparse.ArgumentParser:
    """Make the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add, default = parser.add_argument, "(default: %(default)s)"
    add("--images", type=Path, required=True, help="folder of photos, in a folder for each label")
    add("--out", type=Path, default=Path("build/local"), help=default)
    add("--weights", metavar="PATH|imagenet|random", help="see dev/make_model.py")
    add("--network", choices=NETWORKS, default=MOBILENET_V2.name, help=f"whose weights they are {default}")
    add("--models", type=Path, default=Path(".cache/models"), help=default)
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--variance", type=_number(float, 1e-9, 1), default=0.95, help=f"share to keep {default}")
    size.add_argument("--k", type=_number(int, 1, 1280), help="number of components to keep")
    add("--engine", choices=("litert", "tensorflow"), default="litert", help=default)
    add("--batch-size", type=_number(int, 1, 256), default=1, help=f"pictures per call of the model {default}")
    add("--max-reject-rate", type=_number(float, 0, 1), default=0.2, help=default)
    size_limits = (("bytes", "files", 2**31, limits.MAX_BYTES), ("pixels", "pictures", 10**9, limits.MAX_PIXELS))
    for unit, objects, most, value in size_limits:
        add(f"--max-{unit}", type=_number(int, 1, most), default=value, help=f"reject larger {objects} {default}")
    add("--max-removed-share", type=_number(float, 0, 1), default=0.1, help=default)
    add(
        "--max-removed-rows",
        type=_number(int, 0, 10**9),
        default=1000,
        help=f"stop before more rows than this, and than that share of them, are removed {default}",
    )
    add("--force", action="store_true", help="remove the rows of missing photos, however many")
    add("--full-refresh", action="store_true", help="load and compute everything again")
    add(
        "--conf", action="append", default=[], metavar="KEY=VALUE", help="a setting of Spark, for example its event log"
    )
    add("--master", default="local[*]", help=f"local[CORES] {default}")
    add("--jars", type=Path, default=Path(".cache/jars"), help=f"folder of the Iceberg jars {default}")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Parse the command line, run the jobs and print a summary."""
    arguments = parser().parse_args(argv)
    try:
        print(summary(run(arguments), arguments.out))
    except FruitsError as error:
        if not isinstance(error, StageFailed):  # the job has printed it
            sys.stderr.write(f"ERROR {type(error).__name__}: {error}\n")
        return error.exit_status
    except OSError as error:
        sys.stderr.write(f"ERROR {error.filename or 'the file system'}: {error.strerror}; mend that and call again\n")
        return 2
    except KeyboardInterrupt:
        return 130  # make says so
    return 0


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """List the folder, make the model unless it exists, and run the four jobs.

    Returns:
        Each stage's metrics by its name, `total_seconds` and `run_folder`.

    Raises:
        InputError: The folder is missing, empty or not readable throughout, results would be written into it, or
            Java, the jars or the jobs' Python are missing.
        StageFailed: A job failed.
    """
    out, images, models = arguments.out.resolve(), arguments.images.resolve(), arguments.models.resolve()
    _check(arguments, out, images, models)
    run_id = datetime.now(UTC).strftime("local__%Y-%m-%dT%H-%M-%S.%f")
    run_folder = out / "runs" / run_id
    count, size = input_listing.write_folder_listing(images, str(run_folder / "listing.parquet"))
    print(f"{count} photos, {size / 1e6:.1f} MB in {images}")
    card = make_model.make(arguments.weights, models, NETWORKS[arguments.network])
    model_id = card["model_id"] if arguments.engine == "litert" else card["reference_model_id"]
    if models != out / "models":  # for who reads the lake
        shutil.copytree(models / model_id, out / "models" / model_id, dirs_exist_ok=True)
    common = ["--database", "lake.fruits", "--run-id", run_id, "--run-folder", str(run_folder)]
    jobs_environment = environment.for_spark(_python(arguments.engine)) | {"PYTHONPATH": str(JOBS)}  # for the workers
    started = time.monotonic()
    for stage, options in _stage_options(arguments, images, models / model_id, card["weights"]).items():
        command = _spark_submit(arguments, out, stage) + common + [str(option) for option in options]
        status = subprocess.run(command, env=jobs_environment, check=False, cwd=JOBS).returncode
        if status:
            failure = StageFailed(f"{stage} ended with status {status}")
            failure.exit_status = status
            raise failure
    # In the control plane's environment, which renders such pages.
    cards = [AIRFLOW_PYTHON, "-m", "fruits_airflow.report.cards", run_folder]
    subprocess.run(cards, env=environment.inherited() | {"PYTHONPATH": str(ROOT / "plugins")}, check=True)
    metrics = {stage: stage_metrics.read(str(run_folder), stage) for stage in STAGES}
    return metrics | {"total_seconds": time.monotonic() - started, "run_folder": str(run_folder)}


def _check(arguments: argparse.Namespace, out: Path, images: Path, models: Path) -> None:
    path = os.environ.get("PATH", "")
    if java_home := os.environ.get("JAVA_HOME"):
        path = f"{java_home}/bin{os.pathsep}{path}"
    if shutil.which("java", path=path) is None:
        raise InputError("there is no java on the PATH: install Java 17 or 21, or set JAVA_HOME")
    if missing := [jar for jar in fetch_jars.paths(arguments.jars.resolve()) if not jar.is_file()]:
        raise InputError(f"{missing[0]} is missing: run make setup, or name the folder of the jars with --jars")
    if not (python := _python(arguments.engine)).is_file():
        raise InputError(f"{python} is missing: run make setup")
    for name, folder in (("--out", out), ("--models", models)):
        if folder.is_relative_to(images):
            raise InputError(
                f"{name} {folder} is inside --images {images}: the next run would load its files as photos; "
                "name a folder outside"
            )


def _stage_options(arguments: argparse.Namespace, images: Path, model: Path, weights: str) -> dict[str, list[object]]:
    """Return the options of each stage's command line, in the order of the stages."""
    refresh = ["--full-refresh"] if arguments.full_refresh else []
    model_id = ["--model-id", model.name]
    network = ["--network", arguments.network]
    size = ["--variance", arguments.variance] if arguments.k is None else ["--k", arguments.k]
    return {
        "load_images": [
            *("--input", images, "--complete"),
            *("--max-bytes", arguments.max_bytes, "--max-pixels", arguments.max_pixels),
            *("--max-removed-share", 1.0 if arguments.force else arguments.max_removed_share),
            *("--max-removed-rows", arguments.max_removed_rows, *refresh),
        ],
        "featurize": [
            *("--model", model, *model_id, "--engine", arguments.engine),
            *("--batch-size", arguments.batch_size, *refresh),
        ],
        "reduce_pca": [*model_id, *network, *size, *refresh],
        "publish": [*model_id, *network, "--weights", weights, "--max-reject-rate", arguments.max_reject_rate],
    }


def summary(metrics: dict[str, Any], out: Path) -> str:
    """Summarize the run in a few lines."""
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


def _spark_submit(arguments: argparse.Namespace, out: Path, stage: str) -> list[str]:
    python = _python(arguments.engine)
    conf = local_spark.settings(out / "tables", python) | dict(setting.split("=", 1) for setting in arguments.conf)
    return [
        environment.spark_submit(python),
        *("--master", arguments.master, "--name", stage),
        *class_archive.options(arguments.jars.resolve()),
        *(part for key, value in conf.items() for part in ("--conf", f"{key}={value}")),
        f"{stage}.py",  # in the working folder: Spark takes a path for a URL, whose `#` and `%` mean something
    ]


if __name__ == "__main__":
    sys.exit(main())
