"""What a run will cost, may cost and has cost: EC2, EMR's fee and disks, in euros without tax.

Left out, because they depend on what the run reads: S3 and KMS requests, public IPv4 or NAT, transfer.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from fruits_airflow.errors import ConfigError, CostCeilingExceeded
from fruits_airflow.settings import REPOSITORY
from fruits_airflow.strict_yaml import read_yaml_mapping

PRICES_FILE = REPOSITORY / "include" / "prices.yaml"
HOURS_PER_MONTH = 730.0  # as AWS divides a month's price of a volume
ROOT_VOLUME_GIB = 15.0  # what EMR gives each node unless told otherwise


@dataclass(frozen=True)
class Prices:
    """The price list of one region.

    Attributes:
        region: AWS region code.
        ec2: US dollars per instance-hour by instance type.
        emr: US dollars per instance-hour by instance type, on top of EC2.
        ebs: US dollars per GiB and month.
        eur_per_usd: euros per US dollar.
        as_of: ISO date of the list.
    """

    region: str
    ec2: Mapping[str, float]
    emr: Mapping[str, float]
    ebs: float
    eur_per_usd: float
    as_of: str

    def instance_eur_per_hour(self, instance_type: str, disk_gib: float = 0.0) -> float:
        """Euros for one hour of one node with `disk_gib` of disk beside its root volume.

        Raises:
            ConfigError: the instance type has no price in this region.
        """
        try:
            node = self.ec2[instance_type] + self.emr[instance_type]
        except KeyError:
            raise ConfigError(
                f"include/prices.yaml: no price for {instance_type} in {self.region}; add it, "
                "or take another type in include/cluster.yaml"
            ) from None
        return (node + (disk_gib + ROOT_VOLUME_GIB) * self.ebs / HOURS_PER_MONTH) * self.eur_per_usd


def load_prices(region: str, path: Path = PRICES_FILE) -> Prices:
    """Reads the price list of `region`.

    Raises:
        ConfigError: the file is malformed or has no prices for the region.
    """
    content = read_yaml_mapping(path)
    try:
        local = content["regions"][region]
        return Prices(
            region=region,
            ec2={name: float(usd) for name, usd in local["ec2_usd_per_hour"].items()},
            emr={name: float(usd) for name, usd in content["emr_usd_per_hour"].items()},
            ebs=float(local["ebs_usd_per_gib_month"]),
            eur_per_usd=float(content["eur_per_usd"]),
            as_of=str(content["as_of"]),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ConfigError(f"{path}: no usable prices for {region}: {error!r}; add them") from error


def fleets_eur_per_hour(fleets: Sequence[Mapping[str, Any]], prices: Prices) -> float:
    """Euros per hour of a cluster at its full target capacity, the dearest allowed types taken, no spot discount."""
    total = 0.0
    for fleet in fleets:
        units = fleet.get("TargetOnDemandCapacity", 0) + fleet.get("TargetSpotCapacity", 0)
        total += max(
            math.ceil(units / config.get("WeightedCapacity", 1))
            * prices.instance_eur_per_hour(config["InstanceType"], _disk_gib(config))
            for config in fleet["InstanceTypeConfigs"]
        )
    return total


def _disk_gib(config: Mapping[str, Any]) -> float:
    devices = config.get("EbsConfiguration", {}).get("EbsBlockDeviceConfigs", [])
    return float(sum(d["VolumeSpecification"]["SizeInGB"] * d.get("VolumesPerInstance", 1) for d in devices))


def forecast_eur(images: int, images_per_second: float, fixed_minutes: float, eur_per_hour: float) -> float:
    """Euros that a run over `images` new images will cost.

    Args:
        images: images to fetch, decode and featurize.
        images_per_second: throughput of the cluster, measured.
        fixed_minutes: what every run takes: start, step overhead, PCA, termination.
        eur_per_hour: price of the cluster.
    """
    hours = fixed_minutes / 60 + images / images_per_second / 3600
    return hours * eur_per_hour


def deadline(
    now: datetime, max_cost_eur: float, spent_eur: float, eur_per_hour: float, max_minutes: float
) -> datetime:
    """The moment at which a cluster created `now` must be gone.

    Never later than the moment at which `max_cost_eur` is spent: AWS counts from the start of the nodes, which
    is after `now`, and `eur_per_hour` is an upper bound.

    Args:
        now: when RunJobFlow is sent, with a time zone.
        max_cost_eur: what the run may cost.
        spent_eur: what earlier clusters of the same run have cost.
        eur_per_hour: price of the cluster.
        max_minutes: the longest that any cluster may live.

    Raises:
        CostCeilingExceeded: less than ten minutes are left: too few for a cluster to do anything.
    """
    affordable = (max_cost_eur - spent_eur) / eur_per_hour * 60
    minutes = min(float(max_minutes), affordable)
    if affordable < 10:
        raise CostCeilingExceeded(
            f"max_cost_eur: {max_cost_eur:.2f} leaves {max(affordable, 0):.1f} minutes of a cluster at "
            f"{eur_per_hour:.2f} EUR per hour after {spent_eur:.2f} EUR already spent by this run; raise it"
        )
    return now + timedelta(seconds=math.floor(minutes * 60))


def estimate_eur(instances: Iterable[Mapping[str, Any]], prices: Prices, now: datetime) -> float:
    """Euros that a cluster's nodes have cost, from the timelines that ListInstances gives.

    AWS bills by the second, a minute at least, from creation to end; a node without an end runs until `now`.
    A type without a price here (a fleet may hold what cluster.yaml once allowed) counts as the dearest known.
    """
    dearest = max(prices.instance_eur_per_hour(name) for name in prices.ec2 if name in prices.emr)
    total = 0.0
    for instance in instances:
        timeline = instance.get("Status", {}).get("Timeline", {})
        start = timeline.get("CreationDateTime")
        if start is None:
            continue
        seconds = max(60.0, ((timeline.get("EndDateTime") or now) - start).total_seconds())
        known = instance["InstanceType"] in prices.ec2 and instance["InstanceType"] in prices.emr
        hourly = prices.instance_eur_per_hour(instance["InstanceType"]) if known else dearest
        total += hourly * seconds / 3600
    return total
