"""Faults that a test arms over HTTP in a server started with `--faults`.

A fault is a JSON object posted to `/_local_aws/faults`; `local_aws.faults.armed.Fault` documents its members.
"""

from local_aws.faults.armed import Fault, Faults, FaultSpecError
from local_aws.faults.clusters import FaultyClusters, why_no_small_disk
from local_aws.faults.control import FaultControl
from local_aws.faults.reads import FaultyReads
from local_aws.faults.wire import FaultyWire

__all__ = [
    "Fault",
    "FaultControl",
    "FaultSpecError",
    "Faults",
    "FaultyClusters",
    "FaultyReads",
    "FaultyWire",
    "why_no_small_disk",
]
