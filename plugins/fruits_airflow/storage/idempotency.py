"""At-most-once calls: RunJobFlow and AddJobFlowSteps take no idempotency token.

Each request is announced in the journal before it is sent, so that another attempt knows what to look for. The
announcement then records the id in the answer, so that no attempt depends on a listing.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from botocore.exceptions import BotoCoreError, ClientError

from fruits_airflow.storage.lake import error_code
from fruits_airflow.storage.run_notes import Journal

log = logging.getLogger(__name__)

CREATED_ID = "made"
"""The key of an announcement that holds the id of the created resource."""

REQUESTS = 4
"""How often an attempt of a task sends a throttled request."""


def send_announced(
    journal: Journal, name: str, request: Callable[[], str], find: Callable[[], str | None], **facts: object
) -> str:
    """Send a request and return the id of the created resource; repeat a throttled request that created nothing.

    Args:
        journal: Journal that records the announcement and the id.
        name: Name of the announcement.
        request: Sends the request and returns the id in its answer.
        find: Returns the id of a resource that an unanswered request created, or None. It takes as long as a listing
            may lag, which is the pause between two requests.
        **facts: Content of the announcement.

    Raises:
        ClientError: AWS refused the request.
        ClientError, BotoCoreError: The request failed, was throttled REQUESTS times or had no answer, and `find`
            returned None.
    """
    sent = 0
    while True:
        journal.note(name, **facts)
        sent += 1
        try:
            resource_id = request()
        except (BotoCoreError, ClientError) as error:
            if _is_refused(error):
                raise
            log.warning("%s; looking for a resource that the request created", error)
            existing_id = find()
            if existing_id is None:
                if _is_throttled(error) and sent < REQUESTS:
                    log.info("The request created nothing; sending it again")
                    continue
                raise
            resource_id = existing_id
        journal.note(name, **facts, **{CREATED_ID: resource_id})
        return resource_id


def _is_refused(error: Exception) -> bool:
    return isinstance(error, ClientError) and 400 <= _http_status(error) < 500 and not _is_throttled(error)


def _is_throttled(error: Exception) -> bool:
    return isinstance(error, ClientError) and error_code(error) == "ThrottlingException"


def _http_status(error: ClientError) -> int:
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 500))
