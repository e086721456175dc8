"""What a rule about the body of RunJobFlow takes and gives."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

Body = Mapping[str, Any]
Found = Iterator[str]


@dataclass(frozen=True)
class Surroundings:
    """What a body is judged by besides itself.

    Attributes:
        region: where RunJobFlow is sent.
        lake_bucket: the lake, which logs and code belong to.
        now: when.
        preinstalled: whether the nodes are said to have their libraries already.
        security: the security configuration that the body names, as EMR describes it; None before it was read.
    """

    region: str
    lake_bucket: str
    now: datetime
    preinstalled: bool = False
    security: Mapping[str, Any] | None = None
