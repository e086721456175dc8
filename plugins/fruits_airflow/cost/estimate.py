"""Forecast, upper bound and estimate of the cost of a run, in euros without tax.

The forecast follows from images, speed and fleets. The bound prices the most expensive nodes until the budget is spent.
The estimate prices the nodes that ran, for as long as they ran.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from fruits_airflow.config.errors import CostCeilingExceeded
from fruits_airflow.cost.prices import Prices, vcpus

PARTS = ("ec2", "emr", "ebs", "s3", "kms", "network")

# Requests of a run beside the one GET for each new image: counted in the access log of a demo on local_aws, rounded up.
_READS_PER_RUN, _WRITES_PER_RUN = 3_000, 500
_LIST_PAGE = 1_000
_IMAGES_PER_DATA_FILE = 4_000  # some 128 MiB of pixels; each file is written, and read by the next stage
# With a bucket key S3 asks KMS once per caller, bucket and a few minutes. AWS promises "up to 99 percent" fewer.
_KMS_SHARE_OF_REQUESTS = 0.01


@dataclass(frozen=True)
class Workload:
    """The work of a run."""

    images: int  # images to fetch, decode and featurize
    listed: int = 0  # objects below the prefix
    transfer_gib: float = 0.0  # GiB read from a bucket in a region other than the cluster's


@dataclass(frozen=True)
class Speed:
    """Throughput and fixed time of a cluster."""

    images_per_second_per_vcpu: float  # throughput of loading and featurizing together
    fixed_minutes: float  # minutes that every run takes: start, step overhead, PCA, termination
    source: str = "profile"  # origin of the throughput, for the log


@dataclass(frozen=True)
class Forecast:
    """Hours of the cluster, and euros by part of the bill."""

    hours: float
    parts: Mapping[str, float]

    @property
    def total_eur(self) -> float:
        """Return the sum of all parts."""
        return sum(self.parts.values())


def forecast_hours(images: float, speed: Speed, fleets: Sequence[Mapping[str, Any]]) -> float:
    """Return the duration of a run: the fixed minutes, and its images on all vCPUs that execute tasks."""
    images_per_second = speed.images_per_second_per_vcpu * worker_vcpus(fleets)
    return speed.fixed_minutes / 60 + images / images_per_second / 3600


def forecast(
    work: Workload, speed: Speed, fleets: Sequence[Mapping[str, Any]], prices: Prices, interface_endpoints: int = 0
) -> Forecast:
    """Forecast a run's cost: each fleet at target capacity, of its most expensive type, spot at its typical price.

    Nodes without public addresses reach AWS by VPC `interface_endpoints`; 0 where each node has a public address.
    """
    hours = forecast_hours(work.images, speed, fleets)
    usd = dict.fromkeys(PARTS, 0.0)
    nodes = 0
    for fleet in fleets:
        for config, count, market in _dearest_nodes(fleet, prices):
            nodes += count
            for part, hourly in _node_parts(config, market, prices).items():
                usd[part] += count * hourly * hours
    usd["network"] += _network_usd_per_hour(nodes, interface_endpoints, prices) * hours
    usd["network"] += work.transfer_gib * prices.transfer
    files = work.images / _IMAGES_PER_DATA_FILE
    reads = work.images + _READS_PER_RUN + 2 * files
    writes = work.listed / _LIST_PAGE + _WRITES_PER_RUN + 2 * files
    usd["s3"] = reads * prices.s3_read + writes * prices.s3_write
    usd["kms"] = (reads + writes) * _KMS_SHARE_OF_REQUESTS * prices.kms
    return Forecast(hours, {part: value * prices.eur_per_usd for part, value in usd.items()})


def _network_usd_per_hour(nodes: int, interface_endpoints: int, prices: Prices) -> float:
    """Return the hourly price of the network; a run pays for the endpoints only during its hours."""
    return interface_endpoints * prices.interface_endpoint or nodes * prices.public_ipv4


def worker_vcpus(fleets: Sequence[Mapping[str, Any]]) -> int:
    """Return the vCPUs that execute tasks: of core and task fleets, of their smallest allowed nodes."""
    return sum(
        min(_count(config, _units(fleet)) * vcpus(config["InstanceType"]) for config in fleet["InstanceTypeConfigs"])
        for fleet in fleets
        if fleet.get("InstanceFleetType") != "MASTER"
    )


def fleets_eur_per_hour(fleets: Sequence[Mapping[str, Any]], prices: Prices, interface_endpoints: int = 0) -> float:
    """Return the maximum hourly cost: most expensive types, no spot discount, a public address per node.

    Managed scaling goes no higher than the fleets' targets (see include/cluster.yaml).
    """
    return prices.eur_per_usd * (
        interface_endpoints * prices.interface_endpoint
        + sum(
            max(_count(config, _units(fleet)) * _bound(config, prices) for config in fleet["InstanceTypeConfigs"])
            for fleet in fleets
        )
    )


def deadline(now: datetime, max_cost_eur: float, spent_eur: float, eur_per_hour: float, max_minutes: float) -> datetime:
    """Return the time at which a cluster requested `now` must be gone, at most `max_minutes` later.

    Earlier clusters of the same run have cost `spent_eur`, and this one cannot spend more than the rest of
    `max_cost_eur`: AWS bills from the start of the nodes, which is after `now`, and `eur_per_hour` is an upper bound.

    Raises:
        CostCeilingExceeded: Less than ten minutes are left, too few for a cluster to do any work.
    """
    affordable = (max_cost_eur - spent_eur) / eur_per_hour * 60
    minutes = min(float(max_minutes), affordable)
    if affordable < 10:
        raise CostCeilingExceeded(
            f"max_cost_eur: {max_cost_eur:.2f} leaves {max(affordable, 0):.1f} minutes of a cluster at "
            f"{eur_per_hour:.2f} EUR per hour after {spent_eur:.2f} EUR already spent by this run; raise it"
        )
    return now + timedelta(seconds=math.floor(minutes * 60))


def estimate_parts(
    instances: Iterable[Mapping[str, Any]],
    prices: Prices,
    now: datetime,
    disk_gib: Mapping[str, float] | None = None,
    spot_discount: bool = True,
    interface_endpoints: int = 0,
) -> dict[str, float]:
    """Estimate the cost of a cluster's nodes in euros, by part, from the timelines of ListInstances.

    AWS bills by the second, at least a minute, from creation to end; a node without an end runs until `now`.
    A type without a price (cluster.yaml may have allowed it earlier) counts as the most expensive type.
    The cost of requests is not included. Without `spot_discount`, spot nodes count as on demand: an upper bound.

    ListInstances names volumes without their size: `disk_gib` has the GiB beside the root volume by instance type.
    `interface_endpoints` are as for `forecast`, and count for the hours of the longest-running node.
    """
    usd = dict.fromkeys(PARTS, 0.0)
    longest_hours = 0.0
    for instance in instances:
        timeline = instance.get("Status", {}).get("Timeline", {})
        start = timeline.get("CreationDateTime")
        if start is None:
            continue
        hours = max(60.0, ((timeline.get("EndDateTime") or now) - start).total_seconds()) / 3600
        longest_hours = max(longest_hours, hours)
        name = instance["InstanceType"]
        known = name in prices.ec2 and name in prices.emr
        market = instance.get("Market", "ON_DEMAND") if spot_discount and known else "ON_DEMAND"
        ec2, fee = prices.node_usd_per_hour(name if known else prices.dearest_type(), market)
        disk = prices.disk_usd_per_hour((disk_gib or {}).get(name, 0.0))
        for part, hourly in (("ec2", ec2), ("emr", fee), ("ebs", disk), ("network", prices.public_ipv4)):
            usd[part] += hourly * hours
    if interface_endpoints:
        usd["network"] = interface_endpoints * prices.interface_endpoint * longest_hours
    return {part: value * prices.eur_per_usd for part, value in usd.items()}


def disks(fleets: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """Return the GiB of disk beside the root volume, by instance type of the fleets."""
    return {c["InstanceType"]: _disk_gib(c) for fleet in fleets for c in fleet["InstanceTypeConfigs"]}


def _dearest_nodes(fleet: Mapping[str, Any], prices: Prices) -> list[tuple[Mapping[str, Any], int, str]]:
    chosen = []
    for key, market in (("TargetOnDemandCapacity", "ON_DEMAND"), ("TargetSpotCapacity", "SPOT")):
        if units := fleet.get(key, 0):
            configs: Sequence[Mapping[str, Any]] = fleet["InstanceTypeConfigs"]
            priced = [
                (_count(c, units) * sum(_node_parts(c, market, prices).values()), i) for i, c in enumerate(configs)
            ]
            config = configs[max(priced)[1]]
            chosen.append((config, _count(config, units), market))
    return chosen


def _node_parts(config: Mapping[str, Any], market: str, prices: Prices) -> dict[str, float]:
    ec2, fee = prices.node_usd_per_hour(config["InstanceType"], market)
    return {"ec2": ec2, "emr": fee, "ebs": prices.disk_usd_per_hour(_disk_gib(config))}


def _bound(config: Mapping[str, Any], prices: Prices) -> float:
    return sum(_node_parts(config, "ON_DEMAND", prices).values()) + prices.public_ipv4


def _units(fleet: Mapping[str, Any]) -> int:
    return int(fleet.get("TargetOnDemandCapacity", 0) + fleet.get("TargetSpotCapacity", 0))


def _count(config: Mapping[str, Any], units: int) -> int:
    return math.ceil(units / int(config.get("WeightedCapacity", 1)))


def _disk_gib(config: Mapping[str, Any]) -> float:
    devices = config.get("EbsConfiguration", {}).get("EbsBlockDeviceConfigs", [])
    return float(sum(d["VolumeSpecification"]["SizeInGB"] * d.get("VolumesPerInstance", 1) for d in devices))
