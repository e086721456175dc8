"""A tiny S3 on loopback whose answers a test writes: what a real endpoint does rarely, this one does at once."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

from fruits.base.objects import S3Location

DATE = "Wed, 01 Jan 2025 00:00:00 GMT"


@dataclass
class Bucket:
    """What the server holds and what it was asked.

    Attributes:
        location: Where it answers.
        objects: Body and ETag by key of bucket `raw`.
        failures: Status to answer with, by key.
        codes: The error code that goes with it, by key.
        requests: Method and key of each request, in order.
        busiest: The most requests that were in flight at once.
    """

    location: S3Location
    objects: dict[str, tuple[bytes, str]] = field(default_factory=dict)
    failures: dict[str, int] = field(default_factory=dict)
    codes: dict[str, str] = field(default_factory=dict)
    requests: list[tuple[str, str]] = field(default_factory=list)
    delay_s: float = 0.0
    busiest: int = 0


@contextmanager
def scripted_s3() -> Iterator[Bucket]:
    """Serve bucket ``raw`` until the block ends."""
    lock = threading.Lock()
    in_flight = 0

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            nonlocal in_flight
            key = unquote(urlsplit(self.path).path).removeprefix("/raw/")
            with lock:
                in_flight += 1
                bucket.busiest = max(bucket.busiest, in_flight)
                bucket.requests.append((self.command, key))
            if bucket.delay_s:
                threading.Event().wait(bucket.delay_s)
            try:
                self._answer(key)
            finally:
                with lock:
                    in_flight -= 1

        do_HEAD = do_GET  # noqa: N815

        def do_PUT(self) -> None:
            key = unquote(urlsplit(self.path).path).removeprefix("/raw/")
            bucket.requests.append(("PUT", key))
            body = self.rfile.read(int(self.headers["Content-Length"]))
            bucket.objects[key] = (body, "new")
            self._send(200, b"", "new")

        def _answer(self, key: str) -> None:
            if key in bucket.failures:
                body = f"<Error><Code>{bucket.codes.get(key, 'Scripted')}</Code></Error>"
                self._send(bucket.failures[key], body.encode(), "")
            elif key not in bucket.objects:
                self._send(404, b"<Error><Code>NoSuchKey</Code></Error>", "")
            else:
                body, etag = bucket.objects[key]
                if self.headers.get("If-Match") not in (None, f'"{etag}"'):
                    self._send(412, b"<Error><Code>PreconditionFailed</Code></Error>", "")
                elif asked := self.headers.get("Range"):
                    first, _, last = asked.removeprefix("bytes=").partition("-")
                    start, end = int(first), min(int(last or len(body)), len(body) - 1)
                    self._send(206, body[start : end + 1], etag, f"bytes {start}-{end}/{len(body)}")
                else:
                    self._send(200, body, etag)

        def _send(self, status: int, body: bytes, etag: str, content_range: str | None = None) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Last-Modified", DATE)
            if content_range:
                self.send_header("Content-Range", content_range)
            if etag:
                self.send_header("ETag", f'"{etag}"')
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def log_message(self, *arguments: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    bucket = Bucket(S3Location(f"http://127.0.0.1:{server.server_port}", "eu-west-1"))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield bucket
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
