"""Find what an announced request has created while EMR's listings may not show it yet."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from fruits_airflow.storage.idempotency import CREATED_ID
from fruits_airflow.storage.run_notes import Journal, age_s

log = logging.getLogger(__name__)

T = TypeVar("T")


def find_announced(
    journal: Journal,
    name: str,
    consistency_s: float,
    poll_s: float,
    list_all: Callable[[], list[T]],
    describe: Callable[[Mapping[str, Any]], list[T]],
    choose: Callable[[list[T]], T | None],
) -> T | None:
    """Find a cluster or step that can be used, or return None when a new one can be created.

    Wait while a request announced moments ago may have created one that the listing does not show yet.

    Args:
        journal: Notes of the run.
        name: Name of the announcement.
        consistency_s: Seconds for which the listing may not show what a request has created.
        poll_s: Seconds between two listings.
        list_all: Lists the candidates.
        describe: Reads the candidate that an answered announcement names.
        choose: Chooses the candidate to use, if any.
    """
    while True:
        candidates = list_all()
        if (chosen := choose(candidates)) is not None:
            return chosen
        request = journal.read(name)  # after the listing, so that it includes what was announced before
        if request is None:
            return None
        if CREATED_ID in request:
            return choose(describe(request))
        age = age_s(request)
        if age >= consistency_s or len(candidates) > request.get("known", 0):
            return None
        log.info("The request %s was sent %.0f s ago; listing again", name, age)
        time.sleep(min(poll_s, consistency_s - age))
