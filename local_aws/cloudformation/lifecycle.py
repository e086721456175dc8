"""Lifecycle rules: from CloudFormation's words to those of the S3 API."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from moto.cloudformation.exceptions import ValidationError

_KNOWN = {
    *(
        "Id",
        "Status",
        "Prefix",
        "ExpirationInDays",
        "ExpiredObjectDeleteMarker",
        "NoncurrentVersionExpiration",
    ),
    *("NoncurrentVersionExpirationInDays", "AbortIncompleteMultipartUpload", "Transitions"),
}


def api_rules(rules: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """`LifecycleConfiguration.Rules` of a template as PutBucketLifecycleConfiguration takes them.

    Raises:
        ValidationError: a property that is not handled.
    """
    return [_api_rule(one) for one in rules]


def _api_rule(rule: dict[str, Any]) -> dict[str, Any]:
    if unknown := sorted(rule.keys() - _KNOWN):
        raise ValidationError(
            message=f"local_aws does not implement {', '.join(unknown)} of a lifecycle rule."
        )
    made: dict[str, Any] = {"Status": rule["Status"], "Filter": {"Prefix": rule.get("Prefix", "")}}
    if "Id" in rule:
        made["ID"] = rule["Id"]
    if "ExpirationInDays" in rule:
        made["Expiration"] = {"Days": int(rule["ExpirationInDays"])}
    if "ExpiredObjectDeleteMarker" in rule:
        made.setdefault("Expiration", {})["ExpiredObjectDeleteMarker"] = (
            str(rule["ExpiredObjectDeleteMarker"]) == "True"
        )
    if "NoncurrentVersionExpirationInDays" in rule:
        made["NoncurrentVersionExpiration"] = {
            "NoncurrentDays": int(rule["NoncurrentVersionExpirationInDays"])
        }
    if "NoncurrentVersionExpiration" in rule:
        made["NoncurrentVersionExpiration"] = {
            key: int(value) for key, value in rule["NoncurrentVersionExpiration"].items()
        }
    if "AbortIncompleteMultipartUpload" in rule:
        days = int(rule["AbortIncompleteMultipartUpload"]["DaysAfterInitiation"])
        made["AbortIncompleteMultipartUpload"] = {"DaysAfterInitiation": days}
    if "Transitions" in rule:
        made["Transitions"] = [
            {"Days": int(one["TransitionInDays"]), "StorageClass": one["StorageClass"]}
            for one in rule["Transitions"]
        ]
    return made
