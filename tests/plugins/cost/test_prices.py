"""include/prices.yaml: what it must hold, and what a slip in it gets."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fruits_airflow.config.errors import ConfigError
from fruits_airflow.config.regions import EU_REGIONS
from fruits_airflow.config.strict_yaml import read_yaml_mapping
from fruits_airflow.cost.prices import PRICES_FILE, SECTIONS, load_prices, vcpus, write_prices
from fruits_airflow.emr.cluster_body import CLUSTER_FILE


def test_every_region_of_the_union_has_a_list_and_no_other_has() -> None:
    assert set(read_yaml_mapping(PRICES_FILE)["regions"]) == set(EU_REGIONS)


@pytest.mark.parametrize("region", EU_REGIONS)
def test_every_section_says_when_and_where_it_was_read(region: str) -> None:
    sections = read_yaml_mapping(PRICES_FILE)["regions"][region]
    assert set(sections) == set(SECTIONS)
    for section in sections.values():
        assert section["date"]
        assert section["source"] in ("remembered", "guessed", "price list")


@pytest.mark.parametrize("region", EU_REGIONS)
def test_every_type_of_every_profile_has_its_prices(region: str) -> None:
    prices = load_prices(region)
    for profile in read_yaml_mapping(CLUSTER_FILE)["profiles"].values():
        for fleet in profile["instance_fleets"]:
            for config in fleet["InstanceTypeConfigs"]:
                name = config["InstanceType"]
                assert 0 < prices.spot[name] < prices.ec2[name]
                assert 0.1 < prices.emr[name] / prices.ec2[name] < 0.4
                assert vcpus(name) >= 4


def test_what_is_from_memory_is_said() -> None:
    assert "ec2" in load_prices("eu-west-1").remembered


def test_a_type_without_a_price_is_named() -> None:
    with pytest.raises(ConfigError, match=r"no price for p9\.xlarge in eu-west-1"):
        load_prices("eu-west-1").node_usd_per_hour("p9.xlarge", "SPOT")


def test_what_is_written_is_read_back_below_the_comment_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "prices.yaml"
    path.write_text(PRICES_FILE.read_text().replace("remembered, value", "invoice, value"))
    write_prices(read_yaml_mapping(PRICES_FILE), path)
    assert path.read_text() == PRICES_FILE.read_text()
    assert load_prices("eu-north-1", path) == load_prices("eu-north-1")


def without_region(content: dict[str, Any]) -> None:
    del content["regions"]["eu-west-1"]


def without_section(content: dict[str, Any]) -> None:
    del content["regions"]["eu-west-1"]["kms"]


def free_machine(content: dict[str, Any]) -> None:
    content["regions"]["eu-west-1"]["ec2"]["usd_per_hour"]["m7g.xlarge"] = 0


def no_number(content: dict[str, Any]) -> None:
    content["regions"]["eu-west-1"]["ebs"]["usd_per_gib_month"] = ".nan"


def without_date(content: dict[str, Any]) -> None:
    del content["eur_per_usd"]["date"]


@pytest.mark.parametrize("slip", [without_region, without_section, free_machine, no_number, without_date])
def test_a_slip_is_refused_with_the_file_and_the_region(slip: Callable[[dict[str, Any]], None], tmp_path: Path) -> None:
    content = read_yaml_mapping(PRICES_FILE)
    slip(content)
    path = tmp_path / "prices.yaml"
    path.touch()
    write_prices(content, path)
    with pytest.raises(ConfigError, match=r"prices\.yaml: no usable prices for eu-west-1.*make prices"):
        load_prices("eu-west-1", path)


@pytest.mark.parametrize(("name", "cpus"), [("m7g.xlarge", 4), ("c7g.2xlarge", 8), ("m6i.16xlarge", 64)])
def test_cpus_follow_from_the_size(name: str, cpus: int) -> None:
    assert vcpus(name) == cpus


@pytest.mark.parametrize("name", ["m7g.large", "m7g.metal", "xlarge"])
def test_a_size_that_says_nothing_of_its_cpus_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="not a size"):
        vcpus(name)
