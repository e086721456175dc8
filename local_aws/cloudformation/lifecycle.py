"""Lifecycle rules: from the words of CloudFormation to those of the S3 API."""

from collections.abc import Callable
from typing import Any

from moto.cloudformation.exceptions import ValidationError

# Property of a rule in a template: its member in the S3 API, and the member's value.
_MEMBERS: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "Id": ("ID", str),
    "ExpirationInDays": ("Expiration", lambda days: {"Days": int(days)}),
    "ExpiredObjectDeleteMarker": ("Expiration", lambda value: {"ExpiredObjectDeleteMarker": str(value) == "True"}),
    "NoncurrentVersionExpiration": (
        "NoncurrentVersionExpiration",
        lambda value: {key: int(number) for key, number in value.items()},
    ),
    "AbortIncompleteMultipartUpload": (
        "AbortIncompleteMultipartUpload",
        lambda value: {"DaysAfterInitiation": int(value["DaysAfterInitiation"])},
    ),
}


def api_rule(rule: dict[str, Any]) -> dict[str, Any]:
    """Return an item of `LifecycleConfiguration.Rules` of a template as PutBucketLifecycleConfiguration takes it.

    Raises:
        ValidationError: A property is not implemented.
    """
    if unknown := sorted(rule.keys() - _MEMBERS.keys() - {"Status", "Prefix"}):
        raise ValidationError(message=f"local_aws does not implement {', '.join(unknown)} of a lifecycle rule.")
    result: dict[str, Any] = {"Status": rule["Status"], "Filter": {"Prefix": rule.get("Prefix", "")}}
    for name, (member, convert) in _MEMBERS.items():
        if name in rule:
            value = convert(rule[name])
            result[member] = result.get(member, {}) | value if isinstance(value, dict) else value
    return result
