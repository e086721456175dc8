"""Ends clusters that have outlived their run or their deadline, every 15 minutes.

`end_clusters` and `free_locks` do not depend on each other.

**Purpose.** The third of the four things that end a cluster, for what the runs' own `terminate_cluster` missed: Airflow
died, a run was deleted, the pipeline was paused. It looks at every cluster whose tags name this project and this
deployment, in each EU region that a run may choose, those that are only being created included. It ends one

- when the deadline in its tags has passed, or
- when this Airflow knows its run and the run is no longer queued or running.

A run that this Airflow does not know is judged by the deadline alone. A cluster without the tags, or of another
deployment, is never touched.

A database's lock is given back when this Airflow knows the run that has it, that run has ended, and none of its
clusters is alive: a run that could not end its cluster leaves it, and the sweep after the one that ended the cluster
gives it back. A run that was cleared keeps its lock. That of a run that this Airflow does not know is removed past its
deadline, when no cluster of that run is alive. Another deployment's lock is never touched.

It guards, so it is not paused when Airflow first sees it; its first run is at the next quarter of an hour.

**A rerun** looks again and does what is left; nothing it does can be done twice.

**Cost**: it makes nothing. A cluster that refuses to end turns this run red, and so does a region or cluster that
cannot be looked at; both are told to whom the setting `notify` says, each time until it is over.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.sdk import DAG, CronTriggerTimetable, task
from fruits_airflow.monitoring import janitor
from fruits_airflow.monitoring.guard_settings import load_guard_settings

SETTINGS = load_guard_settings()

with DAG(
    "cluster_janitor",
    description="Ends clusters that have outlived their run or their deadline",
    doc_md=__doc__,
    schedule=CronTriggerTimetable("*/15 * * * *", timezone="UTC", run_immediately=timedelta(0)),
    catchup=False,
    is_paused_upon_creation=False,
    max_active_runs=1,
    default_args={"owner": SETTINGS.owner, "retries": 2, "retry_delay": timedelta(seconds=30)},
    tags=["fruits", "emr", "eu"],
):

    @task
    def end_clusters(**context: Any) -> list[dict[str, Any]]:
        """End what has outlived its run or its deadline; return what, and why."""
        return janitor.sweep_clusters(SETTINGS, context)

    @task
    def free_locks(**context: Any) -> list[str]:
        """Remove each lock whose owner is gone; return which, and why."""
        return janitor.free_abandoned_locks(SETTINGS, context)

    end_clusters()
    free_locks()
