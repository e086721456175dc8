"""The lint rules for instances: their types, their fleets, and the executors that must fit them."""

from collections.abc import Mapping

from fruits_airflow.config.releases import GIB_PER_CORE, RELEASES, architecture
from fruits_airflow.cost.estimate import worker_vcpus
from fruits_airflow.cost.prices import vcpus
from fruits_airflow.emr.lint_facts import ClusterFacts, Problems

TYPES_PER_FLEET = 30  # with an allocation strategy; 5 without
YARN_SHARE = 0.75  # share of a node's memory that EMR assigns to YARN
MASTER_GIB = 1.0  # an application master in client mode: 512 MiB and 384 MiB of overhead, rounded up
CORE_LABEL = {
    "yarn-site": {"yarn.node-labels.enabled": "true", "yarn.node-labels.am.default-node-label-expression": "CORE"},
    "capacity-scheduler": {
        "yarn.scheduler.capacity.root.accessible-node-labels.CORE.capacity": "100",
        "yarn.scheduler.capacity.root.default.accessible-node-labels.CORE.capacity": "100",
    },
}
_YARN_MEMORY = "yarn.nodemanager.resource.memory-mb"
_SIZE_GIB = {"m": 1 / 1024, "g": 1.0}


def instance_types(cluster: ClusterFacts) -> Problems:
    """Require types of the release, of one architecture."""
    label = cluster.body.get("ReleaseLabel", "")
    if (known := RELEASES.get(label)) is None:
        return  # known_release reports it
    names = sorted({name for fleet in cluster.fleets for name in fleet.types})
    for name in names:
        if name.partition(".")[0] not in known.instance_families:
            yield f"{label} does not run on {name}; use one of {', '.join(sorted(known.instance_families))}"
    architectures = {architecture(name) for name in names}
    if len(architectures) > 1:
        yield (
            f"{', '.join(names)} are of {' and '.join(sorted(architectures))}: the libraries are built for one "
            "architecture; use types of one"
        )


def fleets(cluster: ClusterFacts) -> Problems:
    """Require the fleets that EMR accepts, with several types in each."""
    kinds = [fleet.kind for fleet in cluster.fleets]
    if kinds.count("MASTER") != 1 or kinds.count("CORE") != 1 or kinds.count("TASK") > 1:
        yield f"InstanceFleets are {kinds}; EMR accepts one MASTER, one CORE and at most one TASK"
    for fleet in cluster.fleets:
        count = len(fleet.types)
        if count < 2:
            yield f"the {fleet.kind} fleet has {count} type, which a zone may run out of; name several"
        if count > TYPES_PER_FLEET or len(set(fleet.types)) != count:
            yield f"the {fleet.kind} fleet has {count} types, some twice or more than EMR's {TYPES_PER_FLEET}"
        if fleet.units < 1:
            yield f"the {fleet.kind} fleet has no target capacity; set one"


def primary_on_demand(cluster: ClusterFacts) -> Problems:
    """Require a primary node on demand, since the driver runs on it."""
    for fleet in cluster.fleets:
        if fleet.kind == "MASTER" and (fleet.spot or fleet.on_demand != 1):
            yield "the MASTER fleet is not one node on demand: a spot interruption would end the run"


def spot_falls_back(cluster: ClusterFacts) -> Problems:
    """Require spot nodes from deep pools, and nodes on demand when there are none."""
    for fleet in cluster.fleets:
        if not fleet.spot:
            continue
        strategy, action, minutes = (
            fleet.spot_specification.get(key)
            for key in ("AllocationStrategy", "TimeoutAction", "TimeoutDurationMinutes")
        )
        if strategy != "price-capacity-optimized":
            yield f"the {fleet.kind} fleet's AllocationStrategy is {strategy}; set price-capacity-optimized"
        if action != "SWITCH_TO_ON_DEMAND":
            yield f"the {fleet.kind} fleet's TimeoutAction is {action}; set SWITCH_TO_ON_DEMAND"
        if not 5 <= (minutes or 0) <= 1440:
            yield f"the {fleet.kind} fleet's TimeoutDurationMinutes is {minutes}; EMR accepts 5 to 1440"


def managed_scaling(cluster: ClusterFacts) -> Problems:
    """Require managed scaling that releases idle nodes and stays within the capacity of the forecast."""
    target = sum(fleet.units for fleet in cluster.workers)
    on_demand = sum(fleet.on_demand for fleet in cluster.workers)
    policy = cluster.body.get("ManagedScalingPolicy")
    if policy is None:
        if target > 1:
            yield f"ManagedScalingPolicy is not set, with {target} units: idle nodes would cost money; set it"
        return
    limits = policy.get("ComputeLimits", {})
    low, high = limits.get("MinimumCapacityUnits", 0), limits.get("MaximumCapacityUnits", 0)
    most_on_demand = limits.get("MaximumOnDemandCapacityUnits")
    if limits.get("UnitType") != "InstanceFleetUnits":
        yield f"ManagedScalingPolicy.UnitType is {limits.get('UnitType')}; set InstanceFleetUnits"
    if not 1 <= low <= high:
        yield f"ManagedScalingPolicy has {low} to {high} units; set at least 1, and the minimum below the maximum"
    if high > target:
        yield f"ManagedScalingPolicy has up to {high} units, the fleets {target}: it would cost more than forecast"
    if max(limits.get("MaximumCoreCapacityUnits", high), limits.get("MaximumOnDemandCapacityUnits", high)) > high:
        yield "ManagedScalingPolicy: the limits on demand and of core nodes must not exceed the maximum"
    if on_demand < target and most_on_demand != on_demand:
        yield (
            f"ManagedScalingPolicy.MaximumOnDemandCapacityUnits is {most_on_demand}, the fleets have {on_demand} "
            f"units on demand: EMR scales up on demand to that limit before it requests spot; set {on_demand}"
        )


def application_masters(cluster: ClusterFacts) -> Problems:
    """Require application masters on nodes on demand, since a step ends with its application master."""
    spot = [fleet.kind for fleet in cluster.workers if fleet.spot]
    if not spot:
        return
    if "CORE" in spot:
        yield (
            "the CORE fleet has spot nodes, and HDFS and application masters end with a node; make it on demand, "
            "and the TASK fleet spot"
        )
    for classification, required in CORE_LABEL.items():
        properties = cluster.properties(classification)
        for key, value in required.items():
            if (actual := properties.get(key)) != value:
                yield f"{classification}: {key} is {actual}; {value} keeps application masters on core nodes"


def executors_fit(cluster: ClusterFacts) -> Problems:
    """Require one executor per node, one interpreter per core, and no more memory than the node has."""
    properties = cluster.properties("spark-defaults")
    if properties.get("spark.yarn.heterogeneousExecutors.enabled") != "false":
        yield "spark.yarn.heterogeneousExecutors.enabled is not false: EMR's Spark would resize executors; set false"
    yarn_mib = cluster.properties("yarn-site").get(_YARN_MEMORY)
    for name in sorted({name for fleet in cluster.workers for name in fleet.types}):
        yield from _executor_fits(name, properties, yarn_mib)
    parallelism = properties.get("spark.default.parallelism")
    vcpu_count = worker_vcpus(cluster.body.get("Instances", {}).get("InstanceFleets", []))
    if parallelism != str(vcpu_count):
        yield (
            f"spark.default.parallelism is {parallelism}, the core and task fleets have {vcpu_count} cores: "
            f"cores would stay idle; set {vcpu_count}"
        )


def _executor_fits(name: str, properties: Mapping[str, str], yarn_mib: str | None) -> Problems:
    cores = int(properties.get("spark.executor.cores", 0))
    needed = sum(_gib(properties.get(f"spark.executor.{key}", "1g")) for key in ("memory", "memoryOverhead"))
    if vcpus(name) != cores:
        yield f"spark.executor.cores is {cores}, {name} has {vcpus(name)}: set one interpreter per core"
    share = vcpus(name) * GIB_PER_CORE.get(name[0], 2) * YARN_SHARE
    memory = int(yarn_mib) / 1024 if yarn_mib else share
    if memory > share:
        yield f"{_YARN_MEMORY} is {yarn_mib}; {name} has {share * 1024:.0f} for YARN"
    if needed + MASTER_GIB > memory:
        yield (
            f"an executor of {needed:g} GiB and an application master do not fit the {memory:g} GiB that YARN has "
            f"on {name}; lower spark.executor.memory"
        )
    elif 2 * needed <= memory:
        yield (
            f"{memory // needed:.0f} executors of {needed:g} GiB fit the {memory:g} GiB that YARN has on {name}, "
            f"each with {cores} cores: YARN counts memory only; set {_YARN_MEMORY}"
        )


def _gib(size: str) -> float:
    return float(size[:-1]) * _SIZE_GIB[size[-1].lower()]
