"""The rules of cluster_lint.py for the machines: their types, their fleets, and the executors that must fit them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fruits_airflow.config.errors import ConfigError
from fruits_airflow.config.releases import (
    GIB_PER_CORE,
    Release,
    architecture,
    release,
)
from fruits_airflow.cost.estimate import worker_vcpus
from fruits_airflow.cost.prices import vcpus
from fruits_airflow.emr.lint_types import Body, Found, Surroundings

TYPES_PER_FLEET = 30  # with an allocation strategy; 5 without one
YARN_SHARE = 0.75  # of a node's memory, what EMR gives to YARN
MASTER_GIB = 1.0  # an application master in client mode: 512 MiB and 384 MiB of overhead, rounded up
CORE_LABEL = {
    "yarn-site": {
        "yarn.node-labels.enabled": "true",
        "yarn.node-labels.am.default-node-label-expression": "CORE",
    },
    "capacity-scheduler": {
        "yarn.scheduler.capacity.root.accessible-node-labels.CORE.capacity": "100",
        "yarn.scheduler.capacity.root.default.accessible-node-labels.CORE.capacity": "100",
    },
}
_SIZE_GIB = {"m": 1 / 1024, "g": 1.0}


def instance_types(body: Body, _around: Surroundings) -> Found:
    """Types of the release, of one architecture."""
    known: Release | None = None
    try:
        known = release(body.get("ReleaseLabel", ""))
    except ConfigError:
        return  # known_release says so
    names = sorted({name for fleet in _fleets(body) for name in _types(fleet)})
    for name in names:
        if name.partition(".")[0] not in known.instance_families:
            yield (
                f"{name} is not a type of {body['ReleaseLabel']}; take one of "
                f"{', '.join(sorted(known.instance_families))}"
            )
    architectures = {architecture(name) for name in names}
    if len(architectures) > 1:
        yield (
            f"{', '.join(names)} are of {' and '.join(sorted(architectures))}: one architecture per "
            "cluster, as the libraries"
        )


def fleets(body: Body, _around: Surroundings) -> Found:
    """The fleets that EMR takes, several types in each."""
    kinds = [fleet.get("InstanceFleetType") for fleet in _fleets(body)]
    if kinds.count("MASTER") != 1 or kinds.count("CORE") != 1 or kinds.count("TASK") > 1:
        yield f"InstanceFleets are {kinds}; EMR takes one MASTER, one CORE and at most one TASK"
    for fleet in _fleets(body):
        kind, names = fleet.get("InstanceFleetType"), _types(fleet)
        if len(names) < 2:
            yield (
                f"the {kind} fleet has {len(names)} type: one that has run out in a zone stops the night; "
                "name several"
            )
        if len(names) > TYPES_PER_FLEET or len(set(names)) != len(names):
            yield f"the {kind} fleet has {len(names)} types, some twice or more than EMR's {TYPES_PER_FLEET}"
        if _units(fleet) < 1:
            yield f"the {kind} fleet asks for no capacity; set a target"


def primary_on_demand(body: Body, _around: Surroundings) -> Found:
    """The driver is never on a spot market."""
    for fleet in _fleets(body):
        if fleet.get("InstanceFleetType") == "MASTER" and (
            fleet.get("TargetSpotCapacity") or fleet.get("TargetOnDemandCapacity") != 1
        ):
            yield "the MASTER fleet is not one node on demand: the run is lost when a spot market takes it"


def spot_falls_back(body: Body, _around: Surroundings) -> Found:
    """Spot from deep pools, on demand when there is none."""
    for fleet in _fleets(body):
        if not fleet.get("TargetSpotCapacity"):
            continue
        spot = fleet.get("LaunchSpecifications", {}).get("SpotSpecification", {})
        kind = fleet.get("InstanceFleetType")
        if spot.get("AllocationStrategy") != "price-capacity-optimized":
            yield (
                f"the {kind} fleet's spot strategy is {spot.get('AllocationStrategy')}; take "
                "price-capacity-optimized"
            )
        if spot.get("TimeoutAction") != "SWITCH_TO_ON_DEMAND":
            yield (
                f"the {kind} fleet's TimeoutAction is {spot.get('TimeoutAction')}; SWITCH_TO_ON_DEMAND "
                "saves the night"
            )
        if not 5 <= spot.get("TimeoutDurationMinutes", 0) <= 1440:
            yield (
                f"the {kind} fleet's TimeoutDurationMinutes is {spot.get('TimeoutDurationMinutes')}; EMR "
                "takes 5 to 1440"
            )


def managed_scaling(body: Body, _around: Surroundings) -> Found:
    """Nodes without work are given back, and never more are had than forecast."""
    target = sum(_units(fleet) for fleet in _workers(body))
    policy = body.get("ManagedScalingPolicy")
    if policy is None:
        if target > 1:
            yield (
                f"ManagedScalingPolicy is not set, with {target} units: nodes without work would be paid for"
            )
        return
    limits = policy.get("ComputeLimits", {})
    low, high = limits.get("MinimumCapacityUnits", 0), limits.get("MaximumCapacityUnits", 0)
    if limits.get("UnitType") != "InstanceFleetUnits":
        yield f"ManagedScalingPolicy.UnitType is {limits.get('UnitType')}; fleets count in InstanceFleetUnits"
    if not 1 <= low <= high:
        yield (
            f"ManagedScalingPolicy goes from {low} to {high} units; at least 1, and the minimum below the "
            "maximum"
        )
    if high > target:
        yield (
            f"ManagedScalingPolicy goes up to {high} units, the fleets ask for {target}: dearer than the "
            "forecast"
        )
    if (
        not limits.get("MaximumOnDemandCapacityUnits", high)
        <= high
        >= limits.get("MaximumCoreCapacityUnits", high)
    ):
        yield "ManagedScalingPolicy: the limits on demand and of core nodes must not be above the maximum"
    on_demand = sum(int(fleet.get("TargetOnDemandCapacity", 0)) for fleet in _workers(body))
    if on_demand < target and limits.get("MaximumOnDemandCapacityUnits") != on_demand:
        yield (
            f"ManagedScalingPolicy.MaximumOnDemandCapacityUnits is {limits.get('MaximumOnDemandCapacityUnits')}, the "
            f"fleets ask for {on_demand} on demand: EMR scales up on demand to that limit before it asks for spot; "
            f"set {on_demand}"
        )


def application_masters(body: Body, _around: Surroundings) -> Found:
    """An application master is never on a spot market, since a step ends with it."""
    spot = [fleet["InstanceFleetType"] for fleet in _workers(body) if fleet.get("TargetSpotCapacity")]
    if not spot:
        return
    if "CORE" in spot:
        yield (
            "the CORE fleet asks for spot: HDFS and application masters go with a node; make it on demand, and the "
            "TASK fleet spot"
        )
    for classification, properties in CORE_LABEL.items():
        present = configured(body, classification)
        for key, value in properties.items():
            if present.get(key) != value:
                yield f"{classification}: {key} is {present.get(key)}; {value} keeps application masters on core nodes"


def executors_fit(body: Body, _around: Surroundings) -> Found:
    """One executor a node, one interpreter per core, and memory that the node has."""
    properties = configured(body, "spark-defaults")
    cores = int(properties.get("spark.executor.cores", 0))
    needed = _gib(properties.get("spark.executor.memory", "1g")) + _gib(
        properties.get("spark.executor.memoryOverhead", "1g")
    )
    if properties.get("spark.yarn.heterogeneousExecutors.enabled") != "false":
        yield "spark.yarn.heterogeneousExecutors.enabled is not false: EMR's Spark would resize executors to the nodes"
    limit = configured(body, "yarn-site").get("yarn.nodemanager.resource.memory-mb")
    for name in sorted({name for fleet in _workers(body) for name in _types(fleet)}):
        if vcpus(name) != cores:
            yield (
                f"spark.executor.cores is {cores}, {name} has {vcpus(name)}: one interpreter per core, no "
                "more, no less"
            )
        share = vcpus(name) * GIB_PER_CORE.get(name[0], 2) * YARN_SHARE
        memory = int(limit) / 1024 if limit else share
        if memory > share:
            yield f"yarn.nodemanager.resource.memory-mb is {limit}; {name} has {share * 1024:.0f} for YARN"
        if needed + MASTER_GIB > memory:
            yield (
                f"an executor of {needed:g} GiB and an application master do not fit the {memory:g} GiB that YARN has "
                f"on {name}"
            )
        elif 2 * needed <= memory:
            yield (
                f"{memory // needed:.0f} executors of {needed:g} GiB fit the {memory:g} GiB that YARN has on {name}, "
                f"each with {cores} cores: YARN counts memory only; set yarn.nodemanager.resource.memory-mb"
            )
    parallelism, vcpu_count = properties.get("spark.default.parallelism"), worker_vcpus(_fleets(body))
    if parallelism != str(vcpu_count):
        yield (
            f"spark.default.parallelism is {parallelism}, the core and task fleets have {vcpu_count} cores: "
            "set it to their number, or cores stay idle"
        )


def _fleets(body: Body) -> list[Mapping[str, Any]]:
    return list(body.get("Instances", {}).get("InstanceFleets", []))


def _workers(body: Body) -> list[Mapping[str, Any]]:
    return [fleet for fleet in _fleets(body) if fleet.get("InstanceFleetType") != "MASTER"]


def _types(fleet: Mapping[str, Any]) -> list[str]:
    return [config["InstanceType"] for config in fleet.get("InstanceTypeConfigs", [])]


def _units(fleet: Mapping[str, Any]) -> int:
    return int(fleet.get("TargetOnDemandCapacity", 0) + fleet.get("TargetSpotCapacity", 0))


def configured(body: Body, classification: str) -> dict[str, str]:
    """Return the properties of a classification, such as `spark-defaults`."""
    matching = (c for c in body.get("Configurations", []) if c["Classification"] == classification)
    return dict(next(matching, {"Properties": {}})["Properties"])


def _gib(size: str) -> float:
    return float(size[:-1]) * _SIZE_GIB[size[-1].lower()]
