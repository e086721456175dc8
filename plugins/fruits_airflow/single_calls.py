"""Calls that AWS must not act on twice: RunJobFlow and AddJobFlowSteps take no idempotency token.

Hence one request per call, announced in the journal before it is sent, so that whoever finds the announcement knows
what to look for; and another only when AWS throttled the first, since nothing was made of that one.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from botocore.exceptions import BotoCoreError, ClientError
from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception,
    stop_after_attempt,
    wait_random_exponential,
)

from fruits_airflow.lake import error_code

log = logging.getLogger(__name__)

# Below `list_consistency_s`: whoever comes after an attempt that was killed in a pause, and may send once more when it
# wakes, still waits for what the announcement stands for.
LONGEST_PAUSE_S = 8.0


class _NoAnswer(Exception):
    """A request went out, and may have had its effect."""

    def __init__(self, error: BotoCoreError | ClientError) -> None:
        super().__init__(str(error))
        self.error = error


def send_announced(
    announce: Callable[[], None], request: Callable[[], str], find: Callable[[], str | None]
) -> str:
    """Sends a request, and again while AWS throttles it, six times at most; gives the id of what was made.

    Args:
        announce: notes in the journal that the request is sent now; called before each.
        request: sends one request; gives the id in its answer.
        find: gives the id of what a request without an answer has made, or None.

    Raises:
        ClientError: AWS refused the request.
        ClientError, BotoCoreError: no answer came, and `find` found nothing.
    """

    def announced() -> str:
        announce()
        try:
            return request()
        except (BotoCoreError, ClientError) as error:
            if _is_refused(error):
                raise
            raise _NoAnswer(error) from error

    try:
        return Retrying(
            retry=retry_if_exception(_is_throttled),
            wait=wait_random_exponential(max=LONGEST_PAUSE_S),
            stop=stop_after_attempt(6),
            before_sleep=_say_that_it_waits,
            reraise=True,
        )(announced)
    except _NoAnswer as unanswered:
        log.warning("No answer came (%s); looking for what was made", unanswered)
        if found := find():
            return found
        raise unanswered.error from None


def _is_refused(error: Exception) -> bool:
    return isinstance(error, ClientError) and 400 <= _http_status(error) < 500


def _is_throttled(error: BaseException) -> bool:
    return isinstance(error, ClientError) and error_code(error) == "ThrottlingException"


def _http_status(error: ClientError) -> int:
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 500))


def _say_that_it_waits(state: RetryCallState) -> None:
    error = state.outcome and state.outcome.exception()
    log.warning("%s; sending it again in %.1f s", error, state.upcoming_sleep)
