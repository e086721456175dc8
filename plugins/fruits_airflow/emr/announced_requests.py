"""At-most-once calls: RunJobFlow and AddJobFlowSteps take no idempotency token.

Each request is announced in the journal before it is sent, so that another attempt knows what to look for. The
announcement then records the id in the answer, so that no attempt depends on a listing.
"""

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from botocore.exceptions import BotoCoreError, ClientError

from fruits_airflow.config.aws_types import EMRClient
from fruits_airflow.storage.lake import error_code
from fruits_airflow.storage.run_notes import Journal, age_s

log = logging.getLogger(__name__)

T = TypeVar("T")

CREATED_ID = "made"
"""The key of an announcement that holds the id of the created resource."""

REQUESTS = 4
"""How often an attempt of a task sends a throttled request."""


@dataclass(frozen=True)
class AnnouncedRequests:
    """Base of what creates clusters and steps for a run."""

    client: EMRClient  # EMR client for calls that may be repeated
    single_attempt_client: EMRClient  # EMR client that sends each request once
    journal: Journal  # notes of the run
    consistency_s: float  # seconds for which a listing may not show what a request has created
    poll_s: float  # seconds between two calls while waiting

    def find_announced(
        self,
        name: str,
        list_all: Callable[[], list[T]],
        describe: Callable[[Mapping[str, Any]], list[T]],
        choose: Callable[[list[T]], T | None],
    ) -> T | None:
        """Choose among the listed resources, or return None when a new one can be created.

        Wait while a request announced as `name` moments ago may have created one that the listing does not show yet;
        `describe` reads the one that an answered announcement names.
        """
        while True:
            resources = list_all()
            if (chosen := choose(resources)) is not None:
                return chosen
            request = self.journal.read(name)  # after the listing, so that it includes what was announced before
            if request is None:
                return None
            if CREATED_ID in request:
                return choose(describe(request))
            age = age_s(request)
            if age >= self.consistency_s or len(resources) > request.get("known", 0):
                return None
            log.info("The request %s was sent %.0f s ago; listing again", name, age)
            time.sleep(min(self.poll_s, self.consistency_s - age))


def send_announced(
    journal: Journal, name: str, request: Callable[[], str], find: Callable[[], str | None], **facts: object
) -> str:
    """Send a request and return the id of the created resource; repeat a throttled request that created nothing.

    The announcement has a name and facts; then it records the id that `request` returns. `find` returns the id of a
    resource that an unanswered request created, or None. It takes as long as a listing may lag, which is the pause
    between two requests.

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
    if not isinstance(error, ClientError):
        return False
    status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 500))
    return 400 <= status < 500 and not _is_throttled(error)


def _is_throttled(error: Exception) -> bool:
    return isinstance(error, ClientError) and error_code(error) == "ThrottlingException"
