"""The states of clusters and steps, and the ways in which a cluster ends."""

from dataclasses import dataclass

LIVE = ("STARTING", "BOOTSTRAPPING", "RUNNING", "WAITING")
"""States of a cluster that is not ending."""
EXECUTING = ("RUNNING", "CANCEL_PENDING")
"""States of a step that has a process."""
ACTIVE = ("PENDING", *EXECUTING)
"""States of a step that EMR counts against the limit of active steps."""


@dataclass(frozen=True)
class Ending:
    """How a cluster ends."""

    state: str  # its last state
    code: str  # `StateChangeReason.Code`
    message: str  # `StateChangeReason.Message`
    abrupt: bool = False  # whether its machines are gone at once


USER_REQUEST = Ending("TERMINATED", "USER_REQUEST", "Terminated by user request")
STEPS_COMPLETED = Ending("TERMINATED", "ALL_STEPS_COMPLETED", "Steps completed")
IDLE = Ending("TERMINATED", "ALL_STEPS_COMPLETED", "Cluster auto-terminated because it was idle")
SERVER_STOPS = Ending("TERMINATED", "INTERNAL_ERROR", "local_aws stops")
STEP_FAILURE = Ending("TERMINATED_WITH_ERRORS", "STEP_FAILURE", "Shut down as step failed")
DEADLINE = Ending("TERMINATED_WITH_ERRORS", "INSTANCE_FAILURE", "The master node was terminated by user.")


def failure(code: str, message: str) -> Ending:
    """Return the ending of a cluster that fails."""
    return Ending("TERMINATED_WITH_ERRORS", code, message)
