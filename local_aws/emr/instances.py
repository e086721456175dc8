"""The machines of a cluster: instance groups or fleets, and the instances in them.

No machine exists; what is kept is what ListInstanceGroups, ListInstanceFleets and ListInstances show of one, with the
times that a cost estimate reads.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from local_aws.emr.ids import new_ec2_id, new_id


@dataclass
class Timeline:
    """When a machine, or a set of them, was asked for, was ready and was given back."""

    created: datetime = field(default_factory=lambda: datetime.now(UTC))
    ready: datetime | None = None
    ended: datetime | None = None

    def describe(self) -> dict[str, datetime | None]:
        """`Timeline` as EMR gives it."""
        return {"CreationDateTime": self.created, "ReadyDateTime": self.ready, "EndDateTime": self.ended}


@dataclass
class Instance:
    """One machine."""

    instance_type: str
    market: str
    address: int
    region: str
    group_id: str | None = None
    fleet_id: str | None = None
    state: str = "PROVISIONING"
    reason: dict[str, str] = field(default_factory=dict)
    timeline: Timeline = field(default_factory=Timeline)
    id: str = field(default_factory=lambda: new_id("ci"))
    ec2_id: str = field(default_factory=lambda: new_ec2_id("i"))

    def describe(self) -> dict[str, Any]:
        """`Instance` as ListInstances gives it."""
        address = f"10.0.{self.address // 250}.{self.address % 250 + 4}"
        return {
            "Id": self.id,
            "Ec2InstanceId": self.ec2_id,
            "PublicDnsName": "",
            "PrivateDnsName": f"ip-{address.replace('.', '-')}.{self.region}.compute.internal",
            "PrivateIpAddress": address,
            "Status": {
                "State": self.state,
                "StateChangeReason": self.reason,
                "Timeline": self.timeline.describe(),
            },
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
        config: `InstanceGroupConfig` or `InstanceFleetConfig` as it was sent.
        role: MASTER, CORE or TASK.
        is_fleet: whether it is a fleet.
    """

    config: dict[str, Any]
    role: str
    is_fleet: bool
    id: str
    state: str = "PROVISIONING"
    reason: dict[str, str] = field(default_factory=dict)
    timeline: Timeline = field(default_factory=Timeline)
    instances: list[Instance] = field(default_factory=list)

    def enter(self, state: str, now: datetime) -> None:
        """Takes the set and its machines to a state; machines have no TERMINATING."""
        members: list[MachineSet | Instance] = [self]
        if state != "TERMINATING":
            members += self.instances
        for one in members:
            one.state = state
            if state == "RUNNING":
                one.timeline.ready = now
            if state == "TERMINATED":
                one.timeline.ended = now
                one.reason = {"Code": "CLUSTER_TERMINATED", "Message": "Job flow terminated"}

    def describe(self) -> dict[str, Any]:
        """`InstanceFleet` or `InstanceGroup` as the List calls give it."""
        status = {"State": self.state, "StateChangeReason": self.reason, "Timeline": self.timeline.describe()}
        running = [one for one in self.instances if one.state == "RUNNING"]
        if self.is_fleet:
            return {
                "Id": self.id,
                "Name": self.config.get("Name") or self.role.title(),
                "Status": status,
                "InstanceFleetType": self.role,
                "TargetOnDemandCapacity": self.config.get("TargetOnDemandCapacity", 0),
                "TargetSpotCapacity": self.config.get("TargetSpotCapacity", 0),
                "ProvisionedOnDemandCapacity": self._provisioned(running, "ON_DEMAND"),
                "ProvisionedSpotCapacity": self._provisioned(running, "SPOT"),
                "InstanceTypeSpecifications": [
                    {
                        "InstanceType": one["InstanceType"],
                        "WeightedCapacity": one.get("WeightedCapacity", 1),
                        "BidPriceAsPercentageOfOnDemandPrice": one.get("BidPriceAsPercentageOfOnDemandPrice"),
                        "Configurations": one.get("Configurations") or [],
                    }
                    for one in self.config.get("InstanceTypeConfigs") or []
                ],
                "LaunchSpecifications": self.config.get("LaunchSpecifications"),
            }
        return {
            "Id": self.id,
            "Name": self.config.get("Name") or self.role.title(),
            "Market": self.config.get("Market", "ON_DEMAND"),
            "InstanceGroupType": self.role,
            "BidPrice": self.config.get("BidPrice"),
            "InstanceType": self.config["InstanceType"],
            "RequestedInstanceCount": self.config["InstanceCount"],
            "RunningInstanceCount": len(running),
            "Status": status,
            "Configurations": self.config.get("Configurations") or [],
            "EbsBlockDevices": [],
        }

    def _provisioned(self, running: list[Instance], market: str) -> int:
        weight = {
            one["InstanceType"]: one.get("WeightedCapacity", 1)
            for one in self.config.get("InstanceTypeConfigs", [])
        }
        return sum(weight.get(one.instance_type, 1) for one in running if one.market == market)


def machine_sets(instances: dict[str, Any], region: str) -> list[MachineSet]:
    """The groups or fleets of a RunJobFlow request, with their machines still PROVISIONING.

    Args:
        instances: `JobFlowInstancesConfig`, already validated.
        region: for the machines' names.
    """
    if instances.get("InstanceFleets"):
        sets = [
            MachineSet(config, config["InstanceFleetType"], True, new_id("if"))
            for config in instances["InstanceFleets"]
        ]
    else:
        sets = [
            MachineSet(config, config["InstanceRole"], False, new_id("ig")) for config in _groups(instances)
        ]
    address = 0
    for one in sets:
        for instance_type, market in _machines(one):
            made = Instance(instance_type, market, address, region)
            made.fleet_id, made.group_id = (one.id, None) if one.is_fleet else (None, one.id)
            one.instances.append(made)
            address += 1
    return sets


def _groups(instances: dict[str, Any]) -> list[dict[str, Any]]:
    if instances.get("InstanceGroups"):
        return list(instances["InstanceGroups"])
    count = instances.get("InstanceCount", 1)
    groups = [{"InstanceRole": "MASTER", "InstanceType": instances["MasterInstanceType"], "InstanceCount": 1}]
    if count > 1:
        slave = instances.get("SlaveInstanceType") or instances["MasterInstanceType"]
        groups.append({"InstanceRole": "CORE", "InstanceType": slave, "InstanceCount": count - 1})
    return groups


def _machines(one: MachineSet) -> list[tuple[str, str]]:
    """(instance type, market) of each machine; a fleet takes its first type for all."""
    if not one.is_fleet:
        return [(one.config["InstanceType"], one.config.get("Market", "ON_DEMAND"))] * int(
            one.config["InstanceCount"]
        )
    first = one.config["InstanceTypeConfigs"][0]
    weight = first.get("WeightedCapacity", 1)
    return [
        (first["InstanceType"], market)
        for market, key in (("ON_DEMAND", "TargetOnDemandCapacity"), ("SPOT", "TargetSpotCapacity"))
        for _ in range(math.ceil(one.config.get(key, 0) / weight))
    ]
