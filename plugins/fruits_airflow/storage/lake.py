"""Small objects in the lake bucket: JSON that a run keeps, pages that it publishes, code that it ships.

Keys are used as they are: a run id holds `+` and `:`, and Spark does not decode `%2B`.
"""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from botocore.exceptions import (
    ClientError,
    IncompleteReadError,
    ResponseStreamingError,
)
from tenacity import (
    before_sleep_log,
    retry,
    retry_if_exception_type,
    stop_after_attempt,
    wait_random_exponential,
)

from fruits_airflow.config.errors import FruitsError

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

log = logging.getLogger(__name__)

MISSING = frozenset({"404", "NoSuchKey", "NotFound"})
_OVERTAKEN = frozenset({"412", "409", "PreconditionFailed", "ConditionalRequestConflict"})
_BROKEN_OFF = (IncompleteReadError, ResponseStreamingError)


class ObjectTooLarge(FruitsError):
    """An object is larger than its reader accepts."""


def error_code(error: ClientError) -> str:
    """The code that AWS gave, such as `NoSuchKey`."""
    return str(error.response.get("Error", {}).get("Code", ""))


@dataclass(frozen=True)
class Lake:
    """The lake bucket as seen by a task.

    Attributes:
        client: S3 client in the bucket's region.
        bucket: its name.
    """

    client: S3Client
    bucket: str

    def uri(self, key: str) -> str:
        """`key` as a URI."""
        return f"s3://{self.bucket}/{key}"

    def read(self, key: str, max_bytes: int | None = None) -> bytes | None:
        """The object's bytes, or None when there is no such object.

        Args:
            key: of the object.
            max_bytes: the largest object to read.

        Raises:
            ObjectTooLarge: the object is larger than `max_bytes`; nothing of it is read.
        """
        found = self.read_version(key, max_bytes)
        return None if found is None else found[0]

    def read_version(self, key: str, max_bytes: int | None = None) -> tuple[bytes, str] | None:
        """The object's bytes and its ETag, for a change on condition; or None when there is no such object."""
        try:
            return self._get(key, max_bytes)
        except ClientError as error:
            if error_code(error) in MISSING:
                return None
            raise

    @retry(  # botocore tries again until the headers are there, and no longer
        retry=retry_if_exception_type(_BROKEN_OFF),
        stop=stop_after_attempt(4),
        wait=wait_random_exponential(max=8.0),
        before_sleep=before_sleep_log(log, logging.WARNING),
        reraise=True,
    )
    def _get(self, key: str, max_bytes: int | None) -> tuple[bytes, str]:
        found = self.client.get_object(Bucket=self.bucket, Key=key)
        if max_bytes is not None and found["ContentLength"] > max_bytes:
            found["Body"].close()
            raise ObjectTooLarge(
                f"{self.uri(key)} has {found['ContentLength']:,} bytes, and at most {max_bytes:,} are read"
            )
        return found["Body"].read(), found["ETag"]

    def read_json(self, key: str) -> dict[str, Any] | None:
        """The object parsed, or None when there is no such object."""
        content = self.read(key)
        return None if content is None else dict(json.loads(content))

    def write(self, key: str, content: bytes, content_type: str = "application/octet-stream") -> None:
        """Puts an object, over an older one if there is one."""
        self.client.put_object(Bucket=self.bucket, Key=key, Body=content, ContentType=content_type)

    def write_json(self, key: str, content: dict[str, Any]) -> None:
        """Puts `content` as readable JSON."""
        self.write(key, json.dumps(content, indent=1, sort_keys=True).encode(), "application/json")

    def write_once(self, key: str, content: bytes) -> bool:
        """Puts an object unless there is one already; says whether it did."""
        try:
            self.client.put_object(Bucket=self.bucket, Key=key, Body=content, IfNoneMatch="*")
        except ClientError as error:
            if error_code(error) in _OVERTAKEN:
                return False
            raise
        return True

    def replace_version(self, key: str, content: bytes, etag: str) -> bool:
        """Puts an object over the version with this ETag; False when that is not the present one."""
        try:
            self.client.put_object(Bucket=self.bucket, Key=key, Body=content, IfMatch=etag)
        except ClientError as error:
            if error_code(error) in _OVERTAKEN | MISSING:
                return False
            raise
        return True

    def remove(self, key: str) -> None:
        """Deletes an object; one that is not there is fine."""
        self.client.delete_object(Bucket=self.bucket, Key=key)

    def remove_version(self, key: str, etag: str) -> bool:
        """Deletes the version with this ETag; False when that is not the present one."""
        try:
            self.client.delete_object(Bucket=self.bucket, Key=key, IfMatch=etag)
        except ClientError as error:
            if error_code(error) in _OVERTAKEN | MISSING:
                return False
            raise
        return True


def run_key(run_id: str, name: str = "") -> str:
    """Key of something in a run's folder: `runs/<run_id>/<name>`."""
    return f"runs/{run_id}/{name}" if name else f"runs/{run_id}"


def erasure_key(erasure_id: str, name: str = "") -> str:
    """Key of something that an erasure keeps: `erasures/<erasure_id>/<name>`."""
    return f"erasures/{erasure_id}/{name}" if name else f"erasures/{erasure_id}"
