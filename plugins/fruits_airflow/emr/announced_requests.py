"""Requests that must not be repeated blindly: find what an announced request has created before sending another."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from fruits_airflow.storage.idempotency import CREATED_ID
from fruits_airflow.storage.run_notes import Journal, age_s

if TYPE_CHECKING:
    from mypy_boto3_emr import EMRClient

log = logging.getLogger(__name__)

T = TypeVar("T")


@dataclass(frozen=True)
class AnnouncedRequests:
    """Base of what creates clusters and steps for a run.

    Attributes:
        client: EMR client for calls that may be repeated.
        single_attempt_client: EMR client that sends each request once.
        journal: Notes of the run.
        consistency_s: Seconds for which a listing may not show what a request has created.
        poll_s: Seconds between two calls while waiting.
    """

    client: EMRClient
    single_attempt_client: EMRClient
    journal: Journal
    consistency_s: float
    poll_s: float

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
