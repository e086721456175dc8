"""Fruits!: erase photos, and everything derived from them, for good.

`plan → upload_code → create_cluster → cluster_ready → erase_images → erase_demo_images → erase_notebook_images →
erase_exports → erase_photos → write_receipt`, beside it `terminate_cluster`, at the end `verdict`.

**Purpose.** Answers a request for erasure (GDPR, Article 17). Name photos by `image_ids`, `keys` or `prefix`. The DAG
erases the rows of every table of the three databases, with the snapshots and files that held them; rows of listings,
exports and samples; thumbnails in reports; examples of rejects; keys in logs, in every spelling; every version of the
object itself, and the same bytes under other keys; all scratch copies in `staging/`. `docs/gdpr.md` says what is not
reached, and how to show that the rest is.

**Confirmation.** A run without `expected_photos` is a plan: the log of the task `plan` says how many photos would go
from which folder, and how many more because their content is equal. The run then stops, red, with nothing erased or
suppressed. Trigger it again with that number as `expected_photos`. The plan refuses a request of which any part matches
nothing, unless `allow_missing` is set, and one of more than `max_erased_photos` photos. Empty objects that stand for
folders are not photos and stay.

**Who may trigger it.** With Airflow's FAB auth manager the role `erasure_role` of the settings, beside roles that may
trigger every DAG; other auth managers know no permissions by DAG. `docs/gdpr.md` says what holds.

**Order.** First the suppression list, so that nothing comes back meanwhile; last the object, so that another attempt
still finds what to look for. Then the receipt, `erasures/<run_id>/receipt.json`: digests and counts, no key. It is
refused while any run, log or record still names a photo.

**A rerun** ends the same way: clear what failed, or trigger it again with `allow_missing`. The receipt then counts 0
for what was gone before.

**Beside a nightly run** the erasure waits: it takes the locks of the databases that runs write to. A run that was
planned before the erasure and is cleared after it is refused, since its listing still knows the photo.

**Cost** is bounded as for a nightly run: the demo profile, `max_cost_eur`, and four things that end a cluster.
"""

from datetime import datetime
from typing import Any

from airflow.sdk import DAG, Param, chain, task
from fruits_airflow.config.run_parameters import unchecked_params
from fruits_airflow.config.settings import load_settings
from fruits_airflow.emr.stage_steps import ERASURE_STAGES
from fruits_airflow.erasure import tasks
from fruits_airflow.erasure.request import parameter_schemas
from fruits_airflow.erasure.verdict import judge_erasure
from fruits_airflow.operators import cluster_tasks
from fruits_airflow.operators.erasure_plan import ErasurePlanOperator

SETTINGS = load_settings()
# Airflow adds these to what the role may do with every DAG; only the FAB auth manager reads them.
ACCESS = SETTINGS.erasure_role and {
    SETTINGS.erasure_role: {"DAGs": {"can_read", "can_edit"}, "DAG Runs": {"can_create"}}
}
SCHEMAS = parameter_schemas()

with DAG(
    "erase_images",
    description="Erase photos and everything derived from them",
    doc_md=__doc__,
    schedule=None,
    start_date=datetime(2026, 1, 1),
    catchup=False,
    max_active_runs=1,
    default_args={"owner": SETTINGS.owner, **cluster_tasks.RETRIES},
    params={name: Param(**schema) for name, schema in SCHEMAS.items()},
    access_control=ACCESS or None,
    tags=["fruits", "gdpr", "emr", "eu"],
) as dag:

    @task
    def erase_exports(**context: Any) -> dict[str, Any]:
        """Redact the photos from listings, exports, samples, reports and logs."""
        return tasks.erase_exports(SETTINGS, context)

    @task
    def erase_photos(**context: Any) -> dict[str, Any]:
        """Remove every version of the photos from the raw bucket."""
        return tasks.erase_photos(SETTINGS, context)

    @task
    def write_receipt(**context: Any) -> str:
        """Check that the photos are gone; write digests and counts."""
        return tasks.write_receipt(SETTINGS, context)

    @task(**cluster_tasks.CLEANUP_RETRIES)
    def verdict(**context: Any) -> None:
        """Give the locks back; fail unless every task did its work."""
        judge_erasure(SETTINGS, context)

    plan = ErasurePlanOperator(
        task_id="plan",
        settings=SETTINGS,
        doc_md="Settles which photos are meant and suppresses them. Waits while a run holds a database.",
    )
    upload = cluster_tasks.upload_code(SETTINGS)
    create = cluster_tasks.create_cluster(SETTINGS, "erasure")
    ready = cluster_tasks.cluster_ready(SETTINGS)
    stages = [cluster_tasks.stage_group(SETTINGS, stage) for stage in ERASURE_STAGES]
    terminate = cluster_tasks.terminate_cluster(SETTINGS, "erasure")
    exports = erase_exports()
    judged = verdict().as_teardown(on_failure_fail_dagrun=True)

    chain(plan, upload, create, ready, *stages, [terminate, exports])
    chain(exports, erase_photos(), write_receipt(), judged)
    chain(terminate, judged)
    # `plan` checks the parameters, so that bad ones cannot fail the teardown and the verdict: see fruits_pipeline.
    for work in dag.tasks:
        work.params = unchecked_params(SCHEMAS)
