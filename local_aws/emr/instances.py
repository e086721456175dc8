"""The machines of a cluster: instance fleets, and the instances in them.

No machine exists. This module keeps what ListInstances shows, with the times that a cost estimate reads.
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
    """The machines of an instance fleet, all of its first instance type."""

    def __init__(self, config: dict[str, Any], region: str, now: datetime, addresses: Iterator[int]) -> None:
        """Create the machines of a valid `InstanceFleetConfig`, PROVISIONING `now`, each with the next address."""
        self.role = str(config["InstanceFleetType"])
        fleet_id, first = new_id("if"), config["InstanceTypeConfigs"][0]
        self.instances = [
            Instance(first["InstanceType"], market, next(addresses), region, Timeline(now), fleet_id)
            for market, key in (("ON_DEMAND", "TargetOnDemandCapacity"), ("SPOT", "TargetSpotCapacity"))
            for _ in range(math.ceil(config.get(key, 0) / first.get("WeightedCapacity", 1)))
        ]

    def enter(self, state: str, now: datetime) -> None:
        """Take the machines to a state."""
        for machine in self.instances:
            machine.state = state
            if state == "RUNNING":
                machine.timeline.ready = now
            if state == "TERMINATED":
                machine.timeline.ended = now
                machine.reason = {"Code": "CLUSTER_TERMINATED", "Message": "Job flow terminated"}
