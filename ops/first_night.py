"""The first night of an account in one command: preflight, deploy, upload, run, evidence.

Each step finds what an earlier call has done, and a run that was interrupted goes on, so that the command can be
stopped at any moment and called again. `make destroy` removes everything from any state.
"""

import os
import re
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import boto3
import httpx
from fruits_airflow.config.dag_ids import PIPELINE
from fruits_airflow.records.models import read_record
from fruits_airflow.storage.lake import Lake

from dev.demo.__main__ import MODELS, SPARK_PYTHON, base_env
from dev.demo.account import AccountFailed, make_model, upload_model
from dev.demo.airflow import Airflow
from dev.demo.airflow_api import AirflowFailed
from dev.demo.drawing import draw_fruits
from dev.demo.preflight import CannotStart, free_port, image_files, lock_folder, read_options
from dev.demo.processes import ProcessEnded, Processes, end_leftovers
from dev.demo.progress import ConsoleReporter, print_failures, watch_run
from ops.environment import pack, upload
from ops.evidence import collect, write
from ops.preflight import Preflight, exit_status, print_findings
from ops.stack import Declined, Deployment, DeploymentFailed, print_settings
from ops.template import REPOSITORY

FOLDER = REPOSITORY / "build" / "first_night"
PHOTOS = 100
# The credentials of Airflow's role live for an hour.
LIMITS = {"FRUITS_MAX_COST_EUR": "0.90", "FRUITS_MAX_CLUSTER_MINUTES": "45", "FRUITS_SCHEDULE": ""}
QUESTION = (
    f"Deploy to {{}} and run a night of {PHOTOS} photos? It costs at most {LIMITS['FRUITS_MAX_COST_EUR']} EUR: its "
    "cluster ends before that is spent. What stays, mostly a KMS key, costs about 0.04 EUR a day until make destroy."
)
PASSED = re.compile("FRUITS_|AWS_(ENDPOINT_URL|CA_BUNDLE)|HTTPS?_PROXY|NO_PROXY", re.IGNORECASE)  # to Airflow
KEYS = {
    "aws_access_key_id": "AccessKeyId",
    "aws_secret_access_key": "SecretAccessKey",
    "aws_session_token": "SessionToken",
}


def first_night(preflight: Preflight, folder: Path = FOLDER) -> int:
    """Run the first night, or go on with one that was interrupted; IMAGES and WEIGHTS as for the demo.

    Returns:
        0 when it succeeded, 1 when it failed or preflight found something to mend, 2 when AWS refused to say.

    Raises:
        Declined: The answer was no.
        DeploymentFailed: A step failed; the message has the reason.
    """
    findings = preflight.run()
    print_findings(findings)
    if status := exit_status(findings):
        return status
    deployment = preflight.deployment
    if not deployment.confirm(QUESTION.format(deployment.account.region)):
        raise Declined
    deployment = replace(deployment, confirm=lambda _: True)
    folder = folder / f"{deployment.deployment_id}-{deployment.account.region}"
    try:
        with lock_folder(folder):
            end_leftovers(folder)
            outputs = deployment.deploy(preflight.parameters)
            settings = deployment.settings() | _upload(deployment, outputs, folder)
            role = {"RoleArn": outputs["AirflowRole"], "RoleSessionName": "first-night"}
            credentials = deployment.account.client("sts").assume_role(**role)["Credentials"]
            keys = {name: credentials[key] for name, key in KEYS.items()}
            run_id = _night(settings | {name.upper(): value for name, value in keys.items()}, folder)
    except (AccountFailed, AirflowFailed, CannotStart, ProcessEnded, httpx.HTTPError) as error:
        raise DeploymentFailed(f"{error}; logs are in {folder / 'logs'}; repeat make first-night") from error
    session = boto3.Session(**keys, region_name=deployment.account.region)
    run = read_record(Lake(session.client("s3"), outputs["LakeBucket"]), run_id)
    if run is None or not run.cluster.id:
        raise DeploymentFailed(f"the night created no cluster: {run.reason if run else 'it left no record'}")
    evidence = collect(deployment, session.client("emr"), run, findings)
    path = write(evidence, folder, outputs["AirflowRole"].split(":")[4])
    (folder / "run_id").unlink()
    print_settings(settings)
    print(f"The night {run.state}; what it has shown is in {path}")
    return 0 if run.state == "succeeded" else 1


def _upload(deployment: Deployment, outputs: dict[str, str], folder: Path) -> dict[str, str]:
    """Upload model, nodes' libraries and photos; return the settings that name them."""
    options = read_options({name: os.environ[name] for name in ("IMAGES", "WEIGHTS") if name in os.environ})
    s3, lake, log = deployment.account.client("s3"), outputs["LakeBucket"], folder / "logs" / "model.log"
    log.parent.mkdir(exist_ok=True)
    model_id = make_model(SPARK_PYTHON, MODELS, options.weights, log, deployment.log)["model_id"]
    upload_model(s3, MODELS / model_id, lake)
    upload(packed := pack("arm64"), s3, lake)
    if not (photos := options.images):
        draw_fruits(photos := folder / "images")
    files = image_files(photos, deployment.log)
    prefix = f"{outputs['RawPrefix']}first-night/"  # the nodes may read it, and its tables are the demo's
    for path in files[:: -(-len(files) // PHOTOS)]:
        s3.upload_file(str(path), outputs["RawBucket"], prefix + path.relative_to(photos).as_posix())
    return {"FRUITS_MODEL_ID": model_id, "FRUITS_NODE_ENVIRONMENT": packed.digest}


def _night(settings: dict[str, str], folder: Path) -> str:
    """Run the DAG to its end in an Airflow of this machine; return the run's id."""
    passed = {name: value for name, value in os.environ.items() if PASSED.match(name)}
    processes, reporter, note = Processes(folder), ConsoleReporter(), folder / "run_id"
    env = base_env() | passed | settings | LIMITS
    airflow = Airflow(processes, folder / "airflow", free_port(0, ""), env)
    try:
        airflow.migrate()
        airflow.start()
        airflow.wait(PIPELINE)
        run_id = note.read_text() if note.exists() else ""
        if not run_id or (airflow.knows(PIPELINE, run_id) and airflow.run_state(PIPELINE, run_id) == "failed"):
            run_id = f"first_night__{datetime.now(UTC):%Y-%m-%dT%H-%M-%S}"
            note.write_text(run_id)
        if not airflow.knows(PIPELINE, run_id):
            airflow.trigger(PIPELINE, run_id, {"input_prefix": f"{settings['FRUITS_RAW_PREFIX']}first-night/"})
        reporter.log("run", f"{run_id} on {airflow.url}, user admin, password {airflow.password}")
        if watch_run(airflow, PIPELINE, run_id, reporter) != "success":
            print_failures(airflow, PIPELINE, run_id)
    finally:
        processes.stop()
    return run_id
