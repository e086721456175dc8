"""S3's operations on objects, with conditional writes that are atomic."""

from __future__ import annotations

import threading
from typing import Any

from moto.s3.responses import S3Response

_LOCKS = tuple(threading.Lock() for _ in range(64))


class StrictS3Response(S3Response):
    """moto's operations; no other write comes between the check of `If-None-Match` or `If-Match` and the write."""

    def _key_response(self, request: Any, full_url: str) -> Any:
        if request.method in ("GET", "HEAD", "OPTIONS"):
            return super()._key_response(request, full_url)
        with _LOCKS[hash(self.raw_path) % len(_LOCKS)]:
            return super()._key_response(request, full_url)
