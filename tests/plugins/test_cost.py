"""What a run will, may and did cost."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from fruits_airflow.cluster_body import load_profile
from fruits_airflow.cost import (
    Prices,
    deadline,
    estimate_eur,
    fleets_eur_per_hour,
    forecast_eur,
    load_prices,
)
from fruits_airflow.errors import ConfigError, CostCeilingExceeded
from fruits_airflow.regions import EU_REGIONS

NOW = datetime(2026, 1, 1, 2, 0, tzinfo=UTC)
PRICES = Prices("eu-west-1", {"a": 1.0, "b": 3.0}, {"a": 0.5, "b": 1.0}, 0.0, 0.5, "2026-01-01")


@pytest.mark.parametrize("region", EU_REGIONS)
@pytest.mark.parametrize("profile", ["demo", "nightly"])
def test_each_profile_has_a_price_in_each_region(region: str, profile: str) -> None:
    assert 0.3 < fleets_eur_per_hour(load_profile(profile).instance_fleets, load_prices(region)) < 5


def test_a_fleet_costs_what_its_dearest_type_would() -> None:
    fleet = {
        "TargetOnDemandCapacity": 2,
        "TargetSpotCapacity": 2,
        "InstanceTypeConfigs": [
            {"InstanceType": "a", "WeightedCapacity": 1},  # 4 x 1.5 USD
            {"InstanceType": "b", "WeightedCapacity": 2},  # 2 x 4 USD
        ],
    }
    assert fleets_eur_per_hour([fleet], PRICES) == pytest.approx(8 * 0.5)


def test_disks_are_counted() -> None:
    with_disks = Prices("eu-west-1", {"a": 1.0}, {"a": 0.0}, 730.0, 1.0, "")
    assert with_disks.instance_eur_per_hour("a", disk_gib=5) == pytest.approx(
        1 + 20
    )  # 5 and the root volume's 15


def test_the_forecast_grows_with_the_images() -> None:
    assert forecast_eur(0, 100, 15, 4.0) == pytest.approx(1.0)
    assert forecast_eur(360_000, 100, 15, 4.0) == pytest.approx(1.0 + 4.0)


def test_the_deadline_is_when_the_money_is_spent() -> None:
    assert deadline(NOW, 2.0, 0.0, 1.0, max_minutes=1000) == NOW + timedelta(hours=2)
    assert deadline(NOW, 2.0, 1.5, 1.0, max_minutes=1000) == NOW + timedelta(minutes=30)


def test_the_deadline_is_no_later_than_any_cluster_may_live() -> None:
    assert deadline(NOW, 100.0, 0.0, 1.0, max_minutes=60) == NOW + timedelta(hours=1)


@pytest.mark.parametrize(("ceiling", "spent"), [(0.1, 0.0), (2.0, 1.9), (2.0, 3.0)])
def test_too_little_money_for_any_work_is_refused(ceiling: float, spent: float) -> None:
    with pytest.raises(CostCeilingExceeded, match="max_cost_eur"):
        deadline(NOW, ceiling, spent, 1.0, max_minutes=60)


def instance(kind: str, start: datetime | None, end: datetime | None = None) -> dict[str, object]:
    timeline = {"CreationDateTime": start} | ({"EndDateTime": end} if end else {})
    return {"InstanceType": kind, "Status": {"Timeline": timeline if start else {}}}


def test_nodes_are_counted_from_their_start_to_their_end_or_to_now() -> None:
    hour = timedelta(hours=1)
    nodes = [instance("a", NOW - 2 * hour, NOW - hour), instance("a", NOW - hour), instance("a", None)]
    assert estimate_eur(nodes, PRICES, NOW) == pytest.approx(2 * 1.5 * 0.5)


def test_a_minute_is_the_least_that_is_billed() -> None:
    assert estimate_eur([instance("a", NOW, NOW + timedelta(seconds=1))], PRICES, NOW) == pytest.approx(
        0.75 / 60
    )


def test_a_node_without_a_price_counts_as_the_dearest() -> None:
    assert estimate_eur([instance("z", NOW - timedelta(hours=1))], PRICES, NOW) == pytest.approx(4 * 0.5)


def test_a_type_without_a_price_is_named() -> None:
    with pytest.raises(ConfigError, match=r"no price for p9\.xlarge in eu-west-1"):
        load_prices("eu-west-1").instance_eur_per_hour("p9.xlarge")


def test_a_region_without_prices_is_named(tmp_path: Path) -> None:
    path = tmp_path / "prices.yaml"
    path.write_text("eur_per_usd: 0.9\nas_of: x\nemr_usd_per_hour: {}\nregions: {}")
    with pytest.raises(ConfigError, match="eu-west-1"):
        load_prices("eu-west-1", path)
