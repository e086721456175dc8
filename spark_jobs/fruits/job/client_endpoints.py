"""Which endpoints the clients of a job use, for the run's evidence that data stays where it must.

A job opens three clients of AWS: obstore, which fetches and writes objects on driver and executors alike; Iceberg's
catalog; and Iceberg's file access. (Before that, spark-submit fetches the job's own scripts, by EMR's file system, from
the bucket that the step names.) None of them looks for a bucket in another region: each uses the endpoint that it was
opened with.
"""

from typing import Any
from urllib.parse import urlsplit

from fruits.base import objects

_UNKNOWN = "unknown"


def list_endpoints(conf: dict[str, str], catalog: str, record: str) -> list[dict[str, str]]:
    """List the endpoints that this process's clients were opened with, by Spark's configuration of a catalog.

    The job's record is about to be written to the folder `record`, which takes a client too.

    Returns:
        For each client: `client`, `service`, `host` and the `region` that its requests are signed for. Empty for a
        job over plain folders.
    """
    endpoints = []
    if objects.find_s3.cache_info().currsize or objects.parse_uri(record).bucket is not None:
        location = objects.find_s3()
        endpoints.append(("obstore", "s3", location.endpoint, location.region))
    prefix = f"spark.sql.catalog.{catalog}"
    if conf.get(f"{prefix}.type") == "glue":
        region = conf.get(f"{prefix}.client.region", _UNKNOWN)
        for client, service in (("Iceberg's catalog", "glue"), ("Iceberg's files", "s3")):
            endpoint = conf.get(f"{prefix}.{service}.endpoint") or _regional_endpoint(service, region)
            endpoints.append((client, service, endpoint, region))
    return [
        {"client": client, "service": service, "host": urlsplit(endpoint).hostname or _UNKNOWN, "region": region}
        for client, service, endpoint, region in endpoints
    ]


def _regional_endpoint(service: str, region: str) -> str:
    """Return the endpoint of a region of any partition, from AWS's own tables."""
    if region == _UNKNOWN:
        return ""
    import boto3  # type: ignore[import-untyped]

    client: Any = boto3.client(service, region_name=region)
    return str(client.meta.endpoint_url)
