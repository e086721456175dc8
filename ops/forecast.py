"""Print what a number of new images would cost, by profile and region."""

import json
from typing import Any

import boto3
from fruits_airflow.config.regions import EU_REGIONS
from fruits_airflow.config.settings import load_settings
from fruits_airflow.config.strict_yaml import read_yaml_mapping
from fruits_airflow.cost.estimate import PARTS
from fruits_airflow.cost.prices import load_prices
from fruits_airflow.emr.cluster_body import CLUSTER_FILE
from fruits_airflow.runs.forecast import forecast_table, learned_speed, past_runs
from fruits_airflow.storage.lake import Lake


def print_forecast(images: int, output_format: str, learn: bool) -> None:
    """Print the costs of `images` new images, as `table` or `json`.

    The speed is that of include/cluster.yaml or, with `learn`, of the runs in the deployment's lake.
    """
    settings = load_settings() if learn else None
    learned = None
    if settings:
        lake = Lake(boto3.client("s3", region_name=settings.region), settings.lake_bucket)
        learned = learned_speed(past_runs(lake), settings.engine)
    profiles = sorted(read_yaml_mapping(CLUSTER_FILE)["profiles"].keys() - {"notebook"})  # runs no pipeline
    rows = forecast_table(images, profiles, learned)
    if output_format == "json":
        print(json.dumps(rows, indent=1))
    else:
        _print_table(images, rows, learned)
        if settings and images < (settings.min_new_images or 0):
            wait = f"min_new_images: {settings.min_new_images}, max_wait_days: {settings.max_wait_days}"
            print(f"A night with so few new images waits for more, and creates no cluster ({wait}).")


def _print_table(images: int, rows: list[dict[str, Any]], learned: tuple[float, int] | None) -> None:
    print(f"{images:,} new images, in EUR without tax, the cheapest first:\n")
    print(f"{'region':15} {'profile':10} {'hours':>7} {'total':>8}", *(f"{part:>8}" for part in PARTS))
    for row in rows:
        euros = (row["total_eur"], *(row["parts"][part] for part in PARTS))
        print(f"{row['region']:15} {row['profile']:10} {row['hours']:7.2f}", *(f"{eur:8.3f}" for eur in euros))
    speed = "the figures of include/cluster.yaml"
    if learned:
        speed = f"{learned[0]:.1f} images/s per vCPU, the median of the last {learned[1]} runs"
    print(f"\nSpeed: {speed}.")
    remembered = ", ".join(region for region in EU_REGIONS if load_prices(region).remembered)
    if remembered:
        print(f"Prices from memory, in part or whole: {remembered}. Run make prices before relying on them.")
