"""The service, operation, bucket and key of a request."""

from __future__ import annotations

import io
from functools import cached_property
from typing import Any
from urllib.parse import parse_qs, unquote
from xml.etree import ElementTree

# The signing names that differ from the names this project uses.
_SERVICES = {"elasticmapreduce": "emr"}

# Query parameters of S3, and what the operations on a bucket and on an object call them.
_BUCKET_SETTINGS = (
    *("acl", "cors", "encryption", "location", "logging", "ownershipControls", "policy", "policyStatus"),
    *("replication", "tagging", "versioning", "website"),
)
_BUCKET_QUERIES = {name: f"Bucket{name[0].upper()}{name[1:]}" for name in _BUCKET_SETTINGS} | {
    "accelerate": "BucketAccelerateConfiguration",
    "lifecycle": "BucketLifecycleConfiguration",
    "notification": "BucketNotificationConfiguration",
    "object-lock": "ObjectLockConfiguration",
    "publicAccessBlock": "PublicAccessBlock",
}
_OBJECT_QUERIES = {"tagging": "ObjectTagging", "acl": "ObjectAcl", "attributes": "ObjectAttributes"}
_VERBS = {"GET": "Get", "PUT": "Put", "DELETE": "Delete", "HEAD": "Head", "POST": "Post"}


class Call:
    """One request.

    Attributes:
        environ: The WSGI environment.
        verified: Whether the signature has been verified. The body is not parsed before.
    """

    def __init__(self, environ: dict[str, Any]) -> None:
        self.environ = environ
        self.verified = False

    @property
    def method(self) -> str:
        """HTTP method."""
        return str(self.environ["REQUEST_METHOD"])

    @cached_property
    def raw_path(self) -> str:
        """The path, percent-encoded."""
        path = str(self.environ["REQUEST_URI"]).split("?", 1)[0]
        if not path.startswith("/"):  # absolute form: http://host/path
            path = "/" + path.split("://", 1)[-1].partition("/")[2]
        return path

    @cached_property
    def path(self) -> str:
        """The path, decoded."""
        return unquote(self.raw_path)

    @property
    def query_string(self) -> str:
        """The query, percent-encoded."""
        return str(self.environ.get("QUERY_STRING", ""))

    @cached_property
    def query(self) -> dict[str, list[str]]:
        """The query, parsed."""
        return parse_qs(self.query_string, keep_blank_values=True) if self.query_string else {}

    def header(self, name: str) -> str:
        """Return a header's value, or the empty string."""
        return str(self.environ.get("HTTP_" + name.upper().replace("-", "_"), ""))

    @cached_property
    def _credential_scope(self) -> list[str]:
        """[key, date, region, service, "aws4_request"] of a signed request, else []."""
        authorization = self.header("Authorization")
        credential = authorization.partition("Credential=")[2].partition(",")[0]
        if not credential and "X-Amz-Credential" in self.query:
            credential = self.query["X-Amz-Credential"][0]
        # the access key may hold slashes, so count from the end
        scope = credential.rsplit("/", 4)
        return scope if len(scope) == 5 else []

    @cached_property
    def service(self) -> str:
        """Name of the service; an unsigned request is S3's."""
        if self.raw_path.startswith("/_local_aws/"):
            return "local_aws"
        if not self._credential_scope:
            return "s3"
        name = self._credential_scope[3].lower()
        return _SERVICES.get(name, name)

    @cached_property
    def region(self) -> str:
        """The region that the request is signed for, or the empty string."""
        return self._credential_scope[2] if self._credential_scope else ""

    @property
    def protocol(self) -> str:
        """Protocol of the service: `json`, `s3` or `query`."""
        if self.header("X-Amz-Target"):
            return "json"
        return "s3" if self.service == "s3" else "query"

    def _body(self) -> bytes:
        body = bytes(self.environ["wsgi.input"].read())
        self.environ["wsgi.input"] = io.BytesIO(body)
        return body

    @cached_property
    def operation(self) -> str:
        """Name of the operation in the service's API; the empty string when unknown."""
        target = self.header("X-Amz-Target")
        if target:
            return target.rpartition(".")[2]
        if self.service == "s3":
            return _s3_operation(self)
        parameters = self.query
        content_type = str(self.environ.get("CONTENT_TYPE", ""))
        if "Action" not in parameters and content_type.startswith("application/x-www-form-urlencoded"):
            parameters = parse_qs(self._body().decode("utf-8", "replace"), keep_blank_values=True)
        return parameters.get("Action", [""])[0]

    @cached_property
    def bucket(self) -> str:
        """S3 bucket of a path-style request, or the empty string."""
        return unquote(self.raw_path[1:].partition("/")[0]) if self.service == "s3" else ""

    @cached_property
    def key(self) -> str:
        """S3 key of a path-style request, decoded, or the empty string."""
        return unquote(self.raw_path[1:].partition("/")[2]) if self.service == "s3" else ""

    @cached_property
    def deleted(self) -> list[dict[str, str | None]]:
        """`key` and `version_id` of each object of DeleteObjects; empty for other operations."""
        if self.operation != "DeleteObjects":
            return []
        try:
            document = ElementTree.fromstring(self._body())  # noqa: S314  SignatureCheck lets only key holders pass
        except ElementTree.ParseError:
            return []  # S3 refuses it
        return [
            {"key": item.findtext("{*}Key"), "version_id": item.findtext("{*}VersionId")}
            for item in document
            if item.tag.endswith("Object")
        ]


def _s3_operation(call: Call) -> str:
    if not call.bucket:
        return "ListBuckets"
    verb = _VERBS.get(call.method, call.method.title())
    return _s3_key_operation(call, verb) if call.key else _s3_bucket_operation(call, verb)


def _s3_key_operation(call: Call, verb: str) -> str:
    query = call.query
    if "uploads" in query:
        return "CreateMultipartUpload"
    if "uploadId" in query:
        if call.method == "PUT":
            return "UploadPartCopy" if call.header("x-amz-copy-source") else "UploadPart"
        return {"GET": "ListParts", "POST": "CompleteMultipartUpload", "DELETE": "AbortMultipartUpload"}.get(
            call.method, f"{verb}Object"
        )
    if call.method == "PUT" and call.header("x-amz-copy-source"):
        return "CopyObject"
    for name, noun in _OBJECT_QUERIES.items():
        if name in query:
            return verb + noun
    return f"{verb}Object"


def _s3_bucket_operation(call: Call, verb: str) -> str:
    query = call.query
    for name, noun in _BUCKET_QUERIES.items():
        if name in query:
            return verb + noun
    if call.method == "GET":
        if "uploads" in query:
            return "ListMultipartUploads"
        if "versions" in query:
            return "ListObjectVersions"
        return "ListObjectsV2" if query.get("list-type") == ["2"] else "ListObjects"
    if call.method == "POST":
        return "DeleteObjects" if "delete" in query else "PostObject"
    return {"PUT": "CreateBucket", "DELETE": "DeleteBucket", "HEAD": "HeadBucket"}.get(call.method, verb)
