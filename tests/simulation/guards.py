"""Guards of the product, each of which can be taken out to see that the simulation misses it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from unittest.mock import patch

Dags = Mapping[str, Any]


def _find_before_create(_dags: Dags) -> Iterable[Any]:
    from fruits_airflow.emr.announced_requests import AnnouncedRequests

    yield patch.object(AnnouncedRequests, "find_announced", lambda *_, **__: None)


def _single_attempts(_dags: Dags) -> Iterable[Any]:
    from fruits_airflow.runs import run_context

    yield patch.object(run_context, "SINGLE_ATTEMPT", {})


def _conditional_lock(_dags: Dags) -> Iterable[Any]:
    from fruits_airflow.locking.database_lock import DatabaseLock

    def take(self: DatabaseLock, until: datetime) -> None:
        self.lake.write(self.key, self._content(until, datetime.now(UTC)))

    yield patch.object(DatabaseLock, "take", take)


def _overtaken_runs(_dags: Dags) -> Iterable[Any]:
    from fruits_airflow.runs import run_context, verdict

    for module in (run_context, verdict):
        yield patch.object(module, "require_not_overtaken", lambda *_: None)


def _verdict(dags: Dags) -> Iterable[Any]:
    yield patch.object(dags["fruits_pipeline"].get_task("verdict"), "python_callable", lambda **_: None)


def _teardown(_dags: Dags) -> Iterable[Any]:
    from fruits_airflow.operators.emr import TerminateClusterOperator

    yield patch.object(TerminateClusterOperator, "execute", lambda *_: None)


def _janitor(dags: Dags) -> Iterable[Any]:
    for task_id in ("end_clusters", "free_locks"):
        yield patch.object(dags["cluster_janitor"].get_task(task_id), "python_callable", lambda **_: [])


def _deadline(_dags: Dags) -> Iterable[Any]:
    from fruits_airflow.runs import run_context

    yield patch.object(run_context, "deadline", lambda **_: datetime.now(UTC) + timedelta(hours=20))


GUARDS: dict[str, Callable[[Dags], Iterable[Any]]] = {
    "find before create": _find_before_create,
    "single attempts": _single_attempts,
    "conditional lock": _conditional_lock,
    "overtaken runs": _overtaken_runs,
    "verdict": _verdict,
    "teardown": _teardown,
    "janitor": _janitor,
    "deadline": _deadline,
}


@contextmanager
def without(guard: str | None, dags: Dags) -> Iterator[None]:
    """Take a guard out for a while."""
    with ExitStack() as stack:
        for change in GUARDS[guard](dags) if guard else ():
            stack.enter_context(change)
        yield
