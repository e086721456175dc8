"""Render the body of RunJobFlow from include/cluster.yaml.

The body does not use Airflow's templating, so that it can be rendered and checked without a scheduler.
"""

from __future__ import annotations

import re
import string
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fruits_airflow.config.errors import ConfigError
from fruits_airflow.config.settings import REPOSITORY
from fruits_airflow.config.strict_yaml import read_yaml_mapping

CLUSTER_FILE = REPOSITORY / "include" / "cluster.yaml"

_WHOLE_VALUE = re.compile(r"\$\{([a-z_]+)\}")


@dataclass(frozen=True)
class Profile:
    """A cluster size.

    Attributes:
        name: Name in the settings and in the trigger form.
        images_per_second: Throughput of load_images and featurize together.
        fixed_minutes: Duration of a run without images.
        values: Every value of the profile for the template, including `instance_fleets`.
    """

    name: str
    images_per_second: float
    fixed_minutes: float
    values: Mapping[str, Any]

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
        raise ConfigError(
            f"{path.name}: profile {name} has no usable {error}; see the other profiles"
        ) from error
    if throughput <= 0 or not fleets:
        raise ConfigError(f"{path.name}: profile {name} needs images_per_second above 0 and instance_fleets")
    return Profile(name, throughput, fixed, dict(values))


def render_body(values: Mapping[str, Any], path: Path = CLUSTER_FILE) -> dict[str, Any]:
    """Render the body of RunJobFlow.

    Args:
        values: Values of the placeholders; a key whose value is None is omitted.
        path: File with the template.

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
        raise ConfigError(
            f"{source}: cannot fill in {node!r}: {error}; known are {sorted(values)}"
        ) from error
