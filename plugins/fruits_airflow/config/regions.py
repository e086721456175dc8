"""AWS regions in the European Union.

The list is explicit: the prefix `eu-` names a continent, not a legal area.
"""

from fruits_airflow.config.errors import ResidencyError

EU_REGIONS: dict[str, str] = {
    "eu-west-1": "Ireland",
    "eu-west-3": "France",
    "eu-central-1": "Germany",
    "eu-north-1": "Sweden",
    "eu-south-1": "Italy",
    "eu-south-2": "Spain",
    "eusc-de-east-1": "Germany, AWS European Sovereign Cloud (a partition of its own)",
}

NEAR_MISSES: dict[str, str] = {
    "eu-west-2": "London: the United Kingdom left the European Union",
    "eu-central-2": "Zürich: Switzerland is not in the European Union",
}


def require_eu_region(region: str, what: str = "region") -> str:
    """Return `region` if data may be processed there; `what` names the value in the error.

    Raises:
        ResidencyError: `region` is not in an EU member state, or is unknown.
    """
    if region in EU_REGIONS:
        return region
    reason = NEAR_MISSES.get(region, "not a region in an EU member state")
    raise ResidencyError(f"{what}: {region!r} is refused ({reason}); choose one of {', '.join(EU_REGIONS)}")
