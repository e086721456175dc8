"""Logs under a cluster's LogUri, written through this server's own S3 as a client.

The keys are those of EMR:
    <LogUri>/<cluster>/steps/<step>/{controller,stdout,stderr}.gz
    <LogUri>/<cluster>/containers/<application>/<container>/{stdout,stderr}.gz   (--deploy-mode cluster)
"""

from __future__ import annotations

import gzip
import re
from pathlib import Path
from typing import TYPE_CHECKING

from botocore.exceptions import BotoCoreError, ClientError

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client


class LogFolder:
    """The logs of one cluster. Nothing is written when the cluster has no LogUri."""

    def __init__(self, s3: S3Client, log_uri: str | None, cluster_id: str) -> None:
        match = re.fullmatch(r"s3[an]?://([^/]+)/?(.*)", log_uri or "")
        self._s3 = s3
        self._bucket = match[1] if match else None
        self._prefix = "/".join(filter(None, (match[2].rstrip("/") if match else "", cluster_id)))

    def uri(self, path: str) -> str | None:
        """Return the S3 URI of a log such as `steps/s-1/stderr.gz`; None without a LogUri."""
        return f"s3://{self._bucket}/{self._prefix}/{path}" if self._bucket else None

    def ship(self, folder: str, files: dict[str, Path]) -> str | None:
        """Write compressed files as `<folder>/<name>.gz`; return what failed, or None. As on EMR no step fails."""
        if not self._bucket:
            return None
        try:
            for name, path in files.items():
                if path.exists():
                    body = gzip.compress(path.read_bytes(), compresslevel=1, mtime=0)
                    key = f"{self._prefix}/{folder}/{name}.gz"
                    self._s3.put_object(Bucket=self._bucket, Key=key, Body=body)
        except (BotoCoreError, ClientError, OSError) as error:
            return f"logs were not written to {self.uri(folder)}: {error}"
        return None
