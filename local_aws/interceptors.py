"""The guard against web pages, the health page and the access log."""

import json
import re
import threading
import time
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

from local_aws.replies import Reply
from local_aws.requests import STARTED, Call
from local_aws.settings import is_loopback
from local_aws.web import Interceptor

HEALTH_PATH = "/_local_aws/health"
_SIGNATURE = re.compile("(X-Amz-Signature|X-Amz-Security-Token)=[^&]*")


class LoopbackGuard(Interceptor):
    """Refuses requests that a web page in this machine's browser could send.

    Steps run any command, so a page that could post here (by a name it rebinds to 127.0.0.1, across origins, or from
    an object of S3 that is shown as a page) could run commands on this machine. SDKs send a loopback Host, no Origin
    and no Sec-Fetch-Site. A browser sends `Sec-Fetch-Site: none` only for an address that a person has entered.
    """

    def before(self, call: Call) -> Reply | None:
        """Refuse a foreign Host, any Origin, and the requests of pages."""
        host = urlsplit("//" + call.header("Host")).hostname or ""
        if not (is_loopback(host) or host.endswith(".localhost")):
            return _refused(f"Host {host!r} is not this machine; reach local_aws by its loopback address")
        for name in ("Origin", "Sec-Fetch-Site"):
            value = call.header(name)
            if value and (name, value) != ("Sec-Fetch-Site", "none"):
                return _refused(f"requests of web pages ({name}: {value}) are refused")
        return None


class Health(Interceptor):
    """Answers `GET /_local_aws/health`."""

    def __init__(self, endpoint: str) -> None:
        self._reply = Reply.of_json(200, {"status": "ok", "endpoint": endpoint})

    def before(self, call: Call) -> Reply | None:
        """Answer the health path."""
        return self._reply if call.path == HEALTH_PATH else None


class AccessLog(Interceptor):
    """One JSON line per request, written when the reply leaves.

    Fields: time (UTC, when the request came), method, host, bucket, key, path, query, region, service, operation,
    status, bytes (of the reply body), request_bytes, seconds, user_agent; deleted (key and version_id of each object
    that DeleteObjects names, each of which has a record in S3's own log). The body of a request whose signature was not
    verified is not read: its operation is empty. The signature of a presigned URL is left out, since a reader of the
    log could use it.
    """

    def __init__(self, path: Path) -> None:
        self._file = path.open("w", encoding="utf-8", buffering=1)
        self._lock = threading.Lock()

    def before(self, call: Call) -> Reply | None:
        """Record when the request came."""
        call.environ[STARTED] = (time.time(), time.perf_counter())
        return None

    def after(self, call: Call, reply: Reply) -> Reply:
        """Write the line."""
        came, started = call.environ[STARTED]
        line = json.dumps(
            {
                "time": datetime.fromtimestamp(came, UTC).isoformat(timespec="milliseconds"),
                "method": call.method,
                "host": call.header("Host"),
                "bucket": call.bucket,
                "key": call.key,
                "path": call.path,
                "query": _SIGNATURE.sub(r"\1=…", call.query_string),
                "region": call.region,
                "service": call.service,
                "operation": call.operation if call.verified else "",
                "status": reply.status,
                "bytes": len(reply.body),
                "request_bytes": int(call.environ.get("CONTENT_LENGTH") or 0),
                "seconds": round(time.perf_counter() - started, 5),
                "user_agent": call.header("User-Agent"),
                "deleted": call.deleted if call.verified else [],
            }
        )
        with self._lock:
            if not self._file.closed:
                self._file.write(line + "\n")
        return reply

    def close(self) -> None:
        """Close the log."""
        with self._lock:
            self._file.close()


def _refused(reason: str) -> Reply:
    return Reply.of_json(403, {"__type": "AccessDeniedException", "message": f"local_aws: {reason}."})
