"""The HTTP connection: waitress's, with what clients of S3 need.

waitress never finishes a request with `Expect: 100-continue` and without a body; boto3 sends such requests for empty
objects. It drops headers with an underscore in their name, which metadata of S3 objects may have. It writes the names
of headers in capitals, which boto3 takes as part of the metadata's name.
"""

import re
import socket
import struct
from collections.abc import Container
from typing import Any

from waitress.channel import HTTPChannel
from waitress.parser import HTTPRequestParser
from waitress.task import ErrorTask, WSGITask
from waitress.utilities import Error

# Where moto looks for the original spelling of header names (moto.core.request; not imported: it takes a second).
SPELLED_HEADERS = "moto.preserved_header_names"
CHANNEL = "local_aws.channel"
MAX_UNSIGNED_BYTES = 100_000
_METADATA = b"x-amz-meta-"
_HARMLESS = b"Content-Security-Policy: sandbox\r\nX-Content-Type-Options: nosniff\r\n\r\n"
_KEY_ID = re.compile(r"Credential=(\w+)", re.ASCII)
_METADATA_LINE = re.compile(rb"\r\nX-Amz-Meta-[^:\r]*", re.IGNORECASE)


class Parser(HTTPRequestParser):  # type: ignore[misc]  # waitress has no types
    """Parses the head of a request; `metadata` has the S3 metadata headers with an underscore, in lower case."""

    metadata: dict[str, str]
    keys: Container[str] = ()  # the ids of the keys that sign requests

    def parse_header(self, header_plus: bytes) -> None:
        """Parse the first line and the headers."""
        super().parse_header(header_plus)
        if not self.chunked and self.content_length == 0:
            self.expect_continue = False
        key_id = _KEY_ID.search(self.headers.get("AUTHORIZATION", "") or self.query)
        is_signed = key_id is not None and key_id[1] in self.keys
        is_large = self.chunked or self.content_length > MAX_UNSIGNED_BYTES
        if self.body_rcv is not None and ("ORIGIN" in self.headers or (is_large and not is_signed)):
            # It would be stored before it is refused. `LoopbackGuard` and `SignatureCheck` refuse the other requests.
            self.error, self.completed = Error("the body of a web page, or without one of our keys, is not read"), True
            self.error.code, self.error.reason = 403, "Forbidden"
        self.metadata = {}
        if _METADATA in header_plus.lower():
            for line in header_plus.split(b"\r\n")[1:]:
                name, _, value = line.partition(b":")
                if b"_" in name and name.lower().startswith(_METADATA):
                    self.metadata[name.decode("latin-1").lower()] = value.strip(b" \t").decode("latin-1")


class Task(WSGITask):  # type: ignore[misc]  # waitress has no types
    """Answers one request."""

    def get_environment(self) -> dict[str, Any]:
        """Return the WSGI environment with the metadata that waitress dropped."""
        environ: dict[str, Any] = super().get_environment()
        environ[CHANNEL] = self.channel
        spelled = environ.setdefault(SPELLED_HEADERS, {})
        for name, value in self.request.metadata.items():
            key = "HTTP_" + name.upper().replace("-", "_")
            if key not in environ:  # never replace a header spelled with dashes
                environ[key], spelled[key] = value, name
        return environ

    def build_response_header(self) -> bytes:
        """Return the reply's first line and headers."""
        head: bytes = super().build_response_header()
        return _METADATA_LINE.sub(lambda match: match[0].lower(), _harmless(head))


class Refusal(ErrorTask):  # type: ignore[misc]  # waitress has no types
    """Answers a request that waitress cannot read."""

    def build_response_header(self) -> bytes:
        """Return the reply's first line and headers."""
        return _harmless(super().build_response_header())


def _harmless(head: bytes) -> bytes:
    """Add the headers that keep a browser from running what an object holds."""
    return head.removesuffix(b"\r\n") + _HARMLESS


class Connection(HTTPChannel):  # type: ignore[misc]  # waitress has no types
    """A client's connection."""

    parser_class = Parser
    task_class = Task
    error_task_class = Refusal

    def drop(self, *, reset: bool = False) -> None:
        """End the connection without an answer, with RST (a machine that died) or FIN (a proxy that closed).

        To be called from the thread that would answer.
        """
        if reset:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        # waitress discards what is written from now on; the server's loop closes the socket
        self.will_close, self.connected = True, False
        self.server.pull_trigger()
