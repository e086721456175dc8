"""Build and check the body of RunJobFlow from include/cluster.yaml and the settings of a deployment.

The file does not use Airflow's templating, so that it can be rendered and checked without a scheduler.
"""

import json
import re
import string
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from fruits_airflow.config.aws_types import EMRClient
from fruits_airflow.config.errors import ConfigError
from fruits_airflow.config.settings import PREINSTALLED, REPOSITORY, Settings
from fruits_airflow.config.strict_yaml import read_yaml_mapping
from fruits_airflow.cost.estimate import worker_vcpus
from fruits_airflow.emr.cluster_lint import require_sound
from fruits_airflow.emr.clusters import RunKey, tag_value
from fruits_airflow.emr.lint_facts import LintContext

CLUSTER_FILE = REPOSITORY / "include" / "cluster.yaml"
PACKED_PYTHON = "/opt/fruits/bin/python"  # include/bootstrap.sh installs the libraries there
IMAGE_PYTHON = "/usr/bin/python3.11"  # interpreter of the node's image
_ANY_DIGEST = "0" * 64  # of code that is not packed yet
_WHOLE_VALUE = re.compile(r"\$\{([a-z_]+)\}")


@dataclass(frozen=True)
class Profile:
    """A cluster size."""

    name: str  # name in the settings and in the trigger form
    images_per_second: float  # throughput of load_images and featurize together
    fixed_minutes: float  # duration of a run without images
    values: Mapping[str, Any]  # every value of the profile for the template, including `instance_fleets`

    @property
    def instance_fleets(self) -> list[dict[str, Any]]:
        """The fleets as RunJobFlow accepts them."""
        return list(self.values["instance_fleets"])

    def longest_minutes(self, limit: int) -> int:
        """Return the longest lifetime of a cluster in minutes: the profile's own, up to the deployment's `limit`."""
        return min(int(self.values.get("max_minutes", limit)), limit)


def load_profile(name: str, path: Path = CLUSTER_FILE) -> Profile:
    """Read a profile.

    Raises:
        ConfigError: The profile does not exist, or lacks a value.
    """
    profiles = read_yaml_mapping(path).get("profiles", {})
    if name not in profiles:
        raise ConfigError(f"profile: {name!r} is unknown; {path.name} has {', '.join(sorted(profiles))}")
    values = profiles[name]
    try:
        throughput, fixed = float(values["images_per_second"]), float(values["fixed_minutes"])
        fleets = values["instance_fleets"]
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigError(f"{path.name}: profile {name} has no usable {error}; see the other profiles") from error
    if throughput <= 0 or not fleets:
        raise ConfigError(f"{path.name}: profile {name} needs images_per_second above 0 and instance_fleets")
    return Profile(name, throughput, fixed, dict(values))


def render_body(values: Mapping[str, Any], path: Path = CLUSTER_FILE) -> dict[str, Any]:
    """Render the body of RunJobFlow with the values of its placeholders; a key whose value is None is omitted.

    Raises:
        ConfigError: A placeholder has no value.
    """
    template = read_yaml_mapping(path).get("run_job_flow")
    if not isinstance(template, dict):
        raise ConfigError(f"{path.name}: run_job_flow is missing; restore the file from the repository")
    body = _render(template, values, path.name)
    for configuration in body.get("Configurations", []):
        properties = configuration["Properties"]  # EMR accepts only strings here
        configuration["Properties"] = {key: str(value) for key, value in properties.items()}
    return dict(body)


def _render(node: Any, values: Mapping[str, Any], source: str) -> Any:
    if isinstance(node, dict):
        rendered = {key: _render(value, values, source) for key, value in node.items()}
        return {key: value for key, value in rendered.items() if value is not None and value != []}
    if isinstance(node, list):
        return [item for item in (_render(value, values, source) for value in node) if item is not None]
    if not isinstance(node, str):
        return node
    try:
        if whole := _WHOLE_VALUE.fullmatch(node):
            return values[whole.group(1)]
        return string.Template(node).substitute(values)
    except (KeyError, ValueError) as error:
        raise ConfigError(f"{source}: cannot fill in {node!r}: {error}; known are {sorted(values)}") from error


def cluster_body(
    settings: Settings, identity: RunKey, profile: Profile, *, code_digest: str, lake_region: str, ends_at: datetime
) -> dict[str, Any]:
    """Build the body of RunJobFlow for a cluster of the run `identity`, with the deadline `ends_at`.

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


def require_sound_profile(settings: Settings, profile: Profile, region: str, lake_region: str, now: datetime) -> None:
    """Check the cluster that a run with this profile would create.

    Raises:
        ResidencyError: The region is not in the European Union.
        ClusterRefused: The body breaks a rule.
    """
    ends_at = now + timedelta(minutes=profile.longest_minutes(settings.max_cluster_minutes))
    identity = RunKey(settings.deployment_id, "plan", "plan")
    body = cluster_body(settings, identity, profile, code_digest=_ANY_DIGEST, lake_region=lake_region, ends_at=ends_at)
    require_sound_cluster(body, settings, region, now)
