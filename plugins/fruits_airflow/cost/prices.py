"""The price list, include/prices.yaml: prices in each EU region, with their date and source.

Prices are in US dollars without tax, as AWS bills them. `make prices` rewrites the file.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any

import yaml

from fruits_airflow.config.errors import ConfigError
from fruits_airflow.config.settings import REPOSITORY
from fruits_airflow.config.strict_yaml import read_yaml_mapping

PRICES_FILE = REPOSITORY / "include" / "prices.yaml"
HOURS_PER_MONTH = 730.0  # divisor of AWS for the monthly price of a volume
ROOT_VOLUME_GIB = 15.0  # the default of EMR
REMEMBERED = ("remembered", "guessed")  # sources that no invoice can be checked against
SECTIONS = ("ec2", "spot", "emr", "ebs", "s3", "kms", "network")

_SIZE = re.compile(r"\.(\d*)xlarge$")


@dataclass(frozen=True)
class Prices:
    """Prices in one region, in US dollars; `ec2`, `spot` and `emr` are per hour by instance type."""

    region: str
    ec2: Mapping[str, float]  # on demand
    spot: Mapping[str, float]  # typical
    emr: Mapping[str, float]  # the fee of EMR, in addition
    ebs: float  # per GiB and month
    s3_write: float  # per PUT, POST or LIST
    s3_read: float  # per GET
    kms: float  # per request
    public_ipv4: float  # per address and hour
    interface_endpoint: float  # per VPC interface endpoint (in one zone) and hour
    transfer: float  # per GiB to another region
    eur_per_usd: float
    remembered: tuple[str, ...] = ()  # the sections whose figures are from memory
    as_of: str = ""  # ISO date of the oldest section

    def node_usd_per_hour(self, instance_type: str, market: str) -> tuple[float, float]:
        """Return the EC2 price and the EMR fee of a node's hour, ON_DEMAND or SPOT, which never counts above on demand.

        Raises:
            ConfigError: The instance type has no price in this region.
        """
        try:
            on_demand, fee = self.ec2[instance_type], self.emr[instance_type]
        except KeyError:
            raise ConfigError(
                f"include/prices.yaml: no price for {instance_type} in {self.region}; add it (make prices "
                "TYPES=...), or take another type in include/cluster.yaml"
            ) from None
        return (min(on_demand, self.spot.get(instance_type, on_demand)) if market == "SPOT" else on_demand), fee

    def disk_usd_per_hour(self, disk_gib: float) -> float:
        """Return the hourly price of a node's root volume and of `disk_gib` beside it."""
        return (disk_gib + ROOT_VOLUME_GIB) * self.ebs / HOURS_PER_MONTH

    def dearest_type(self) -> str:
        """Return the type that costs most on demand; an unknown node counts as this type."""
        return max(self.ec2.keys() & self.emr.keys(), key=lambda name: self.ec2[name] + self.emr[name])


def vcpus(instance_type: str) -> int:
    """Return the vCPUs of a type of the m, c and r families: 4 for each `xlarge`.

    Raises:
        ConfigError: The size is not a multiple of xlarge, such as `large` (too small for EMR) or `metal`.
    """
    size = _SIZE.search(instance_type)
    if size is None:
        raise ConfigError(f"{instance_type}: not a size that EMR runs well on; take xlarge, 2xlarge, 4xlarge, ...")
    return 4 * int(size.group(1) or 1)


def load_prices(region: str, path: Path = PRICES_FILE) -> Prices:
    """Read the price list of `region`.

    Raises:
        ConfigError: The file is malformed or has no prices for the region.
    """
    content = read_yaml_mapping(path)
    try:
        local, rate = content["regions"][region], content["eur_per_usd"]
        parts = [rate, *(local[section] for section in SECTIONS)]
        return Prices(
            region=region,
            ec2=_floats(local["ec2"]),
            spot=_floats(local["spot"]),
            emr=_floats(local["emr"]),
            ebs=read_price(local["ebs"]["usd_per_gib_month"]),
            s3_write=read_price(local["s3"]["usd_per_1000_writes"]) / 1_000,
            s3_read=read_price(local["s3"]["usd_per_1000_reads"]) / 1_000,
            kms=read_price(local["kms"]["usd_per_10000_requests"]) / 10_000,
            public_ipv4=read_price(local["network"]["public_ipv4_usd_per_hour"]),
            interface_endpoint=read_price(local["network"]["interface_endpoint_usd_per_hour"]),
            transfer=read_price(local["network"]["transfer_usd_per_gib"]),
            eur_per_usd=read_price(rate["value"]),
            remembered=tuple(name for name in SECTIONS if local[name]["source"] in REMEMBERED),
            as_of=min(str(part["date"]) for part in parts),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ConfigError(f"{path}: no usable prices for {region}: {error!r}; add them, or run make prices") from error


def write_prices(content: Mapping[str, Any], path: Path) -> None:
    """Write the whole list as `load_prices` reads it, below the comment at the head of the file."""
    head = takewhile(lambda line: line.startswith("#"), path.read_text(encoding="utf-8").splitlines())
    text = yaml.safe_dump(dict(content), sort_keys=False, width=118, default_flow_style=None)
    path.write_text("\n".join([*head, "", text]), encoding="utf-8")


def _floats(section: Mapping[str, Any]) -> dict[str, float]:
    return {name: read_price(usd) for name, usd in section["usd_per_hour"].items()}


def read_price(value: Any) -> float:
    """Read a price or an exchange rate; raise ValueError for a number that is none."""
    number = float(value)
    if not 0 < number < 1_000:  # NaN fails too
        raise ValueError(f"{value!r} is no price")
    return number
