"""`python -m ops COMMAND`: what a team runs against an account, behind the make targets of the same names."""

import argparse
import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path

from botocore.exceptions import BotoCoreError, ClientError
from fruits_airflow.config.errors import FruitsError
from fruits_airflow.config.settings import load_settings
from fruits_airflow.cost.prices import PRICES_FILE, read_price
from fruits_airflow.emr.code_bundle import build_bundle

from ops.drift import compare_stack
from ops.environment import PLATFORMS, EnvironmentFailed, pack, upload
from ops.export_image import export_image
from ops.first_night import first_night
from ops.forecast import print_forecast
from ops.network import tag_network
from ops.notebook import notebook_cluster
from ops.preflight import Preflight, exit_status, print_findings
from ops.prices import DEFAULT_REGIONS, refresh_prices
from ops.removal import destroy
from ops.share import print_links
from ops.stack import AwsAccount, Declined, Deployment, DeploymentFailed, print_settings

Command = Callable[[argparse.Namespace], int | None]
Parser = argparse.ArgumentParser


def main(arguments: list[str] | None = None) -> int:
    """Run a command; return the exit status: 0 done, 1 failed, 2 wrong call, 3 declined, 130 interrupted.

    Preflight returns 0 yes, 1 something to mend, 2 AWS refused to say.
    """
    options = _parser().parse_args(arguments)
    logging.getLogger("botocore").setLevel(logging.CRITICAL)  # the last line of a failed command says the same
    try:
        return int(options.run(options) or 0)
    except Declined:
        print("Nothing was changed.")
        return 3
    except (DeploymentFailed, EnvironmentFailed, FruitsError, FileExistsError) as error:
        print(f"ERROR: {error}", file=sys.stderr)
        return 1
    except (BotoCoreError, ClientError) as error:
        print(f"ERROR: AWS: {error}. Are these the right credentials (AWS_PROFILE)?", file=sys.stderr)
        return 1
    except (OSError, ValueError) as error:  # botocore raises them for variables (AWS_*) that it cannot use
        print(f"ERROR: {error}. Check the AWS_* variables and the files that they name.", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("Interrupted. Repeat the command: it continues where it stopped.", file=sys.stderr)
        return 130


def _parser() -> Parser:
    parser = argparse.ArgumentParser(prog="python -m ops", description=__doc__)
    commands = parser.add_subparsers(required=True)

    def add(name: str, run: Command, *parents: Parser, text: str | None = None) -> Parser:
        text = text or run.__doc__
        command = commands.add_parser(name, parents=parents, description=text, help=text)
        command.set_defaults(run=run)
        return command

    stack = argparse.ArgumentParser(add_help=False)
    stack.add_argument("--deployment-id", default=os.environ.get("FRUITS_DEPLOYMENT_ID"))
    stack.add_argument("--region", default=os.environ.get("FRUITS_REGION") or "eu-west-1")
    consent = argparse.ArgumentParser(add_help=False)
    consent.add_argument("--yes", action="store_true", help="do not ask")

    template = argparse.ArgumentParser(add_help=False)
    template.add_argument("--parameter", action="append", default=[], metavar="NAME=VALUE")

    add("preflight", _preflight, stack, template)
    deploy = add("deploy", _deploy, stack, template, consent)
    deploy.add_argument("--alarm-email", help="receives the budget's alarms; 'none' for no budget")
    night = add("first-night", _first_night, stack, template, consent)
    night.add_argument("--destroy", action="store_true", help="remove the deployment after a night that succeeded")
    add("verify", _verify, stack)
    add("destroy", _destroy, stack, consent)
    environment = add("environment", _environment, stack)
    environment.add_argument("--architecture", choices=sorted(PLATFORMS), default="arm64")
    environment.add_argument("--upload", action="store_true", help="into the lake of the deployment")
    notebook = add("notebook-cluster", _notebook_cluster)
    notebook.add_argument("--owner", default=os.environ.get("USER") or "somebody")
    what = "Print what new images would cost, by profile and region."
    forecast = add("forecast", lambda o: print_forecast(o.images, o.format, o.learn), text=what)
    forecast.add_argument("--images", type=_count, required=True, help="new images, for example 1000000")
    forecast.add_argument("--format", choices=("table", "json"), default="table")
    forecast.add_argument("--learn", action="store_true", help="take the speed from the runs in the lake")
    what = "Refresh include/prices.yaml from AWS."
    prices = add("prices", lambda o: refresh_prices(o.file, o.regions, o.types, o.eur_per_usd), text=what)
    prices.add_argument("--regions", nargs="+", default=DEFAULT_REGIONS)
    prices.add_argument("--types", nargs="+", help="default: those of include/cluster.yaml and of the file")
    prices.add_argument("--eur-per-usd", type=read_price)
    prices.add_argument("--file", type=Path, default=PRICES_FILE)
    what = "Print expiring links to a run's report, PCA export and PDFs."
    share = add("share", lambda o: print_links(o.run_id, o.hours), text=what)
    share.add_argument("--run", dest="run_id", required=True, help="the run's folder below runs/ in the lake")
    share.add_argument("--hours", type=float, default=24.0)
    what = "Export everything that is stored about a photo."
    export = add("export-image", lambda o: export_image(o.key, o.id, o.out), text=what)
    image = export.add_mutually_exclusive_group(required=True)
    image.add_argument("--key", help="of the object in the raw bucket")
    image.add_argument("--id", help="of the image: hex SHA-256 of its key")
    export.add_argument("--out", type=Path, default=Path("build/exports"), help="parent of the new folder")
    return parser


def _count(text: str) -> int:
    if (count := int(text)) < 0:
        raise argparse.ArgumentTypeError(f"{text}: give 0 or more")
    return count


def _deployment(options: argparse.Namespace) -> Deployment:
    if not options.deployment_id:
        raise DeploymentFailed("which deployment? Say DEPLOYMENT_ID=name, as deployment_id in the settings")
    confirm = (lambda _: True) if getattr(options, "yes", False) else _confirm
    return Deployment(AwsAccount(options.region), options.deployment_id, print, confirm)


def _confirm(question: str) -> bool:
    if not sys.stdin.isatty():
        raise DeploymentFailed("there is no terminal to confirm on; check the changes, then say YES=1")
    return input(f"{question} [y/N] ").strip().lower() in ("y", "yes")


def _parameters(options: argparse.Namespace) -> dict[str, str]:
    if wrong := [parameter for parameter in options.parameter if "=" not in parameter]:
        raise DeploymentFailed(f'PARAMETERS: {wrong[0]!r} has no value; say PARAMETERS="LogDays=30"')
    return dict(parameter.split("=", 1) for parameter in options.parameter)


def _preflight(options: argparse.Namespace) -> int:
    """Look whether a first night could begin: costs nothing, creates nothing."""
    findings = Preflight(_deployment(options), _parameters(options)).run()
    print_findings(findings)
    return exit_status(findings)


def _first_night(options: argparse.Namespace) -> int:
    """Run the first night of an account: preflight, deploy, model, libraries, 100 photos, one night, evidence."""
    status = first_night(Preflight(_deployment(options), _parameters(options)))
    if options.destroy and not status:
        _destroy(options)
    return status


def _deploy(options: argparse.Namespace) -> None:
    """Deploy include/stack.yaml: show the changes, ask, execute, verify."""
    deployment = _deployment(options)
    parameters = _parameters(options)
    if options.alarm_email is None and deployment.describe() is None:
        raise DeploymentFailed("who receives the budget's alarms? Say ALARM_EMAIL=address, or ALARM_EMAIL=none")
    if options.alarm_email is not None:
        parameters["AlarmEmail"] = "" if options.alarm_email == "none" else options.alarm_email
    if subnet_id := parameters.get("SubnetId"):
        tag_network(deployment.account, subnet_id, deployment.confirm)
    outputs = deployment.deploy(parameters)
    print_settings(deployment.settings())
    print(
        "Still to come: FRUITS_NODE_ENVIRONMENT (make environment UPLOAD=1) and FRUITS_MODEL_ID (make model, then copy "
        f".cache/models/<model_id>/ to s3://{outputs['LakeBucket']}/models/<model_id>/).\n"
        f"Airflow assumes {outputs['AirflowRole']}, analysts {outputs['AnalystRole']}."
    )


def _destroy(options: argparse.Namespace) -> None:
    """Remove a deployment with its photos and tables, and verify that nothing costs."""
    for line in destroy(_deployment(options)):
        print(f"  {line}")
    print("Nothing that costs is left.")


def _verify(options: argparse.Namespace) -> None:
    """Compare every resource of the stack with the template."""
    deployment = _deployment(options)
    count, differences = compare_stack(deployment.account, deployment.stack_name)
    if differences:
        raise DeploymentFailed("not as the template says:\n  " + "\n  ".join(differences))
    print(f"{count} resources of {deployment.stack_name}: each is as include/stack.yaml says.")


def _environment(options: argparse.Namespace) -> None:
    """Pack the nodes' libraries, and upload them if asked to."""
    packed = pack(options.architecture)
    megabytes, unpacked = packed.size_bytes / 1e6, packed.unpacked_bytes / 1e6
    print(f"{packed.path}: {megabytes:.0f} MB, {unpacked:.0f} MB unpacked", file=sys.stderr)
    if options.upload:
        deployment = _deployment(options)
        bucket = deployment.outputs()["LakeBucket"]
        is_new = upload(packed, deployment.account.client("s3"), bucket)
        state = "uploaded to" if is_new else "already in"
        print(f"{state} s3://{bucket}/env/{packed.digest}/", file=sys.stderr)
    print(f"FRUITS_NODE_ENVIRONMENT={packed.digest}")


def _notebook_cluster(options: argparse.Namespace) -> None:
    """Start a cluster with Livy and JupyterEnterpriseGateway for two hours."""
    settings = load_settings()
    cluster = notebook_cluster(settings, options.owner, AwsAccount(settings.region))
    bundle = f"s3://{settings.lake_bucket}/code/{build_bundle().digest}"
    print(
        f"{cluster.job_flow_id} ({cluster.state}) of {options.owner}; it ends at {cluster.tags['deadline']}.\n"
        f"In the notebook's first cell: LAKE s3://{settings.lake_bucket}, CODE {bundle}\n"
        "Attach it to a workspace of EMR Studio (JupyterEnterpriseGateway), or reach Livy on port 8998 of its primary "
        f"node.\nEnd it now: aws emr terminate-clusters --region {settings.region} --cluster-ids {cluster.job_flow_id}"
    )


if __name__ == "__main__":
    sys.exit(main())
