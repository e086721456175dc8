"""The commands of `python -m ops` that print or write: forecast, prices, share."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from fruits_airflow.config.settings import Settings
from fruits_airflow.cost.prices import PRICES_FILE

from ops import __main__ as command_line
from ops import forecast, prices, share


def test_a_forecast_as_json_has_a_row_for_each_profile_and_region(capsys: pytest.CaptureFixture[str]) -> None:
    assert command_line.main(["forecast", "--images", "1000", "--format", "json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    pairs = [(row["profile"], row["region"]) for row in rows]
    assert {profile for profile, _ in pairs} == {"demo", "nightly"}
    assert len(set(pairs)) == len(pairs)


def test_a_forecast_as_table_is_in_euros(capsys: pytest.CaptureFixture[str]) -> None:
    assert command_line.main(["forecast", "--images", "1000"]) == 0
    assert "1,000 new images, in EUR" in capsys.readouterr().out


@pytest.mark.parametrize(("images", "waits"), [("499", True), ("500", False)])
def test_a_forecast_of_a_deployment_says_that_a_night_would_wait(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, images: str, waits: bool
) -> None:
    names = {"deployment_id": "x1", "raw_bucket": "raw", "lake_bucket": "lake"}
    settings = Settings(**names, min_new_images=500, max_wait_days=7)
    monkeypatch.setattr(forecast, "load_settings", lambda: settings)
    monkeypatch.setattr(forecast, "past_runs", lambda _: [])
    assert command_line.main(["forecast", "--images", images, "--learn"]) == 0
    assert ("waits for more, and creates no cluster" in capsys.readouterr().out) is waits


@pytest.mark.parametrize("count", ["-1", "many"])
def test_a_forecast_of_no_number_is_a_wrong_call(count: str) -> None:
    with pytest.raises(SystemExit, match="2"):
        command_line.main(["forecast", "--images", count])


@pytest.mark.parametrize("rate", ["0", "-1", "nan", "inf", "0,92"])
def test_an_exchange_rate_that_is_none_is_refused_before_the_file_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], rate: str
) -> None:
    path = tmp_path / "prices.yaml"
    path.write_text(PRICES_FILE.read_text())
    monkeypatch.setattr(prices, "refresh", lambda content, *_: (content | {"renewed": True}, {}))
    with pytest.raises(SystemExit, match="2"):
        command_line.main(["prices", "--file", str(path), f"--eur-per-usd={rate}"])
    assert f"argument --eur-per-usd: invalid read_price value: '{rate}'" in capsys.readouterr().err
    assert path.read_text() == PRICES_FILE.read_text()


def test_prices_of_a_region_outside_the_union_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert command_line.main(["prices", "--regions", "us-east-1"]) == 1
    assert "us-east-1" in capsys.readouterr().err


def test_a_region_whose_prices_cannot_be_read_fails_and_the_file_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "prices.yaml"
    path.write_text(PRICES_FILE.read_text())
    monkeypatch.setattr(prices, "refresh", lambda content, *_: (content | {"renewed": True}, {"eu-west-1": "denied"}))
    assert command_line.main(["prices", "--regions", "eu-west-1", "--file", str(path)]) == 1
    assert "eu-west-1 stays as it was: denied" in capsys.readouterr().err
    assert "renewed: true" in path.read_text()


def test_links_of_a_deployment_without_settings_are_refused_with_the_remedy(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("FRUITS_DEPLOYMENT_ID", raising=False)
    assert command_line.main(["share", "--run", "x"]) == 1
    assert "FRUITS_DEPLOYMENT_ID" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("AWS_ENDPOINT_URL", "nowhere"),
        ("AWS_MAX_ATTEMPTS", "many"),
        ("AWS_WEB_IDENTITY_TOKEN_FILE", "/nonexistent"),
        ("AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://203.0.113.1/"),
    ],
)
def test_a_variable_that_botocore_cannot_use_is_one_clear_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], variable: str, value: str
) -> None:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    names = {"deployment_id": "x1", "raw_bucket": "raw", "lake_bucket": "lake"}
    monkeypatch.setattr(share, "load_settings", lambda: Settings(**names))
    monkeypatch.setattr("boto3.DEFAULT_SESSION", None)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/reader")
    monkeypatch.setenv(variable, value)
    assert command_line.main(["share", "--run", "x"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("ERROR: ")
    assert "AWS_*" in line


def test_a_parameter_of_the_stack_without_a_value_is_refused_by_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert command_line.main(["preflight", "--deployment-id", "x1", "--parameter", "LogDays"]) == 1
    assert capsys.readouterr().err.startswith("ERROR: PARAMETERS: 'LogDays' has no value; say ")
