"""S3's operations on objects, with conditional writes that hold under concurrency."""

from __future__ import annotations

import threading
from typing import Any

from moto.s3.responses import S3Response

_LOCKS = tuple(threading.Lock() for _ in range(64))


class StrictS3Response(S3Response):
    """moto checks `If-None-Match` and `If-Match` and then writes; here nothing comes between the two."""

    def _key_response(self, request: Any, full_url: str) -> Any:
        if request.method in ("GET", "HEAD", "OPTIONS"):
            return super()._key_response(request, full_url)
        with _LOCKS[hash(self.raw_path) % len(_LOCKS)]:
            return super()._key_response(request, full_url)
