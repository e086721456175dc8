"""A cluster for a data scientist: Spark behind Livy and JupyterEnterpriseGateway, with a short deadline."""

import re
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from fruits_airflow.config.errors import ClusterRefused
from fruits_airflow.config.settings import Settings
from fruits_airflow.cost.estimate import deadline, fleets_eur_per_hour
from fruits_airflow.cost.prices import load_prices
from fruits_airflow.emr.cluster_body import cluster_body, load_profile, require_sound_cluster
from fruits_airflow.emr.clusters import Cluster, ClusterLifecycle, RunKey
from fruits_airflow.emr.code_bundle import build_bundle, upload_bundle
from fruits_airflow.storage.lake import Lake, run_key
from fruits_airflow.storage.run_notes import Journal

from ops.stack import Deployment

PROFILE = "notebook"
NOT_A_NAME = re.compile(r"[^A-Za-z0-9_-]")


def notebook_cluster(settings: Settings, owner: str, account: Any) -> Cluster:
    """Return the live notebook cluster that has `owner` in its name, or create it.

    Its nodes have the stack's role and security groups for notebooks.

    Raises:
        CostCeilingExceeded: `max_cost_eur` does not pay for ten minutes.
        ClusterRefused: The cluster breaks a rule, or would share security groups with the nights.
        ResidencyError: The region is not in the European Union.
        DeploymentFailed: There is no such deployment.
    """
    outputs = Deployment(account, settings.deployment_id, print, lambda _: False).outputs()
    settings = replace(settings, instance_profile=outputs["NotebookInstanceProfile"])
    lake = Lake(account.client("s3"), settings.lake_bucket)
    bundle = build_bundle()
    upload_bundle(bundle, lake)
    identity = RunKey(settings.deployment_id, "notebook", f"notebook__{NOT_A_NAME.sub('-', owner)}")
    profile = load_profile(PROFILE)

    def body() -> dict[str, Any]:
        now = datetime.now(UTC)
        ends_at = deadline(
            now,
            settings.max_cost_eur,
            0.0,
            fleets_eur_per_hour(profile.instance_fleets, load_prices(account.region), settings.interface_endpoints),
            profile.longest_minutes(settings.max_cluster_minutes),
        )
        request = cluster_body(
            settings, identity, profile, code_digest=bundle.digest, lake_region=account.region, ends_at=ends_at
        )
        request["Instances"] |= _security_groups(account.client("ec2"), outputs, settings.subnet_id)
        require_sound_cluster(request, settings, account.region, now, account.client("emr"))
        return request

    lifecycle = ClusterLifecycle(
        client=account.client("emr"),
        # RunJobFlow takes no token: a repeated request creates a second cluster.
        single_attempt_client=account.client("emr", attempts=1),
        journal=Journal(lake, run_key(identity.run_id)),
        identity=identity,
        consistency_s=settings.list_consistency_s,
        poll_s=settings.poll_s,
    )
    return lifecycle.find_or_create(body)


def _security_groups(ec2: Any, outputs: dict[str, str], subnet_id: str | None) -> dict[str, str]:
    """Return the stack's security groups for notebooks; none in another VPC than the nights'.

    EMR's default groups let all clusters of a VPC reach each other, and YARN runs whatever a node submits.

    Raises:
        ClusterRefused: The subnet is in the nights' VPC, and the stack has no groups there.
    """
    subnets = ec2.describe_subnets(SubnetIds=list({subnet_id or outputs["SubnetId"], outputs["SubnetId"]}))["Subnets"]
    if len({subnet["VpcId"] for subnet in subnets}) > 1:
        return {}
    groups = {name.removeprefix("Notebook"): value for name, value in outputs.items() if name.endswith("SecurityGroup")}
    if not groups:
        raise ClusterRefused(
            f"in {subnets[0]['VpcId']} a notebook's nodes would have the security groups of the nights and could "
            "submit jobs to them; set FRUITS_SUBNET_ID to a subnet of another VPC, or deploy with CreateVpc=true"
        )
    return groups
