"""Compares requests with AWS's models of its services, which botocore carries.

AWS does not document its answer to a member that the model lacks. `ShapeCheck` refuses the request, since AWS would not
do what the member asks for.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from botocore.model import OperationModel
from moto.core.utils import get_service_model

from local_aws.replies import Reply
from local_aws.requests import Call
from local_aws.web import Interceptor

_INTEGERS = ("integer", "long")
_NUMBERS = (*_INTEGERS, "float", "double", "timestamp")
_TYPES: Mapping[str, type | tuple[type, ...]] = {
    **{"structure": dict, "map": dict, "list": list, "boolean": bool, "string": str, "character": str, "blob": str},
    **dict.fromkeys(_NUMBERS, (int, float)),
    **dict.fromkeys(_INTEGERS, int),
}


class WrongType(Exception):
    """A value has a type that the model does not allow; the message says where."""


class ShapeCheck(Interceptor):
    """Refuses requests of the JSON protocol (EMR, Glue, KMS) that are not in AWS's shape, with AWS's errors.

    The reply of an operation without output becomes empty, as AWS sends it: moto sends `null` or `True`.
    """

    def before(self, call: Call) -> Reply | None:
        """Check a request."""
        operation = operation_model(call)
        if operation is None or call.protocol != "json":
            return None
        try:
            breaches = list(problems(operation.input_shape, json.loads(call.body() or b"{}")))
        except (ValueError, WrongType) as error:
            return Reply.of_error(call, 400, "SerializationException", str(error))
        if not breaches:
            return None
        count = f"{len(breaches)} validation error{'s' if len(breaches) > 1 else ''} detected: "
        return Reply.of_error(call, 400, "ValidationException", count + "; ".join(breaches))

    def after(self, call: Call, reply: Reply) -> Reply:
        """Empty the reply of an operation without output."""
        operation = operation_model(call) if reply.body and reply.status < 300 else None
        if operation is None or operation.output_shape:
            return reply
        headers = [header for header in reply.headers if header[0].lower() != "content-length"]
        return Reply(reply.status, [*headers, ("Content-Length", "0")])


def operation_model(call: Call) -> OperationModel | None:
    """Return the model of the call's operation; None for another service and for an unknown operation."""
    if call.service not in ("emr", "glue", "kms", "s3"):
        return None
    service = get_service_model(call.service)
    return service.operation_model(call.operation) if call.operation in service.operation_names else None


def problems(shape: Any, value: Any, path: str = "") -> Iterator[str]:
    """Yield how a value breaks the constraints of its shape, in the words of AWS; None is a shape without members.

    Raises:
        WrongType: The value or a part of it has a wrong type.
    """
    kind = shape.type_name if shape else "structure"
    if not _is_of(kind, value):
        raise WrongType(f"{type(value).__name__} at '{path}' can not be converted to {kind}")
    if kind == "structure":
        yield from _problems_of_members(shape, value, path)
    elif kind == "list":
        for number, item in enumerate(value, start=1):
            yield from problems(shape.member, item, f"{path}.{number}.member")
    elif kind == "map":
        for key, item in value.items():
            yield from problems(shape.value, item, f"{path}.{key}")
    limits = shape.metadata if shape and kind != "blob" else {}
    if value not in limits.get("enum", [value]):
        yield _constraint(value, path, f"satisfy enum value set: [{', '.join(limits['enum'])}]")
    size, measure = (value, "value") if kind in _NUMBERS else (len(value), "length") if limits else (0, "")
    if size < limits.get("min", size):
        yield _constraint(value, path, f"have {measure} greater than or equal to {limits['min']}")
    if size > limits.get("max", size):
        yield _constraint(value, path, f"have {measure} less than or equal to {limits['max']}")


def _problems_of_members(shape: Any, value: Mapping[str, Any], path: str) -> Iterator[str]:
    members = shape.members if shape else {}
    for name in shape.required_members if shape else ():
        if value.get(name) is None and not members[name].serialization.get("location"):
            yield _constraint(None, _below(path, name), "not be null")
    for name, item in value.items():
        if name not in members:
            yield f"Unknown member '{name}' at '{path}'"
        elif item is not None:
            yield from problems(members[name], item, _below(path, name))


def _is_of(kind: str, value: object) -> bool:
    return isinstance(value, _TYPES[kind]) and isinstance(value, bool) == (kind == "boolean")


def _below(path: str, name: str) -> str:
    return f"{path}.{name[0].lower()}{name[1:]}".lstrip(".")


def _constraint(value: object, path: str, constraint: str) -> str:
    text = "null" if value is None else f"'{str(value)[:64]}'"
    return f"Value {text} at '{path}' failed to satisfy constraint: Member must {constraint}"
