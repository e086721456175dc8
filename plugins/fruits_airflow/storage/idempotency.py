"""Calls that AWS must not act on twice: RunJobFlow and AddJobFlowSteps take no idempotency token.

Hence one request per call, announced in the journal before it is sent, so that whoever finds the announcement knows
what to look for. Once AWS has told the id of what it made, the announcement holds that too: no listing need show it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from botocore.exceptions import BotoCoreError, ClientError

from fruits_airflow.storage.lake import error_code
from fruits_airflow.storage.run_notes import Journal

log = logging.getLogger(__name__)

CREATED_ID = "made"
"""The fact in an announcement that names what came of it."""

REQUESTS = 4
"""How often a throttled request is sent by one attempt of a task."""


def send_announced(
    journal: Journal, name: str, request: Callable[[], str], find: Callable[[], str | None], **facts: object
) -> str:
    """Sends a request, and again while AWS throttles it and nothing came of it; gives the id of what was made.

    Args:
        journal: where it is announced before each request, and where the id is noted.
        name: of the announcement.
        request: sends one request; gives the id in its answer.
        find: gives the id of what a request has made that was not answered so, or None; takes as long as a listing
            may lag behind, which is the pause between two requests.
        **facts: of the announcement.

    Raises:
        ClientError: AWS refused the request.
        ClientError, BotoCoreError: it was not answered, and `find` found nothing: now, or after the last of
            REQUESTS throttled ones.
    """
    sent = 0
    while True:
        journal.note(name, **facts)
        sent += 1
        try:
            made = request()
        except (BotoCoreError, ClientError) as error:
            if _is_refused(error):
                raise
            log.warning("%s; looking for what was made", error)
            found = find()
            if found is None:
                if _is_throttled(error) and sent < REQUESTS:
                    log.info("Nothing was; sending it again")
                    continue
                raise
            made = found
        journal.note(name, **facts, **{CREATED_ID: made})
        return made


def _is_refused(error: Exception) -> bool:
    return isinstance(error, ClientError) and 400 <= _http_status(error) < 500 and not _is_throttled(error)


def _is_throttled(error: Exception) -> bool:
    return isinstance(error, ClientError) and error_code(error) == "ThrottlingException"


def _http_status(error: ClientError) -> int:
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 500))
