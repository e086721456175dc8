"""HTTP replies, and errors in the form of each protocol: JSON, S3's XML, and the query protocol's XML."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from xml.sax.saxutils import escape

from local_aws.requests import Call


@dataclass
class Reply:
    """A whole HTTP reply; its body is empty for HEAD."""

    status: int
    headers: list[tuple[str, str]] = field(default_factory=list)
    body: bytes = b""

    @classmethod
    def of_json(cls, status: int, document: object) -> Reply:
        """Return a JSON reply."""
        return cls._of(status, json.dumps(document).encode(), "application/json")

    @classmethod
    def of_error(cls, call: Call, status: int, code: str, message: str) -> Reply:
        """Return an error in the form of the request's protocol."""
        if call.protocol == "json":
            kind, text = "application/x-amz-json-1.1", json.dumps({"__type": code, "message": message})
        elif call.protocol == "s3":
            error = f"<Code>{code}</Code><Message>{escape(message)}</Message><RequestId>local_aws</RequestId>"
            kind, text = "application/xml", f'<?xml version="1.0" encoding="UTF-8"?>\n<Error>{error}</Error>'
        else:
            fault = "Receiver" if status >= 500 else "Sender"
            error = f"<Type>{fault}</Type><Code>{code}</Code><Message>{escape(message)}</Message>"
            kind, text = "text/xml", f"<Error>{error}</Error><RequestId>local_aws</RequestId>"
            text = f"<ErrorResponse>{text}</ErrorResponse>"
        reply = cls._of(status, text.encode(), kind, ("x-amzn-ErrorType", code))
        return cls(status, reply.headers) if call.method == "HEAD" else reply

    @classmethod
    def _of(cls, status: int, body: bytes, kind: str, *headers: tuple[str, str]) -> Reply:
        return cls(status, [("Content-Type", kind), *headers, ("Content-Length", str(len(body)))], body)
