"""What a run will, may and did cost: each figure beside the same by hand."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from fruits_airflow.config.errors import CostCeilingExceeded
from fruits_airflow.config.regions import EU_REGIONS
from fruits_airflow.cost.estimate import (
    PARTS,
    Speed,
    Workload,
    deadline,
    disks,
    estimate_parts,
    fleets_eur_per_hour,
    forecast,
    worker_vcpus,
)
from fruits_airflow.cost.prices import Prices, load_prices
from fruits_airflow.emr.cluster_body import load_profile

NOW = datetime(2026, 1, 1, 2, 0, tzinfo=UTC)
HOUR = timedelta(hours=1)
PRICES = Prices(
    region="eu-west-1",
    ec2={"a.xlarge": 1.0, "b.2xlarge": 3.0},
    spot={"a.xlarge": 0.4, "b.2xlarge": 1.0},
    emr={"a.xlarge": 0.5, "b.2xlarge": 1.0},
    ebs=73.0,  # 0.1 USD per GiB and hour
    s3_write=0.01,
    s3_read=0.001,
    kms=0.1,
    public_ipv4=0.005,
    interface_endpoint=0.05,
    transfer=0.02,
    eur_per_usd=0.5,
)
SPEED = Speed(images_per_second_per_vcpu=10, fixed_minutes=30)


def fleet(kind: str, on_demand: int = 0, spot: int = 0, *types: str, disk_gib: int = 0) -> dict[str, Any]:
    devices = [{"VolumeSpecification": {"SizeInGB": disk_gib}}] if disk_gib else []
    configs = [
        {"InstanceType": name, "WeightedCapacity": 2 if name == "b.2xlarge" else 1}
        | {"EbsConfiguration": {"EbsBlockDeviceConfigs": devices}}
        for name in types
    ]
    return {
        "InstanceFleetType": kind,
        "TargetOnDemandCapacity": on_demand,
        "TargetSpotCapacity": spot,
        "InstanceTypeConfigs": configs,
    }


PRIMARY = fleet("MASTER", 1, 0, "a.xlarge")
WORKERS = fleet("CORE", 1, 2, "a.xlarge", "b.2xlarge", disk_gib=5)


def test_only_the_nodes_that_work_count_as_cpus_and_the_smallest_of_their_types() -> None:
    # three units are 3 x a.xlarge with 12 CPUs, or 2 x b.2xlarge with 16
    assert worker_vcpus([PRIMARY, WORKERS]) == 12


def test_the_hours_are_the_fixed_ones_and_those_of_the_images() -> None:
    images = 10 * 12 * 3600  # one hour of twelve CPUs at ten a second
    assert forecast(Workload(images), SPEED, [PRIMARY, WORKERS], PRICES).hours == pytest.approx(1.5)
    assert forecast(Workload(0), SPEED, [PRIMARY, WORKERS], PRICES).hours == pytest.approx(0.5)


def test_each_part_of_a_forecast_by_hand() -> None:
    images = 10 * 12 * 3600
    parts = forecast(Workload(images, listed=1_000_000), SPEED, [PRIMARY, WORKERS], PRICES).parts
    # 1.5 hours; primary a.xlarge; one unit on demand: b.2xlarge (3 + 1 + 0.1 x 20) beats a.xlarge (1.5 + 2);
    # two units of spot: two a.xlarge (2 x (0.4 + 0.5 + 2.0)) beat one b.2xlarge (1 + 1 + 2.0). Euros are half.
    assert parts["ec2"] == pytest.approx(1.5 * (1.0 + 3.0 + 2 * 0.4) / 2)
    assert parts["emr"] == pytest.approx(1.5 * (0.5 + 1.0 + 2 * 0.5) / 2)
    assert parts["ebs"] == pytest.approx(1.5 * 0.1 * (15 + 3 * 20) / 2)
    assert parts["network"] == pytest.approx(1.5 * 4 * 0.005 / 2)
    reads = images + 3_000 + 2 * images / 4_000
    writes = 1_000 + 500 + 2 * images / 4_000
    assert parts["s3"] == pytest.approx((reads * 0.001 + writes * 0.01) / 2)
    assert parts["kms"] == pytest.approx((reads + writes) * 0.01 * 0.1 / 2)
    assert set(parts) == set(PARTS)


def test_a_private_network_pays_endpoints_instead_of_addresses() -> None:
    parts = forecast(Workload(0), SPEED, [PRIMARY, WORKERS], PRICES, interface_endpoints=3).parts
    assert parts["network"] == pytest.approx(0.5 * 3 * 0.05 / 2)


def test_what_crosses_a_border_is_counted() -> None:
    near, far = (forecast(Workload(0, transfer_gib=gib), SPEED, [PRIMARY, WORKERS], PRICES) for gib in (0, 100))
    assert far.total_eur - near.total_eur == pytest.approx(100 * 0.02 / 2)


def test_a_spot_price_above_the_one_on_demand_is_not_paid() -> None:
    dear = Prices(**{**vars(PRICES), "spot": {"a.xlarge": 9.0, "b.2xlarge": 9.0}})
    on_demand = forecast(Workload(0), SPEED, [fleet("CORE", 2, 0, "a.xlarge")], dear)
    assert forecast(Workload(0), SPEED, [fleet("CORE", 0, 2, "a.xlarge")], dear) == on_demand


def test_the_bound_counts_the_dearest_types_without_a_discount_for_spot() -> None:
    # primary: 1 + 0.5 + 0.1 x 15 + 0.005; three units: 3 x (1.5 + 2.0 + 0.005) are less than 2 x (4 + 2.0 + 0.005)
    assert fleets_eur_per_hour([PRIMARY, WORKERS], PRICES) == pytest.approx((3.005 + 12.01) / 2)


@pytest.mark.parametrize("region", EU_REGIONS)
@pytest.mark.parametrize("profile", ["demo", "nightly"])
@pytest.mark.parametrize("endpoints", [0, 3])
def test_no_forecast_is_above_its_bound(region: str, profile: str, endpoints: int) -> None:
    fleets, prices = load_profile(profile).instance_fleets, load_prices(region)
    expected = forecast(Workload(0), Speed(30, 60), fleets, prices, endpoints)
    machines = sum(expected.parts[part] for part in ("ec2", "emr", "ebs", "network"))
    assert 0.1 < machines <= fleets_eur_per_hour(fleets, prices, endpoints) < 5


def test_the_deadline_is_when_the_money_is_spent() -> None:
    assert deadline(NOW, 2.0, 0.0, 1.0, max_minutes=1000) == NOW + timedelta(hours=2)
    assert deadline(NOW, 2.0, 1.5, 1.0, max_minutes=1000) == NOW + timedelta(minutes=30)


def test_the_deadline_is_no_later_than_any_cluster_may_live() -> None:
    assert deadline(NOW, 100.0, 0.0, 1.0, max_minutes=60) == NOW + timedelta(hours=1)


@pytest.mark.parametrize(("ceiling", "spent"), [(0.1, 0.0), (2.0, 1.9), (2.0, 3.0)])
def test_too_little_money_for_any_work_is_refused(ceiling: float, spent: float) -> None:
    with pytest.raises(CostCeilingExceeded, match="max_cost_eur"):
        deadline(NOW, ceiling, spent, 1.0, max_minutes=60)


def instance(
    kind: str, start: datetime | None, end: datetime | None = None, market: str = "ON_DEMAND"
) -> dict[str, Any]:
    timeline = {"CreationDateTime": start} | ({"EndDateTime": end} if end else {})
    return {"InstanceType": kind, "Market": market, "Status": {"Timeline": timeline if start else {}}}


def test_each_part_of_an_estimate_by_hand() -> None:
    nodes = [
        instance("a.xlarge", NOW - 2 * HOUR, NOW - HOUR),
        instance("b.2xlarge", NOW - 3 * HOUR, NOW - HOUR, "SPOT"),
    ]
    parts = estimate_parts(nodes, PRICES, NOW, {"b.2xlarge": 5.0})
    assert parts["ec2"] == pytest.approx((1.0 + 2 * 1.0) / 2)
    assert parts["emr"] == pytest.approx((0.5 + 2 * 1.0) / 2)
    assert parts["ebs"] == pytest.approx((0.1 * 15 + 2 * 0.1 * 20) / 2)
    assert parts["network"] == pytest.approx(3 * 0.005 / 2)
    assert parts["s3"] == parts["kms"] == 0


def test_nodes_are_counted_from_their_start_to_their_end_or_to_now() -> None:
    nodes = [instance("a.xlarge", NOW - HOUR), instance("a.xlarge", None)]
    assert estimate_parts(nodes, PRICES, NOW)["ec2"] == pytest.approx(0.5)


def test_an_estimate_pays_endpoints_for_as_long_as_there_was_a_node() -> None:
    nodes = [instance("a.xlarge", NOW - 2 * HOUR, NOW), instance("a.xlarge", NOW - HOUR, NOW)]
    assert estimate_parts(nodes, PRICES, NOW, interface_endpoints=3)["network"] == pytest.approx(2 * 3 * 0.05 / 2)


def test_a_minute_is_the_least_that_is_billed() -> None:
    brief = [instance("a.xlarge", NOW, NOW + timedelta(seconds=1))]
    assert estimate_parts(brief, PRICES, NOW)["ec2"] == pytest.approx(0.5 / 60)


def test_the_upper_bound_of_an_estimate_forgoes_the_discount() -> None:
    nodes = [instance("a.xlarge", NOW - HOUR, NOW, "SPOT")]
    assert estimate_parts(nodes, PRICES, NOW)["ec2"] == pytest.approx(0.2)
    assert estimate_parts(nodes, PRICES, NOW, spot_discount=False)["ec2"] == pytest.approx(0.5)


def test_a_node_without_a_price_counts_as_the_dearest_on_demand() -> None:
    assert estimate_parts([instance("z.xlarge", NOW - HOUR, NOW, "SPOT")], PRICES, NOW)["ec2"] == pytest.approx(1.5)


def test_the_disks_of_a_type_are_read_from_the_fleets() -> None:
    assert disks([PRIMARY, WORKERS])["b.2xlarge"] == 5.0
