"""Sends a notice when no run has published by the hour that the settings name.

One task, `check_publication`, once a day at `publish_by_hour` in the deployment's time zone.

**Purpose.** A red run sends a notice. A run that never started does not: a paused DAG, a scheduler that hangs, a plan
that still waits. This check is outside the pipeline and reads what its runs leave in the lake: the last run that ended
well must be younger than the moment at which the schedule was last due. A run with nothing to do ended well. Without a
`schedule` or a `publish_by_hour` the check never runs by itself. It is a guard, so it is not paused when Airflow first
sees it. It first runs at the next `publish_by_hour`, not at one before it was deployed. A mistake in the settings stops
the pipeline and not this DAG, which reads only the few settings that it needs.

**A rerun** checks again, and sends a notice again if need be. **Cost**: one object read.
"""

from datetime import timedelta

from airflow.sdk import DAG, CronTriggerTimetable, task
from fruits_airflow.monitoring import publication_check
from fruits_airflow.monitoring.guard_settings import load_guard_settings

SETTINGS = load_guard_settings()
CRON = publication_check.check_schedule(SETTINGS)

with DAG(
    "publication_check",
    description="Sends a notice when no run has published in time",
    doc_md=__doc__,
    # timedelta(0): not for an hour that had passed when this was deployed
    schedule=CRON and CronTriggerTimetable(CRON, timezone=SETTINGS.timezone, run_immediately=timedelta(0)),
    catchup=False,
    is_paused_upon_creation=False,
    max_active_runs=1,
    default_args={"owner": SETTINGS.owner, "retries": 2, "retry_delay": timedelta(minutes=1)},
    tags=["fruits"],
):

    @task
    def check_publication() -> str:
        """Find a run that ended well since the last one was due; without one, send a notice and fail."""
        return publication_check.check_publication(SETTINGS)

    check_publication()
