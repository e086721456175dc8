"""`make demo`: the whole pipeline on this machine, on an empty account that ends with the demo.

Starts the AWS emulator, deploys the stack, uploads photos and model, starts a real Airflow, triggers the DAG,
prints what happens, leaves the results in build/demo and ends everything that it started, also on Ctrl-C.
A second run over the same photos follows, to show that a run with nothing new costs nothing.
"""

import contextlib
import os
import shutil
import signal
import sys
import time
from collections.abc import Mapping
from datetime import datetime
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import httpx
from botocore.exceptions import BotoCoreError, ClientError
from fruits_airflow.config.dag_ids import PIPELINE
from fruits_airflow.config.errors import ResidencyError
from fruits_airflow.config.settings import Settings
from fruits_airflow.records.digests import CARDS
from fruits_airflow.report.units import weights
from fruits_airflow.storage.lake import Lake, run_key

from dev import environment
from dev.demo.account import (
    PARAMETERS,
    Account,
    AccountFailed,
    emulator_settings,
    make_model,
    start_account,
    upload_model,
)
from dev.demo.airflow import USER, Airflow
from dev.demo.airflow_api import AirflowFailed
from dev.demo.drawing import draw_fruits
from dev.demo.preflight import CannotStart, DemoOptions, check_space, free_port, lock_folder, read_options
from dev.demo.processes import ProcessEnded, Processes, end_leftovers
from dev.demo.progress import ENDED, ConsoleReporter, print_failures, watch_run
from dev.demo.summary import summary
from ops.stack import DeploymentFailed

REPOSITORY = Path(__file__).resolve().parents[2]
FOLDER = REPOSITORY / "build" / "demo"
LAKE = FOLDER / "lake"
MODELS = REPOSITORY / ".cache" / "models"
SPARK_PYTHON = REPOSITORY / ".venv-spark" / "bin" / "python"
NODE_PYTHON = REPOSITORY / ".venv-node" / "bin" / "python"
DEPLOYMENT_ID = "demo"
PREFIX = "images/demo/"  # below raw_prefix: the nodes may read nothing else
RESULTS = ("run.json", "report.html", "pca.parquet", "lineage.json", *CARDS)


class Interrupted(Exception):
    """Ctrl-C, or a request to end."""


def main() -> int:
    """Run the demo; return the exit status: 0 done, 1 failed, 2 cannot start, 130 interrupted."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    try:
        options = read_options(os.environ)
        check_space(REPOSITORY)
        with lock_folder(FOLDER):
            return _demo(options)
    except (CannotStart, ResidencyError) as error:
        print(f"ERROR: {error}", file=sys.stderr)
        return 2
    except (
        *(AccountFailed, AirflowFailed, DeploymentFailed, ProcessEnded),
        *(BotoCoreError, ClientError, httpx.HTTPError),
    ) as error:
        print(f"ERROR: {error}\nLogs are in {FOLDER / 'logs'}", file=sys.stderr)
        return 1
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        print(f"ERROR: {where}{error.strerror or error}; mend that and call again", file=sys.stderr)
        return 1
    except Interrupted:
        print("Interrupted: everything that the demo started has ended.", file=sys.stderr)
        return 130


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    raise Interrupted


def _demo(options: DemoOptions) -> int:
    end_leftovers(FOLDER)
    ports = [free_port(options.airflow_port, "AIRFLOW_PORT"), free_port(options.aws_port, "AWS_PORT")]
    reporter = ConsoleReporter()
    print(f"\nFruits! demo: every process is on this machine, AWS ({options.region}) is played by local_aws.\n")
    model = _convert(options, reporter)
    _clear(FOLDER)  # after all that can refuse this demo: the results of the one before are kept until then
    processes = Processes(FOLDER)
    try:
        return _run(options, ports, model, processes, reporter)
    finally:
        # A second Ctrl-C must not leave half of it running.
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        processes.stop()


def _run(
    options: DemoOptions, ports: list[int], model: dict[str, Any], processes: Processes, reporter: ConsoleReporter
) -> int:
    airflow_port, aws_port = ports
    local_aws = _local_aws(aws_port, _steps_python(options))
    account = start_account(processes, local_aws, base_env(), options.region)
    reporter.log("AWS emulator", f"ready on {account.endpoint}")
    if _steps_python(options) == SPARK_PYTHON:
        reporter.log("engine", "tensorflow: a node has no TensorFlow, so the steps run in .venv-spark")
    stack = account.deployment(DEPLOYMENT_ID).deploy(PARAMETERS)
    reporter.log(
        "stack", f"deployed and looked up: {stack['RawBucket']} (photos), {stack['LakeBucket']} (tables, runs)"
    )
    for model_id in (model["model_id"], model["reference_model_id"]):
        upload_model(account.client("s3"), MODELS / model_id, stack["LakeBucket"])
    env = base_env() | account.env | _dag_settings(options, stack, model)
    airflow = Airflow(processes, FOLDER / "airflow", airflow_port, env)
    airflow.migrate()
    airflow.start()
    _upload(options, account, stack, reporter)
    airflow.wait(PIPELINE)
    reporter.log(
        "Airflow",
        f"scheduler, dag-processor, triggerer and API server are up on {airflow.url}; "
        f"log in as {USER} with password {airflow.password}",
    )

    run_id = f"demo__{datetime.now().astimezone():%Y-%m-%dT%H-%M-%S}"
    # A prefix other than the nightly one: a demo, which publishes to a database of its own.
    conf = {**options.conf, "input_prefix": PREFIX}
    airflow.trigger(PIPELINE, run_id, conf)
    reporter.log("run", f"{run_id} triggered")
    state = watch_run(airflow, PIPELINE, run_id, reporter)
    lake = Lake(account.client("s3"), stack["LakeBucket"])
    _leave_lake(account, stack, model, run_id)
    run = lake.read_json(run_key(run_id, "run.json"))
    try:
        if state != "success":
            print_failures(airflow, PIPELINE, run_id)
        else:
            _second_night(airflow, lake, conf, reporter)
            account.download(stack["LakeBucket"], "runs/", LAKE / "runs")
    finally:
        _print_results(run, reporter)
    if options.keep and state == "success":
        print(
            f"KEEP: Airflow is on {airflow.url} (what runs did: {airflow.url}/plugin/fruits-runs), AWS on "
            f"{account.endpoint}; Ctrl-C ends them.\n"
            f"To call it: export AWS_ENDPOINT_URL={account.endpoint} AWS_REGION={account.region} "
            f"AWS_SHARED_CREDENTIALS_FILE={FOLDER / 'aws' / 'credentials'}",
            flush=True,
        )
        with contextlib.suppress(Interrupted):
            while True:
                processes.check()
                time.sleep(1)
        _leave_lake(account, stack, model, run_id)  # without what has been erased meanwhile
    return int(state != "success")


def _print_results(run: dict[str, Any] | None, reporter: ConsoleReporter) -> None:
    files = [FOLDER / name for name in (*RESULTS, LAKE.name) if (FOLDER / name).exists()]
    if run:
        if run["features"].get("weights") == "random":
            reporter.warn("weights: random — these vectors mean nothing. Give real weights with WEIGHTS=file.h5.")
        print(f"\n{summary(run, [path.relative_to(REPOSITORY) for path in files])}\n", flush=True)


def _convert(options: DemoOptions, reporter: ConsoleReporter) -> dict[str, Any]:
    reporter.log("model", "converting the weights for the broadcast (once for each weights file)")
    log = FOLDER / "logs" / "make_model.log"
    log.parent.mkdir(exist_ok=True)
    model = make_model(SPARK_PYTHON, MODELS, options.weights, log, reporter.warn, os.environ.get("NETWORK", ""))
    facts = f"weights: {weights(model['weights'])}, model_id {model['model_id'][:12]}"
    reporter.log("model", f"{model['network']}, {facts}")
    return model


def _upload(options: DemoOptions, account: Account, stack: dict[str, str], reporter: ConsoleReporter) -> None:
    folder = options.images
    if folder is None:
        folder = FOLDER / "images"
        count = draw_fruits(folder)
        reporter.log("photos", f"{count} drawn (no IMAGES=folder given)")
    count = account.upload_folder(folder, stack["RawBucket"], PREFIX, partial(reporter.log, "photos"))
    reporter.log("photos", f"{count} uploaded to s3://{stack['RawBucket']}/{PREFIX}")


def _second_night(airflow: Airflow, lake: Lake, conf: Mapping[str, Any], reporter: ConsoleReporter) -> None:
    """Run the same photos again, which is skipped without a cluster."""
    run_id = f"again__{datetime.now().astimezone():%Y-%m-%dT%H-%M-%S}"
    begun = reporter.seconds
    airflow.trigger(PIPELINE, run_id, conf)
    while (state := airflow.run_state(PIPELINE, run_id)) not in ENDED:
        time.sleep(0.3)
    outcome = (lake.read_json(run_key(run_id, "run.json")) or {}).get("state", "no run.json")
    if (state, outcome) != ("success", "skipped"):
        raise AirflowFailed(f"a second run over the same photos should be skipped, it is {state} ({outcome})")
    reporter.log(
        "second night",
        f"same photos: {outcome}, DAG run {state}, {reporter.seconds - begun:.0f} s, no cluster, nothing to pay",
    )


def _leave_lake(account: Account, stack: dict[str, str], model: dict[str, Any], run_id: str) -> None:
    """Copy the lake to the folder of the demo, and beside it those files of the run that most readers want."""
    account.download_lake(stack["LakeBucket"], Settings.demo_database, LAKE)
    for model_id in (model["model_id"], model["reference_model_id"]):
        shutil.copytree(MODELS / model_id, LAKE / "models" / model_id)
    for name in RESULTS:
        if (path := LAKE / "runs" / run_id / name).exists():
            shutil.copyfile(path, FOLDER / name)


def _steps_python(options: DemoOptions) -> Path:
    """Return the Python of the steps: a node's, or .venv-spark for the reference engine, which needs TensorFlow."""
    return SPARK_PYTHON if options.conf.get("engine") == "tensorflow" else NODE_PYTHON


def _local_aws(port: int, python: Path) -> list[str | Path]:
    java = os.environ.get("JAVA_HOME")
    return [
        sys.executable,
        *("-m", "local_aws"),
        *("--port", str(port)),
        *("--ui-port", "0"),
        *("--state-dir", FOLDER / "aws"),
        *("--spark-python", python),
        *(("--master", "yarn") if os.environ.get("CLUSTER") == "yarn" else ()),
        *("--jars-dir", REPOSITORY / ".cache" / "jars"),
        *(("--java-home", java) if java else ()),
    ]


def base_env() -> dict[str, str]:
    """Return the environment of every process."""
    return environment.inherited() | {
        "PYTHONPATH": os.pathsep.join([str(REPOSITORY), str(REPOSITORY / "plugins")]),
        "PYTHONUNBUFFERED": "1",
    }


def _dag_settings(options: DemoOptions, stack: dict[str, str], model: dict[str, Any]) -> dict[str, str]:
    return {
        "FRUITS_DEPLOYMENT_ID": DEPLOYMENT_ID,
        "FRUITS_REGION": options.region,
        **emulator_settings(stack, model["model_id"]),
        # Unpausing a DAG with a schedule would start a night of its own beside the demo's run.
        "FRUITS_SCHEDULE": "",
        # An EMR of this machine answers at once, and no listing lags.
        "FRUITS_POLL_S": "1",
        "FRUITS_LOG_WAIT_S": "10",
        "FRUITS_LIST_CONSISTENCY_S": "1",
    }


def _clear(folder: Path) -> None:
    for path in folder.iterdir():
        if path.name == ".lock":
            continue
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


if __name__ == "__main__":
    sys.exit(main())
