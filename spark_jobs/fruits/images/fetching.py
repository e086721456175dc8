"""Fetching of listed objects with many requests in flight: a small object costs latency, not bandwidth."""

import asyncio
import re
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import obstore
from obstore.exceptions import GenericError, PermissionDeniedError, PreconditionError

from fruits.base.errors import ObjectAccessError
from fruits.base.keys import image_id
from fruits.base.objects import S3Location, is_plain_key, local_etag, open_boto3_client, open_store
from fruits.images.decoding import MAX_BYTES
from fruits.images.rejects import ImageRejected, RejectCode

MAX_REQUESTS = 32
"""Requests in flight per task: at 50 ms a request, 640 small objects a second and core."""

MAX_BYTES_IN_FLIGHT = 64 * 1024 * 1024
"""Listed bytes in flight per task, so that large photos do not add up to the worker's memory."""

_STATUS = re.compile(r"non-2xx status code: (\d{3})")
_CODE = re.compile(r"<Code>([\w.]{1,80})</Code>")
_NETWORK = re.compile(
    r"(?i:connection (?:refused|reset|closed)|timed out|dns error|certificate|os error \d+|max_retries: \d+)"
)
_OBJECT_CODES = frozenset({"InvalidRequest", "InvalidArgument", "KeyTooLongError", "InvalidURI"})
"""Codes of status 400 that concern a single object or its key. Any other code (an expired token, a wrong bucket, too
many requests, an unknown code) may concern every object: the load fails, and no photo is rejected for it."""


@dataclass(frozen=True)
class ListedObject:
    """An object as it was listed."""

    key: str
    etag: str
    size_bytes: int


@dataclass(frozen=True)
class Source:
    """Where the listed keys are."""

    bucket: str | None  # the input bucket; None for a plain folder
    folder: str  # the plain folder that the keys are relative to; "" for a bucket
    s3: S3Location | None  # where S3 answers; None for a plain folder
    max_bytes: int = MAX_BYTES  # larger objects are rejected unread


def fetch(objects: Iterable[ListedObject], source: Source) -> Iterator[tuple[ListedObject, bytes | ImageRejected]]:
    """Fetch objects in order, each in the version that was listed; read as many ahead as requests are in flight.

    Yields:
        Each object with its bytes, or with a rejection: empty or over the size limit (not requested at all), changed or
        gone since the listing, not readable now (an archived object, a file without permission), or not fetchable, such
        as a key that S3 does not accept.

    Raises:
        ObjectAccessError: A request failed for a reason that does not concern the object (access denied, no network):
            the task fails, and no photo is rejected for it.
    """
    waiting: deque[tuple[ListedObject, Future[bytes]]] = deque()
    in_flight = 0
    for listed in objects:
        while waiting and (len(waiting) >= MAX_REQUESTS or in_flight + listed.size_bytes > MAX_BYTES_IN_FLIGHT):
            done, future = waiting.popleft()
            in_flight -= _bytes_in_flight(done, source)
            yield done, _outcome(future, done)
        waiting.append((listed, _submit(listed, source)))
        in_flight += _bytes_in_flight(listed, source)
    for done, future in waiting:
        yield done, _outcome(future, done)


def _bytes_in_flight(listed: ListedObject, source: Source) -> int:
    return 0 if _rejection(listed, source) else listed.size_bytes


def _rejection(listed: ListedObject, source: Source) -> ImageRejected | None:
    if listed.size_bytes == 0:
        return ImageRejected(RejectCode.EMPTY, "the object has no bytes")
    if listed.size_bytes > source.max_bytes:
        return ImageRejected(RejectCode.TOO_MANY_BYTES, f"{listed.size_bytes} bytes, the limit is {source.max_bytes}")
    return None


def _submit(listed: ListedObject, source: Source) -> Future[bytes]:
    if source.bucket and source.s3 and is_plain_key(listed.key) and not _rejection(listed, source):
        request = _by_obstore(open_store(source.bucket, source.s3), listed)
        return asyncio.run_coroutine_threadsafe(request, _event_loop())
    future: Future[bytes] = Future()
    try:
        future.set_result(_fetch_now(listed, source))
    except Exception as error:  # noqa: BLE001 - raised again by whoever reads the result
        future.set_exception(error)
    return future


def _fetch_now(listed: ListedObject, source: Source) -> bytes:
    if rejection := _rejection(listed, source):
        raise rejection
    if source.bucket is None or source.s3 is None:
        return _from_folder(Path(source.folder), listed)
    return _by_boto3(open_boto3_client(source.s3), source.bucket, listed)


def _outcome(future: Future[bytes], listed: ListedObject) -> bytes | ImageRejected:
    try:
        return future.result()
    except ImageRejected as rejected:
        return rejected
    except Exception as error:  # noqa: BLE001 - the message of any error may hold the key
        raise ObjectAccessError(
            f"could not fetch the photo with image id {image_id(listed.key)}: {_reason(error)}"
        ) from None


def _reason(error: Exception) -> str:
    """Describe an error by its class and codes: its message can hold the key, in a URL, a path or an ARN."""
    if isinstance(error, OSError) and error.strerror:
        return f"{type(error).__name__}: {error.strerror}"
    response = getattr(error, "response", {})  # of botocore
    status, code = _STATUS.search(str(error)), _CODE.search(str(error))
    details = (
        status and f"status {status[1]}",
        code[1] if code else response.get("Error", {}).get("Code"),
        *dict.fromkeys(match.lower() for match in _NETWORK.findall(str(error))),
    )
    return f"{type(error).__name__}: {', '.join(filter(None, details)) or 'S3 gave no code'}"


async def _by_obstore(bucket: Any, listed: ListedObject) -> bytes:
    try:
        answer = await obstore.get_async(bucket, listed.key, options={"if_match": f'"{listed.etag}"'})
        return (await answer.bytes_async()).to_bytes()
    except PreconditionError as error:
        raise _changed() from error
    except FileNotFoundError as error:
        raise _gone() from error
    except (GenericError, PermissionDeniedError) as error:
        # obstore gives the status and S3's code only in its message.
        status, code = _STATUS.search(str(error)), _CODE.search(str(error))
        if rejection := _object_rejection(int(status[1]) if status else 0, code[1] if code else ""):
            raise rejection from error
        raise


def _by_boto3(client: Any, bucket: str, listed: ListedObject) -> bytes:
    from botocore.exceptions import ClientError

    try:
        answer = client.get_object(Bucket=bucket, Key=listed.key, IfMatch=f'"{listed.etag}"')
        return bytes(answer["Body"].read())
    except ClientError as error:
        status = error.response["ResponseMetadata"]["HTTPStatusCode"]
        if status == 412:
            raise _changed() from error
        if status == 404:
            raise _gone() from error
        code = error.response["Error"]["Code"] or ""
        # Only keys that obstore cannot send are requested here: a refusal without a code concerns the key.
        if rejection := _object_rejection(status, code, without_a_code=code in ("", str(status))):
            raise rejection from error
        raise


def _object_rejection(status: int, code: str, without_a_code: bool = False) -> ImageRejected | None:
    """Return the rejection of an object that S3 refuses to everybody; None where the refusal may not concern it.

    Only the codes tell an archived object (403 InvalidObjectState) from denied access, and an object encrypted with a
    customer's key (400 InvalidRequest) from an expired token (400 ExpiredToken), which would reject the bucket.
    """
    if code == "InvalidObjectState":
        return ImageRejected(
            RejectCode.NOT_READABLE_NOW,
            "the object is archived; restore it: the next run that has other work loads it, or one triggered with "
            "`force`",
        )
    if status in (405, 410) or (status == 400 and (without_a_code or code in _OBJECT_CODES)):
        answer = f"{status} {code}" if code and code != str(status) else str(status)
        return ImageRejected(
            RejectCode.KEY_NOT_FETCHABLE,
            f"S3 answers {answer[:80]}: it does not take this key, or not without a key of its own",
        )
    return None


def _from_folder(folder: Path, listed: ListedObject) -> bytes:
    path = folder / listed.key
    try:
        # Checked before it is opened, and read no further than listed: it may now have any size, or be a pipe.
        if local_etag(path) != listed.etag:
            raise _changed()
        with path.open("rb") as file:
            data = file.read(listed.size_bytes + 1)
        if local_etag(path) != listed.etag or len(data) != listed.size_bytes:
            raise _changed()
        return data
    except (FileNotFoundError, NotADirectoryError) as error:
        raise _gone() from error
    except IsADirectoryError as error:
        raise _changed() from error
    except PermissionError as error:
        raise ImageRejected(
            RejectCode.NOT_READABLE_NOW, "the file may not be read by the user that runs the job"
        ) from error


def _changed() -> ImageRejected:
    return ImageRejected(RejectCode.CHANGED, "the object is not the one that was listed; the next run loads it")


def _gone() -> ImageRejected:
    return ImageRejected(RejectCode.GONE, "the object was deleted after it was listed")


@lru_cache(maxsize=1)
def _event_loop() -> asyncio.AbstractEventLoop:
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name="fetch", daemon=True).start()
    return loop
