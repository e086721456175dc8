"""A cluster that breaks a rule is refused by plan before anything is written, by create_cluster before the request."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from fruits_airflow.config.errors import ClusterRefused
from fruits_airflow.config.run_parameters import parameter_schemas, resolve_parameters
from fruits_airflow.config.settings import Settings
from fruits_airflow.runs.planning import make_plan
from fruits_airflow.runs.run_context import RunContext

from tests.plugins import laptop


def keys(bucket: str) -> list[str]:
    return [item["Key"] for item in laptop.client("s3").list_objects_v2(Bucket=bucket).get("Contents", [])]


def test_plan_refuses_before_anything_is_written(account: Settings) -> None:
    laptop.put_photos(account.raw_bucket, ["images/Apple/1.jpg"])
    settings = replace(account, security_configuration=None)
    schemas = parameter_schemas(settings)
    params = {name: schema["default"] for name, schema in schemas.items()}
    before = keys(account.lake_bucket)
    with pytest.raises(ClusterRefused, match="SecurityConfiguration is not set"):
        make_plan(
            settings, resolve_parameters(settings, params, {}, schemas), "r1", laptop.client("s3"), kms_of=laptop.kms_of
        )
    assert keys(account.lake_bucket) == before


def test_create_refuses_a_security_configuration_that_leaves_something_open(
    account: Settings, make_run: Callable[..., RunContext]
) -> None:
    emr = laptop.client("emr")
    name = f"{account.deployment_id}-open"
    emr.create_security_configuration(Name=name, SecurityConfiguration="{}")
    run = make_run(settings=replace(account, security_configuration=name))
    with pytest.raises(ClusterRefused, match=r"EnableInTransitEncryption.*MinimumInstanceMetadataServiceVersion"):
        run.find_or_create()
    names = [cluster["Name"] for page in emr.get_paginator("list_clusters").paginate() for cluster in page["Clusters"]]
    assert run.identity.name not in names
