"""Ends clusters that have outlived their run or their deadline, every 15 minutes.

`end_clusters` and `free_locks` do not depend on each other.

**Purpose.** The third of the four things that end a cluster. It ends what the runs' own `terminate_cluster` missed:
Airflow died, a run was deleted, the pipeline was paused. It checks every cluster whose tags name this project and this
deployment, in each EU region that a run may choose, also while the cluster is being created. It ends a cluster

- when the deadline in its tags has passed, or
- when this Airflow knows its run and the run is no longer queued or running.

For a run that this Airflow does not know, the deadline alone counts. A cluster without the tags, or of another
deployment, is never touched.

A database's lock is removed when this Airflow knows its run, the run has ended, and none of its clusters is alive. A
run that could not end its cluster leaves its lock; the sweep after the one that ends the cluster removes it. A run that
was cleared keeps its lock. The lock of an unknown run is removed past its deadline, when no cluster of it is alive.
Another deployment's lock is never touched.

This DAG is a guard, so it is not paused when Airflow first sees it; its first run is at the next quarter of an hour. A
mistake in the settings stops the pipeline and not this DAG, which reads only the few settings that it needs.

**A rerun** checks again and does what is left; every action can be repeated.

**Cost**: it creates nothing. A cluster that does not end turns this run red, and so does a region or a cluster that
cannot be checked. Each sends a notice as the setting `notify` says, again in each run until it is over.
"""

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
