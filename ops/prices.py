"""Refresh include/prices.yaml from AWS.

Needs credentials that may call pricing:GetProducts and ec2:DescribeSpotPriceHistory. The Price List API answers at its
endpoint in Frankfurt.
"""

from pathlib import Path
from typing import Any

import boto3
from fruits_airflow.config.errors import ConfigError
from fruits_airflow.config.regions import EU_REGIONS, require_eu_region
from fruits_airflow.config.strict_yaml import read_yaml_mapping
from fruits_airflow.cost.price_list import PRICING_REGION, PriceList, refresh
from fruits_airflow.cost.prices import write_prices
from fruits_airflow.emr.cluster_body import CLUSTER_FILE

# The sovereign cloud has a price list of its own, in euros.
DEFAULT_REGIONS = [name for name in EU_REGIONS if not name.startswith("eusc-")]


def refresh_prices(path: Path, regions: list[str], types: list[str] | None, eur_per_usd: float | None) -> None:
    """Refresh the price file and print what was read.

    Without `types` read those of include/cluster.yaml and of the file; without `eur_per_usd` keep the file's rate.

    Raises:
        ConfigError: A region could not be read; the others are in the file.
        ResidencyError: A region is not in the European Union.
    """
    content = read_yaml_mapping(path)
    for region in regions:
        require_eu_region(region, "REGIONS")
    types = types or known_types(content)
    pricing = boto3.client("pricing", region_name=PRICING_REGION)
    source = PriceList(pricing, lambda name: boto3.client("ec2", region_name=name))
    renewed, failed = refresh(content, source, regions, types, eur_per_usd)
    write_prices(renewed, path)
    done = [region for region in regions if region not in failed]
    print(f"{path}: {len(types)} types read anew in {', '.join(done) or 'no region'}")
    if failed:
        raise ConfigError("; ".join(f"{region} stays as it was: {reason}" for region, reason in failed.items()))


def known_types(content: dict[str, Any]) -> list[str]:
    """Return the instance types of include/cluster.yaml and of the price file's content."""
    profiles = read_yaml_mapping(CLUSTER_FILE)["profiles"].values()
    fleets = (fleet for profile in profiles for fleet in profile["instance_fleets"])
    types = {config["InstanceType"] for fleet in fleets for config in fleet["InstanceTypeConfigs"]}
    for region in content["regions"].values():
        types |= region["ec2"]["usd_per_hour"].keys()
    return sorted(types)
