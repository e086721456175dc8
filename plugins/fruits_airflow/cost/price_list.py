"""Refreshing include/prices.yaml: the Price List API at its EU endpoint, and each region's spot market.

GetProducts answers with JSON in strings: a product's attributes, and terms whose price dimensions hold one price for
each unit and tier. The first tier is taken: it is the dearest.
"""

import json
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from fruits_airflow.config.errors import ConfigError

PRICING_REGION = "eu-central-1"  # the endpoint in the EU; it knows every region's prices
SOURCE = "price list"
SPOT_DAYS = 7

_LINUX = {"operatingSystem": "Linux", "tenancy": "Shared", "preInstalledSw": "NA", "capacitystatus": "Used"}


@dataclass(frozen=True)
class PriceList:
    """Current prices, read from AWS."""

    pricing: Any  # client of the Price List API
    ec2_of: Callable[[str], Any]  # returns an EC2 client of a region, for its spot market

    def region(self, region: str, types: Sequence[str]) -> dict[str, Any]:
        """Return a region's section of include/prices.yaml; types that the region does not offer are left out.

        Raises:
            ConfigError: A price is missing or has two values, or the region offers none of the types.
        """
        now = datetime.now(UTC)
        origin = {"date": now.date().isoformat(), "source": SOURCE}
        ec2 = {t: usd for t in types if (usd := self._instance(region, t)) is not None}
        if not ec2:
            raise ConfigError(f"{region}: the price list has none of {', '.join(types)}; check TYPES and the region")
        writes, reads = (self._price("AmazonS3", region, {"group": f"S3-API-Tier{tier}"}) for tier in (1, 2))
        # Requests with asymmetric keys and endpoints of a Gateway Load Balancer have usage types of their own.
        kms = self._usage("awskms", {"regionCode": region}, "KMS-Requests")
        endpoint = self._usage("AmazonVPC", {"regionCode": region, "productFamily": "VpcEndpoint"}, "VpcEndpoint-Hours")
        return {
            "ec2": {**origin, "usd_per_hour": ec2},
            "spot": {**origin, "usd_per_hour": self._spot(region, ec2, now)},
            "emr": {
                **origin,
                "usd_per_hour": {
                    t: self._price("ElasticMapReduce", region, {"instanceType": t, "softwareType": "EMR"}) for t in ec2
                },
            },
            "ebs": {**origin, "usd_per_gib_month": self._price("AmazonEC2", region, {"volumeApiName": "gp3"}, "GB-Mo")},
            "s3": {
                **origin,
                "usd_per_1000_writes": round(writes * 1_000, 6),
                "usd_per_1000_reads": round(reads * 1_000, 6),
            },
            "kms": {**origin, "usd_per_10000_requests": round(kms * 10_000, 6)},
            "network": {
                **origin,
                "public_ipv4_usd_per_hour": self._price("AmazonVPC", region, {"group": "VPCPublicIPv4Address"}, "Hrs"),
                "interface_endpoint_usd_per_hour": endpoint,
                "transfer_usd_per_gib": self._transfer(region),
            },
        }

    def _instance(self, region: str, instance_type: str) -> float | None:
        prices = set(self._prices("AmazonEC2", region, {**_LINUX, "instanceType": instance_type}, "Hrs"))
        return self._only(prices, f"{instance_type} in {region}") if prices else None

    def _usage(self, service: str, filters: Mapping[str, str], ending: str) -> float:
        prices = {
            usd
            for product in self._products(service, filters)
            if product["product"]["attributes"].get("usagetype", "").endswith(ending)
            for usd in _first_tiers(product, None)
        }
        return self._only(prices, f"{service} {ending} in {filters['regionCode']}")

    def _transfer(self, region: str) -> float:
        filters = {"fromRegionCode": region, "transferType": "InterRegion Outbound"}
        prices = [usd for p in self._products("AWSDataTransfer", filters) for usd in _first_tiers(p, "GB")]
        if not prices:
            raise ConfigError(f"{region}: the price list has no transfer to other regions; look whether AWS renamed it")
        return statistics.median(prices)  # nearly all pairs cost the same

    def _spot(self, region: str, on_demand: Mapping[str, float], now: datetime) -> dict[str, float]:
        pages = (
            self.ec2_of(region)
            .get_paginator("describe_spot_price_history")
            .paginate(
                InstanceTypes=list(on_demand),
                ProductDescriptions=["Linux/UNIX"],
                StartTime=now - timedelta(days=SPOT_DAYS),
            )
        )
        seen: dict[str, list[float]] = {}
        for page in pages:
            for price in page["SpotPriceHistory"]:
                seen.setdefault(price["InstanceType"], []).append(float(price["SpotPrice"]))
        # A type without a spot market is counted as on demand.
        return {t: round(statistics.median(seen[t]), 4) if t in seen else usd for t, usd in on_demand.items()}

    def _price(self, service: str, region: str, filters: Mapping[str, str], unit: str | None = None) -> float:
        prices = set(self._prices(service, region, filters, unit))
        return self._only(prices, f"{service} {dict(filters)} in {region}")

    def _prices(
        self, service: str, region: str, filters: Mapping[str, str], unit: str | None = None
    ) -> Iterator[float]:
        for product in self._products(service, {"regionCode": region, **filters}):
            yield from _first_tiers(product, unit)

    def _products(self, service: str, filters: Mapping[str, str]) -> Iterator[dict[str, Any]]:
        terms = [{"Type": "TERM_MATCH", "Field": name, "Value": value} for name, value in filters.items()]
        pages = self.pricing.get_paginator("get_products").paginate(ServiceCode=service, Filters=terms)
        for page in pages:
            yield from map(json.loads, page["PriceList"])

    @staticmethod
    def _only(prices: set[float], what: str) -> float:
        if len(prices) != 1:
            raise ConfigError(
                f"{what}: the price list has {len(prices)} prices ({sorted(prices)[:5]}) where one is meant; "
                "look whether AWS renamed what price_list.py filters by"
            )
        return prices.pop()


def refresh(
    content: Mapping[str, Any], prices: PriceList, regions: Sequence[str], types: Sequence[str], rate: float | None
) -> tuple[dict[str, Any], dict[str, str]]:
    """Update sections of include/prices.yaml, and the `rate` of euros per US dollar if it is known today.

    Returns:
        The new content, and the error of each region that keeps its section.
    """
    renewed: dict[str, Any] = {**content, "regions": dict(content["regions"])}
    if rate is not None:
        today = datetime.now(UTC).date().isoformat()
        renewed["eur_per_usd"] = {"date": today, "source": "given to make prices", "value": rate}
    failed = {}
    for region in regions:
        try:
            renewed["regions"][region] = prices.region(region, types)
        except (ConfigError, BotoCoreError, ClientError) as error:
            failed[region] = str(error)
    return renewed, failed


def _first_tiers(product: Mapping[str, Any], unit: str | None) -> Iterator[float]:
    for term in product.get("terms", {}).get("OnDemand", {}).values():
        for dimension in term["priceDimensions"].values():
            usd = float(dimension["pricePerUnit"].get("USD", 0))
            if usd > 0 and float(dimension.get("beginRange", 0)) == 0 and unit in (None, dimension["unit"]):
                yield usd
