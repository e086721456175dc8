"""What a trigger may ask for, and what follows from it."""

from __future__ import annotations

import math
from typing import Any

import pytest
from airflow.exceptions import ParamValidationError
from airflow.sdk import Param
from fruits_airflow.config.errors import ConfigError, ResidencyError
from fruits_airflow.config.regions import EU_REGIONS
from fruits_airflow.config.run_parameters import (
    RunParameters,
    parameter_schemas,
    region_of,
    resolve_parameters,
    unchecked_params,
)
from fruits_airflow.config.settings import Settings


def resolve(settings: Settings, **conf: Any) -> RunParameters:
    schemas = parameter_schemas(settings)
    return resolve_parameters(settings, {n: s["default"] for n, s in schemas.items()} | conf, conf, schemas)


def test_a_run_over_the_whole_configured_prefix_writes_to_production(settings: Settings) -> None:
    parameters = resolve(settings)
    assert (parameters.mode, parameters.complete, parameters.database, parameters.profile) == (
        "nightly",
        True,
        "fruits",
        "nightly",
    )


@pytest.mark.parametrize("conf", [{"limit": 5}, {"input_prefix": "other/"}, {"input_prefix": "images/Test/"}])
def test_a_part_of_it_can_never_touch_production(settings: Settings, conf: dict[str, Any]) -> None:
    parameters = resolve(settings, **conf)
    assert (parameters.mode, parameters.complete, parameters.database, parameters.profile) == (
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


def test_whole_numbers_that_json_writes_with_a_point_become_integers(settings: Settings) -> None:
    parameters = resolve(settings, k=5.0, limit=10.0)
    assert (repr(parameters.k), repr(parameters.limit)) == ("5", "10")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *((name, number) for name in ("variance", "max_cost_eur") for number in (math.nan, math.inf, -math.inf, 0)),
        *((name, number) for name in ("k", "limit") for number in (math.nan, math.inf, 5.5, 0, -1, "5", True)),
        ("k", 1281),
        ("limit", 1e300),
        ("limit", 10**10),
        ("input_prefix", "images/Test/\n"),
        ("input_prefix", "images/\ud800/"),
        ("model_id", "a" * 64 + "\n"),
        ("variance", None),
        ("variance", 1.01),
        ("force", "yes"),
        ("full_refresh", 1),
        ("profile", ["demo"]),
        ("model_id", "abc"),
        ("input_prefix", "images"),
        ("engine", {}),
    ],
)
def test_a_value_that_cannot_be_used_is_refused_by_name(settings: Settings, name: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=f"params.{name}: "):
        resolve(settings, **{name: value})


@pytest.mark.parametrize("value", [math.nan, math.inf, 0, 5.5])
def test_the_form_takes_no_number_that_plan_refuses(settings: Settings, value: float) -> None:
    schemas = parameter_schemas(settings)
    for name in ("variance", "max_cost_eur", "limit"):
        if (name, value) != ("max_cost_eur", 5.5) or settings.max_cost_eur < value:
            with pytest.raises(ParamValidationError):
                Param(**schemas[name]).resolve(value)


def test_the_form_cannot_raise_the_ceiling_of_the_settings(settings: Settings) -> None:
    with pytest.raises(ConfigError, match=f"params.max_cost_eur: .*maximum of {settings.max_cost_eur}"):
        resolve(settings, max_cost_eur=settings.max_cost_eur + 0.01)
    assert resolve(settings, max_cost_eur=1).max_cost_eur == 1.0


@pytest.mark.parametrize("region", [None, 7, ["eu-west-1"], "us-east-1"])
def test_the_end_of_a_run_looks_in_the_configured_region_when_the_one_named_is_refused(
    settings: Settings, region: Any
) -> None:
    assert region_of(settings, {"region": region}) == settings.region
    assert region_of(settings, {"region": "eu-north-1"}) == "eu-north-1"


def test_tasks_take_parameters_that_the_form_would_refuse(settings: Settings) -> None:
    params = unchecked_params(parameter_schemas(settings))
    params.update({"variance": None, "limit": "all"})
    assert params.validate()["variance"] is None
