"""Guards of the product, each of which can be taken out to see that the simulation misses it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any


def _find_before_create(_dags: Mapping[str, Any]) -> None:
    from fruits_airflow.emr.announced_requests import AnnouncedRequests

    AnnouncedRequests.find_announced = lambda *_, **__: None  # type: ignore[method-assign,assignment]


def _single_attempts(_dags: Mapping[str, Any]) -> None:
    from fruits_airflow.runs import run_context

    run_context.SINGLE_ATTEMPT = {}  # type: ignore[attr-defined]


def _conditional_lock(_dags: Mapping[str, Any]) -> None:
    from fruits_airflow.locking.database_lock import DatabaseLock

    def take(self: DatabaseLock, until: datetime) -> None:
        self.lake.write(self.key, self._content(until, datetime.now(UTC)))

    DatabaseLock.take = take  # type: ignore[method-assign]


def _conditional_state(_dags: Mapping[str, Any]) -> None:
    from fruits_airflow.runs import publication, verdict

    publication.require_not_overtaken = lambda *_: None  # type: ignore[assignment]
    verdict.require_not_overtaken = lambda *_: None  # type: ignore[attr-defined]


def _verdict(dags: Mapping[str, Any]) -> None:
    dags["fruits_pipeline"].get_task("verdict").python_callable = lambda **_: None


def _teardown(_dags: Mapping[str, Any]) -> None:
    from fruits_airflow.operators.emr import TerminateClusterOperator

    TerminateClusterOperator.execute = lambda *_: None  # type: ignore[method-assign]


def _janitor(dags: Mapping[str, Any]) -> None:
    for task_id in ("end_clusters", "free_locks"):
        dags["cluster_janitor"].get_task(task_id).python_callable = lambda **_: []


def _deadline(_dags: Mapping[str, Any]) -> None:
    from fruits_airflow.runs import run_context

    run_context.deadline = lambda **_: datetime.now(UTC) + timedelta(hours=20)  # type: ignore[attr-defined]


GUARDS: dict[str, Callable[[Mapping[str, Any]], None]] = {
    "find before create": _find_before_create,
    "single attempts": _single_attempts,
    "conditional lock": _conditional_lock,
    "overtaken runs": _conditional_state,
    "verdict": _verdict,
    "teardown": _teardown,
    "janitor": _janitor,
    "deadline": _deadline,
}
