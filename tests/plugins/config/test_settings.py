"""Each wrong setting is one error that names the key, the value and the remedy."""

from __future__ import annotations

from pathlib import Path

import pytest
from fruits_airflow.config.errors import ConfigError, ResidencyError
from fruits_airflow.config.regions import EU_REGIONS, require_eu_region
from fruits_airflow.config.releases import RELEASES, release
from fruits_airflow.config.settings import SETTINGS_FILE, Settings, load_settings

from tests.plugins.laptop import REPOSITORY

REQUIRED = {"FRUITS_DEPLOYMENT_ID": "test", "FRUITS_RAW_BUCKET": "raw-bucket", "FRUITS_LAKE_BUCKET": "lake-bucket"}


def read(folder: Path, text: str, **environment: str) -> Settings:
    path = folder / "settings.yaml"
    path.write_text(text)
    return load_settings(path, {**REQUIRED, **environment})


def test_the_file_in_the_repository_says_what_the_code_defaults_to() -> None:
    assert load_settings(SETTINGS_FILE, REQUIRED) == Settings(
        deployment_id="test", raw_bucket="raw-bucket", lake_bucket="lake-bucket"
    )


def test_the_environment_goes_before_the_file(tmp_path: Path) -> None:
    assert read(tmp_path, "k: 3\nmax_cost_eur: 2", FRUITS_K="4").k == 4
    assert read(tmp_path, "k: 3", FRUITS_K="null").k is None


def test_a_whole_number_is_fine_where_a_number_is_meant(tmp_path: Path) -> None:
    assert read(tmp_path, "max_cost_eur: 2").max_cost_eur == 2.0


@pytest.mark.parametrize("key", ["deployment_id", "raw_bucket", "lake_bucket"])
def test_a_missing_required_key_names_the_variable_that_sets_it(tmp_path: Path, key: str) -> None:
    path = tmp_path / "settings.yaml"
    path.write_text("region: eu-west-1")
    environment = {name: value for name, value in REQUIRED.items() if name != f"FRUITS_{key.upper()}"}
    with pytest.raises(ConfigError, match=f"{key}: required.*FRUITS_{key.upper()}"):
        load_settings(path, environment)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("regoin: eu-west-1", "unknown key 'regoin'"),
        ("region: eu-west-1\nregion: eu-west-3", "line 2: key 'region' is written twice"),
        ("engine: on", "engine is True.*quote it.*booleans"),
        ("database: no", "database is False.*quote it"),
        ("batch_size: yes", "batch_size is True.*plain number"),
        ("batch_size: '8'", "batch_size is '8', read as str; int is meant"),
        ("batch_size: 1.5", "batch_size is 1.5"),
        ("model_id: 12", "model_id is 12.*quote it"),
        ("k: many", "k is 'many'"),
        ("raw_prefix: 2026-01-01", "raw_prefix is datetime.date.*quote it"),
        ("region:", "region: required"),
        ("- region", "expected `key: value` lines"),
        ("region: [", "not YAML"),
        ("12: x", "key 12 is read as int"),
    ],
)
def test_what_yaml_misreads_or_nobody_knows_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read(tmp_path, text)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("deployment_id", "Prod_1"),
        ("raw_bucket", "s3://raw"),
        ("lake_bucket", "raw-bucket"),
        ("raw_prefix", "/images/"),
        ("raw_prefix", "images"),
        ("database", "fruits-prod"),
        ("demo_database", "fruits"),
        ("notebook_database", "fruits"),
        ("notebook_database", "fruits_demo"),
        ("release_label", "emr-7.0.0"),
        ("model_id", "abc"),
        ("engine", "keras"),
        ("variance", "0"),
        ("variance", "1.1"),
        ("variance", "nan"),
        ("k", "0"),
        ("k", "1281"),
        ("batch_size", "0"),
        ("max_cost_eur", "0"),
        ("max_cost_eur", "inf"),
        ("max_reject_rate", "-0.1"),
        ("min_explained_variance", "1.1"),
        ("min_agreement", "nan"),
        ("max_variance_loss", "2"),
        ("max_drift_degrees", "91"),
        ("max_erased_photos", "0"),
        ("idle_timeout_s", "59"),
        ("poll_s", "0"),
        ("step_timeout_minutes", "0"),
        ("lock_wait_minutes", "0"),
        ("publish_by_hour", "24"),
        ("raw_bucket_owner", "12"),
        ("min_new_images", "1"),
        ("max_wait_days", "0"),
        ("max_wait_days", "7"),
        ("max_removed_share", "1.1"),
        ("max_removed_rows", "-1"),
        ("max_photo_mib", "257"),
        ("max_photo_megapixels", "0"),
        ("service_role", "arn:aws:iam::123456789012:role/a b"),
        ("instance_profile", "a b"),
        ("airflow_role", "fruits-x-airflow-eu-west-1"),
        ("subnet_id", "subnet-1"),
        ("interface_endpoints", "101"),
        ("node_environment", "default"),
        ("max_cluster_minutes", "10081"),
        ("start_timeout_minutes", "0"),
        ("terminate_timeout_minutes", "0"),
        ("list_consistency_s", "601"),
        ("log_wait_s", "3601"),
        ("schedule", "0 2 * *"),
        ("timezone", "Europe/Atlantis"),
        ("notify", "pigeon"),
        ("notify", "slack"),
    ],
)
def test_a_value_out_of_its_range_is_refused_by_name(tmp_path: Path, key: str, value: str) -> None:
    with pytest.raises(ConfigError, match=key):
        read(tmp_path, "{}", **{f"FRUITS_{key.upper()}": value})


def test_mail_needs_somebody_to_go_to(tmp_path: Path) -> None:
    channel = {"FRUITS_NOTIFY": "mail", "FRUITS_NOTIFY_CONN_ID": "smtp"}
    with pytest.raises(ConfigError, match="notify_to"):
        read(tmp_path, "{}", **channel)
    assert read(tmp_path, "{}", **channel, FRUITS_NOTIFY_TO="a@example.org").notify == "mail"


@pytest.mark.parametrize(("variable", "value"), [("FRUITS_K", "three"), ("FRUITS_REGION", ""), ("FRUITS_COST", "1")])
def test_a_wrong_variable_is_refused_by_name(tmp_path: Path, variable: str, value: str) -> None:
    with pytest.raises(ConfigError, match=variable):
        read(tmp_path, "{}", **{variable: value})


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file"):
        load_settings(tmp_path / "settings.yaml", REQUIRED)


@pytest.mark.parametrize("region", EU_REGIONS)
def test_every_region_of_a_member_state_is_allowed(region: str) -> None:
    assert require_eu_region(region) == region


@pytest.mark.parametrize(
    ("region", "reason"),
    [
        ("eu-west-2", "United Kingdom left"),
        ("eu-central-2", "Switzerland is not"),
        ("us-east-1", "not a region in an EU member state"),
        ("eu-west-9", "not a region in an EU member state"),
    ],
)
def test_another_region_is_refused_with_its_reason(tmp_path: Path, region: str, reason: str) -> None:
    with pytest.raises(ResidencyError, match=reason):
        read(tmp_path, f"region: {region}")


def test_the_release_has_the_spark_that_the_jobs_are_tested_with() -> None:
    pinned = (REPOSITORY / "requirements" / "spark.in").read_text().splitlines()
    label = load_settings(SETTINGS_FILE, REQUIRED).release_label
    assert f"pyspark=={release(label).spark}" in pinned


def test_an_unknown_release_names_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=next(iter(RELEASES))):
        release("emr-1.0")
