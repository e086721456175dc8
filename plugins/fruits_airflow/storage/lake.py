"""Objects in the lake bucket, with conditional writes.

Keys are not URL-encoded: a run id contains `+` and `:`, and Spark does not decode `%2B`.
"""

import json
import logging
from collections.abc import Callable, Iterator, Set
from dataclasses import dataclass
from typing import Any, NamedTuple, ParamSpec, TypeVar

from botocore.exceptions import ClientError, IncompleteReadError, ResponseStreamingError
from tenacity import before_sleep_log, retry, retry_if_exception, stop_after_attempt, wait_random_exponential

from fruits_airflow.config.aws_types import S3Client
from fruits_airflow.config.errors import FruitsError

log = logging.getLogger(__name__)

MISSING = frozenset({"404", "NoSuchKey", "NotFound"})
_OVERTAKEN = frozenset({"412", "PreconditionFailed"})
_CONFLICTS = frozenset({"409", "ConditionalRequestConflict"})
_P = ParamSpec("_P")
_R = TypeVar("_R")


class ObjectTooLarge(FruitsError):
    """An object exceeds the size limit of its reader."""


def error_code(error: ClientError) -> str:
    """Return the code of an AWS error, such as `NoSuchKey`."""
    return str(error.response.get("Error", {}).get("Code", ""))


class StoredObject(NamedTuple):
    """An object as a listing shows it."""

    key: str
    size_bytes: int


def _retried(is_transient: Callable[[BaseException], bool]) -> Callable[[Callable[_P, _R]], Callable[_P, _R]]:
    pause, warn = wait_random_exponential(max=8.0), before_sleep_log(log, logging.WARNING)
    rule = retry_if_exception(is_transient)
    return retry(retry=rule, stop=stop_after_attempt(4), wait=pause, before_sleep=warn, reraise=True)


@dataclass(frozen=True)
class Lake:
    """The lake bucket: an S3 client in its region, and its name."""

    client: S3Client
    bucket: str

    def uri(self, key: str) -> str:
        """Return the URI of `key`."""
        return f"s3://{self.bucket}/{key}"

    def objects(self, prefix: str) -> Iterator[StoredObject]:
        """List the objects below `prefix`, in the order of their keys."""
        for page in self.client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=prefix):
            yield from (StoredObject(item["Key"], item["Size"]) for item in page.get("Contents", []))

    def keys(self, prefix: str) -> list[str]:
        """Return the keys of all objects below `prefix`, sorted."""
        return [stored.key for stored in self.objects(prefix)]

    def run_ids(self) -> list[str]:
        """Return the id of every run that has a folder: one request for a thousand runs."""
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix="runs/", Delimiter="/")
        return [folder["Prefix"].split("/")[1] for page in pages for folder in page.get("CommonPrefixes", [])]

    def read(self, key: str, max_bytes: int | None = None) -> bytes | None:
        """Return the object's bytes, or None if the object does not exist.

        Raises:
            ObjectTooLarge: The object is larger than `max_bytes`; its content is not read.
        """
        version = self.read_version(key, max_bytes)
        return None if version is None else version[0]

    def read_version(self, key: str, max_bytes: int | None = None) -> tuple[bytes, str] | None:
        """Return the object's bytes and its ETag for a conditional write, or None if the object does not exist."""
        try:
            return self._get(key, max_bytes)
        except ClientError as error:
            if error_code(error) in MISSING:
                return None
            raise

    # A reply that is cut: botocore retries only until it has the headers.
    @_retried(lambda error: isinstance(error, IncompleteReadError | ResponseStreamingError))
    def _get(self, key: str, max_bytes: int | None) -> tuple[bytes, str]:
        reply = self.client.get_object(Bucket=self.bucket, Key=key)
        if max_bytes is not None and reply["ContentLength"] > max_bytes:
            reply["Body"].close()
            raise ObjectTooLarge(
                f"{self.uri(key)} has {reply['ContentLength']:,} bytes, and at most {max_bytes:,} are read"
            )
        return reply["Body"].read(), reply["ETag"]

    def read_json(self, key: str) -> dict[str, Any] | None:
        """Return the parsed JSON object, or None if it does not exist."""
        content = self.read(key)
        return None if content is None else dict(json.loads(content))

    def write(self, key: str, content: bytes, content_type: str = "application/octet-stream") -> None:
        """Write an object, replacing an existing one."""
        self.client.put_object(Bucket=self.bucket, Key=key, Body=content, ContentType=content_type)

    def write_json(self, key: str, content: dict[str, Any]) -> None:
        """Write `content` as indented JSON."""
        self.write(key, json.dumps(content, indent=1, sort_keys=True).encode(), "application/json")

    def write_once(self, key: str, content: bytes) -> bool:
        """Write an object unless it exists; return whether it was written."""
        return self._is_accepted(self.client.put_object, _OVERTAKEN, Key=key, Body=content, IfNoneMatch="*")

    def replace_version(self, key: str, content: bytes, etag: str) -> bool:
        """Replace the version with this ETag; return False if it is not the current version."""
        return self._is_accepted(self.client.put_object, _OVERTAKEN | MISSING, Key=key, Body=content, IfMatch=etag)

    def remove(self, key: str) -> None:
        """Delete an object; a missing object is not an error."""
        self.client.delete_object(Bucket=self.bucket, Key=key)

    def remove_version(self, key: str, etag: str) -> bool:
        """Delete the version with this ETag; return False if it is not the current version."""
        return self._is_accepted(self.client.delete_object, _OVERTAKEN | MISSING, Key=key, IfMatch=etag)

    # A conflict: S3 has decided nothing, and says "retry the upload".
    @_retried(lambda error: isinstance(error, ClientError) and error_code(error) in _CONFLICTS)
    def _is_accepted(self, call: Callable[..., Any], refusals: Set[str], **request: Any) -> bool:
        """Send a conditional request; return False if S3 refuses its condition."""
        try:
            call(Bucket=self.bucket, **request)
        except ClientError as error:
            if error_code(error) in refusals:
                return False
            raise
        return True


def run_key(run_id: str, name: str = "") -> str:
    """Return the key of a file of a run: `runs/<run_id>/<name>`."""
    return f"runs/{run_id}/{name}" if name else f"runs/{run_id}"


def erasure_key(erasure_id: str, name: str = "") -> str:
    """Return the key of a file of an erasure: `erasures/<erasure_id>/<name>`."""
    return f"erasures/{erasure_id}/{name}" if name else f"erasures/{erasure_id}"
