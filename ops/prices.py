"""Reads include/prices.yaml anew: `make prices [REGIONS="eu-west-1 …"] [TYPES="m7g.xlarge …"] [EUR_PER_USD=0.92]`.

Needs credentials that may call pricing:GetProducts and ec2:DescribeSpotPriceHistory. The Price List API is asked at
its endpoint in Frankfurt.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import boto3
from botocore.exceptions import BotoCoreError
from fruits_airflow.config.errors import ConfigError
from fruits_airflow.config.regions import EU_REGIONS, require_eu_region
from fruits_airflow.config.strict_yaml import read_yaml_mapping
from fruits_airflow.cost.price_list import PRICING_REGION, PriceList, refresh
from fruits_airflow.cost.prices import PRICES_FILE, write_prices
from fruits_airflow.emr.cluster_body import CLUSTER_FILE

SOVEREIGN = "eusc-de-east-1"  # has a price list of its own, in euros


def main(argv: list[str] | None = None) -> int:
    """Refreshes the file; returns the exit status: 1 when a region could not be read."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--regions", nargs="+", default=[name for name in EU_REGIONS if name != SOVEREIGN])
    parser.add_argument("--types", nargs="+", help="default: those of include/cluster.yaml and of the file")
    parser.add_argument("--eur-per-usd", type=float)
    parser.add_argument("--file", type=Path, default=PRICES_FILE)
    arguments = parser.parse_args(argv)
    try:
        content = read_yaml_mapping(arguments.file)
        regions = [require_eu_region(region, "REGIONS") for region in arguments.regions]
        types = arguments.types or known_types(content)
        source = PriceList(
            boto3.client("pricing", region_name=PRICING_REGION),
            lambda name: boto3.client("ec2", region_name=name),
        )
        renewed, failed = refresh(content, source, regions, types, arguments.eur_per_usd)
    except (ConfigError, BotoCoreError) as error:
        print(f"ERROR {type(error).__name__}: {error}", file=sys.stderr)
        return 2
    write_prices(renewed, arguments.file)
    done = [region for region in regions if region not in failed]
    print(f"{arguments.file}: {len(types)} types read anew in {', '.join(done) or 'no region'}")
    for region, why in failed.items():
        print(f"ERROR {region} stays as it was: {why}", file=sys.stderr)
    return 1 if failed else 0


def known_types(content: dict[str, object]) -> list[str]:
    """Instance types of include/cluster.yaml and of the price list."""
    profiles = read_yaml_mapping(CLUSTER_FILE)["profiles"].values()
    fleets = (fleet for profile in profiles for fleet in profile["instance_fleets"])
    types = {config["InstanceType"] for fleet in fleets for config in fleet["InstanceTypeConfigs"]}
    for region in content["regions"].values():  # type: ignore[attr-defined]
        types |= region["ec2"]["usd_per_hour"].keys()
    return sorted(types)


if __name__ == "__main__":
    sys.exit(main())
