"""The two errors that EMR's API returns for a bad request."""

from moto.core.exceptions import ServiceException


class ValidationException(ServiceException):
    """The request breaks a rule."""

    code = "ValidationException"


class InvalidRequestException(ServiceException):
    """The request refers to something that does not exist."""

    code = "InvalidRequestException"
