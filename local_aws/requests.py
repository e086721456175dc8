"""The service, operation, bucket and key of a request."""

import io
from functools import cache, cached_property, lru_cache
from typing import Any
from urllib.parse import parse_qs, unquote
from xml.etree import ElementTree

from moto.core.utils import get_service_model

# The signing names that differ from the names this project uses.
_SERVICES = {"elasticmapreduce": "emr"}

STARTED = "local_aws.started"
"""Where the environment of a request holds when it came: seconds since the epoch, and of `time.perf_counter`."""
# The operations that S3 tells by a header alone.
_S3_COPIES = {"PutObject": "CopyObject", "UploadPart": "UploadPartCopy"}


class Call:
    """One request, by its WSGI environment."""

    def __init__(self, environ: dict[str, Any]) -> None:
        self.environ = environ
        self.verified = False  # whether the signature has been verified; the body is not parsed before

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

    def body(self) -> bytes:
        """Return the body, and leave it at its start for the service."""
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
            parameters = parse_qs(self.body().decode("utf-8", "replace"), keep_blank_values=True)
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
            document = ElementTree.fromstring(self.body())  # noqa: S314  SignatureCheck lets only key holders pass
        except ElementTree.ParseError:
            return []  # S3 refuses it
        return [
            {"key": item.findtext("{*}Key"), "version_id": item.findtext("{*}VersionId")}
            for item in document
            if item.tag.endswith("Object")
        ]


def _s3_operation(call: Call) -> str:
    path = "/{Bucket}/{Key+}" if call.key else "/{Bucket}" if call.bucket else "/"
    name = _s3_operation_of(call.method, path, frozenset(call.query))
    return _S3_COPIES.get(name, name) if call.header("x-amz-copy-source") else name


@lru_cache(maxsize=4096)
def _s3_operation_of(method: str, path: str, query: frozenset[str]) -> str:
    """Return the operation that requires most of the names in a request's query, and no other."""
    matches = [
        (len(names), operation)
        for operation, of_method, of_path, names in _s3_operations()
        if (of_method, of_path) == (method, path) and names <= query
    ]
    return max(matches, default=(0, f"{method.title()}Object"))[1]


@cache
def _s3_operations() -> list[tuple[str, str, str, set[str]]]:
    """List name, method, path and the required names in the query of S3's operations, by AWS's model."""
    rows = []
    for operation in map(get_service_model("s3").operation_model, get_service_model("s3").operation_names):
        path, _, query = operation.http["requestUri"].partition("?")
        names = {part.partition("=")[0] for part in query.split("&") if part}
        for name, member in operation.input_shape.members.items() if operation.input_shape else ():
            if name in operation.input_shape.required_members and member.serialization.get("location") == "querystring":
                names.add(member.serialization["name"])
        if not operation.deprecated and operation.name not in (*_S3_COPIES.values(), "ListDirectoryBuckets"):
            rows.append((operation.name, operation.http["method"], path, names))
    return rows
