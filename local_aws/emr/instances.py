"""The machines of a cluster: instance fleets, and the instances in them.

No machine exists. This module keeps what ListInstanceFleets and ListInstances show, with the times that a cost
estimate reads.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from local_aws.emr.ids import new_ec2_id, new_id


@dataclass
class Timeline:
    """When a cluster or machine was requested, became ready and ended."""

    created: datetime
    ready: datetime | None = None
    ended: datetime | None = None

    def describe(self) -> dict[str, datetime | None]:
        """Return `Timeline` of EMR's API."""
        return {"CreationDateTime": self.created, "ReadyDateTime": self.ready, "EndDateTime": self.ended}


@dataclass
class Instance:
    """One machine."""

    instance_type: str
    market: str
    address: int
    region: str
    timeline: Timeline
    fleet_id: str
    state: str = "PROVISIONING"
    reason: dict[str, str] = field(default_factory=dict)
    id: str = field(default_factory=lambda: new_id("ci"))
    ec2_id: str = field(default_factory=lambda: new_ec2_id("i"))

    def describe(self) -> dict[str, Any]:
        """Return `Instance` of ListInstances."""
        address = f"10.0.{self.address // 250}.{self.address % 250 + 4}"
        return {
            "Id": self.id,
            "Ec2InstanceId": self.ec2_id,
            "PublicDnsName": "",
            "PrivateDnsName": f"ip-{address.replace('.', '-')}.{self.region}.compute.internal",
            "PrivateIpAddress": address,
            "Status": {"State": self.state, "StateChangeReason": self.reason, "Timeline": self.timeline.describe()},
            "InstanceFleetId": self.fleet_id,
            "Market": self.market,
            "InstanceType": self.instance_type,
            "EbsVolumes": [],
        }


class Fleet:
    """An instance fleet and its machines, all of its first instance type."""

    def __init__(self, config: dict[str, Any], region: str, now: datetime, addresses: Iterator[int]) -> None:
        """Create the fleet of an `InstanceFleetConfig`; its machines are PROVISIONING.

        Args:
            config: `InstanceFleetConfig`, valid.
            region: Region of the cluster.
            now: When it is requested.
            addresses: Yields a number for each machine of the cluster.
        """
        self.id = new_id("if")
        self.role = str(config["InstanceFleetType"])
        self.state = "PROVISIONING"
        self.reason: dict[str, str] = {}
        self.timeline = Timeline(now)
        self._config = config
        first = config["InstanceTypeConfigs"][0]
        self._weight = first.get("WeightedCapacity", 1)
        self.instances = [
            Instance(first["InstanceType"], market, next(addresses), region, Timeline(now), self.id)
            for market, key in (("ON_DEMAND", "TargetOnDemandCapacity"), ("SPOT", "TargetSpotCapacity"))
            for _ in range(math.ceil(config.get(key, 0) / self._weight))
        ]

    def enter(self, state: str, now: datetime) -> None:
        """Take the fleet and its machines to a state; machines have no TERMINATING."""
        members: list[Fleet | Instance] = [self]
        if state != "TERMINATING":
            members += self.instances
        for member in members:
            member.state = state
            if state == "RUNNING":
                member.timeline.ready = now
            if state == "TERMINATED":
                member.timeline.ended = now
                member.reason = {"Code": "CLUSTER_TERMINATED", "Message": "Job flow terminated"}

    def describe(self) -> dict[str, Any]:
        """Return `InstanceFleet` of ListInstanceFleets."""
        return {
            "Id": self.id,
            "Name": self._config.get("Name") or self.role.title(),
            "Status": {"State": self.state, "StateChangeReason": self.reason, "Timeline": self.timeline.describe()},
            "InstanceFleetType": self.role,
            "TargetOnDemandCapacity": self._config.get("TargetOnDemandCapacity", 0),
            "TargetSpotCapacity": self._config.get("TargetSpotCapacity", 0),
            "ProvisionedOnDemandCapacity": self._provisioned("ON_DEMAND"),
            "ProvisionedSpotCapacity": self._provisioned("SPOT"),
            "InstanceTypeSpecifications": [
                {
                    "InstanceType": item["InstanceType"],
                    "WeightedCapacity": item.get("WeightedCapacity", 1),
                    "BidPriceAsPercentageOfOnDemandPrice": item.get("BidPriceAsPercentageOfOnDemandPrice"),
                    "Configurations": item.get("Configurations") or [],
                }
                for item in self._config["InstanceTypeConfigs"]
            ],
            "LaunchSpecifications": self._config.get("LaunchSpecifications"),
        }

    def _provisioned(self, market: str) -> int:
        running = [machine for machine in self.instances if machine.state == "RUNNING" and machine.market == market]
        return int(self._weight * len(running))
