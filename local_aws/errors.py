"""Errors that several services share, with the code, status and message of each.

They are those of the services' API references ("Common errors"; "Error responses" for S3).
"""

from __future__ import annotations

from local_aws.replies import Reply
from local_aws.requests import Call

# By name: code and status of the JSON protocol (EMR, Glue, KMS), of S3 and of the query protocol, and the message.
_ERRORS: dict[str, tuple[tuple[str, int], tuple[str, int], tuple[str, int], str]] = {
    "Throttling": (*(("ThrottlingException", 400), ("SlowDown", 503), ("Throttling", 400)), "Rate exceeded"),
    "SlowDown": (
        *(("ThrottlingException", 400), ("SlowDown", 503), ("Throttling", 400)),
        "Please reduce your request rate.",
    ),
    "AccessDenied": (
        *(("AccessDeniedException", 400), ("AccessDenied", 403), ("AccessDenied", 403)),
        "User is not authorized to perform this operation",
    ),
    "ExpiredToken": (
        *(("ExpiredTokenException", 400), ("ExpiredToken", 400), ("ExpiredToken", 403)),
        "The security token included in the request is expired",
    ),
    "MissingAuthentication": (
        *(("MissingAuthenticationTokenException", 400), ("AccessDenied", 403), ("MissingAuthenticationToken", 403)),
        "Request is missing an authentication token. Sign it with the credentials that local_aws was started with.",
    ),
    "InvalidAccessKeyId": (
        *(("UnrecognizedClientException", 400), ("InvalidAccessKeyId", 403), ("InvalidClientTokenId", 403)),
        "The AWS access key id that the request names is none of this account's",
    ),
    "InvalidToken": (
        *(("UnrecognizedClientException", 400), ("InvalidToken", 400), ("InvalidClientTokenId", 403)),
        "The security token included in the request is invalid",
    ),
    "SignatureDoesNotMatch": (
        *(("InvalidSignatureException", 400), ("SignatureDoesNotMatch", 403), ("SignatureDoesNotMatch", 403)),
        "The request signature we calculated does not match the signature you provided.",
    ),
    "RequestTimeTooSkewed": (
        *(("InvalidSignatureException", 400), ("RequestTimeTooSkewed", 403), ("SignatureDoesNotMatch", 403)),
        "The difference between the request time and the current time is too large.",
    ),
    "ContentMismatch": (
        *(("InvalidSignatureException", 400), ("XAmzContentSHA256Mismatch", 400), ("SignatureDoesNotMatch", 403)),
        "The provided 'x-amz-content-sha256' header does not match what was computed.",
    ),
    "InternalError": (
        *(("InternalServerException", 500), ("InternalError", 500), ("InternalFailure", 500)),
        "We encountered an internal error. Please try again.",
    ),
    "Unavailable": (
        *(("ServiceUnavailableException", 503), ("ServiceUnavailable", 503), ("ServiceUnavailable", 503)),
        "Service is unable to handle request.",
    ),
    "Conflict": (
        *(("ConcurrentModificationException", 400), ("ConditionalRequestConflict", 409)),
        *(("ConcurrentModification", 409), "A conflicting operation occurred during the request."),
    ),
    "Protected": (
        *(("ValidationException", 400), ("AccessDenied", 403), ("ValidationError", 400)),
        "Could not shut down one or more job flows since they are termination protected.",
    ),
}
NAMES = tuple(_ERRORS)


def reply(call: Call, name: str, message: str | None = None) -> Reply:
    """Return the error of this name (an item of NAMES) in the form of the request's service."""
    *by_protocol, usual = _ERRORS[name]
    code, status = dict(zip(("json", "s3", "query"), by_protocol, strict=True))[call.protocol]
    return Reply.of_error(call, status, code, message or usual)
