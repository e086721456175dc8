"""Print expiring links to a run's results."""

import boto3
from botocore.config import Config
from fruits_airflow.aws.endpoints import CALLED
from fruits_airflow.config.settings import load_settings
from fruits_airflow.records.sharing import share_run
from fruits_airflow.runs.residency import bucket_region


def print_links(run_id: str, hours: float) -> None:
    """Print a link to each result of a run in the deployment's lake, open for `hours`."""
    settings = load_settings()
    client = CALLED.watch(boto3.client("s3", region_name=settings.region))
    region = bucket_region(client, "lake_bucket", settings.lake_bucket)
    # A link leads to the endpoint of the region that it is signed for: sign it for the bucket's own.
    config = Config(signature_version="s3v4", s3={"us_east_1_regional_endpoint": "regional"})
    signer = boto3.client("s3", region_name=region, config=config)
    links = share_run(signer, settings.lake_bucket, run_id, hours)
    print(f"Open to everybody who has them, for {hours:g} hours (or as long as your own credentials last):\n")
    for link in links:
        print(f"{link.name}\n  {link.url}\n")
