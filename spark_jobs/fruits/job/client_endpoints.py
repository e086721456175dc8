"""Which endpoints the clients of a job speak to, for the run's evidence that data stays where it must.

A job opens three clients of AWS: obstore, which fetches and writes objects on driver and executors alike; Iceberg's
catalog; and Iceberg's file access. (spark-submit has fetched the job's own scripts before, by EMR's file system, from
the bucket that the step names.) None of them looks for a bucket in another region: each speaks to the one endpoint
that it was opened with. That is told here, of those that the job has opened.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from fruits.base import objects

_UNKNOWN = "unknown"


def used(conf: dict[str, str], catalog: str, record: str) -> list[dict[str, str]]:
    """Name the endpoints that this process's clients were opened with.

    Args:
        conf: Spark's configuration.
        catalog: Name of the catalog that the job's database is in.
        record: URI or path of the folder that the job's record is about to be written to.

    Returns:
        By client: `client`, `service`, `host` and the `region` that its requests are signed for. Empty for a job over
        plain folders.
    """
    found = []
    if objects.find_s3.cache_info().currsize or objects.parse_uri(record).bucket is not None:
        where = objects.find_s3()
        found.append(_named("obstore", "s3", where.endpoint, where.region))
    prefix = f"spark.sql.catalog.{catalog}"
    if conf.get(f"{prefix}.type") == "glue":
        region = conf.get(f"{prefix}.client.region", _UNKNOWN)
        for client, service in (("Iceberg's catalog", "glue"), ("Iceberg's files", "s3")):
            endpoint = conf.get(f"{prefix}.{service}.endpoint") or _regional(service, region)
            found.append(_named(client, service, endpoint, region))
    return found


def _regional(service: str, region: str) -> str:
    """Give the endpoint that AWS's own tables name for a region of any partition."""
    if region == _UNKNOWN:
        return ""
    import boto3  # type: ignore[import-untyped]

    client: Any = boto3.client(service, region_name=region)
    return str(client.meta.endpoint_url)


def _named(client: str, service: str, endpoint: str, region: str) -> dict[str, str]:
    return {
        "client": client,
        "service": service,
        "host": urlsplit(endpoint).hostname or _UNKNOWN,
        "region": region,
    }
