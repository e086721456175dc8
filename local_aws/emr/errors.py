"""The two errors that EMR's API returns for a bad request."""

from __future__ import annotations

from moto.core.exceptions import ServiceException


class ValidationException(ServiceException):
    """The request breaks a rule."""

    code = "ValidationException"


class InvalidRequestException(ServiceException):
    """The request refers to something that does not exist; `error_code` is EMR's own, such as `NoSuchCluster`."""

    code = "InvalidRequestException"

    def __init__(self, message: str, error_code: str | None = None) -> None:
        super().__init__(message)
        if error_code:
            self.error_code = error_code


def no_such_cluster(cluster_id: str) -> InvalidRequestException:
    """Return the error of Describe and List calls for an unknown cluster."""
    return InvalidRequestException(f"Cluster id '{cluster_id}' is not valid.", "NoSuchCluster")


def no_such_job_flow() -> ValidationException:
    """Return the error of the older calls (AddJobFlowSteps, TerminateJobFlows…) for an unknown cluster."""
    return ValidationException("Specified job flow ID does not exist.")


def no_such_step(step_id: str) -> InvalidRequestException:
    """Return the error for a step that the cluster does not have."""
    return InvalidRequestException(f"Step id '{step_id}' is not valid.")
