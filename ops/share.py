"""Expiring links to a run's results: `make share RUN=scheduled__2026-01-01T02:00:00+00:00 [HOURS=24]`."""

from __future__ import annotations

import argparse
import sys

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from fruits_airflow.aws.endpoints import CALLED
from fruits_airflow.config.errors import FruitsError
from fruits_airflow.config.settings import load_settings
from fruits_airflow.records.sharing import share_run
from fruits_airflow.runs.residency import bucket_region


def main(argv: list[str] | None = None) -> int:
    """Prints the links; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", required=True, help="name of the run's folder below runs/ in the lake")
    parser.add_argument("--hours", type=float, default=24.0)
    arguments = parser.parse_args(argv)
    try:
        settings = load_settings()
        client = CALLED.watch(boto3.client("s3", region_name=settings.region))
        region = bucket_region(client, "lake_bucket", settings.lake_bucket)
        # Signed for the bucket's own region: a link to another one would be sent there first.
        config = Config(signature_version="s3v4", s3={"us_east_1_regional_endpoint": "regional"})
        links = share_run(
            boto3.client("s3", region_name=region, config=config),
            settings.lake_bucket,
            arguments.run,
            arguments.hours,
        )
    except (FruitsError, BotoCoreError, ClientError) as error:
        print(f"ERROR {type(error).__name__}: {error}", file=sys.stderr)
        return 2
    print(
        f"Open to everybody who has them, for {arguments.hours:g} hours (or as long as your own credentials last):\n"
    )
    for link in links:
        print(f"{link.name}\n  {link.url}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
