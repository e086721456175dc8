"""Build and check the body of RunJobFlow from the settings of a deployment."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from fruits_airflow.config.settings import PREINSTALLED, Settings
from fruits_airflow.cost.estimate import worker_vcpus
from fruits_airflow.emr.cluster_body import Profile, render_body
from fruits_airflow.emr.cluster_lint import require_sound
from fruits_airflow.emr.clusters import RunKey, tag_value
from fruits_airflow.emr.lint_facts import LintContext

if TYPE_CHECKING:
    from mypy_boto3_emr import EMRClient

PACKED_PYTHON = "/opt/fruits/bin/python"  # include/bootstrap.sh installs the libraries there
IMAGE_PYTHON = "/usr/bin/python3.11"  # interpreter of the node's image
_ANY_DIGEST = "0" * 64  # of code that is not packed yet


def cluster_body(
    settings: Settings,
    identity: RunKey,
    profile: Profile,
    *,
    code_digest: str,
    lake_region: str,
    ends_at: datetime,
) -> dict[str, Any]:
    """Build the body of RunJobFlow.

    Args:
        settings: Settings of this deployment.
        identity: Run that the cluster belongs to.
        profile: Size of the cluster.
        code_digest: Folder below code/ in the lake that contains bootstrap.sh.
        lake_region: Region of the lake's catalog.
        ends_at: Deadline of the cluster, with a time zone.

    Raises:
        ConfigError: A placeholder of include/cluster.yaml has no value.
    """
    packed = settings.node_environment not in (None, PREINSTALLED)
    environment = f"s3://{settings.lake_bucket}/env/{settings.node_environment}/environment.tar.gz"
    return render_body(
        {
            "managed_scaling": None,
            **profile.values,
            "worker_vcpus": worker_vcpus(profile.instance_fleets),
            "name": identity.name,
            "release_label": settings.release_label,
            "lake_bucket": settings.lake_bucket,
            "lake_region": lake_region,
            "service_role": settings.service_role,
            "instance_profile": settings.instance_profile,
            "security_configuration": settings.security_configuration,
            "subnet_id": settings.subnet_id,
            "idle_timeout_s": settings.idle_timeout_s,
            "code_digest": code_digest,
            "environment_argument": f"--environment={environment}" if packed else None,
            "node_python": PACKED_PYTHON if packed else IMAGE_PYTHON,
            "deadline": ends_at.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "deployment_tag": tag_value(settings.deployment_id),
            "dag_tag": tag_value(identity.dag_id),
            "run_tag": tag_value(identity.run_id),
        }
    )


def require_sound_cluster(
    body: Mapping[str, Any], settings: Settings, region: str, now: datetime, client: EMRClient | None = None
) -> None:
    """Check a body against every rule of fruits_airflow/emr/cluster_lint.py.

    With a client, read and check the security configuration that the body names too.

    Raises:
        ResidencyError: The region is not in the European Union.
        ClusterRefused: The body breaks a rule.
        ClientError: EMR refused to describe the security configuration.
    """
    security: Mapping[str, Any] | None = None
    if client is not None and (name := body.get("SecurityConfiguration")):
        described = client.describe_security_configuration(Name=name)
        security = json.loads(described["SecurityConfiguration"])
    preinstalled = settings.node_environment == PREINSTALLED
    require_sound(body, LintContext(region, settings.lake_bucket, now, preinstalled, security))


def require_sound_profile(
    settings: Settings, profile: Profile, region: str, lake_region: str, now: datetime
) -> None:
    """Check the cluster that a run with this profile would create.

    Raises:
        ResidencyError: The region is not in the European Union.
        ClusterRefused: The body breaks a rule.
    """
    ends_at = now + timedelta(minutes=profile.longest_minutes(settings.max_cluster_minutes))
    identity = RunKey(settings.deployment_id, "plan", "plan")
    body = cluster_body(
        settings, identity, profile, code_digest=_ANY_DIGEST, lake_region=lake_region, ends_at=ends_at
    )
    require_sound_cluster(body, settings, region, now)
