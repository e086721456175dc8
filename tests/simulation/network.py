"""The network between botocore and the emulator: a call of the WSGI application instead of a socket.

Each request is served by an actor of its own. A client that is killed, cut off or out of patience therefore does not
undo what its request does.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any
from urllib.parse import unquote_to_bytes, urlsplit

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSResponse
from botocore.exceptions import ConnectionClosedError, ReadTimeoutError
from botocore.httpsession import URLLib3Session
from botocore.useragent import UserAgentString
from urllib3.response import HTTPResponse

from local_aws.connection import CHANNEL
from local_aws.requests import STARTED
from tests.simulation import clocks
from tests.simulation.loop import Actor, Waiters

ENDPOINT = "http://127.0.0.1:1"
READ_TIMEOUT_S = 60.0
LONGEST_TRIP_S = 0.2

Answer = tuple[int, list[tuple[str, str]], bytes]


class _Exchange:
    """A request under way; stands for the connection that a fault drops."""

    def __init__(self) -> None:
        self.answer: Answer | None = None
        self.is_dropped = False
        self.waiters = Waiters(clocks.loop)

    def drop(self, *, reset: bool = False) -> None:
        """End the connection without an answer."""
        self.is_dropped = True
        self.waiters.wake_all()

    def finish(self, answer: Answer) -> None:
        """Answer, unless the connection is gone."""
        if not self.is_dropped:
            self.answer = answer
            self.waiters.wake_all()


class Network:
    """Carries requests.

    Args:
        served: The emulator's application with its faults.
        plain: The application without faults, for set-up and checks.
        sent: Called with the actor, and the environment, of each request that leaves.
    """

    def __init__(
        self, served: Callable[..., Any], plain: Callable[..., Any], sent: Callable[[Actor, Any], None]
    ) -> None:
        self._served, self._plain, self._sent = served, plain, sent

    def install(self) -> None:
        """Carry the requests of every botocore client of this process."""
        network = self

        def send(_session: URLLib3Session, request: Any) -> AWSResponse:
            return network.send(request)

        URLLib3Session.send = send  # type: ignore[method-assign]
        SigV4Auth.add_auth = _name_signer  # type: ignore[method-assign]
        UserAgentString.to_string = _once_each(UserAgentString.to_string)  # type: ignore[method-assign]

    def send(self, request: Any) -> AWSResponse:
        """Send a prepared request of botocore; return its reply, or raise as botocore does."""
        body = request.body
        if hasattr(body, "read"):
            body = body.read()
        content = body.encode() if isinstance(body, str) else bytes(body or b"")
        status, headers, answer = self.request(request.method, request.url, dict(request.headers.items()), content)
        raw = HTTPResponse(
            io.BytesIO(answer), dict(headers), status, preload_content=False, request_method=request.method
        )
        length = next((int(value) for name, value in headers if name.lower() == "content-length"), len(answer))
        response = AWSResponse(request.url, status, dict(headers), raw)
        response.headers.update(dict(headers))
        if not request.stream_output:
            if request.method != "HEAD" and length > len(answer):
                raise ConnectionClosedError(endpoint_url=request.url)
            response._content = answer
        return response

    def request(self, method: str, url: str, headers: dict[str, Any], body: bytes) -> Answer:
        """Send a request and return the answer.

        Raises:
            ConnectionClosedError: The connection was dropped.
            ReadTimeoutError: No answer came in time.
        """
        loop, exchange = clocks.loop(), _Exchange()
        environ = _environ(method, url, headers, body)
        environ[CHANNEL] = exchange
        actor = loop.current
        if actor is None:
            return _answer(self._plain, environ)
        actor.calls += 1
        if actor.kill_at == (actor.calls, "before"):
            actor.is_killed = True
        loop.sleep(clocks.draws.uniform(0.005, LONGEST_TRIP_S))
        environ[STARTED] = (loop.now, loop.now)
        self._sent(actor, environ)
        loop.spawn("request", lambda: exchange.finish(_answer(self._served, environ)))
        exchange.waiters.wait(READ_TIMEOUT_S)
        if actor.kill_at == (actor.calls, "after"):
            actor.is_killed = True
        loop.sleep(clocks.draws.uniform(0.005, LONGEST_TRIP_S))
        if exchange.is_dropped:
            raise ConnectionClosedError(endpoint_url=url)
        if exchange.answer is None:
            raise ReadTimeoutError(endpoint_url=url)
        return exchange.answer


def _name_signer(self: Any, request: Any) -> None:
    """Name the signer, region and service of a request, of which the emulator tells the service; sign nothing."""
    scope = f"20260101/{self._region_name}/{self._service_name}/aws4_request"
    request.headers["Authorization"] = f"AWS4-HMAC-SHA256 Credential={self.credentials.access_key}/{scope}"


def _once_each(method: Any) -> Any:
    """Compute a method's result once for each object."""
    results: dict[int, tuple[Any, str]] = {}

    def call(self: Any) -> str:
        if id(self) not in results:
            results[id(self)] = self, method(self)
        return results[id(self)][1]

    return call


def _environ(method: str, url: str, headers: dict[str, Any], body: bytes) -> dict[str, Any]:
    parts = urlsplit(url)
    environ: dict[str, Any] = {
        "REQUEST_METHOD": method,
        "REQUEST_URI": parts.path + (f"?{parts.query}" if parts.query else ""),
        "PATH_INFO": unquote_to_bytes(parts.path).decode("latin-1"),
        "SCRIPT_NAME": "",
        "QUERY_STRING": parts.query,
        "SERVER_NAME": "127.0.0.1",
        "SERVER_PORT": "1",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "wsgi.url_scheme": "http",
        "wsgi.input": io.BytesIO(body),
        "CONTENT_LENGTH": str(len(body)),
        "HTTP_HOST": parts.netloc,
    }
    for name, value in headers.items():
        text = value.decode("latin-1") if isinstance(value, bytes) else str(value)
        key = name.upper().replace("-", "_")
        environ[key if key in ("CONTENT_TYPE", "CONTENT_LENGTH") else f"HTTP_{key}"] = text
    return environ


def _answer(application: Callable[..., Any], environ: dict[str, Any]) -> Answer:
    started: list[tuple[int, list[tuple[str, str]]]] = []

    def start(status: str, headers: list[tuple[str, str]], _error: object = None) -> None:
        started.append((int(status.split(" ", 1)[0]), headers))

    body = b"".join(application(environ, start))
    return (*started[-1], body)
