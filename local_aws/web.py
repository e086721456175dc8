"""The WSGI application: interceptors around moto.

An interceptor sees each request before it has an effect and each reply before it leaves. The access log, the check of
signatures, the guard against foreign callers, the health page and the faults of tests are interceptors.
"""

import http.client
import logging
import traceback
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from local_aws.replies import Reply
from local_aws.requests import Call

Environ = dict[str, Any]
StartResponse = Callable[..., Any]
WsgiApplication = Callable[[Environ, StartResponse], Iterable[bytes]]

log = logging.getLogger(__name__)


class Interceptor:
    """Sees each request and its reply. This one changes nothing."""

    def before(self, call: Call) -> Reply | None:  # noqa: ARG002
        """Answer the request without an effect, or let it pass with None."""
        return None

    def after(self, call: Call, reply: Reply) -> Reply:  # noqa: ARG002
        """Return the reply that leaves."""
        return reply


class Application:
    """Calls each interceptor's `before` in order, the service, and each `after` in reverse order."""

    def __init__(self, service: WsgiApplication, interceptors: Sequence[Interceptor]) -> None:
        self.service = service
        self.interceptors = list(interceptors)

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Answer one request."""
        # moto reads the encoded path from RAW_URI (gunicorn's name); waitress calls it REQUEST_URI. Without it
        # `%2F`, `+` and doubled slashes in S3 keys are lost.
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
        reason = http.client.responses.get(reply.status, "Unknown")
        start_response(f"{reply.status} {reason}", reply.headers)
        return [reply.body]

    def _serve(self, call: Call) -> Reply:
        captured: list[tuple[str, list[tuple[str, str]]]] = []

        def capture(status: str, headers: list[tuple[str, str]], _exc_info: object = None) -> None:
            captured.append((status, headers))

        try:
            chunks = self.service(call.environ, capture)
            body = b"".join(chunks)
        except NotImplementedError as error:
            message = f"local_aws has no {call.service}:{call.operation}: {error}"
            return Reply.of_error(call, 501, "NotImplemented", message)
        except Exception as error:  # noqa: BLE001  a server answers, whatever broke
            log.error("%s:%s failed\n%s", call.service, call.operation, traceback.format_exc())
            message = f"local_aws: {type(error).__name__}: {error}"
            return Reply.of_error(call, 500, "InternalFailure", message)
        status, headers = captured[-1]
        return Reply(int(status.split(" ", 1)[0]), headers, body)
