"""Each reply of the emulator compared with AWS's model of it.

A successful reply that is not in the operation's output shape (a missing or unknown member, a wrong type, a value out
of range) becomes an error that clients do not retry, so that the test that caused it fails.
"""

from __future__ import annotations

import json
from typing import Any
from xml.etree import ElementTree

from botocore.model import OperationModel
from botocore.utils import parse_timestamp
from moto.core.utils import get_service_model

from local_aws import web
from local_aws.replies import Reply
from local_aws.requests import Call
from local_aws.shapes import WrongType, problems

# Without EC2, which answers `available` where its model has `Available` or `attached`.
CHECKED = frozenset({"emr", "glue", "kms", "s3", "sts", "iam", "cloudformation"})

UNLISTED = "Value 'REVIEW_IN_PROGRESS' at 'stackEvents"
"""What AWS answers and its model lacks: the event of a stack that a change set has created and nobody has executed."""


class ReplyCheck(web.Interceptor):
    def after(self, call: Call, reply: Reply) -> Reply:
        if call.service not in CHECKED or not reply.body or reply.status >= 300:
            return reply
        service = get_service_model(call.service)
        if call.operation not in service.operation_names:
            return reply
        operation = service.operation_model(call.operation)
        try:
            breaches = list(problems(operation.output_shape, document(operation, reply.body)))
        except (ValueError, WrongType, ElementTree.ParseError) as error:
            breaches = [str(error)]
        breaches = [breach for breach in breaches if not breach.startswith(UNLISTED)]
        if not breaches:
            return reply
        message = f"the reply of {call.service}:{call.operation} is not in AWS's shape: {'; '.join(breaches)}"
        return Reply.of_error(call, 501, "NotImplemented", message)


def document(operation: OperationModel, body: bytes) -> Any:
    """Return a reply's body as the JSON protocol would write it."""
    shape: Any = operation.output_shape
    protocol = operation.service_model.protocol
    if protocol == "json":
        return json.loads(body)
    payload = shape.serialization.get("payload") if shape else None
    if payload and shape.members[payload].type_name != "structure":
        return {}  # the content of an object
    root = ElementTree.fromstring(body)
    if payload:
        return {payload: _from_xml(shape.members[payload], root)}
    if shape and protocol == "query":
        result = root.find("{*}" + shape.serialization["resultWrapper"])
        root = ElementTree.Element("empty") if result is None else result
    return _from_xml(shape, root) if shape else {}


def _from_xml(shape: Any, node: ElementTree.Element) -> Any:
    kind = shape.type_name
    if kind == "structure":
        return _members_from_xml(shape, node)
    if kind == "list":
        return [_from_xml(shape.member, child) for child in node]
    if kind == "map":
        return {child[0].text or "": _from_xml(shape.value, child[1]) for child in node}
    text = node.text or ""
    if kind in ("integer", "long"):
        return int(text)
    if kind == "timestamp":
        return parse_timestamp(text).timestamp()
    if kind in ("float", "double"):
        return float(text)
    return {"true": True, "false": False}.get(text, text) if kind == "boolean" else text


def _members_from_xml(shape: Any, node: ElementTree.Element) -> dict[str, Any]:
    names = {}
    for name, member in shape.members.items():
        is_flat = member.serialization.get("flattened")
        of_items = member.member.serialization.get("name") if is_flat and member.type_name == "list" else None
        names[of_items or member.serialization.get("name", name)] = name
    document: dict[str, Any] = {}
    for child in node:
        tag = child.tag.rpartition("}")[2]
        name = names.get(tag)
        if name is None:
            document[tag] = child.text
        elif shape.members[name].serialization.get("flattened"):
            document.setdefault(name, []).append(_from_xml(shape.members[name].member, child))
        else:
            document[name] = _from_xml(shape.members[name], child)
    return document
