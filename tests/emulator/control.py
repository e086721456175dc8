"""The private path over which a test arms faults.

POST   /_local_aws/faults        arm the fault in the body; answers with its id
GET    /_local_aws/faults        list the armed faults, how often each matched and struck, and what it holds now
DELETE /_local_aws/faults[/id]   disarm, and release what is held
"""

from __future__ import annotations

import json

from local_aws import errors
from local_aws.replies import Reply
from local_aws.requests import Call
from local_aws.web import Interceptor
from tests.emulator.armed import Fault, Faults, FaultSpecError

PATH = "/_local_aws/faults"


class FaultControl(Interceptor):
    """Answers the control path."""

    def __init__(self, faults: Faults) -> None:
        self._faults = faults

    def before(self, call: Call) -> Reply | None:
        """Arm, list or disarm."""
        if call.path != PATH and not call.path.startswith(PATH + "/"):
            return None
        number = call.path.removeprefix(PATH).strip("/")
        if number and not number.isdecimal():
            return Reply.of_json(404, {"message": f"no fault {number!r}"})
        if call.method == "POST" and not number:
            return self._arm(call)
        if call.method == "GET" and not number:
            return Reply.of_json(200, [fault.describe() for fault in self._faults.armed()])
        if call.method == "DELETE":
            return Reply.of_json(200, {"disarmed": self._faults.disarm(int(number) if number else None)})
        return Reply.of_json(405, {"message": f"{call.method} is not for {call.path}"})

    def _arm(self, call: Call) -> Reply:
        try:
            spec = json.loads(call.environ["wsgi.input"].read())
            if not isinstance(spec, dict):
                raise FaultSpecError("not an object")
            fault = Fault.parse(spec)
            if fault.error not in errors.NAMES:
                raise FaultSpecError(f"error {fault.error!r}: one of {', '.join(errors.NAMES)}")
        except (ValueError, FaultSpecError) as error:
            return Reply.of_json(400, {"message": f"no fault: {error}"})
        return Reply.of_json(201, {"id": self._faults.arm(fault).id})
