"""Constants of the product as its source says them, for programs whose environment has no Spark to import it with."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[2]


@cache
def constants(path: str) -> dict[str, Any]:
    """Return the module-level constants of a file that are plain values or arithmetic with them.

    Args:
        path: Of the file, below the repository.
    """
    values: dict[str, Any] = {}
    for node in ast.parse((REPOSITORY / path).read_text()).body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            value = _value(node.value)
            if value is not None:
                values[node.targets[0].id] = value
    return values


def _value(node: ast.expr) -> Any:
    if isinstance(node, ast.BinOp):
        left, right = _value(node.left), _value(node.right)
        if left is None or right is None:
            return None
        if isinstance(node.op, ast.Mult):
            return left * right
        return left**right if isinstance(node.op, ast.Pow) else None
    try:
        return ast.literal_eval(node)
    except ValueError:
        return None
