"""What a number of new images would cost, by profile and region: `make forecast IMAGES=1000000 [FORMAT=json]`."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from fruits_airflow.config.errors import ConfigError
from fruits_airflow.config.regions import EU_REGIONS
from fruits_airflow.config.settings import load_settings
from fruits_airflow.config.strict_yaml import read_yaml_mapping
from fruits_airflow.cost.estimate import PARTS
from fruits_airflow.cost.prices import load_prices
from fruits_airflow.emr.cluster_body import CLUSTER_FILE
from fruits_airflow.runs.forecast import forecast_table, learned_speed, past_runs
from fruits_airflow.storage.lake import Lake


def main(argv: list[str] | None = None) -> int:
    """Prints the table; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, required=True, help="new images, for example 1000000")
    parser.add_argument("--format", choices=("table", "json"), default="table")
    parser.add_argument(
        "--learn", action="store_true", help="take the speed from the runs in the deployment's lake"
    )
    arguments = parser.parse_args(argv)
    if arguments.images < 0:
        parser.error(f"--images {arguments.images}: none or more")
    try:
        learned = _learned() if arguments.learn else None
        rows = forecast_table(arguments.images, _profiles(), learned)
        if arguments.format == "json":
            print(json.dumps(rows, indent=1))
        else:
            _print_table(arguments.images, rows, learned)
    except ConfigError as error:
        print(f"ERROR {type(error).__name__}: {error}", file=sys.stderr)
        return 2
    return 0


def _profiles() -> list[str]:
    return sorted(
        read_yaml_mapping(CLUSTER_FILE)["profiles"].keys() - {"notebook"}
    )  # that one runs no pipeline


def _learned() -> tuple[float, int] | None:
    import boto3

    settings = load_settings()
    lake = Lake(boto3.client("s3", region_name=settings.region), settings.lake_bucket)
    return learned_speed(past_runs(lake), settings.engine)


def _print_table(images: int, rows: list[dict[str, Any]], learned: tuple[float, int] | None) -> None:
    print(f"{images:,} new images, in EUR without tax, the cheapest first:\n")
    print(f"{'region':15} {'profile':10} {'hours':>7} {'total':>8}", *(f"{part:>8}" for part in PARTS))
    for row in rows:
        euros = (row["total_eur"], *(row["parts"][part] for part in PARTS))
        print(
            f"{row['region']:15} {row['profile']:10} {row['hours']:7.2f}", *(f"{eur:8.3f}" for eur in euros)
        )
    speed = "the figures of include/cluster.yaml"
    if learned:
        speed = f"{learned[0]:.1f} images/s per vCPU, the median of the last {learned[1]} runs"
    print(f"\nSpeed: {speed}.")
    remembered = [region for region in EU_REGIONS if load_prices(region).remembered]
    if remembered:
        print(
            f"Prices from memory, in part or whole: {', '.join(remembered)}. Run make prices before relying on them."
        )


if __name__ == "__main__":
    sys.exit(main())
