"""What a trigger may ask for, and what follows from it."""

from __future__ import annotations

from typing import Any

import pytest
from fruits_airflow.errors import ConfigError, ResidencyError
from fruits_airflow.regions import EU_REGIONS
from fruits_airflow.run_parameters import RunParameters, parameter_schemas, resolve_parameters
from fruits_airflow.settings import Settings


def resolve(settings: Settings, **conf: Any) -> RunParameters:
    schemas = parameter_schemas(settings)
    return resolve_parameters(settings, {n: s["default"] for n, s in schemas.items()} | conf, conf, schemas)


def test_a_run_over_the_whole_configured_prefix_writes_to_production(settings: Settings) -> None:
    asked = resolve(settings)
    assert (asked.mode, asked.complete, asked.database, asked.profile) == (
        "nightly",
        True,
        "fruits",
        "nightly",
    )


@pytest.mark.parametrize("conf", [{"limit": 5}, {"input_prefix": "other/"}, {"input_prefix": "images/Test/"}])
def test_a_part_of_it_can_never_touch_production(settings: Settings, conf: dict[str, Any]) -> None:
    asked = resolve(settings, **conf)
    assert (asked.mode, asked.complete, asked.database, asked.profile) == (
        "demo",
        False,
        "fruits_demo",
        "demo",
    )


def test_an_unknown_key_is_refused_by_name(settings: Settings) -> None:
    with pytest.raises(ConfigError, match=r"unknown limits;.*limit"):
        resolve(settings, limits=5)


@pytest.mark.parametrize("region", ["us-east-1", "eu-west-2", "eu-central-2"])
def test_a_region_outside_the_union_is_refused(settings: Settings, region: str) -> None:
    with pytest.raises(ResidencyError, match=region):
        resolve(settings, region=region)


def test_the_form_offers_regions_of_the_union_only(settings: Settings) -> None:
    assert parameter_schemas(settings)["region"]["enum"] == list(EU_REGIONS)


def test_a_chosen_profile_goes_before_the_one_of_the_mode(settings: Settings) -> None:
    assert resolve(settings, profile="demo").profile == "demo"
