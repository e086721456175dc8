"""The facts that the lint rules read: a body of RunJobFlow, parsed once, and what it is checked against."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any

Body = Mapping[str, Any]
Problems = Iterator[str]


@dataclass(frozen=True)
class LintContext:
    """What a body is checked against."""

    region: str  # region that RunJobFlow is sent to
    lake_bucket: str  # bucket of the logs, the code and the libraries
    now: datetime  # present time, with a time zone
    preinstalled: bool = False  # whether the image of the nodes contains the libraries
    security: Mapping[str, Any] | None = None  # what EMR says of the body's security configuration; None if not read


@dataclass(frozen=True)
class Fleet:
    """An instance fleet of the body."""

    kind: str
    types: list[str]
    on_demand: int
    spot: int
    spot_specification: Mapping[str, Any]

    @classmethod
    def of(cls, fleet: Mapping[str, Any]) -> Fleet:
        """Parse a fleet as RunJobFlow takes it."""
        return cls(
            kind=fleet.get("InstanceFleetType", ""),
            types=[config["InstanceType"] for config in fleet.get("InstanceTypeConfigs", [])],
            on_demand=int(fleet.get("TargetOnDemandCapacity", 0)),
            spot=int(fleet.get("TargetSpotCapacity", 0)),
            spot_specification=fleet.get("LaunchSpecifications", {}).get("SpotSpecification", {}),
        )

    @property
    def units(self) -> int:
        """Target capacity."""
        return self.on_demand + self.spot


@dataclass(frozen=True)
class ClusterFacts:
    """A body of RunJobFlow with its parts that several rules read."""

    body: Body
    context: LintContext

    @cached_property
    def fleets(self) -> list[Fleet]:
        """Instance fleets."""
        return [Fleet.of(fleet) for fleet in self.body.get("Instances", {}).get("InstanceFleets", [])]

    @property
    def workers(self) -> list[Fleet]:
        """Core and task fleets."""
        return [fleet for fleet in self.fleets if fleet.kind != "MASTER"]

    @cached_property
    def tags(self) -> dict[str, str]:
        """Values of the tags by key."""
        return {tag["Key"]: tag["Value"] for tag in self.body.get("Tags", [])}

    @cached_property
    def bootstrap_arguments(self) -> list[str]:
        """Arguments of every bootstrap action."""
        actions = [action["ScriptBootstrapAction"] for action in self.body.get("BootstrapActions", [])]
        return [argument for action in actions for argument in action.get("Args", [])]

    def properties(self, classification: str) -> Mapping[str, str]:
        """Return the properties of a classification, such as `spark-defaults`."""
        for configuration in self.body.get("Configurations", []):
            if configuration["Classification"] == classification:
                return dict(configuration["Properties"])
        return {}
