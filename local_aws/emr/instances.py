"""The machines of a cluster: instance groups or fleets, and the instances in them.

No machine exists. This module keeps what ListInstanceGroups, ListInstanceFleets and ListInstances show, with the times
that a cost estimate reads.
"""

from __future__ import annotations

import math
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
    group_id: str | None = None
    fleet_id: str | None = None
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
            "InstanceGroupId": self.group_id,
            "InstanceFleetId": self.fleet_id,
            "Market": self.market,
            "InstanceType": self.instance_type,
            "EbsVolumes": [],
        }


@dataclass
class MachineSet:
    """An instance group or an instance fleet.

    Attributes:
        config: `InstanceGroupConfig` or `InstanceFleetConfig` of the request.
        role: MASTER, CORE or TASK.
    """

    config: dict[str, Any]
    role: str
    is_fleet: bool
    id: str
    timeline: Timeline
    state: str = "PROVISIONING"
    reason: dict[str, str] = field(default_factory=dict)
    instances: list[Instance] = field(default_factory=list)

    def enter(self, state: str, now: datetime) -> None:
        """Take the set and its machines to a state; machines have no TERMINATING."""
        members: list[MachineSet | Instance] = [self]
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
        """Return `InstanceFleet` or `InstanceGroup` of the List calls."""
        running = [machine for machine in self.instances if machine.state == "RUNNING"]
        common = {
            "Id": self.id,
            "Name": self.config.get("Name") or self.role.title(),
            "Status": {"State": self.state, "StateChangeReason": self.reason, "Timeline": self.timeline.describe()},
        }
        if self.is_fleet:
            return common | {
                "InstanceFleetType": self.role,
                "TargetOnDemandCapacity": self.config.get("TargetOnDemandCapacity", 0),
                "TargetSpotCapacity": self.config.get("TargetSpotCapacity", 0),
                "ProvisionedOnDemandCapacity": self._provisioned(running, "ON_DEMAND"),
                "ProvisionedSpotCapacity": self._provisioned(running, "SPOT"),
                "InstanceTypeSpecifications": [
                    {
                        "InstanceType": item["InstanceType"],
                        "WeightedCapacity": item.get("WeightedCapacity", 1),
                        "BidPriceAsPercentageOfOnDemandPrice": item.get("BidPriceAsPercentageOfOnDemandPrice"),
                        "Configurations": item.get("Configurations") or [],
                    }
                    for item in self.config.get("InstanceTypeConfigs") or []
                ],
                "LaunchSpecifications": self.config.get("LaunchSpecifications"),
            }
        return common | {
            "Market": self.config.get("Market", "ON_DEMAND"),
            "InstanceGroupType": self.role,
            "BidPrice": self.config.get("BidPrice"),
            "InstanceType": self.config["InstanceType"],
            "RequestedInstanceCount": self.config["InstanceCount"],
            "RunningInstanceCount": len(running),
            "Configurations": self.config.get("Configurations") or [],
            "EbsBlockDevices": [],
        }

    def _provisioned(self, running: list[Instance], market: str) -> int:
        weight = {
            item["InstanceType"]: item.get("WeightedCapacity", 1) for item in self.config.get("InstanceTypeConfigs", [])
        }
        return sum(weight.get(machine.instance_type, 1) for machine in running if machine.market == market)


def machine_sets(instances: dict[str, Any], region: str, now: datetime) -> list[MachineSet]:
    """Return the groups or fleets of a valid `JobFlowInstancesConfig`, with their machines still PROVISIONING."""
    if fleets := instances.get("InstanceFleets"):
        sets = [MachineSet(item, item["InstanceFleetType"], True, new_id("if"), Timeline(now)) for item in fleets]
    else:
        groups = instances["InstanceGroups"]
        sets = [MachineSet(item, item["InstanceRole"], False, new_id("ig"), Timeline(now)) for item in groups]
    address = 0
    for machines in sets:
        ids = (None, machines.id) if machines.is_fleet else (machines.id, None)
        for instance_type, market in _machines(machines):
            machines.instances.append(Instance(instance_type, market, address, region, Timeline(now), *ids))
            address += 1
    return sets


def _machines(machines: MachineSet) -> list[tuple[str, str]]:
    """Return (instance type, market) of each machine; a fleet takes its first type for all."""
    config = machines.config
    if not machines.is_fleet:
        return [(config["InstanceType"], config.get("Market", "ON_DEMAND"))] * int(config["InstanceCount"])
    first = config["InstanceTypeConfigs"][0]
    weight = first.get("WeightedCapacity", 1)
    return [
        (first["InstanceType"], market)
        for market, key in (("ON_DEMAND", "TargetOnDemandCapacity"), ("SPOT", "TargetSpotCapacity"))
        for _ in range(math.ceil(config.get(key, 0) / weight))
    ]
