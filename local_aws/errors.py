"""Errors that several services share, with the code, status and message of each protocol (errors.yaml)."""

from pathlib import Path
from typing import Any

import yaml

from local_aws.replies import Reply
from local_aws.requests import Call

_ERRORS: dict[str, dict[str, Any]] = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8"))
NAMES = tuple(_ERRORS)


def reply(call: Call, name: str, message: str | None = None) -> Reply:
    """Return the error of this name (an item of NAMES) in the form of the request's service."""
    code, status = _ERRORS[name][call.protocol]
    return Reply.of_error(call, status, code, message or _ERRORS[name]["message"])
