"""Faults between a client and the service: replies are lost, cut, refused, delayed or held.

`when` places the fault: `before` the effect of the request, `during` it (only `lost`: the client is cut off, and the
effect comes `seconds` later) or `after` it (only then can a reply be `cut`). Credentials that expire are `refused` with
ExpiredToken from the first match on, for as long as it `lasts`.
"""

from __future__ import annotations

import threading
import time

from local_aws import errors
from local_aws.connection import CHANNEL
from local_aws.replies import Reply
from local_aws.requests import Call
from local_aws.web import Interceptor
from tests.emulator.armed import WIRE, Fault, Faults

_STRUCK = "tests.emulator.struck"
_counting = threading.Lock()
HOLD_SECONDS = 300.0
"""How long a request is held at most, so that a test that dies leaves no threads behind."""


class FaultyWire(Interceptor):
    """Applies the armed faults to requests and replies."""

    def __init__(self, faults: Faults) -> None:
        self._faults = faults

    def before(self, call: Call) -> Reply | None:
        """Apply the faults before and during the effect."""
        struck = [] if call.service == "local_aws" else self._faults.strike(WIRE, lambda fault: fault.is_for(call))
        call.environ[_STRUCK] = struck
        for fault in struck:
            if fault.when == "before" and (answer := _before(call, fault)):
                return answer
            if fault.when == "during":
                _drop(call, fault)
                _wait(fault)
        return None

    def after(self, call: Call, reply: Reply) -> Reply:
        """Apply the faults after the effect."""
        for fault in call.environ[_STRUCK]:
            if fault.when != "after":
                continue
            if fault.kind == "lost":
                _drop(call, fault)
            elif fault.kind == "cut":
                reply = Reply(reply.status, reply.headers, reply.body[: len(reply.body) // 2])
            elif fault.kind == "refused":
                reply = errors.reply(call, fault.error)
            else:
                _wait(fault)
        return reply


def _before(call: Call, fault: Fault) -> Reply | None:
    if fault.kind == "lost":
        _drop(call, fault)
        return Reply(503)
    if fault.kind == "refused":
        return errors.reply(call, fault.error)
    _wait(fault)
    return None


def _wait(fault: Fault) -> None:
    if fault.kind != "held":
        time.sleep(fault.seconds)
        return
    with _counting:
        fault.holding += 1
    fault.released.wait(HOLD_SECONDS)
    with _counting:
        fault.holding -= 1


def _drop(call: Call, fault: Fault) -> None:
    call.environ[CHANNEL].drop(reset=fault.reset)
