"""List, read and permanently delete the object versions of the raw bucket.

In a versioned bucket, deleting a key only adds a delete marker. An erasure deletes each version by its id.
"""

import hashlib
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, NamedTuple

from botocore.exceptions import BotoCoreError, ClientError

from fruits_airflow.config.aws_types import S3Client
from fruits_airflow.config.errors import ErasureIncomplete
from fruits_airflow.storage.lake import error_code

_AT_ONCE = 16
_DELETE_BATCH = 1_000  # DeleteObjects takes no more


class PhotoVersion(NamedTuple):
    """A version of an object, or a delete marker, which has no content."""

    key: str
    version_id: str
    size_bytes: int
    is_marker: bool

    @property
    def is_photo(self) -> bool:
        """Tell whether it may be a photo; the empty object that the console creates for a folder is not."""
        return self.size_bytes > 0 or not is_folder(self.key)


def is_folder(key: str) -> bool:
    """Tell whether the key is that of a folder."""
    return key.endswith("/")


def image_id_of(key: str) -> str:
    """Return the id of the image at `key`: hex SHA-256 of the key."""
    return hashlib.sha256(key.encode("utf-8", "replace")).hexdigest()  # JSON may contain lone surrogates


def image_ids_of(key: str) -> frozenset[str]:
    """Return the ids of the images at `key` and at its composed and decomposed Unicode forms.

    macOS uploads `é` as two characters (NFD), a person types one (NFC): both name the same photo.
    """
    forms = {key, unicodedata.normalize("NFC", key), unicodedata.normalize("NFD", key)}
    return frozenset(map(image_id_of, forms))


@contextmanager
def hide_keys_in_errors() -> Iterator[None]:
    """Raise S3 errors without their message, which may contain the URL or the ARN of the object and so its key.

    Raises:
        ClientError: With the code and the operation of the original error.
        ConnectionError: S3 did not answer; the message has the type of the original error.
    """
    try:
        yield
    except ClientError as error:
        reply: Any = {**error.response, "Error": {"Code": error_code(error), "Message": "(message left out)"}}
        raise ClientError(reply, error.operation_name) from None
    except BotoCoreError as error:
        raise ConnectionError(f"S3 did not answer: {type(error).__name__}; clear the task") from None


def list_versions(client: S3Client, bucket: str, prefix: str = "") -> Iterator[PhotoVersion]:
    """List all versions and delete markers below `prefix`, markers of empty folders included."""
    for page in client.get_paginator("list_object_versions").paginate(Bucket=bucket, Prefix=prefix):
        for version in page.get("Versions", []):
            yield PhotoVersion(version["Key"], version["VersionId"], version["Size"], False)
        for marker in page.get("DeleteMarkers", []):
            yield PhotoVersion(marker["Key"], marker["VersionId"], 0, True)


def content_digests(client: S3Client, bucket: str, versions: Iterable[PhotoVersion]) -> dict[PhotoVersion, str]:
    """Return the hex SHA-256 of each version's bytes.

    Markers, empty objects (which equal each other and are not pictures) and versions deleted meanwhile are left out.
    """
    with_content = [version for version in versions if version.size_bytes]

    def digest(version: PhotoVersion) -> str | None:
        with hide_keys_in_errors():
            try:
                body = client.get_object(Bucket=bucket, Key=version.key, VersionId=version.version_id)["Body"]
            except ClientError as error:
                if error_code(error) in ("NoSuchVersion", "NoSuchKey", "404"):
                    return None
                raise
            return hashlib.file_digest(body, "sha256").hexdigest()  # type: ignore[arg-type]

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        digests = zip(with_content, pool.map(digest, with_content), strict=True)
        return {version: sha256 for version, sha256 in digests if sha256 is not None}


def remove_versions(client: S3Client, bucket: str, versions: Sequence[PhotoVersion]) -> None:
    """Permanently delete each version and marker.

    Raises:
        ErasureIncomplete: S3 kept versions; the message says how many and why, without keys.
    """
    for start in range(0, len(versions), _DELETE_BATCH):
        batch = versions[start : start + _DELETE_BATCH]
        reply = client.delete_objects(
            Bucket=bucket, Delete={"Objects": [{"Key": v.key, "VersionId": v.version_id} for v in batch], "Quiet": True}
        )
        if errors := reply.get("Errors"):
            codes = sorted({str(error.get("Code")) for error in errors})
            raise ErasureIncomplete(
                f"S3 kept {len(errors)} of {len(batch)} versions in {bucket} ({', '.join(codes)}): the role needs "
                "s3:DeleteObjectVersion, and no retention lock may be on them; then clear this task"
            )


def abort_uploads(client: S3Client, bucket: str, image_ids: frozenset[str]) -> int:
    """Abort unfinished multipart uploads of these images, whose parts contain photos; return their number."""
    count = 0
    for page in client.get_paginator("list_multipart_uploads").paginate(Bucket=bucket):
        for upload in page.get("Uploads", []):
            if image_id_of(upload["Key"]) in image_ids:
                with hide_keys_in_errors():
                    client.abort_multipart_upload(Bucket=bucket, Key=upload["Key"], UploadId=upload["UploadId"])
                count += 1
    return count
