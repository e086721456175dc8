"""Fruits!: photos to compact vectors, every night.

`plan → upload_code → create_cluster → cluster_ready → load_images → featurize → reduce_pca → publish →
terminate_cluster → report → verdict`. Each stage is one Spark step: `add` submits it to the run's EMR cluster, `wait`
holds no worker slot while it runs.

**Purpose.** Turns the photos below `s3://<raw_bucket>/<raw_prefix>` into rows of the lake's Iceberg tables: pixels
without metadata, MobileNetV2 features, principal components. A manual run with a `limit`, or with an `input_prefix`
below `raw_prefix`, writes to the demo tables and never touches production.

**A rerun** creates nothing twice: a task finds the cluster by deployment, DAG and run, a step by the digest of its
code and arguments, a row by its key. Clear any failed task: if the cluster is gone, a new one continues the work. When
input, code, model and settings are those of the last published run, `plan` skips, green, and no cluster is created.
When they are those of a run whose quality gate refused, `plan` fails without a cluster, until `force`.

**One writer.** A run holds its database's lock from `plan` to `verdict`; beside an erasure it waits.

**Cost** is bounded before and during the run: `plan` refuses a forecast above `max_cost_eur`, and the cluster's
deadline is never later than the moment at which that sum is spent. Four things end a cluster: `terminate_cluster`,
which runs whatever failed; EMR's idle timeout; a timer on the primary node at the deadline; the DAG `cluster_janitor`.

**Residency.** Clusters run, and buckets lie, in EU member states only; the form, the settings and `plan` refuse others.

**Green** means published, or nothing to do. `run.json` in `s3://<lake_bucket>/runs/<run_id>/` has the result with
counts, seconds and euros; `report.html` beside it shows them. A publication is an event of the asset
`<database>.current_pca`, which other DAGs can follow; a red or refused run sends a notice as the setting `notify` says.
"""

from datetime import datetime
from typing import Any

from airflow.sdk import DAG, CronTriggerTimetable, Param, TriggerRule, chain, task
from fruits_airflow.config.run_parameters import parameter_schemas, unchecked_params
from fruits_airflow.config.settings import load_settings
from fruits_airflow.emr.stage_steps import STAGES
from fruits_airflow.operators import cluster_tasks
from fruits_airflow.operators.plan import PlanOperator
from fruits_airflow.runs import report_task
from fruits_airflow.runs.assets import PUBLISHED
from fruits_airflow.runs.verdict import judge_run

SETTINGS = load_settings()
SCHEMAS = parameter_schemas(SETTINGS)

with DAG(
    "fruits_pipeline",
    description="Photos to compact vectors on an EMR cluster in the EU",
    doc_md=__doc__,
    schedule=SETTINGS.schedule and CronTriggerTimetable(SETTINGS.schedule, timezone=SETTINGS.timezone),
    start_date=datetime(2026, 1, 1),
    catchup=False,
    max_active_runs=1,
    default_args={"owner": SETTINGS.owner, **cluster_tasks.RETRIES},
    params={name: Param(**schema) for name, schema in SCHEMAS.items()},
    tags=["fruits", "emr", "spark", "eu"],
) as dag:

    @task(trigger_rule=TriggerRule.ALL_DONE)
    def report(**context: Any) -> str:
        """Write report.html from what the stages measured."""
        return report_task.report_run(SETTINGS, context)

    @task(outlets=[PUBLISHED], **cluster_tasks.CLEANUP_RETRIES)
    def verdict(**context: Any) -> None:
        """Write run.json and give the lock back; fail unless every task did its work and something was published."""
        judge_run(SETTINGS, context)

    plan = PlanOperator(
        task_id="plan",
        settings=SETTINGS,
        doc_md="Lists the input, forecasts the cost, and stops the run before anything is created if it must. "
        "Waits, without a worker slot, while an erasure or another run holds the database.",
    )
    upload = cluster_tasks.upload_code(SETTINGS)
    create = cluster_tasks.create_cluster(SETTINGS, "run")
    ready = cluster_tasks.cluster_ready(SETTINGS)
    stages = [cluster_tasks.stage_group(SETTINGS, stage) for stage in STAGES]
    terminate = cluster_tasks.terminate_cluster(SETTINGS, "run")
    reported, judged = report(), verdict().as_teardown(on_failure_fail_dagrun=True)

    chain(plan, upload, create, ready, *stages, terminate, reported, judged)
    # "Clear failed" clears verdict, but not terminate_cluster and report: verdict must still wait for the last stage.
    chain(stages[-1], [reported, judged])
    # `plan` checks the parameters. Airflow would check them before each task: wrong ones would stop the teardown.
    for work in dag.tasks:
        work.params = unchecked_params(SCHEMAS)
