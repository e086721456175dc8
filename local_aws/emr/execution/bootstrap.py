"""Bootstrap actions, and the timer that `bootstrap.sh --deadline` arms on the primary node.

The scripts do not run, since there is no node to set up. Their visible effects are modelled: a script that is missing
from S3 fails the bootstrap, and the primary node shuts itself down at the deadline.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

DEADLINE_ARGUMENT = "--deadline"


class BootstrapError(Exception):
    """A bootstrap action that fails; `{primary}` in the message stands for the primary node's instance id."""


def deadline(actions: Sequence[Mapping[str, Any]]) -> datetime | None:
    """Return the earliest deadline in the arguments of `BootstrapActionConfig`s.

    Raises:
        BootstrapError: A deadline is not an ISO 8601 time with an offset (or `Z`); `bootstrap.sh` exits non-zero on it.
    """
    moments = []
    for number, action in enumerate(actions, start=1):
        for text in _values(list(action["ScriptBootstrapAction"].get("Args") or [])):
            try:
                moment = datetime.fromisoformat(text)
            except ValueError:
                moment = None
            if moment is None or moment.tzinfo is None:
                raise BootstrapError(
                    f"On the master instance ({{primary}}), bootstrap action {number} returned a non-zero return code"
                )
            moments.append(moment)
    return min(moments, default=None)


def _values(args: list[str]) -> list[str]:
    values = [arg.partition("=")[2] for arg in args if arg.startswith(DEADLINE_ARGUMENT + "=")]
    return values + [
        args[at + 1] if at + 1 < len(args) else "" for at, arg in enumerate(args) if arg == DEADLINE_ARGUMENT
    ]


def check_scripts(actions: Sequence[Mapping[str, Any]], exists: Callable[[str, str], bool]) -> None:
    """Check that the script of each `BootstrapActionConfig` exists; `exists` takes bucket and key.

    Raises:
        BootstrapError: A script is missing.
    """
    for number, action in enumerate(actions, start=1):
        path = action["ScriptBootstrapAction"]["Path"]
        scheme, _, rest = path.partition("://")
        bucket, _, key = rest.partition("/")
        if scheme in ("s3", "s3a", "s3n") and not exists(bucket, key):
            raise BootstrapError(
                f"Master instance ({{primary}}) failed attempting to download bootstrap action {number} file from S3"
            )
