"""The two errors that EMR's API gives for a bad request."""

from __future__ import annotations

from moto.core.exceptions import ServiceException


class ValidationException(ServiceException):
    """The request breaks a rule."""

    code = "ValidationException"


class InvalidRequestException(ServiceException):
    """The request names something that is not there.

    Args:
        message: what is wrong.
        error_code: EMR's own code beside the exception's name, such as `NoSuchCluster`.
    """

    code = "InvalidRequestException"

    def __init__(self, message: str, error_code: str | None = None) -> None:
        super().__init__(message)
        if error_code:
            self.error_code = error_code


def no_such_cluster(cluster_id: str) -> InvalidRequestException:
    """What Describe and List calls give for an unknown cluster."""
    return InvalidRequestException(f"Cluster id '{cluster_id}' is not valid.", "NoSuchCluster")


def no_such_job_flow() -> ValidationException:
    """What the older calls (AddJobFlowSteps, TerminateJobFlows…) give for an unknown cluster."""
    return ValidationException("Specified job flow ID does not exist.")


def no_such_step(step_id: str) -> InvalidRequestException:
    """What is given for a step that the cluster does not have."""
    return InvalidRequestException(f"Step id '{step_id}' is not valid.")
