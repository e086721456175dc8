"""The photos in the raw bucket with all their versions: finding, reading and removing them for good.

The bucket is versioned: deleting a key only hides it behind a marker, and what it held stays. An erasure names each
version.
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from botocore.exceptions import BotoCoreError, ClientError

from fruits_airflow.config.errors import ErasureIncomplete
from fruits_airflow.storage.lake import error_code

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

_AT_ONCE = 16
_DELETE_BATCH = 1_000  # DeleteObjects takes no more
_CHUNK = 1 << 20


class PhotoVersion(NamedTuple):
    """One version of one object; a delete marker holds nothing."""

    key: str
    version_id: str
    size_bytes: int
    is_marker: bool

    @property
    def is_photo(self) -> bool:
        """Whether it may be a version of a photo: the empty object that a console creates for a folder is none."""
        return self.size_bytes > 0 or not is_folder(self.key)


def is_folder(key: str) -> bool:
    """Whether the key is a folder's."""
    return key.endswith("/")


def image_id_of(key: str) -> str:
    """The id of the image at `key`: hex SHA-256 of the key."""
    return hashlib.sha256(key.encode("utf-8", "replace")).hexdigest()  # JSON can hold what is no UTF-8


def image_ids_of(key: str) -> frozenset[str]:
    """The ids of the images at `key` and at its composed and decomposed Unicode forms.

    A Mac uploads `é` as two characters (NFD), a person types it as one (NFC): both mean the same photo.
    """
    forms = {key, unicodedata.normalize("NFC", key), unicodedata.normalize("NFD", key)}
    return frozenset(map(image_id_of, forms))


@contextmanager
def hide_keys_in_errors() -> Iterator[None]:
    """Raise errors of S3 without their message: it may hold the URL or the ARN of the object, and so its key.

    Raises:
        ClientError: With the code and the operation of the original error.
        ConnectionError: S3 did not answer; names the kind of the original error.
    """
    try:
        yield
    except ClientError as error:
        reply: Any = {**error.response, "Error": {"Code": error_code(error), "Message": "(message left out)"}}
        raise ClientError(reply, error.operation_name) from None
    except BotoCoreError as error:
        raise ConnectionError(f"S3 did not answer: {type(error).__name__}; clear the task") from None


def list_versions(client: S3Client, bucket: str, prefix: str = "") -> Iterator[PhotoVersion]:
    """Lists all versions and delete markers below `prefix`, markers of empty folders included."""
    for page in client.get_paginator("list_object_versions").paginate(Bucket=bucket, Prefix=prefix):
        for found in page.get("Versions", []):
            yield PhotoVersion(found["Key"], found["VersionId"], found["Size"], False)
        for marker in page.get("DeleteMarkers", []):
            yield PhotoVersion(marker["Key"], marker["VersionId"], 0, True)


def content_digests(
    client: S3Client, bucket: str, versions: Iterable[PhotoVersion]
) -> dict[PhotoVersion, str]:
    """Hex SHA-256 of each version's bytes.

    Left out are markers, empty objects (all of them are equal, and none is a picture), and versions that have gone
    meanwhile.
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
            sha256 = hashlib.sha256()
            for chunk in body.iter_chunks(_CHUNK):
                sha256.update(chunk)
            return sha256.hexdigest()

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        digests = zip(with_content, pool.map(digest, with_content), strict=True)
        return {version: sha256 for version, sha256 in digests if sha256 is not None}


def remove_versions(client: S3Client, bucket: str, versions: Sequence[PhotoVersion]) -> None:
    """Removes each version and marker for good.

    Raises:
        ErasureIncomplete: S3 kept one; names how many and why, but no key.
    """
    for start in range(0, len(versions), _DELETE_BATCH):
        batch = versions[start : start + _DELETE_BATCH]
        reply = client.delete_objects(
            Bucket=bucket,
            Delete={"Objects": [{"Key": v.key, "VersionId": v.version_id} for v in batch], "Quiet": True},
        )
        if errors := reply.get("Errors"):
            codes = sorted({str(error.get("Code")) for error in errors})
            raise ErasureIncomplete(
                f"S3 kept {len(errors)} of {len(batch)} versions in {bucket} ({', '.join(codes)}): the role needs "
                "s3:DeleteObjectVersion, and no retention lock may be on them; then clear this task"
            )


def abort_uploads(client: S3Client, bucket: str, image_ids: frozenset[str]) -> int:
    """Aborts uploads in parts that never ended: their parts hold a photo, too. Returns how many."""
    count = 0
    for page in client.get_paginator("list_multipart_uploads").paginate(Bucket=bucket):
        for upload in page.get("Uploads", []):
            if image_id_of(upload["Key"]) in image_ids:
                with hide_keys_in_errors():
                    client.abort_multipart_upload(
                        Bucket=bucket, Key=upload["Key"], UploadId=upload["UploadId"]
                    )
                count += 1
    return count
