"""What every cluster of this server shares: its settings, its endpoint, and a way to its S3."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from local_aws.clients import Clients
from local_aws.emr.execution.command import Place
from local_aws.emr.hooks import Hooks
from local_aws.settings import Settings

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

_ICEBERG_JARS = ("iceberg-spark-runtime-*.jar", "iceberg-aws-bundle-*.jar")
# Made by dev/class_archive.py for a class path of these jars in this order.
_CLASS_ARCHIVE = "spark.jsa"


class Runtime:
    """Settings, endpoint and S3 clients, shared by the clusters of one server."""

    def __init__(self, settings: Settings, clients: Clients, hooks: Hooks | None = None) -> None:
        self.settings = settings
        self.hooks = hooks or Hooks()
        self.endpoint = clients.endpoint
        self.credentials = clients.credentials
        self._clients = clients

    def s3(self, region: str) -> S3Client:
        """A client of this server's own S3."""
        client: S3Client = self._clients.get("s3", region)
        return client

    def place(self, region: str) -> Place:
        """Where Spark runs."""
        settings = self.settings
        found = [sorted(settings.jars_dir.rglob(pattern)) for pattern in _ICEBERG_JARS]
        archive = settings.jars_dir / _CLASS_ARCHIVE
        return Place(
            spark_submit=str(settings.spark_submit or settings.spark_python.with_name("spark-submit")),
            python=str(settings.spark_python),
            master=settings.master,
            ui_port=settings.ui_port,
            endpoint=self.endpoint,
            region=region,
            iceberg_jars=tuple(str(jars[-1]) for jars in found) if all(found) else (),
            class_archive=str(archive) if archive.is_file() else None,
        )

    def folder(self, cluster_id: str) -> Path:
        """Where a cluster's files are."""
        return self.settings.state_dir / "clusters" / cluster_id
