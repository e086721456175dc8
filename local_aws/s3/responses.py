"""S3's operations on objects, with conditional writes that are atomic."""

import threading
import time
from typing import Any

from moto.s3.responses import S3Response

from local_aws import errors
from local_aws.requests import STARTED, Call

_LOCKS = tuple(threading.Lock() for _ in range(64))
_DELETIONS: dict[str, float] = {}
"""When each path was last deleted, by `time.perf_counter`."""


class StrictS3Response(S3Response):
    """moto's operations; no other write comes between the check of `If-None-Match` or `If-Match` and the write.

    Of conditional writes that meet, the first to finish succeeds, and the others get 412. Where a deletion succeeds
    while a conditional write is in flight, the write gets 409 (S3 User Guide, "Conditional write behavior").
    """

    def _key_response(self, request: Any, full_url: str) -> Any:
        if request.method in ("GET", "HEAD", "OPTIONS"):
            return super()._key_response(request, full_url)
        is_conditional = "HTTP_IF_NONE_MATCH" in request.environ or "HTTP_IF_MATCH" in request.environ
        with _LOCKS[hash(self.raw_path) % len(_LOCKS)]:
            _, started = request.environ.get(STARTED, (0.0, time.perf_counter()))
            if is_conditional and request.method != "DELETE" and _DELETIONS.get(self.raw_path, started) > started:
                conflict = errors.reply(Call(request.environ), "Conflict")
                return conflict.status, dict(conflict.headers), conflict.body
            reply = super()._key_response(request, full_url)
            if request.method == "DELETE":
                _DELETIONS[self.raw_path] = time.perf_counter()
            return reply
