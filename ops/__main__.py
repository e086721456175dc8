"""`python -m ops COMMAND`: behind `make deploy`, `destroy`, `verify`, `environment` and `notebook-cluster`."""

from __future__ import annotations

import argparse
import os
import sys

from botocore.exceptions import BotoCoreError, ClientError
from fruits_airflow.config.errors import FruitsError
from fruits_airflow.config.settings import load_settings
from fruits_airflow.emr.code_bundle import build_bundle

from ops.drift import compare_stack
from ops.environment import (
    PLATFORMS,
    EnvironmentFailed,
    pack,
    upload,
)
from ops.network import tag_network
from ops.notebook import notebook_cluster
from ops.removal import destroy
from ops.stack import (
    AwsAccount,
    Declined,
    Deployment,
    DeploymentFailed,
)

# Output of the stack → setting of the deployment.
SETTINGS = {
    "RawBucket": "FRUITS_RAW_BUCKET",
    "RawPrefix": "FRUITS_RAW_PREFIX",
    "LakeBucket": "FRUITS_LAKE_BUCKET",
    "ServiceRole": "FRUITS_SERVICE_ROLE",
    "InstanceProfile": "FRUITS_INSTANCE_PROFILE",
    "SecurityConfiguration": "FRUITS_SECURITY_CONFIGURATION",
    "SubnetId": "FRUITS_SUBNET_ID",
    "NightlyDatabase": "FRUITS_DATABASE",
    "DemoDatabase": "FRUITS_DEMO_DATABASE",
    "NotebookDatabase": "FRUITS_NOTEBOOK_DATABASE",
}


def main(arguments: list[str] | None = None) -> int:
    """Runs a command; returns the exit status: 0 done, 1 failed, 2 wrong call, 3 declined."""
    options = _parser().parse_args(arguments)
    try:
        _COMMANDS[options.command](options)
    except Declined:
        print("Nothing was changed.")
        return 3
    except (DeploymentFailed, EnvironmentFailed, FruitsError) as error:
        print(f"ERROR: {error}", file=sys.stderr)
        return 1
    except (BotoCoreError, ClientError) as error:
        print(f"ERROR: AWS: {error}. Are these the right credentials (AWS_PROFILE)?", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("Interrupted; repeat the command, it goes on where it is.", file=sys.stderr)
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m ops", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    names = {name: commands.add_parser(name) for name in _COMMANDS}
    for name in ("deploy", "destroy", "verify", "environment"):
        names[name].add_argument("--deployment-id", default=os.environ.get("FRUITS_DEPLOYMENT_ID"))
        names[name].add_argument("--region", default=os.environ.get("FRUITS_REGION") or "eu-west-1")
    for name in ("deploy", "destroy"):
        names[name].add_argument("--yes", action="store_true", help="do not ask")
    names["deploy"].add_argument(
        "--alarm-email", help="who is told when the month gets dear; 'none' for no budget"
    )
    names["deploy"].add_argument("--parameter", action="append", default=[], metavar="NAME=VALUE")
    names["environment"].add_argument("--architecture", choices=sorted(PLATFORMS), default="arm64")
    names["environment"].add_argument("--upload", action="store_true", help="into the lake of the deployment")
    names["notebook-cluster"].add_argument("--owner", default=os.environ.get("USER") or "somebody")
    return parser


def _deployment(options: argparse.Namespace) -> Deployment:
    if not options.deployment_id:
        raise DeploymentFailed("which deployment? Say DEPLOYMENT_ID=name, as deployment_id in the settings")
    yes = getattr(options, "yes", False)
    return Deployment(
        AwsAccount(options.region), options.deployment_id, print, (lambda _: True) if yes else _ask
    )


def _ask(question: str) -> bool:
    if not sys.stdin.isatty():
        raise DeploymentFailed("nobody to ask here; say YES=1 if you have seen what changes")
    return input(f"{question} [y/N] ").strip().lower() in ("y", "yes")


def _deploy(options: argparse.Namespace) -> None:
    deployment = _deployment(options)
    parameters = dict(one.split("=", 1) for one in options.parameter)
    if options.alarm_email is None and deployment.describe() is None:
        raise DeploymentFailed(
            "who is told when a month gets dear? Say ALARM_EMAIL=address, or ALARM_EMAIL=none"
        )
    if options.alarm_email is not None:
        parameters["AlarmEmail"] = "" if options.alarm_email == "none" else options.alarm_email
    if subnet_id := parameters.get("SubnetId"):
        tag_network(deployment.account, subnet_id, deployment.ask)
    outputs = deployment.deploy(parameters)
    print("\nThe settings of this deployment (.env, or the environment of Airflow):")
    print(f"FRUITS_DEPLOYMENT_ID={deployment.deployment_id}\nFRUITS_REGION={options.region}")
    for output, setting in SETTINGS.items():
        if output in outputs:
            print(f"{setting}={outputs[output]}")
    if endpoints := deployment.interface_endpoints():
        print(f"FRUITS_INTERFACE_ENDPOINTS={endpoints}")
    print(
        "Still to come: FRUITS_NODE_ENVIRONMENT (make environment UPLOAD=1) and FRUITS_MODEL_ID (make model, then copy "
        f".cache/models/<model_id>/ to s3://{outputs['LakeBucket']}/models/<model_id>/).\n"
        f"Airflow assumes {outputs['AirflowRole']}, analysts {outputs['AnalystRole']}."
    )


def _destroy(options: argparse.Namespace) -> None:
    for line in destroy(_deployment(options)):
        print(f"  {line}")
    print("Nothing that costs is left.")


def _verify(options: argparse.Namespace) -> None:
    deployment = _deployment(options)
    count, differences = compare_stack(deployment.account, deployment.stack_name)
    if differences:
        raise DeploymentFailed("not as the template says:\n  " + "\n  ".join(differences))
    print(f"{count} resources of {deployment.stack_name}: each is as include/stack.yaml says.")


def _environment(options: argparse.Namespace) -> None:
    packed = pack(options.architecture)
    print(
        f"{packed.path}: {packed.size_bytes / 1e6:.0f} MB, {packed.unpacked_bytes / 1e6:.0f} MB unpacked",
        file=sys.stderr,
    )
    if options.upload:
        deployment = _deployment(options)
        bucket = deployment.outputs()["LakeBucket"]
        new = upload(packed, deployment.account.client("s3"), bucket)
        print(f"{'uploaded to' if new else 'already in'} s3://{bucket}/env/{packed.digest}/", file=sys.stderr)
    print(f"FRUITS_NODE_ENVIRONMENT={packed.digest}")


def _notebook_cluster(options: argparse.Namespace) -> None:
    settings = load_settings()
    cluster = notebook_cluster(settings, options.owner, AwsAccount(settings.region))
    bundle = f"s3://{settings.lake_bucket}/code/{build_bundle().digest}"
    print(
        f"{cluster.job_flow_id} ({cluster.state}) of {options.owner}; it ends at {cluster.tags['deadline']}.\n"
        f"In the notebook's first cell: LAKE s3://{settings.lake_bucket}, CODE {bundle}\n"
        "Attach it to a workspace of EMR Studio (JupyterEnterpriseGateway), or reach Livy on port 8998 of its primary "
        f"node.\nEnd it now: aws emr terminate-clusters --region {settings.region} --cluster-ids {cluster.job_flow_id}"
    )


_COMMANDS = {
    "deploy": _deploy,
    "destroy": _destroy,
    "verify": _verify,
    "environment": _environment,
    "notebook-cluster": _notebook_cluster,
}

if __name__ == "__main__":
    sys.exit(main())
