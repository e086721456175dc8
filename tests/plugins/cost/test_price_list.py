"""make prices: what the Price List API says is what include/prices.yaml says afterwards."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fruits_airflow.cost.prices import PRICES_FILE, load_prices

from tests.plugins.laptop import REPOSITORY, aws_environment
from tests.plugins.scripted_pricing import ScriptedPricing, product

TYPES = ("m7g.xlarge", "c7g.2xlarge")
LINUX = {"operatingSystem": "Linux", "tenancy": "Shared", "preInstalledSw": "NA", "capacitystatus": "Used"}


def products(region: str) -> dict[str, list[dict[str, Any]]]:
    here = {"regionCode": region}
    machines = [
        product({**here, **LINUX, "instanceType": name}, ("Hrs", 0, usd))
        for name, usd in zip(TYPES, (0.2, 0.4), strict=True)
    ]
    windows = product({**here, **LINUX, "operatingSystem": "Windows", "instanceType": TYPES[0]}, ("Hrs", 0, 0.9))
    disk = product({**here, "volumeApiName": "gp3"}, ("GB-Mo", 0, 0.09))
    disk_speed = product({**here, "volumeApiName": "gp3"}, ("IOPS-Mo", 0, 0.005))
    endpoints = [
        product({**here, "productFamily": "VpcEndpoint", "usagetype": f"EU-VpcEndpoint-{usage}"}, (unit, 0, usd))
        for usage, unit, usd in (("Hours", "Hrs", 0.011), ("Bytes", "GB", 0.01), ("GWLBE-Hours", "Hrs", 0.013))
    ]
    fees = [
        product({**here, "instanceType": name, "softwareType": "EMR"}, ("Hrs", 0, usd))
        for name, usd in zip(TYPES, (0.05, 0.1), strict=True)
    ]
    return {
        "AmazonEC2": [windows, *machines, disk_speed, disk],
        "ElasticMapReduce": fees,
        "AmazonS3": [
            product({**here, "group": "S3-API-Tier1"}, ("Requests", 0, 0.000005)),
            product({**here, "group": "S3-API-Tier2"}, ("Requests", 0, 0.0000004)),
        ],
        "awskms": [
            # the first 20,000 requests of a month are free, and other requests cost more
            product({**here, "usagetype": f"{region}-KMS-Requests"}, ("Requests", 0, 0.000003)),
            product({**here, "usagetype": f"{region}-KMS-Requests-Asymmetric"}, ("Requests", 0, 0.000015)),
        ],
        "AmazonVPC": [product({**here, "group": "VPCPublicIPv4Address"}, ("Hrs", 0, 0.006)), *endpoints],
        "AWSDataTransfer": [
            product({"fromRegionCode": region, "transferType": "InterRegion Outbound"}, ("GB", 0, usd))
            for usd in (0.02, 0.02, 0.147)
        ],
    }


SPOT = [(TYPES[0], 0.05), (TYPES[0], 0.07), (TYPES[0], 0.09)]


@pytest.fixture
def pricing() -> Iterator[ScriptedPricing]:
    with ScriptedPricing(products("eu-west-1"), SPOT) as server:
        yield server


@pytest.fixture
def prices_file(tmp_path: Path) -> Path:
    path = tmp_path / "prices.yaml"
    path.write_text(PRICES_FILE.read_text())
    return path


def make_prices(server: ScriptedPricing, path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, **aws_environment(server.url), "PYTHONPATH": str(REPOSITORY / "plugins")}
    argv = [sys.executable, "-m", "ops", "prices", "--file", str(path), *arguments]
    return subprocess.run(argv, env=environment, capture_output=True, text=True, check=False, timeout=60)


def test_every_price_of_a_region_is_read_anew(pricing: ScriptedPricing, prices_file: Path) -> None:
    done = make_prices(pricing, prices_file, "--regions", "eu-west-1", "--types", *TYPES, "--eur-per-usd", "0.9")
    assert done.returncode == 0, done.stderr
    prices = load_prices("eu-west-1", prices_file)
    assert prices.ec2 == {"m7g.xlarge": 0.2, "c7g.2xlarge": 0.4}
    assert prices.emr == {"m7g.xlarge": 0.05, "c7g.2xlarge": 0.1}
    assert prices.spot == {"m7g.xlarge": 0.07, "c7g.2xlarge": 0.4}, "the median; on demand where there is no market"
    assert (prices.ebs, prices.public_ipv4, prices.transfer) == (0.09, 0.006, 0.02)
    assert prices.interface_endpoint == 0.011
    assert prices.s3_write == pytest.approx(5e-6)
    assert prices.s3_read == pytest.approx(4e-7)
    assert prices.kms == pytest.approx(3e-6)
    assert prices.eur_per_usd == 0.9
    assert prices.remembered == ()


def test_other_regions_stay_as_they_were(pricing: ScriptedPricing, prices_file: Path) -> None:
    make_prices(pricing, prices_file, "--regions", "eu-west-1", "--types", *TYPES)
    assert load_prices("eu-west-3", prices_file) == load_prices("eu-west-3")


def test_the_types_of_the_file_and_of_the_clusters_are_asked_for(pricing: ScriptedPricing, prices_file: Path) -> None:
    make_prices(pricing, prices_file, "--regions", "eu-west-1")
    requests = {filters["instanceType"] for service, filters in pricing.requests if "operatingSystem" in filters}
    assert load_prices("eu-west-1").ec2.keys() <= requests


def test_a_region_that_cannot_be_read_stays_as_it_was_and_is_told(pricing: ScriptedPricing, prices_file: Path) -> None:
    done = make_prices(pricing, prices_file, "--regions", "eu-west-1", "eu-north-1", "--types", *TYPES)
    assert done.returncode == 1
    assert "ERROR: eu-north-1 stays as it was: eu-north-1: the price list has none of" in done.stderr
    assert load_prices("eu-north-1", prices_file) == load_prices("eu-north-1")
    assert load_prices("eu-west-1", prices_file).remembered == ()


def test_two_prices_where_one_is_meant_are_not_chosen_from(prices_file: Path) -> None:
    twice = copy.deepcopy(products("eu-west-1"))
    twice["AmazonVPC"].append(product({"regionCode": "eu-west-1", "group": "VPCPublicIPv4Address"}, ("Hrs", 0, 0.5)))
    with ScriptedPricing(twice, SPOT) as server:
        done = make_prices(server, prices_file, "--regions", "eu-west-1", "--types", *TYPES)
    assert done.returncode == 1
    assert "2 prices" in done.stderr
    assert prices_file.read_text() == PRICES_FILE.read_text()


def test_london_is_refused_before_anything_is_asked(pricing: ScriptedPricing, prices_file: Path) -> None:
    done = make_prices(pricing, prices_file, "--regions", "eu-west-2")
    assert done.returncode == 1
    assert "United Kingdom" in done.stderr
    assert pricing.requests == []
