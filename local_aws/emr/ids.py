"""Ids in the form of EMR's and EC2's."""

import secrets
import string

_LETTERS = string.digits + string.ascii_uppercase


def new_id(prefix: str) -> str:
    """Return `j-2AXXXXXXGAPLF`, `s-…`, `ig-…`, `if-…`, `ci-…`."""
    return f"{prefix}-" + "".join(secrets.choice(_LETTERS) for _ in range(13))


def new_ec2_id(prefix: str) -> str:
    """Return `i-0123456789abcdef0`."""
    return f"{prefix}-0{secrets.token_hex(8)}"
