"""Fruits!: a photo, and all that was made of it, gone for good.

`plan → upload_code → create_cluster → cluster_ready → erase_images → erase_demo_images → erase_exports → erase_photos →
write_receipt`, beside it `terminate_cluster`, at the end `verdict`.

**Purpose.** Answers a request for erasure (GDPR, Article 17). Name photos by `image_ids`, `keys` or `prefix`. Erased
are: the rows of every table of both databases, with the snapshots and files that held them; rows of listings, exports
and samples; thumbnails in reports; examples of rejects; keys in logs; every version of the object itself, and the same
bytes under other keys. `docs/gdpr.md` says what is not reached, and how to show that the rest is.

**Order.** First the suppression list, so that nothing comes back meanwhile; last the object, so that another attempt
still finds what to look for. Then the receipt, `erasures/<run_id>/receipt.json`: digests and counts, no key.

**A rerun** comes to the same end: clear what failed, or trigger it again. The receipt then says 0 of what is gone.

**Beside a nightly run** it stands only by waiting: it takes the locks of both databases, as that run takes its own. A
run that was planned before and is cleared after it is refused, since its listing still knows the photo.

**Cost** is bounded as a nightly run's is: the demo profile, `max_cost_eur`, and four things that end a cluster.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from airflow.sdk import DAG, Param, TaskGroup, chain, task
from fruits_airflow import erasure_run, run_control
from fruits_airflow.operators import AddStepOperator, CreateClusterOperator, TerminateClusterOperator
from fruits_airflow.sensors import ClusterReadySensor, StepSensor
from fruits_airflow.settings import load_settings
from fruits_airflow.stages import ERASURE_STAGES

SETTINGS = load_settings()
PARAMS = {name: Param(**schema) for name, schema in erasure_run.parameter_schemas().items()}
RETRIES = {"retries": 2, "retry_delay": timedelta(minutes=1), "retry_exponential_backoff": True}
NO_LEAK = {"retries": 8, "retry_delay": timedelta(seconds=30), "max_retry_delay": timedelta(minutes=5)}

with DAG(
    "erase_images",
    description="Photos and all that was made of them, gone for good",
    doc_md=__doc__,
    schedule=None,
    start_date=datetime(2026, 1, 1),
    catchup=False,
    max_active_runs=1,
    default_args={"owner": SETTINGS.owner, **RETRIES},
    params=PARAMS,
    tags=["fruits", "gdpr", "emr", "eu"],
) as dag:

    @task
    def upload_code() -> str:
        """Ships fruits.zip, the job files and bootstrap.sh under the digest of their content."""
        return run_control.upload_code(SETTINGS)

    def stage_group(stage: str) -> TaskGroup:
        """Groups what hands a step to the cluster and what waits for it."""
        with TaskGroup(stage) as group:
            add = AddStepOperator(
                task_id="add",
                settings=SETTINGS,
                stage=stage,
                doc_md="Hands the step to the run's cluster.",
            )
            wait = StepSensor(
                task_id="wait",
                settings=SETTINGS,
                stage=stage,
                add_task_id=add.task_id,
                doc_md="Waits for the step, without a worker slot; shows its output should it fail.",
            )
            add >> wait
        return group

    @task
    def erase_exports(**context: Any) -> dict[str, Any]:
        """Takes the photos out of listings, exports, samples, reports and logs."""
        return erasure_run.erase_exports(SETTINGS, context)

    @task
    def erase_photos(**context: Any) -> dict[str, Any]:
        """Removes every version of the photos from the raw bucket."""
        return erasure_run.erase_photos(SETTINGS, context)

    @task
    def write_receipt(exports: dict[str, Any], photos: dict[str, Any], **context: Any) -> str:
        """Looks once more, then says in digests and counts what is gone."""
        return erasure_run.write_receipt(SETTINGS, context, exports, photos)

    @task(**NO_LEAK)
    def verdict(**context: Any) -> None:
        """Gives the locks back; fails unless every task did its work."""
        erasure_run.judge_erasure(SETTINGS, context)

    plan = erasure_run.ErasurePlanOperator(
        task_id="plan",
        settings=SETTINGS,
        doc_md="Settles which photos are meant and suppresses them. Waits while a run holds a database.",
    )
    create_cluster = CreateClusterOperator(
        task_id="create_cluster",
        settings=SETTINGS,
        doc_md="Makes or adopts the erasure's cluster; waits for nothing.",
    )
    cluster_ready = ClusterReadySensor(
        task_id="cluster_ready",
        settings=SETTINGS,
        doc_md="Waits until the cluster takes steps, without a worker slot.",
    )
    terminate_cluster = TerminateClusterOperator(
        task_id="terminate_cluster",
        settings=SETTINGS,
        **NO_LEAK,
        doc_md="Ends every cluster of this erasure, found by name and tags, and watches until it is gone.",
    ).as_teardown()  # tied to no setup: it must run also when create_cluster failed
    stages = [stage_group(stage) for stage in ERASURE_STAGES]
    exports, photos = erase_exports(), erase_photos()
    judged = verdict().as_teardown(on_failure_fail_dagrun=True)

    chain(plan, upload_code(), create_cluster, cluster_ready, *stages, [terminate_cluster, exports])
    chain(exports, photos, write_receipt(exports, photos), judged)
    chain(terminate_cluster, judged)
