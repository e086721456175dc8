"""Errors of AWS in the words of each protocol: JSON (EMR, Glue, KMS), S3's XML, and the query protocol's XML.

Codes, statuses and messages are AWS's, from the services' API references ("Common errors"; "Error responses" for S3).
"""

from __future__ import annotations

import json
from xml.sax.saxutils import escape

from local_aws.requests import Call
from local_aws.web import Reply

# name: (JSON code, its status, S3 code, its status, query code, its status, message)
_ERRORS: dict[str, tuple[str, int, str, int, str, int, str]] = {
    "Throttling": (
        *("ThrottlingException", 400, "SlowDown", 503, "Throttling", 400),
        "Rate exceeded",
    ),
    "SlowDown": (
        *("ThrottlingException", 400, "SlowDown", 503, "Throttling", 400),
        "Please reduce your request rate.",
    ),
    "AccessDenied": (
        *("AccessDeniedException", 400, "AccessDenied", 403, "AccessDenied", 403),
        "User is not authorized to perform this operation",
    ),
    "ExpiredToken": (
        *("ExpiredTokenException", 400, "ExpiredToken", 400, "ExpiredToken", 403),
        "The security token included in the request is expired",
    ),
    "MissingAuthentication": (
        *("MissingAuthenticationTokenException", 400, "AccessDenied", 403, "MissingAuthenticationToken", 403),
        "Request is missing an authentication token. Sign it with the credentials that local_aws was started with.",
    ),
    "InvalidAccessKeyId": (
        *("UnrecognizedClientException", 400, "InvalidAccessKeyId", 403, "InvalidClientTokenId", 403),
        "The AWS access key id that the request names is none of this account's",
    ),
    "InvalidToken": (
        *("UnrecognizedClientException", 400, "InvalidToken", 400, "InvalidClientTokenId", 403),
        "The security token included in the request is invalid",
    ),
    "SignatureDoesNotMatch": (
        *("InvalidSignatureException", 400, "SignatureDoesNotMatch", 403, "SignatureDoesNotMatch", 403),
        "The request signature we calculated does not match the signature you provided.",
    ),
    "RequestTimeTooSkewed": (
        *("InvalidSignatureException", 400, "RequestTimeTooSkewed", 403, "SignatureDoesNotMatch", 403),
        "The difference between the request time and the current time is too large.",
    ),
    "ContentMismatch": (
        *("InvalidSignatureException", 400, "XAmzContentSHA256Mismatch", 400, "SignatureDoesNotMatch", 403),
        "The provided 'x-amz-content-sha256' header does not match what was computed.",
    ),
    "InternalError": (
        *("InternalServerException", 500, "InternalError", 500, "InternalFailure", 500),
        "We encountered an internal error. Please try again.",
    ),
    "Unavailable": (
        *("ServiceUnavailableException", 503, "ServiceUnavailable", 503, "ServiceUnavailable", 503),
        "Service is unable to handle request.",
    ),
    "Protected": (
        *("ValidationException", 400, "AccessDenied", 403, "ValidationError", 400),
        "Could not shut down one or more job flows since they are termination protected.",
    ),
}
NAMES = tuple(_ERRORS)


def reply(call: Call, name: str, message: str | None = None) -> Reply:
    """The error that the request's service gives.

    Args:
        call: the request.
        name: one of NAMES.
        message: what is wrong, where that can be said better than by AWS's message.
    """
    json_code, json_status, s3_code, s3_status, query_code, query_status, usual = _ERRORS[name]
    message = message or usual
    if call.header("X-Amz-Target"):
        status, code, kind = json_status, json_code, "application/x-amz-json-1.1"
        body = json.dumps({"__type": code, "message": message}).encode()
    elif call.service == "s3":
        status, code, kind = s3_status, s3_code, "application/xml"
        body = (
            '<?xml version="1.0" encoding="UTF-8"?>\n'
            f"<Error><Code>{code}</Code><Message>{escape(message)}</Message><RequestId>fault</RequestId></Error>"
        ).encode()
    else:
        status, code, kind = query_status, query_code, "text/xml"
        side = "Receiver" if status >= 500 else "Sender"
        body = (
            f"<ErrorResponse><Error><Type>{side}</Type><Code>{code}</Code><Message>{escape(message)}</Message></Error>"
            "<RequestId>fault</RequestId></ErrorResponse>"
        ).encode()
    headers = [("Content-Type", kind), ("x-amzn-ErrorType", code), ("Content-Length", str(len(body)))]
    return Reply(status, headers, b"" if call.method == "HEAD" else body)
