"""What a new attempt of a run clears of an earlier one, so that nothing old is reported as new."""

from fruits_airflow.emr.stage_steps import STAGES
from fruits_airflow.records.digests import CARDS, REPORT
from fruits_airflow.records.models import RecordError, parse_metrics, stage_file
from fruits_airflow.storage.lake import Lake, run_key
from fruits_airflow.storage.run_notes import LAST_FAILURE, Journal


def clear_earlier_attempt(lake: Lake, run_id: str) -> None:
    """Remove the results of a cleared attempt of this run."""
    Journal(lake, run_key(run_id)).forget(LAST_FAILURE)
    for name in ("run.json", REPORT, *CARDS, "lineage.json", *map(stage_file, STAGES)):
        lake.remove(run_key(run_id, name))


def clear_failure(lake: Lake, folder: str) -> None:
    """Clear the failure recorded by the previous attempt; keep the metrics of what it published."""
    Journal(lake, folder).forget(LAST_FAILURE)
    publish = f"{folder}/{stage_file('publish')}"
    content = lake.read(publish)
    try:
        is_published = content is not None and parse_metrics(content, publish).published
    except RecordError:
        is_published = False
    if not is_published:
        lake.remove(publish)
