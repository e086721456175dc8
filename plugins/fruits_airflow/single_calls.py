"""Calls that AWS must not act on twice: RunJobFlow and AddJobFlowSteps take no idempotency token.

Hence one request per call, announced in the journal before it is sent, so that whoever finds the announcement knows
what to look for. Only a throttled request is sent again at once: nothing was made of it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeVar

from botocore.exceptions import ClientError
from tenacity import (
    Retrying,
    before_sleep_log,
    retry_if_exception,
    stop_after_attempt,
    wait_random_exponential,
)

from fruits_airflow.lake import error_code

log = logging.getLogger(__name__)

SINGLE_ATTEMPT = {"retries": {"total_max_attempts": 1}}
"""botocore's configuration of a client whose calls send one request."""

_Answer = TypeVar("_Answer")


def send_announced(announce: Callable[[], None], request: Callable[[], _Answer]) -> _Answer:
    """Sends a request, and again while AWS throttles it: six times at most, with botocore's pauses.

    Args:
        announce: notes in the journal that the request is sent now; called before each.
        request: sends one request.

    Raises:
        ClientError: AWS refused the request.
        BotoCoreError: no answer came; what was asked for may have been made.
    """

    def announced() -> _Answer:
        announce()
        return request()

    return Retrying(
        retry=retry_if_exception(_is_throttled),
        stop=stop_after_attempt(6),
        wait=wait_random_exponential(max=20),
        before_sleep=before_sleep_log(log, logging.WARNING),
        reraise=True,
    )(announced)


def is_refused(error: Exception) -> bool:
    """Whether AWS refused the request, so that nothing was made; any other error may have had its effect."""
    return isinstance(error, ClientError) and 400 <= _http_status(error) < 500


def _is_throttled(error: BaseException) -> bool:
    # EMR says ThrottlingException, other services Throttling
    return isinstance(error, ClientError) and error_code(error).startswith("Throttling")


def _http_status(error: ClientError) -> int:
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 500))
