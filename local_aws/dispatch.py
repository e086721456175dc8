"""Finds the moto code that answers a request, and remembers it.

For each request, moto's own dispatcher walks its package's folders to list its services, matches the host against some
180 patterns, and routes through Flask: 180 small GETs per second on two cores. Here the signature names the service,
look-ups are remembered, and S3's handlers are called without Flask, whose router knows neither newlines nor doubled
slashes in keys.
"""

import threading
from collections.abc import Callable, Iterable
from typing import Any

from flask import Flask
from moto.backends import list_of_moto_modules
from moto.moto_server.werkzeug_app import BackendRequest, DomainDispatcherApplication, create_backend_app

from local_aws.s3.responses import StrictS3Response
from local_aws.web import Environ, StartResponse


class Dispatcher(DomainDispatcherApplication):
    """moto's application. `replace` is called with a service's name before moto is first asked for it."""

    def __init__(self, replace: Callable[[str], None]) -> None:
        super().__init__(_create_app)
        self._replace = replace
        self._modules = frozenset(list_of_moto_modules())
        self._backends: dict[str, Any] = {}
        self._creating = threading.Lock()

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Answer one request."""
        if _is_s3(environ):
            return _serve_s3(environ, start_response)
        return self.get_application(environ)(environ, start_response)

    def get_application(self, environ: Environ) -> Flask:
        """Return the Flask application of the service that a request is signed for."""
        host = self.infer_service_region_host(environ, environ["PATH_INFO"])
        backend = self.get_backend_for_host(host)
        if backend is None:
            raise NotImplementedError(f"no service answers to {host!r}")
        if backend not in self.app_instances:
            with self._creating:
                if backend not in self.app_instances:
                    self._replace(backend)
                    self.app_instances[backend] = self.create_app(backend)
        return self.app_instances[backend]

    def get_backend_for_host(self, host: str | None) -> Any:
        """Return the service of a host name such as `kms.eu-west-1.amazonaws.com`."""
        if host is None:
            return None
        if host not in self._backends:
            self._backends[host] = host if host in self._modules else super().get_backend_for_host(host)
        return self._backends[host]


def _create_app(service: Any) -> Flask:
    app = create_backend_app(service)
    app.debug = False
    # local_aws.web answers errors as AWS does
    app.config["PROPAGATE_EXCEPTIONS"] = True
    return app


def _is_s3(environ: Environ) -> bool:
    """Whether a request is signed for S3 or presigned (moto knows presigned URLs of S3 only)."""
    authorization = environ.get("HTTP_AUTHORIZATION", "")
    return not authorization or "/s3/aws4_request" in authorization


def _serve_s3(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    request = BackendRequest(environ)
    _, _, key = request.raw_path[1:].partition("/")
    of_no_key = StrictS3Response.bucket_dispatch if request.raw_path == "/" else StrictS3Response.ambiguous_dispatch
    handler = StrictS3Response.key_dispatch if key else of_no_key
    answer = handler(request, request.raw_url, dict(request.headers))
    status, headers, body = answer if isinstance(answer, tuple) else (200, {}, answer)
    data = body.encode() if isinstance(body, str) else body
    length = str(len(data))
    kept = []
    for name, value in headers.items():
        if name.lower() == "content-length":
            # moto knows an object's length on HEAD, where there is no body
            length = str(value) if request.method == "HEAD" else length
        elif name.lower() != "status":
            kept.append((name, str(value)))
    if status not in (204, 304):
        kept.append(("Content-Length", length))
    start_response(f"{status} -", kept)
    return [b"" if request.method == "HEAD" else data]
