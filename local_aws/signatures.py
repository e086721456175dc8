"""Signature Version 4, verified: what proves that a request comes from somebody who holds a key.

Covers the Authorization header, presigned URLs and S3's chunked uploads, as the AWS references "Create a signed AWS
API request" (IAM) and "Authenticating Requests" (S3) specify them. botocore's signer is no help: it reads a request
of its own making, while a server starts from what arrived, from the headers that the caller chose to sign, and has
chunks to verify. The tests hold this module against botocore and the SDKs of Java and Rust.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import IO
from urllib.parse import quote, unquote_to_bytes

from local_aws.credentials import Credentials
from local_aws.faults import errors
from local_aws.requests import Call
from local_aws.web import Reply

ALGORITHM = "AWS4-HMAC-SHA256"
MAX_SKEW_SECONDS = 15 * 60
MAX_EXPIRES_SECONDS = 7 * 24 * 3600

_EMPTY_SHA256 = hashlib.sha256().hexdigest()
_UNSIGNED = "UNSIGNED-PAYLOAD"
_UNSIGNED_CHUNKS = "STREAMING-UNSIGNED-PAYLOAD-TRAILER"
_SIGNED_CHUNKS = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"
_SIGNED_TRAILER = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER"
_CREDENTIAL = r"(\w{1,128})/(\d{8})/([a-z0-9-]+)/([a-z0-9-]+)/aws4_request"
_AUTHORIZATION = re.compile(
    rf"{ALGORITHM} Credential={_CREDENTIAL}, *SignedHeaders=([a-z0-9;._-]+), *Signature=([0-9a-f]{{64}})",
    re.ASCII,
)
_DATE = re.compile(r"\d{8}T\d{6}Z", re.ASCII)
_CHUNK_HEAD = re.compile(rb"([0-9a-fA-F]{1,16});chunk-signature=([0-9a-f]{64})\r\n")
_MAX_LINE_BYTES = 4096
_PIECE_BYTES = 1 << 20
_PRESIGNED = ("Algorithm", "Credential", "Date", "Expires", "SignedHeaders", "Signature", "Security-Token")
# The headers that WSGI names without HTTP_.
_BARE = {"content-type": "CONTENT_TYPE", "content-length": "CONTENT_LENGTH"}


class RequestRefused(Exception):
    """A request that no key vouches for.

    Attributes:
        name: Name of the error in `local_aws.faults.errors`.
    """

    def __init__(self, name: str, message: str | None = None) -> None:
        super().__init__(message or name)
        self.name, self.message = name, message


class Keys:
    """The account's keys: its root key, and those that its STS has issued.

    Args:
        root: The root key.
    """

    def __init__(self, root: Credentials) -> None:
        self._root = root

    def secret_of(self, access_key_id: str, session_token: str, now: float) -> str:
        """Return the secret of a key.

        Args:
            access_key_id: Names the key.
            session_token: Token that came with the request, or the empty string.
            now: Seconds since the epoch.

        Raises:
            RequestRefused: There is no such key, the token is another key's, or it has expired.
        """
        if access_key_id == self._root.access_key_id:
            if session_token:
                raise RequestRefused("InvalidToken")
            return self._root.secret_access_key
        # moto's STS is imported when it is first called; before that it has issued nothing
        sts = sys.modules.get("moto.sts.models")
        for _, _, backend in list(sts.sts_backends.iter_backends()) if sts else ():
            role = backend.get_assumed_role_from_access_key(access_key_id)
            if role is None:
                continue
            if not hmac.compare_digest(role.session_token.encode(), session_token.encode()):
                raise RequestRefused("InvalidToken")
            if now >= role.expiration.replace(tzinfo=UTC).timestamp():
                raise RequestRefused("ExpiredToken")
            return str(role.secret_access_key)
        raise RequestRefused("InvalidAccessKeyId")


@dataclass(frozen=True)
class _Claim:
    """What a request says of its signature: whose, for when and what, over which headers."""

    access_key_id: str
    day: str
    region: str
    service: str
    signed_headers: tuple[str, ...]
    signature: str
    date: str
    session_token: str
    expires_seconds: int | None = None  # of a presigned URL

    @property
    def scope(self) -> str:
        return f"{self.day}/{self.region}/{self.service}/aws4_request"


class SignatureCheck:
    """Refuses each request that is not signed with one of the account's keys.

    Args:
        keys: The account's keys.
        clock: Returns the seconds since the epoch.
    """

    def __init__(self, keys: Keys, clock: Callable[[], float] = time.time) -> None:
        self._keys = keys
        self._clock = clock

    def before(self, call: Call) -> Reply | None:
        """Answer with AWS's error unless the request is signed."""
        try:
            verify(call, self._keys, self._clock())
        except RequestRefused as refusal:
            return errors.reply(call, refusal.name, refusal.message)
        call.verified = True
        call.deleted  # noqa: B018  read now, and so the operation: the service consumes the body that names them
        return None

    def after(self, call: Call, reply: Reply) -> Reply:  # noqa: ARG002
        """Pass the reply on."""
        return reply


def verify(call: Call, keys: Keys, now: float) -> None:
    """Verify a request's signature, its time and its body.

    Args:
        call: The request; its body is left at the start.
        keys: The account's keys.
        now: Seconds since the epoch.

    Raises:
        RequestRefused: It is unsigned, signed otherwise, too old, or its body is not the one that was signed.
    """
    target = str(call.environ["REQUEST_URI"])
    if not target.startswith("/") or "#" in target:
        # the parsers behind this check read these in different ways
        raise RequestRefused(
            "SignatureDoesNotMatch", "The request must name a path and a query, and nothing else"
        )
    claim = _claim(call)
    _check_time(claim, now)
    secret = keys.secret_of(claim.access_key_id, claim.session_token, now)
    key = _signing_key(secret, claim.day, claim.region, claim.service)
    content_hash = _content_hash(call, claim)
    canonical = "\n".join(
        (
            call.method,
            _canonical_path(call.raw_path, claim.service),
            _canonical_query(call.query_string),
            *(f"{name}:{_header(call, name)}" for name in claim.signed_headers),
            "",
            ";".join(claim.signed_headers),
            content_hash,
        )
    )
    digest = hashlib.sha256(canonical.encode("latin-1")).hexdigest()
    _require(key, f"{ALGORITHM}\n{claim.date}\n{claim.scope}\n{digest}", claim.signature)
    if content_hash in (_SIGNED_CHUNKS, _SIGNED_TRAILER):
        body = call.environ["wsgi.input"]
        _verify_chunks(body, key, claim, trailer=content_hash == _SIGNED_TRAILER)
        body.seek(0)


def _claim(call: Call) -> _Claim:
    authorization = call.header("Authorization")
    presigned = "X-Amz-Signature" in call.query or "X-Amz-Credential" in call.query
    if not authorization and not presigned:
        raise RequestRefused("MissingAuthentication")
    if authorization and presigned:
        raise RequestRefused("AccessDenied", "Only one auth mechanism allowed")
    if authorization:
        match = _AUTHORIZATION.fullmatch(authorization)
        date, token, expires = call.header("X-Amz-Date"), call.header("X-Amz-Security-Token"), None
    else:
        query = {name: call.query.get(f"X-Amz-{name}", []) for name in _PRESIGNED}
        if any(len(values) != 1 for name, values in query.items() if name != "Security-Token"):
            raise RequestRefused("AccessDenied", "Each X-Amz parameter of a presigned URL must be there once")
        fields = {name: values[0] if values else "" for name, values in query.items()}
        match = _AUTHORIZATION.fullmatch(
            f"{fields['Algorithm']} Credential={fields['Credential']}, SignedHeaders={fields['SignedHeaders']}, "
            f"Signature={fields['Signature']}"
        )
        date, token = fields["Date"], fields["Security-Token"]
        expires = int(fields["Expires"]) if re.fullmatch("[0-9]{1,6}", fields["Expires"]) else 0
        if not 0 < expires <= MAX_EXPIRES_SECONDS:
            raise RequestRefused(
                "AccessDenied", f"X-Amz-Expires must be a number of seconds from 1 to {MAX_EXPIRES_SECONDS}"
            )
    if match is None or not _DATE.fullmatch(date) or date[:8] != match[2]:
        raise RequestRefused(
            "SignatureDoesNotMatch", f"The request is not signed with {ALGORITHM} as AWS defines it"
        )
    signed = tuple(match[5].split(";"))
    _check_signed_headers(call, signed)
    return _Claim(match[1], match[2], match[3], match[4], signed, match[6], date, token, expires)


def _check_signed_headers(call: Call, signed: Iterable[str]) -> None:
    """Require that `host` and every `x-amz-*` header are signed, as AWS does."""
    covered = {"HTTP_" + name.upper().replace("-", "_") for name in signed}
    for name in call.environ:
        if (name.startswith("HTTP_X_AMZ_") or name == "HTTP_HOST") and name not in covered:
            header = name.removeprefix("HTTP_").replace("_", "-").lower()
            raise RequestRefused("AccessDenied", f"The request has the header {header}, which is not signed")
    if "HTTP_HOST" not in covered:
        raise RequestRefused("SignatureDoesNotMatch", "The host header is not signed")


def _check_time(claim: _Claim, now: float) -> None:
    try:
        signed_at = datetime.strptime(claim.date, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC).timestamp()
    except ValueError:
        raise RequestRefused("SignatureDoesNotMatch", f"{claim.date} is no time") from None
    if claim.expires_seconds is None:
        if abs(now - signed_at) > MAX_SKEW_SECONDS:
            raise RequestRefused("RequestTimeTooSkewed")
    elif signed_at - now > MAX_SKEW_SECONDS:
        raise RequestRefused("AccessDenied", "Request is not valid yet")
    elif now > signed_at + claim.expires_seconds:
        raise RequestRefused("AccessDenied", "Request has expired")


def _content_hash(call: Call, claim: _Claim) -> str:
    """Return the hash of the body as it is signed, having compared it with the body."""
    stated = call.header("X-Amz-Content-SHA256")
    if claim.service == "s3":
        if claim.expires_seconds is not None and not stated:
            return _UNSIGNED
        if stated in (_UNSIGNED, _UNSIGNED_CHUNKS, _SIGNED_CHUNKS, _SIGNED_TRAILER):
            return stated
        if not stated:
            raise RequestRefused("SignatureDoesNotMatch", "S3 needs the header x-amz-content-sha256")
    actual = _sha256(call.environ["wsgi.input"]) if _has_body(call) else _EMPTY_SHA256
    if stated and stated != actual:
        raise RequestRefused("ContentMismatch")
    return actual


def _has_body(call: Call) -> bool:
    return call.environ.get("CONTENT_LENGTH") != "0" and (
        "CONTENT_LENGTH" in call.environ or "HTTP_TRANSFER_ENCODING" in call.environ
    )


def _sha256(body: IO[bytes]) -> str:
    digest = hashlib.sha256()
    while piece := body.read(_PIECE_BYTES):
        digest.update(piece)
    body.seek(0)
    return digest.hexdigest()


def _canonical_path(raw_path: str, service: str) -> str:
    if service == "s3":
        return quote(unquote_to_bytes(raw_path), safe="/-_.~")
    # the other services encode once more what is encoded already
    return quote(raw_path, safe="/-_.~")


def _canonical_query(query_string: str) -> str:
    """Return the query as it is signed: each name and value decoded as the service will, encoded anew, sorted."""
    if not query_string:
        return ""
    pairs = []
    for part in query_string.split("&"):
        name, _, value = part.partition("=")
        pair = tuple(quote(unquote_to_bytes(text.replace("+", " ")), safe="-_.~") for text in (name, value))
        if part and pair[0] != "X-Amz-Signature":
            pairs.append(pair)
    return "&".join(f"{name}={value}" for name, value in sorted(pairs))


def _header(call: Call, name: str) -> str:
    value = call.environ.get(_BARE.get(name) or "HTTP_" + name.upper().replace("-", "_"), "")
    return " ".join(str(value).split())


@lru_cache(maxsize=256)
def _signing_key(secret: str, day: str, region: str, service: str) -> bytes:
    key = f"AWS4{secret}".encode()
    for part in (day, region, service, "aws4_request"):
        key = hmac.digest(key, part.encode(), "sha256")
    return key


def _require(key: bytes, string_to_sign: str, signature: str) -> None:
    expected = hmac.digest(key, string_to_sign.encode("latin-1"), "sha256").hex()
    if not hmac.compare_digest(expected, signature):
        raise RequestRefused("SignatureDoesNotMatch")


def _verify_chunks(body: IO[bytes], key: bytes, claim: _Claim, *, trailer: bool) -> None:
    """Verify each chunk's signature, which covers the one before, and that of the trailing headers."""
    previous = claim.signature
    size = -1
    while size:
        head = _CHUNK_HEAD.fullmatch(body.readline(_MAX_LINE_BYTES))
        if head is None:
            raise RequestRefused("SignatureDoesNotMatch", "A chunk of the body is not signed")
        size, signature = int(head[1], 16), head[2].decode()
        digest, left = hashlib.sha256(), size
        while left:
            piece = body.read(min(left, _PIECE_BYTES))
            if not piece:
                raise RequestRefused("SignatureDoesNotMatch", "The body ends within a chunk")
            digest.update(piece)
            left -= len(piece)
        if size and body.read(2) != b"\r\n":
            raise RequestRefused("SignatureDoesNotMatch", "A chunk of the body is longer than it says")
        _require(
            key,
            f"{ALGORITHM}-PAYLOAD\n{claim.date}\n{claim.scope}\n{previous}\n{_EMPTY_SHA256}\n{digest.hexdigest()}",
            signature,
        )
        previous = signature
    _verify_end(body, key, claim, previous, trailer=trailer)


def _verify_end(body: IO[bytes], key: bytes, claim: _Claim, previous: str, *, trailer: bool) -> None:
    digest, signature = hashlib.sha256(), ""
    while line := body.readline(_MAX_LINE_BYTES).rstrip(b"\r\n"):
        name, _, value = line.partition(b":")
        if name == b"x-amz-trailer-signature":
            signature = value.strip().decode("latin-1")
            break
        digest.update(name.lower() + b":" + value.strip() + b"\n")
        if not trailer:
            raise RequestRefused("SignatureDoesNotMatch", "The body has a trailer that is not signed")
    if trailer:
        _require(
            key,
            f"{ALGORITHM}-TRAILER\n{claim.date}\n{claim.scope}\n{previous}\n{digest.hexdigest()}",
            signature,
        )
    if body.read().strip(b"\r\n"):
        raise RequestRefused("SignatureDoesNotMatch", "The body goes on after its last chunk")
