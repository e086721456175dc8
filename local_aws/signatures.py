"""Verification of Signature Version 4, which proves that the sender of a request holds a key.

Covers the Authorization header, presigned URLs and S3's chunked uploads, as the AWS references "Create a signed AWS
API request" (IAM) and "Authenticating Requests" (S3) specify them. botocore's signer cannot be used: it signs requests
that it builds itself, whereas a server starts from the received request, in which the caller chose the signed headers,
and verifies chunks. The tests compare this module with botocore and with the SDKs of Java and Rust.
"""

import hashlib
import hmac
import re
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import IO, Any
from urllib.parse import quote, unquote_to_bytes

from local_aws import errors
from local_aws.credentials import Credentials
from local_aws.replies import Reply
from local_aws.requests import Call
from local_aws.web import Interceptor

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
    rf"{ALGORITHM} Credential={_CREDENTIAL}, *SignedHeaders=([a-z0-9;._-]+), *Signature=([0-9a-f]{{64}})", re.ASCII
)
_DATE = re.compile(r"\d{8}T\d{6}Z", re.ASCII)
_CHUNK_HEAD = re.compile(rb"([0-9a-fA-F]{1,16});chunk-signature=([0-9a-f]{64})\r\n")
_MAX_LINE_BYTES = 4096
_BLOCK_BYTES = 1 << 20
_PRESIGNED = ("Algorithm", "Credential", "Date", "Expires", "SignedHeaders", "Signature", "Security-Token")
# The headers that WSGI names without HTTP_.
_BARE = {"content-type": "CONTENT_TYPE", "content-length": "CONTENT_LENGTH"}


class RequestRefused(Exception):
    """A request without a valid signature; `name` is that of the error in `local_aws.errors`."""

    def __init__(self, name: str, message: str | None = None) -> None:
        super().__init__(message or name)
        self.name, self.message = name, message


def _mismatch(message: str | None = None) -> RequestRefused:
    return RequestRefused("SignatureDoesNotMatch", message)


def _denied(message: str) -> RequestRefused:
    return RequestRefused("AccessDenied", message)


class Keys:
    """The account's keys: its root key, and the keys that its STS has issued."""

    def __init__(self, root: Credentials) -> None:
        self._root = root

    def __contains__(self, access_key_id: object) -> bool:
        return access_key_id == self._root.access_key_id or next(self._roles(access_key_id), None) is not None

    def _roles(self, access_key_id: object) -> Iterator[Any]:
        # moto's STS is imported when it is first called; before that it has issued nothing
        sts = sys.modules.get("moto.sts.models")
        for _, _, backend in list(sts.sts_backends.iter_backends()) if sts else ():
            if role := backend.get_assumed_role_from_access_key(access_key_id):
                yield role

    def secret_of(self, access_key_id: str, session_token: str, now: float) -> str:
        """Return the secret of a key at a moment (seconds since the epoch).

        Raises:
            RequestRefused: There is no such key, the token is another key's, or it has expired.
        """
        if access_key_id == self._root.access_key_id:
            if session_token:
                raise RequestRefused("InvalidToken")
            return self._root.secret_access_key
        for role in self._roles(access_key_id):
            if not hmac.compare_digest(role.session_token.encode(), session_token.encode()):
                raise RequestRefused("InvalidToken")
            if now >= role.expiration.replace(tzinfo=UTC).timestamp():
                raise RequestRefused("ExpiredToken")
            return str(role.secret_access_key)
        raise RequestRefused("InvalidAccessKeyId")


@dataclass(frozen=True)
class _Claim:
    """What a request states about its signature."""

    access_key_id: str
    day: str
    region: str
    service: str
    signed_headers: tuple[str, ...]
    signature: str
    date: str
    session_token: str
    expires_seconds: int | None = None  # of a presigned URL

    def require(self, key: bytes, signature: str, suffix: str, *lines: str) -> None:
        """Require that a signature is that of some lines, by the algorithm with a suffix."""
        scope = f"{self.day}/{self.region}/{self.service}/aws4_request"
        text = "\n".join((ALGORITHM + suffix, self.date, scope, *lines))
        expected = hmac.digest(key, text.encode("latin-1"), "sha256").hex()
        if not hmac.compare_digest(expected, signature):
            raise _mismatch()


class SignatureCheck(Interceptor):
    """Refuses each request that is not signed with one of the account's keys."""

    def __init__(self, keys: Keys) -> None:
        self._keys = keys

    def before(self, call: Call) -> Reply | None:
        """Refuse the request unless it is signed."""
        try:
            verify(call, self._keys, time.time())
        except RequestRefused as refusal:
            return errors.reply(call, refusal.name, refusal.message)
        call.verified = True
        call.deleted  # noqa: B018  read now, and so the operation: the service consumes the body that names them
        return None


def verify(call: Call, keys: Keys, now: float) -> None:
    """Verify a request's signature, time (seconds since the epoch) and body, and leave the body at its start.

    Raises:
        RequestRefused: It is unsigned, signed otherwise, too old, or its body is not the signed body.
    """
    target = str(call.environ["REQUEST_URI"])
    if not target.startswith("/") or "#" in target:
        # the parsers behind this check read these in different ways
        raise _mismatch("The request must name a path and a query, and nothing else")
    claim = _claim(call)
    _check_time(claim, now)
    secret = keys.secret_of(claim.access_key_id, claim.session_token, now)
    key = _signing_key(secret, claim.day, claim.region, claim.service)
    content_hash = _content_hash(call, claim)
    # the services other than S3 encode once more what is encoded already
    path = unquote_to_bytes(call.raw_path) if claim.service == "s3" else call.raw_path
    canonical = "\n".join(
        (
            call.method,
            quote(path, safe="/-_.~"),
            _canonical_query(call.query_string),
            *(f"{name}:{_header(call, name)}" for name in claim.signed_headers),
            "",
            ";".join(claim.signed_headers),
            content_hash,
        )
    )
    claim.require(key, claim.signature, "", hashlib.sha256(canonical.encode("latin-1")).hexdigest())
    if content_hash in (_SIGNED_CHUNKS, _SIGNED_TRAILER):
        body = call.environ["wsgi.input"]
        previous = _verify_chunks(body, key, claim)
        _verify_end(body, key, claim, previous, has_trailer=content_hash == _SIGNED_TRAILER)
        body.seek(0)


def _claim(call: Call) -> _Claim:
    authorization = call.header("Authorization")
    presigned = "X-Amz-Signature" in call.query or "X-Amz-Credential" in call.query
    if not authorization and not presigned:
        raise RequestRefused("MissingAuthentication")
    if authorization and presigned:
        raise _denied("Only one auth mechanism allowed")
    expires = None
    date, token = call.header("X-Amz-Date"), call.header("X-Amz-Security-Token")
    if presigned:
        query = {name: call.query.get(f"X-Amz-{name}", []) for name in _PRESIGNED}
        if any(len(values) != 1 for name, values in query.items() if name != "Security-Token"):
            raise _denied("Each X-Amz parameter of a presigned URL must be there once")
        fields = {name: values[0] if values else "" for name, values in query.items()}
        authorization = "{Algorithm} Credential={Credential}, SignedHeaders={SignedHeaders}, Signature={Signature}"
        authorization = authorization.format_map(fields)
        date, token = fields["Date"], fields["Security-Token"]
        expires = int(fields["Expires"]) if re.fullmatch("[0-9]{1,6}", fields["Expires"]) else 0
        if not 0 < expires <= MAX_EXPIRES_SECONDS:
            raise _denied(f"X-Amz-Expires must be a number of seconds from 1 to {MAX_EXPIRES_SECONDS}")
    match = _AUTHORIZATION.fullmatch(authorization)
    if match is None or not _DATE.fullmatch(date) or date[:8] != match[2] or (presigned and match[4] != "s3"):
        raise _mismatch(f"The request is not signed with {ALGORITHM} as AWS defines it")
    signed_headers = tuple(match[5].split(";"))
    _check_signed_headers(call, signed_headers)
    return _Claim(match[1], match[2], match[3], match[4], signed_headers, match[6], date, token, expires)


def _check_signed_headers(call: Call, signed_headers: tuple[str, ...]) -> None:
    """Require that `host` and every `x-amz-*` header are signed, as AWS does."""
    signed = {"HTTP_" + name.upper().replace("-", "_") for name in signed_headers}
    for name in call.environ:
        if (name.startswith("HTTP_X_AMZ_") or name == "HTTP_HOST") and name not in signed:
            header = name.removeprefix("HTTP_").replace("_", "-").lower()
            raise _denied(f"The request has the header {header}, which is not signed")
    if "HTTP_HOST" not in signed:
        raise _mismatch("The host header is not signed")


def _check_time(claim: _Claim, now: float) -> None:
    try:
        signed_at = datetime.strptime(claim.date, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC).timestamp()
    except ValueError:
        raise _mismatch(f"{claim.date} is no time") from None
    if claim.expires_seconds is None:
        if abs(now - signed_at) > MAX_SKEW_SECONDS:
            raise RequestRefused("RequestTimeTooSkewed")
    elif signed_at - now > MAX_SKEW_SECONDS:
        raise _denied("Request is not valid yet")
    elif now > signed_at + claim.expires_seconds:
        raise _denied("Request has expired")


def _content_hash(call: Call, claim: _Claim) -> str:
    """Compare the stated hash of the body with the body; return the hash that is signed."""
    stated = call.header("X-Amz-Content-SHA256")
    if claim.service == "s3":
        if claim.expires_seconds is not None and not stated:
            return _UNSIGNED
        if stated in (_UNSIGNED, _UNSIGNED_CHUNKS, _SIGNED_CHUNKS, _SIGNED_TRAILER):
            return stated
        if not stated:
            raise _mismatch("S3 needs the header x-amz-content-sha256")
    environ = call.environ
    has_body = environ.get("CONTENT_LENGTH", "0") != "0" or (
        "CONTENT_LENGTH" not in environ and "HTTP_TRANSFER_ENCODING" in environ
    )
    actual = _EMPTY_SHA256
    if has_body:
        digest, body = hashlib.sha256(), environ["wsgi.input"]
        while block := body.read(_BLOCK_BYTES):
            digest.update(block)
        body.seek(0)
        actual = digest.hexdigest()
    if stated and stated != actual:
        raise RequestRefused("ContentMismatch")
    return actual


def _canonical_query(query_string: str) -> str:
    """Return the query as it is signed: names and values decoded as the service does, encoded anew and sorted."""
    pairs = []
    for part in filter(None, query_string.split("&")):
        name, _, value = part.partition("=")
        pair = tuple(quote(unquote_to_bytes(text.replace("+", " ")), safe="-_.~") for text in (name, value))
        if pair[0] != "X-Amz-Signature":
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


def _verify_chunks(body: IO[bytes], key: bytes, claim: _Claim) -> str:
    """Verify the signature of each chunk, which covers the signature before it; return the last signature."""
    previous, size = claim.signature, -1
    while size:
        head = _CHUNK_HEAD.fullmatch(body.readline(_MAX_LINE_BYTES))
        if head is None:
            raise _mismatch("A chunk of the body is not signed")
        size, signature = int(head[1], 16), head[2].decode()
        digest = hashlib.sha256()
        for block in _blocks(body, size):
            digest.update(block)
        if size and body.read(2) != b"\r\n":
            raise _mismatch("A chunk of the body is longer than it says")
        claim.require(key, signature, "-PAYLOAD", previous, _EMPTY_SHA256, digest.hexdigest())
        previous = signature
    return previous


def _blocks(body: IO[bytes], size: int) -> Iterator[bytes]:
    while size:
        block = body.read(min(size, _BLOCK_BYTES))
        if not block:
            raise _mismatch("The body ends within a chunk")
        size -= len(block)
        yield block


def _verify_end(body: IO[bytes], key: bytes, claim: _Claim, previous: str, *, has_trailer: bool) -> None:
    """Verify the trailing headers, whose signature covers the last chunk's, and that nothing follows."""
    digest, signature = hashlib.sha256(), ""
    while line := body.readline(_MAX_LINE_BYTES).rstrip(b"\r\n"):
        name, _, value = line.partition(b":")
        if name == b"x-amz-trailer-signature":
            signature = value.strip().decode("latin-1")
            break
        digest.update(name.lower() + b":" + value.strip() + b"\n")
        if not has_trailer:
            raise _mismatch("The body has a trailer that is not signed")
    if has_trailer:
        claim.require(key, signature, "-TRAILER", previous, digest.hexdigest())
    if body.read().strip(b"\r\n"):
        raise _mismatch("The body goes on after its last chunk")
