"""The body of RunJobFlow has the values of the template, with the types that EMR accepts."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from fruits_airflow.config.errors import ConfigError
from fruits_airflow.emr.cluster_body import CLUSTER_FILE, load_profile, render_body

from tests.plugins.laptop import REPOSITORY

VALUES: dict[str, Any] = {
    **load_profile("demo").values,
    "name": "n", "release_label": "emr-spark-8.0.0", "lake_bucket": "lake", "lake_region": "eu-west-1",
    "service_role": "s", "instance_profile": "i", "security_configuration": None, "subnet_id": None,
    "idle_timeout_s": 900, "worker_vcpus": 4, "code_digest": "c0de", "deadline": "2026-01-01T00:00:00Z",
    "environment_argument": None, "node_python": "/usr/bin/python3.11",
    "deployment_tag": "d", "dag_tag": "g", "run_tag": "r",
}  # fmt: skip


def properties(classification: str) -> dict[str, str]:
    body = render_body(VALUES)
    return next(c["Properties"] for c in body["Configurations"] if c["Classification"] == classification)


def test_values_keep_their_types_and_absent_ones_their_keys_out() -> None:
    body = render_body(VALUES)
    assert body["AutoTerminationPolicy"] == {"IdleTimeout": 900}
    assert body["Instances"]["InstanceFleets"] == load_profile("demo").instance_fleets
    assert "SecurityConfiguration" not in body
    assert "ManagedScalingPolicy" not in body
    [action] = body["BootstrapActions"]
    assert action["ScriptBootstrapAction"]["Args"] == ["--deadline=2026-01-01T00:00:00Z"]
    assert "Ec2SubnetIds" not in body["Instances"]
    assert render_body({**VALUES, "subnet_id": "subnet-1"})["Instances"]["Ec2SubnetIds"] == ["subnet-1"]


def test_properties_are_strings() -> None:
    assert all(isinstance(value, str) for value in properties("spark-defaults").values())


def test_the_catalog_is_iceberg_over_glue_where_the_lake_is() -> None:
    spark = properties("spark-defaults")
    assert spark["spark.sql.catalog.lake.type"] == "glue"
    assert spark["spark.sql.catalog.lake.warehouse"] == "s3://lake/tables"
    assert spark["spark.sql.catalog.lake.client.region"] == "eu-west-1"
    assert spark["spark.sql.catalog.lake.cache-enabled"] == "false"
    assert properties("iceberg-defaults") == {"iceberg.enabled": "true"}


def test_a_lost_application_master_is_replaced_and_the_driver_is_not_run_again() -> None:
    """In client mode, which test_steps.py checks, YARN does not restart the driver."""
    assert properties("spark-defaults")["spark.yarn.maxAppAttempts"] == "2"


def test_the_driver_fits_a_laptop() -> None:
    assert properties("spark-defaults")["spark.driver.memory"] in ("1g", "2g")


def test_a_missing_value_is_named(tmp_path: Path) -> None:
    path = tmp_path / "cluster.yaml"
    path.write_text("run_job_flow: {Name: '${nmae}'}")
    with pytest.raises(ConfigError, match="nmae"):
        render_body(VALUES, path)


@pytest.mark.parametrize(
    "text",
    ["profiles: {x: {fixed_minutes: 1, instance_fleets: [{}]}}", "profiles: {x: {images_per_second: 0, "
     "fixed_minutes: 1, instance_fleets: [{}]}}"],
)  # fmt: skip
def test_a_profile_that_cannot_be_forecast_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "cluster.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match="x"):
        load_profile("x", path)


def test_no_partition_of_aws_is_written_by_hand() -> None:
    ours = [*REPOSITORY.glob("plugins/**/*.py"), *REPOSITORY.glob("dags/*.py"), CLUSTER_FILE]
    assert len(ours) > 10
    assert [path.name for path in ours if re.search(r"arn:aws", path.read_text())] == []
