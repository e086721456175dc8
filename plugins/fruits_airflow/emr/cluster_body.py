"""The body of RunJobFlow, rendered from include/cluster.yaml without Airflow's templating.

What a cluster is made of can so be read in one file, and rendered and checked without a scheduler.
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
    """One size of cluster.

    Attributes:
        name: as in settings and in the form.
        images_per_second: throughput of load and featurize together.
        fixed_minutes: what a run takes before and after its images.
        values: every value of the profile, `instance_fleets` included, for the template.
    """

    name: str
    images_per_second: float
    fixed_minutes: float
    values: Mapping[str, Any]

    @property
    def instance_fleets(self) -> list[dict[str, Any]]:
        """The fleets as RunJobFlow takes them."""
        return list(self.values["instance_fleets"])

    def longest_minutes(self, otherwise: int) -> int:
        """The most minutes that a cluster of it may live: its own, or what the deployment allows if that is less."""
        return min(int(self.values.get("max_minutes", otherwise)), otherwise)


def load_profile(name: str, path: Path = CLUSTER_FILE) -> Profile:
    """Reads one profile.

    Raises:
        ConfigError: there is no such profile, or it lacks a value.
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
    """Renders the body of RunJobFlow.

    Args:
        values: one per placeholder; None leaves the key that uses it out.
        path: the template.

    Raises:
        ConfigError: the template names a value that is not there.
    """
    template = read_yaml_mapping(path).get("run_job_flow")
    if not isinstance(template, dict):
        raise ConfigError(f"{path.name}: no run_job_flow in it; restore it from the repository")
    body = _render(template, values, path.name)
    for configuration in body.get("Configurations", []):
        properties = configuration["Properties"]  # EMR takes strings only here
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
