"""The WSGI application: interceptors around moto, and the seam where more of them hook in.

An interceptor sees each request before it has any effect and each reply before it leaves. The access log, the
guard against foreign callers and the health page are interceptors; a test's private fault control can be one
too, without production code or moto knowing.
"""

from __future__ import annotations

import http.client
import json
import logging
import traceback
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol
from xml.sax.saxutils import escape

from local_aws.requests import Call

Environ = dict[str, Any]
StartResponse = Callable[..., Any]
WsgiApplication = Callable[[Environ, StartResponse], Iterable[bytes]]

log = logging.getLogger(__name__)


@dataclass
class Reply:
    """An HTTP reply, whole.

    Attributes:
        status: HTTP status code.
        headers: header names and values, in order.
        body: the bytes that leave; empty for HEAD.
    """

    status: int
    headers: list[tuple[str, str]] = field(default_factory=list)
    body: bytes = b""

    @classmethod
    def of_json(cls, status: int, document: object) -> Reply:
        """A JSON reply."""
        body = json.dumps(document).encode()
        return cls(status, [("Content-Type", "application/json"), ("Content-Length", str(len(body)))], body)


class Interceptor(Protocol):
    """Something that sees each call on its way in and its reply on its way out."""

    def before(self, call: Call) -> Reply | None:
        """Answers the call itself (then it has no effect), or lets it pass with None."""

    def after(self, call: Call, reply: Reply) -> Reply:
        """The reply that leaves: the one given, or another."""


class Application:
    """WSGI application: each interceptor's `before` in order, the service, each `after` in reverse order."""

    def __init__(self, service: WsgiApplication, interceptors: Sequence[Interceptor]) -> None:
        self.service = service
        self.interceptors = list(interceptors)

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Answers one request."""
        # moto reads the path as it arrived from RAW_URI (gunicorn's name); waitress calls it REQUEST_URI.
        # Without it `%2F`, `+` and doubled slashes in S3 keys are lost.
        environ["RAW_URI"] = environ["REQUEST_URI"]
        call = Call(environ)
        passed: list[Interceptor] = []
        reply: Reply | None = None
        for interceptor in self.interceptors:
            passed.append(interceptor)
            reply = interceptor.before(call)
            if reply is not None:
                break
        if reply is None:
            reply = self._serve(call)
        for interceptor in reversed(passed):
            reply = interceptor.after(call, reply)
        start_response(f"{reply.status} {_reason(reply.status)}", reply.headers)
        return [reply.body]

    def _serve(self, call: Call) -> Reply:
        captured: list[tuple[str, list[tuple[str, str]]]] = []

        def capture(status: str, headers: list[tuple[str, str]], _exc_info: object = None) -> None:
            captured.append((status, headers))

        try:
            chunks = self.service(call.environ, capture)
            body = b"".join(chunks)
        except NotImplementedError as error:
            return _failure(
                call, 501, "NotImplemented", f"local_aws has no {call.service}:{call.operation}: {error}"
            )
        except Exception as error:  # noqa: BLE001  a server answers, whatever broke
            log.error("%s:%s failed\n%s", call.service, call.operation, traceback.format_exc())
            return _failure(call, 500, "InternalFailure", f"local_aws: {type(error).__name__}: {error}")
        status, headers = captured[-1]
        return Reply(int(status.split(" ", 1)[0]), headers, body)


def _failure(call: Call, status: int, code: str, message: str) -> Reply:
    """An error in the words of the service's protocol: JSON, or XML for S3 and the query protocol."""
    if call.header("X-Amz-Target"):
        kind, body = "application/x-amz-json-1.1", json.dumps({"__type": code, "message": message}).encode()
    else:
        kind = "application/xml"
        error = f"<Error><Code>{code}</Code><Message>{escape(message)}</Message></Error>"
        body = (error if call.service == "s3" else f"<ErrorResponse>{error}</ErrorResponse>").encode()
    headers = [("Content-Type", kind), ("x-amzn-ErrorType", code), ("Content-Length", str(len(body)))]
    return Reply(status, headers, b"" if call.method == "HEAD" else body)


def _reason(status: int) -> str:
    return http.client.responses.get(status, "Unknown")
